//! What is believed of candidates' accuracies on one dataset, and what each probe changes in it.
//!
//! Accuracies are jointly normal: means and spreads are the predictions', and what two candidates share is the error in
//! the dataset's level, common to all, and the more of the rest the closer their vectors lie. A probe of one candidate
//! therefore moves all others (PILOT: sequential probing).

use super::linalg::distance_squared;
use super::normal::{self, HALF_WIDTH};
use super::{Kind, Prediction, TaskEncoding, prediction};

/// Variance of standings that close candidates share, and that each has for itself, in squared spreads of the dataset.
const SHARED: f64 = 0.6;
const OWN: f64 = 0.3;
/// Bounds of the share of variance that is common to all candidates.
const COMMON: [f64; 2] = [0.2, 0.9];
/// How far it reaches, in typical distances: a network that is unlike all others tells less of their level, and was
/// itself predicted from less.
const REACH: f64 = 8.0;
/// Standard deviation of a leave-one-out accuracy around the test accuracy: of one network, and of all alike, as they
/// are over the tasks of the corpus. What all share is small unless samples come in groups, of which leaving out one
/// sample leaves the others.
const PROBE_SD: f64 = 0.045;
const SHIFT_SD: f64 = 0.03;
const GROUPED_SHIFT_SD: f64 = 0.12;
/// Standard deviation of what a test part of some hundred images shows around the accuracy.
const TEST_SD: f64 = 0.03;
/// Standard deviation of a probe's test accuracy around one from other training images of the same dataset, and of what
/// a network reaches by training around what its probe does, as the two differ over the tasks of the corpus.
const REPEAT_SD: f64 = 0.02;
const TRAINED_SD: f64 = 0.2;
/// Vectors whose distances tell those of all.
pub const SAMPLED: usize = 64;
/// A probe that is expected to gain less accuracy than this is not worth its time.
const GAIN_MIN: f64 = 5e-4;

/// A candidate before any probe.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Its predicted accuracy.
    pub prediction: Prediction,
    /// Its vector.
    pub vector: &'a [f32],
    /// Whether it can be probed.
    pub runnable: bool,
}

/// Joint belief about the candidates' leave-one-out accuracies and, behind the last of them, the shift.
pub struct Belief<'a> {
    candidates: &'a [Candidate<'a>],
    mean: Vec<f64>,
    prior_sd: Vec<f64>,
    /// Share of variance common to all, and shared by neighbours.
    common: f64,
    shared: f64,
    distance: f64,
    shift_sd: f64,
    /// For each probe what it explained: the rows of a Cholesky factor.
    explained: Vec<Vec<f64>>,
    open: Vec<bool>,
    probed: Vec<usize>,
}

impl<'a> Belief<'a> {
    /// Takes the predictions as they are. `distance`: the zoo's `typical_distance`; `is_grouped`: whether samples of the
    /// dataset come in groups that a split keeps whole.
    pub fn new(
        task: &TaskEncoding,
        candidates: &'a [Candidate<'a>],
        (distance, is_grouped): (f64, bool),
    ) -> Self {
        let prior_sd: Vec<f64> = candidates.iter().map(|one| spread(&one.prediction)).collect();
        let typical = median(prior_sd.clone()).max(1e-3);
        let standing = f64::from(task.accuracy_sd).powi(2) * (SHARED + OWN);
        let common = (1.0 - standing / typical.powi(2)).clamp(COMMON[0], COMMON[1]);
        let accuracies = candidates.iter().map(|one| f64::from(one.prediction.accuracy));
        Self {
            mean: accuracies.chain([0.0]).collect(),
            prior_sd,
            common,
            shared: (1.0 - common) * SHARED / (SHARED + OWN),
            distance,
            shift_sd: if is_grouped { GROUPED_SHIFT_SD } else { SHIFT_SD },
            explained: Vec::new(),
            open: candidates.iter().map(|one| one.runnable).collect(),
            probed: Vec::new(),
            candidates,
        }
    }

    /// The candidate whose probe promises most, or none if no probe is worth its time.
    ///
    /// Before the first probe that is the best candidate; then the one with the largest expected improvement over the
    /// best that was probed.
    pub fn next(&self) -> Option<usize> {
        let open = (0..self.candidates.len()).filter(|&index| self.open[index]);
        let better = |a: &usize, b: &usize| self.mean[*a].total_cmp(&self.mean[*b]);
        let Some(best) = self.probed.iter().copied().max_by(better) else {
            return open.rev().max_by(better);
        };
        let gains = open.map(|index| (index, self.gain(index, best)));
        let (index, gain) = gains.max_by(|a, b| a.1.total_cmp(&b.1))?;
        (gain > GAIN_MIN).then_some(index)
    }

    /// Leaves a candidate out that could not be probed.
    pub fn close(&mut self, index: usize) {
        self.open[index] = false;
    }

    /// Learns a candidate's leave-one-out accuracy.
    pub fn observe(&mut self, index: usize, accuracy: f32) {
        self.learn(index, &[(index, 1.0)], (accuracy, PROBE_SD));
    }

    /// Learns a candidate's result on the test part.
    pub fn observe_result(&mut self, index: usize, (kind, accuracy): (Kind, f32)) {
        self.learn(index, &self.test_accuracy(index), (accuracy, result_sd(kind)));
    }

    /// What is believed of a candidate's test accuracy now.
    pub fn prediction(&self, index: usize) -> Prediction {
        self.prediction_given(index, &[])
    }

    /// The same with results of the candidate that tell nothing of others.
    pub fn prediction_given(&self, index: usize, results: &[(Kind, f32)]) -> Prediction {
        if self.probed.is_empty() && results.is_empty() {
            return self.candidates[index].prediction;
        }
        let parts = self.test_accuracy(index);
        let mut mean = self.weighted(&parts, |part| self.mean[part]);
        let mut variance =
            self.weighted(&parts, |part| self.covariance_with(&parts, part)).max(0.0);
        for &(kind, accuracy) in results {
            let weight = variance / (variance + result_sd(kind).powi(2));
            mean += weight * (f64::from(accuracy) - mean);
            variance *= 1.0 - weight;
        }
        let half = f64::from(HALF_WIDTH) * (variance + TEST_SD.powi(2)).sqrt();
        prediction(mean as f32, half as f32)
    }

    /// What the candidates rank by.
    pub fn standings(&self) -> Vec<f32> {
        self.mean[..self.candidates.len()].iter().map(|&mean| mean as f32).collect()
    }

    /// A test accuracy as a sum of what the belief is about.
    fn test_accuracy(&self, index: usize) -> [(usize, f64); 2] {
        [(index, 1.0), (self.candidates.len(), -1.0)]
    }

    fn weighted(&self, parts: &[(usize, f64)], value: impl Fn(usize) -> f64) -> f64 {
        parts.iter().map(|&(part, weight)| weight * value(part)).sum()
    }

    fn covariance_with(&self, parts: &[(usize, f64)], other: usize) -> f64 {
        self.weighted(parts, |part| self.covariance(part, other))
    }

    /// Learns a weighted sum of what the belief is about, which a measurement of a candidate showed.
    fn learn(&mut self, index: usize, parts: &[(usize, f64)], (observed, sd): (f32, f64)) {
        let column: Vec<f64> =
            (0..self.mean.len()).map(|other| self.covariance_with(parts, other)).collect();
        let scale = (self.weighted(parts, |part| column[part]) + sd.powi(2)).sqrt();
        let expected = self.weighted(parts, |part| self.mean[part]);
        let surprise = (f64::from(observed) - expected) / scale;
        let explained: Vec<f64> = column.iter().map(|value| value / scale).collect();
        for (mean, part) in self.mean.iter_mut().zip(&explained) {
            *mean += part * surprise;
        }
        self.explained.push(explained);
        self.probed.push(index);
        self.open[index] = false;
    }

    /// Covariance of two of what the belief is about, given what was observed.
    fn covariance(&self, a: usize, b: usize) -> f64 {
        let known: f64 = self.explained.iter().map(|row| row[a] * row[b]).sum();
        self.prior(a, b) - known
    }

    fn prior(&self, a: usize, b: usize) -> f64 {
        let shift = self.shift_sd.powi(2);
        if a.max(b) == self.candidates.len() {
            return shift;
        }
        let own = self.prior_sd[a] * self.prior_sd[b];
        if a == b {
            return own + shift;
        }
        let (left, right) = (self.candidates[a].vector, self.candidates[b].vector);
        let apart = f64::from(distance_squared(left, right)) / self.distance;
        let level = self.common * (-apart / REACH).exp();
        own * (level + self.shared * (-apart).exp()) + shift
    }

    /// E max(0, accuracy - accuracy of `best`).
    fn gain(&self, index: usize, best: usize) -> f64 {
        let ahead = self.mean[index] - self.mean[best];
        let own = self.covariance(index, index) + self.covariance(best, best);
        let variance = own - 2.0 * self.covariance(index, best);
        normal::excess(ahead, variance.max(1e-12).sqrt())
    }
}

/// Standard deviation behind a 90 % interval that may be cut off at 0 or 1.
fn spread(prediction: &Prediction) -> f64 {
    let [low, high] = prediction.interval;
    let half = (prediction.accuracy - low).max(high - prediction.accuracy);
    f64::from(half / HALF_WIDTH).max(1e-3)
}

/// Standard deviation of a result around the accuracy that is predicted, which is a probe's.
fn result_sd(kind: Kind) -> f64 {
    match kind {
        Kind::Probe => REPEAT_SD,
        Kind::Finetune | Kind::Reported => TRAINED_SD,
    }
}

/// Median of the squared distances between `SAMPLED` of the vectors; what their nearness is compared with.
pub fn typical_distance(vectors: &[&[f32]]) -> f64 {
    let step = vectors.len().div_ceil(SAMPLED).max(1);
    let some: Vec<&[f32]> = vectors.iter().step_by(step).copied().collect();
    let pairs = (0..some.len()).flat_map(|i| (0..i).map(move |j| (i, j)));
    let squared = pairs.map(|(i, j)| f64::from(distance_squared(some[i], some[j])));
    median(squared.collect()).max(1e-6)
}

fn median(mut values: Vec<f64>) -> f64 {
    super::linalg::quantile(&mut values, 0.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task() -> TaskEncoding {
        TaskEncoding {
            vector: vec![1.0, 0.0],
            scale: 1.0,
            accuracy_mean: 0.6,
            accuracy_sd: 0.08,
            nearest: Vec::new(),
            features: Vec::new(),
        }
    }

    fn predicted(accuracy: f32) -> Prediction {
        prediction(accuracy, 0.25)
    }

    /// Two candidates that are expected to do the same and are not alike.
    fn strangers() -> [Candidate<'static>; 2] {
        static VECTORS: [[f32; 2]; 2] = [[1.0, 0.0], [0.0, 1.0]];
        let candidate = |vector| Candidate { prediction: predicted(0.6), vector, runnable: true };
        VECTORS.each_ref().map(|vector| candidate(&vector[..]))
    }

    #[test]
    fn a_probe_moves_its_neighbours_more_than_strangers() {
        let near = [[1.0, 0.0], [0.99, 0.1], [0.0, 1.0], [0.1, 0.99]];
        let candidates: Vec<Candidate<'_>> = near
            .iter()
            .map(|vector| Candidate { prediction: predicted(0.6), vector, runnable: true })
            .collect();
        let mut belief = Belief::new(&task(), &candidates, (1.0, true));
        assert_eq!(belief.next(), Some(0), "the first of equals");
        belief.observe(0, 0.8);
        let means: Vec<f32> = (0..4).map(|at| belief.prediction(at).accuracy).collect();
        assert!(means[0] > means[1] && means[1] > means[2], "{means:?}");
        assert!(means[2] > 0.6, "the level was low for all: {means:?}");
        let width =
            |at: usize| belief.prediction(at).interval[1] - belief.prediction(at).interval[0];
        assert!(width(0) < width(1) && width(1) < width(2) && width(2) < 0.5);
    }

    #[test]
    fn the_posterior_is_that_of_joint_normals() {
        let vectors = [[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]];
        let candidates: Vec<Candidate<'_>> = vectors
            .iter()
            .zip([0.7, 0.6, 0.5])
            .map(|(vector, accuracy)| Candidate {
                prediction: predicted(accuracy),
                vector,
                runnable: true,
            })
            .collect();
        let mut belief = Belief::new(&task(), &candidates, (1.0, true));
        let prior: Vec<f64> = (0..9).map(|at| belief.covariance(at / 3, at % 3)).collect();
        let seen = [(0, 0.55_f32), (2, 0.65)];
        seen.iter().for_each(|&(index, accuracy)| belief.observe(index, accuracy));
        // Both at once: K (K + noise)^-1 (y - mean).
        let gram = [prior[0], prior[2], prior[6], prior[8]];
        let surprise: Vec<f64> =
            seen.iter().map(|&(at, y)| f64::from(y) - f64::from([0.7_f32, 0.6, 0.5][at])).collect();
        let dual = super::super::linalg::solve_ridge(&gram, PROBE_SD.powi(2), &surprise)
            .expect("solvable");
        let of_test = |cross: f64| cross - GROUPED_SHIFT_SD.powi(2);
        let expected =
            f64::from(0.6_f32) + of_test(prior[3]) * dual[0] + of_test(prior[5]) * dual[1];
        assert!((f64::from(belief.prediction(1).accuracy) - expected).abs() < 1e-6);
    }

    #[test]
    fn a_probe_of_the_test_part_says_more_than_other_results() {
        let candidates = strangers();
        let after = |kind: Option<Kind>| {
            let mut belief = Belief::new(&task(), &candidates, (1.0, true));
            match kind {
                None => belief.observe(0, 0.8),
                Some(kind) => belief.observe_result(0, (kind, 0.8)),
            }
            let Prediction { accuracy, interval: [low, high] } = belief.prediction(0);
            (accuracy, high - low)
        };
        let tested = after(Some(Kind::Probe));
        for less in [None, Some(Kind::Finetune), Some(Kind::Reported)] {
            let other = after(less);
            assert!(0.6 < other.0 && other.0 < tested.0 && tested.0 < 0.8, "{less:?}");
            assert!(other.1 > tested.1, "{less:?}: {other:?} {tested:?}");
        }
    }

    #[test]
    fn a_result_of_its_own_moves_a_candidate_and_no_other() {
        let candidates = strangers();
        let mut belief = Belief::new(&task(), &candidates, (1.0, true));
        let own = belief.prediction_given(0, &[(Kind::Probe, 0.8)]);
        assert_eq!(belief.prediction(1), predicted(0.6));
        belief.observe_result(0, (Kind::Probe, 0.8));
        assert!((belief.prediction(0).accuracy - own.accuracy).abs() < 1e-6);
        assert!(belief.prediction(1).accuracy > 0.6);
    }

    #[test]
    fn what_cannot_win_is_not_probed() {
        let vectors = [[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]];
        let of = |accuracy, half, runnable| Candidate {
            prediction: prediction(accuracy, half),
            vector: &vectors[0],
            runnable,
        };
        let candidates = [of(0.9, 0.1, false), of(0.8, 0.02, true), of(0.3, 0.02, true)];
        let mut belief = Belief::new(&task(), &candidates, (1.0, true));
        assert_eq!(belief.next(), Some(1), "the best that can be probed");
        belief.observe(1, 0.8);
        assert_eq!(belief.next(), None, "half as good is no candidate");
    }
}
