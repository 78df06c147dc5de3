//! Predicts the accuracy that a network of a generated space would reach on a dataset if it were trained: a Gaussian
//! process over dataset x network in closed form (Rasmussen & Williams 2006, algorithm 2.1), its shares of variance
//! chosen by marginal likelihood.

use super::Error;
use super::linalg::{Cholesky, dot, quantile};

/// Expected accuracy of a network of which nothing is known.
const MEAN: f64 = 0.5;
/// Expected standard deviation of accuracies, and how many observations that expectation weighs as much as.
const SD: f64 = 0.25;
const SD_WEIGHT: f64 = 4.0;

/// Distances between the members of a set, in units in which the median is 1.
#[derive(Clone, Debug)]
pub struct Distances {
    count: usize,
    /// `[count, count]`.
    values: Vec<f64>,
}

impl Distances {
    /// Between members that are described by blocks of numbers, `blocks[b][member]`: the mean over the blocks of squared
    /// distance / median squared distance. A block in which all are alike does not count.
    pub fn between(count: usize, blocks: &[Vec<Vec<f32>>]) -> Self {
        let mut values = vec![0.0; count * count];
        let mut counted = 0.0;
        for block in blocks {
            let squares = squared_distances(block);
            let mut apart: Vec<f64> = (0..count)
                .flat_map(|i| squares[i * count..i * count + i].iter().copied())
                .filter(|&square| square > 1e-12)
                .collect();
            let median = quantile(&mut apart, 0.5);
            if median > 0.0 {
                counted += 1.0;
                values.iter_mut().zip(&squares).for_each(|(sum, square)| *sum += square / median);
            }
        }
        values.iter_mut().for_each(|value| *value /= f64::max(counted, 1.0));
        Self { count, values }
    }

    fn of(&self, a: usize, b: usize) -> f64 {
        self.values[a * self.count + b]
    }
}

fn squared_distances(rows: &[Vec<f32>]) -> Vec<f64> {
    let square = |(a, b): (&f32, &f32)| f64::from(a - b).powi(2);
    let distance = |a: &[f32], b: &[f32]| a.iter().zip(b).map(square).sum::<f64>();
    rows.iter().flat_map(|a| rows.iter().map(|b| distance(a, b))).collect()
}

/// The datasets and networks that are spoken of by number.
#[derive(Clone, Debug)]
pub struct Field {
    /// Between datasets.
    pub tasks: Distances,
    /// Between networks.
    pub networks: Distances,
}

/// An accuracy that was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observation {
    /// Number of the dataset.
    pub task: usize,
    /// Number of the network.
    pub network: usize,
    /// 0..=1.
    pub accuracy: f64,
}

/// Variances beside that of what all accuracies have in common, and how far networks are alike.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Shares {
    /// How hard a dataset is.
    task: f64,
    /// How good a network is everywhere.
    network: f64,
    /// How good it is on datasets like this one.
    both: f64,
    /// What another seed would change.
    noise: f64,
    /// Distance between networks, in medians, at which their covariance has fallen to 1/e.
    reach: f64,
}

/// Where nothing is known, this is what is expected.
const EXPECTED: Shares = Shares { task: 1.0, network: 0.3, both: 0.1, noise: 0.02, reach: 1.0 };

/// The choices among which the marginal likelihood decides, the expected ones first, which win while nothing is known.
fn grid() -> impl Iterator<Item = Shares> {
    let others = [0.3, 1.0].into_iter().flat_map(|task| {
        [0.05, 0.3].into_iter().flat_map(move |network| {
            [0.02, 0.1, 0.3].into_iter().flat_map(move |both| {
                [0.005, 0.02, 0.08].into_iter().flat_map(move |noise| {
                    [0.3, 1.0, 3.0].map(|reach| Shares { task, network, both, noise, reach })
                })
            })
        })
    });
    std::iter::once(EXPECTED).chain(others)
}

impl Field {
    /// Covariance of two accuracies in units of the common variance, noise aside. Half of what a dataset has to itself is
    /// shared with those like it.
    fn covariance(&self, shares: &Shares, a: (usize, usize), b: (usize, usize)) -> f64 {
        let own = if a.0 == b.0 { 1.0 } else { 0.0 };
        let task = 0.5 * ((-self.tasks.of(a.0, b.0)).exp() + own);
        let network = (-self.networks.of(a.1, b.1) / shares.reach).exp();
        1.0 + shares.task * task + shares.network * network + shares.both * task * network
    }
}

/// What is expected of every network on every dataset.
pub struct Surrogate<'a> {
    field: &'a Field,
    shares: Shares,
    /// Common variance.
    scale: f64,
    seen: Vec<(usize, usize)>,
    factor: Cholesky,
    /// The lower factor's inverse times the centred accuracies.
    residuals: Vec<f64>,
}

impl<'a> Surrogate<'a> {
    /// Learns from `n` observations in O(n^3) for each of about a hundred choices of shares; no observation is needed.
    ///
    /// # Errors
    /// `Error::Numerical` for accuracies or distances that are not finite.
    pub fn fit(field: &'a Field, observations: &[Observation]) -> Result<Self, Error> {
        let mut best: Option<(f64, Self)> = None;
        for shares in grid() {
            let (likelihood, fitted) = Self::with(field, observations, shares)?;
            if best.as_ref().is_none_or(|(highest, _)| likelihood > *highest + 1e-9) {
                best = Some((likelihood, fitted));
            }
            if observations.is_empty() {
                break;
            }
        }
        let fitted = best.map(|(_, fitted)| fitted);
        fitted.ok_or_else(|| Error::Numerical("expected shares of variance to choose from".into()))
    }

    /// With these shares; and the logarithm of the marginal likelihood, up to a constant. The common variance has an
    /// inverse-gamma prior and is integrated out.
    fn with(
        field: &'a Field,
        observations: &[Observation],
        shares: Shares,
    ) -> Result<(f64, Self), Error> {
        let seen: Vec<(usize, usize)> =
            observations.iter().map(|it| (it.task, it.network)).collect();
        let count = seen.len();
        let entry = |at: usize| {
            let (row, column) = (at / count, at % count);
            let noise = if row == column { shares.noise } else { 0.0 };
            field.covariance(&shares, seen[row], seen[column]) + noise
        };
        let factor = Cholesky::new(count, (0..count * count).map(entry).collect())?;
        let centred: Vec<f64> = observations.iter().map(|it| it.accuracy - MEAN).collect();
        let residuals = factor.forward(&centred);
        let total = 1.0 + shares.task + shares.network + shares.both + shares.noise;
        let squares = SD_WEIGHT * SD.powi(2) / total + dot(&residuals, &residuals);
        if !squares.is_finite() {
            return Err(Error::Numerical("expected finite accuracies".into()));
        }
        let freedom = SD_WEIGHT + count as f64;
        let likelihood = -0.5 * factor.log_determinant() - 0.5 * freedom * squares.ln()
            + 0.5 * SD_WEIGHT * (SD.powi(2) / total).ln();
        let scale = squares / freedom;
        Ok((likelihood, Self { field, shares, scale, seen, factor, residuals }))
    }

    /// Mean and standard deviation of the accuracy that a network would reach on a dataset, what another seed would change
    /// included. O(n^2).
    pub fn predict(&self, task: usize, network: usize) -> (f64, f64) {
        let at = (task, network);
        let covariances: Vec<f64> =
            self.seen.iter().map(|&seen| self.field.covariance(&self.shares, seen, at)).collect();
        let known = self.factor.forward(&covariances);
        let prior = self.field.covariance(&self.shares, at, at) + self.shares.noise;
        let variance = self.scale * (prior - dot(&known, &known)).max(0.0);
        (MEAN + dot(&known, &self.residuals), variance.sqrt())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]
mod tests {
    use super::*;

    /// Datasets of different levels, networks on a line of sizes.
    fn field(tasks: usize, networks: usize) -> Field {
        let line = |count: usize| vec![(0..count).map(|at| vec![at as f32]).collect::<Vec<_>>()];
        Field {
            tasks: Distances::between(tasks, &line(tasks)),
            networks: Distances::between(networks, &line(networks)),
        }
    }

    fn truth(task: usize, network: usize) -> f64 {
        0.4 + 0.1 * task as f64 + 0.03 * network as f64 - 0.002 * (network as f64).powi(2)
    }

    fn observed(pairs: &[(usize, usize)]) -> Vec<Observation> {
        let observe = |&(task, network): &(usize, usize)| Observation {
            task,
            network,
            accuracy: truth(task, network),
        };
        pairs.iter().map(observe).collect()
    }

    #[test]
    fn without_observations_all_is_alike_and_open() {
        let field = field(2, 5);
        let surrogate = Surrogate::fit(&field, &[]).unwrap();
        assert_eq!(surrogate.shares, EXPECTED);
        for (task, network) in [(0, 0), (1, 4)] {
            let (mean, sd) = surrogate.predict(task, network);
            assert!((mean - MEAN).abs() < 1e-12 && (sd - SD).abs() < 1e-12, "{mean} {sd}");
        }
    }

    #[test]
    fn predicts_what_conditioning_the_joint_normal_gives() {
        let field = field(2, 5);
        let observations = observed(&[(0, 0), (0, 3), (1, 4)]);
        let surrogate = Surrogate::fit(&field, &observations).unwrap();
        let shares = surrogate.shares;
        let covariance = |i: usize, j: usize| {
            let noise = if i == j { shares.noise } else { 0.0 };
            field.covariance(&shares, surrogate.seen[i], surrogate.seen[j]) + noise
        };
        let matrix: Vec<f64> = (0..9).map(|at| covariance(at / 3, at % 3)).collect();
        let full = Cholesky::new(3, matrix).unwrap();
        let at = (1, 2);
        let cross: Vec<f64> =
            surrogate.seen.iter().map(|&seen| field.covariance(&shares, seen, at)).collect();
        let centred: Vec<f64> = observations.iter().map(|it| it.accuracy - MEAN).collect();
        let mean = MEAN + dot(&cross, &full.solve(&centred));
        let prior = field.covariance(&shares, at, at) + shares.noise;
        let variance = surrogate.scale * (prior - dot(&cross, &full.solve(&cross)));
        let (found, sd) = surrogate.predict(1, 2);
        assert!((found - mean).abs() < 1e-10 && (sd.powi(2) - variance).abs() < 1e-10);
    }

    #[test]
    fn learns_levels_of_datasets_and_the_shape_over_networks() {
        let field = field(3, 10);
        let all: Vec<(usize, usize)> = (0..2)
            .flat_map(|task| (0..10).map(move |network| (task, network)))
            .chain([(2, 0), (2, 9)])
            .collect();
        let surrogate = Surrogate::fit(&field, &observed(&all)).unwrap();
        for network in 1..9 {
            let (mean, sd) = surrogate.predict(2, network);
            assert!((mean - truth(2, network)).abs() < 0.02, "{network}: {mean} +- {sd}");
            assert!(sd < 0.05, "{sd}");
        }
        let (_, seen) = surrogate.predict(2, 0);
        let (_, unseen) = surrogate.predict(2, 4);
        assert!(seen < unseen, "{seen} {unseen}");
    }

    #[test]
    fn noise_is_told_from_structure() {
        let field = field(1, 12);
        let jumps: Vec<Observation> = (0..12)
            .map(|network| Observation {
                task: 0,
                network,
                accuracy: if network % 2 == 0 { 0.6 } else { 0.8 },
            })
            .collect();
        let smooth =
            Surrogate::fit(&field, &observed(&(0..12).map(|it| (0, it)).collect::<Vec<_>>()));
        let (smooth, rough) = (smooth.unwrap(), Surrogate::fit(&field, &jumps).unwrap());
        assert!(rough.shares.noise > smooth.shares.noise, "{:?} {:?}", rough.shares, smooth.shares);
    }

    #[test]
    fn what_is_not_finite_is_an_error() {
        let field = field(1, 2);
        let nan = [Observation { task: 0, network: 0, accuracy: f64::NAN }];
        assert!(Surrogate::fit(&field, &nan).is_err());
    }
}
