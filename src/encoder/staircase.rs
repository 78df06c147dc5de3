//! The best accuracy within a number of parameters, the area under it, and what one more network can be expected to
//! add (expected improvement: Jones, Schonlau & Welch 1998, section 4; the zoo's growth: Jeong et al. 2021, section on
//! the construction of the model zoo).

use super::normal::excess;

/// Where a number of parameters lies on the logarithmic axis between the smallest and the largest network, 0..=1. On an
/// axis of one point, everything lies at 0.
pub fn place(params: u64, (smallest, largest): (u64, u64)) -> f64 {
    let log = |params: u64| (params.max(1) as f64).ln();
    let length = log(largest) - log(smallest);
    if length > 0.0 { ((log(params) - log(smallest)) / length).clamp(0.0, 1.0) } else { 0.0 }
}

/// The items that no smaller one equals, smallest first; `key` is the (size, accuracy) of one.
pub fn front<T>(mut items: Vec<T>, key: impl Fn(&T) -> (f64, f64)) -> Vec<T> {
    items.sort_by(|a, b| {
        let (a, b) = (key(a), key(b));
        a.0.total_cmp(&b.0).then(b.1.total_cmp(&a.1))
    });
    let mut best = 0.0;
    items.retain(|item| {
        let accuracy = key(item).1;
        let rises = accuracy > best;
        best = accuracy.max(best);
        rises
    });
    items
}

/// Best accuracy (0..=1) as a function of place (0..=1), 0 before the first network.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Staircase {
    /// (place, accuracy) of each step, both ascending.
    steps: Vec<(f64, f64)>,
}

impl Staircase {
    /// From (place, accuracy) of networks in any order.
    pub fn new(results: impl IntoIterator<Item = (f64, f64)>) -> Self {
        Self { steps: front(results.into_iter().collect(), |&result| result) }
    }

    /// (place, accuracy) of the networks that no smaller one equals, smallest first.
    #[cfg(test)]
    fn steps(&self) -> &[(f64, f64)] {
        &self.steps
    }

    /// Area under the staircase, 0..=1.
    pub fn area(&self) -> f64 {
        self.treads(0.0).map(|(width, height)| width * height).sum()
    }

    /// How much a network at this place with this accuracy adds to the area.
    #[cfg(test)]
    fn gain(&self, place: f64, accuracy: f64) -> f64 {
        let accuracy = accuracy.min(1.0);
        self.treads(place).map(|(width, height)| width * (accuracy - height).max(0.0)).sum()
    }

    /// What a network at this place adds on average, if its accuracy is normally distributed with `(mean, sd)` and counts
    /// as 1 above 1. Exact: the gain is linear between the heights of the steps.
    pub fn expected_gain(&self, place: f64, (mean, sd): (f64, f64)) -> f64 {
        let above_one = excess(mean - 1.0, sd);
        let treads = self.treads(place);
        treads.map(|(width, height)| width * (excess(mean - height, sd) - above_one).max(0.0)).sum()
    }

    /// (width, height) of the pieces from a place to 1.
    fn treads(&self, from: f64) -> impl Iterator<Item = (f64, f64)> + '_ {
        let starts = std::iter::once((0.0, 0.0)).chain(self.steps.iter().copied());
        let ends = self.steps.iter().map(|step| step.0).chain([1.0]);
        starts
            .zip(ends)
            .map(move |((start, height), end)| ((end - start.max(from)).max(0.0), height))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn random_results(random: &mut ChaCha8Rng) -> Vec<(f64, f64)> {
        (0..random.random_range(0..8)).map(|_| (random.random(), random.random())).collect()
    }

    /// Best accuracy at each of many places, averaged: the area as one would draw it.
    fn drawn_area(results: &[(f64, f64)]) -> f64 {
        const POINTS: usize = 20_000;
        let best = |at: f64| {
            let within = results.iter().filter(|result| result.0 <= at);
            within.map(|result| result.1.min(1.0)).fold(0.0, f64::max)
        };
        let middle = |point: usize| (point as f64 + 0.5) / POINTS as f64;
        (0..POINTS).map(|point| best(middle(point))).sum::<f64>() / POINTS as f64
    }

    fn normal(random: &mut ChaCha8Rng) -> f64 {
        let (u, v): (f64, f64) = (1.0 - random.random::<f64>(), random.random());
        (-2.0 * u.ln()).sqrt() * (2.0 * std::f64::consts::PI * v).cos()
    }

    #[test]
    fn area_and_gain_are_those_of_the_drawn_staircase() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        for _ in 0..50 {
            let mut results = random_results(&mut random);
            let staircase = Staircase::new(results.clone());
            let area = drawn_area(&results);
            assert!((staircase.area() - area).abs() < 1e-3, "{results:?}");
            let (place, accuracy) = (random.random(), random.random());
            results.push((place, accuracy));
            let gain = drawn_area(&results) - area;
            assert!((staircase.gain(place, accuracy) - gain).abs() < 1e-3, "{results:?}");
        }
    }

    #[test]
    fn expected_gain_is_the_average_of_drawn_gains() {
        const DRAWS: usize = 100_000;
        let mut random = ChaCha8Rng::seed_from_u64(2);
        for _ in 0..20 {
            let staircase = Staircase::new(random_results(&mut random));
            let place = random.random();
            let (mean, sd) = (random.random_range(0.0..1.2), random.random_range(0.01..0.4));
            let mut draw = || staircase.gain(place, mean + sd * normal(&mut random));
            let average = (0..DRAWS).map(|_| draw()).sum::<f64>() / DRAWS as f64;
            let exact = staircase.expected_gain(place, (mean, sd));
            let tolerance = 5.0 * sd / (DRAWS as f64).sqrt() + 1e-6;
            assert!((exact - average).abs() < tolerance, "{exact} {average} {staircase:?}");
        }
    }

    #[test]
    fn a_certain_accuracy_adds_what_it_adds() {
        let staircase = Staircase::new([(0.0, 0.5), (0.5, 0.8), (0.6, 0.7)]);
        assert_eq!(staircase.steps(), [(0.0, 0.5), (0.5, 0.8)]);
        assert!((staircase.area() - 0.65).abs() < 1e-12);
        assert!((staircase.expected_gain(0.25, (0.9, 0.0)) - 0.15).abs() < 1e-12);
        assert!((staircase.expected_gain(0.25, (0.9, 1e-9)) - 0.15).abs() < 1e-6);
        assert!(staircase.expected_gain(0.25, (0.4, 0.0)).abs() < 1e-12);
    }

    #[test]
    fn places_lie_on_a_logarithmic_axis() {
        assert!((place(1000, (100, 10_000)) - 0.5).abs() < 1e-12);
        assert!(place(1, (100, 10_000)).abs() < 1e-12);
        assert!((place(1_000_000, (100, 10_000)) - 1.0).abs() < 1e-12);
        assert!(place(7, (7, 7)).abs() < 1e-12);
    }
}
