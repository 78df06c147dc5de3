//! S of the `default` recipe: the mean and spread of accuracies that a dataset will show.

use super::linalg::dot_f32;
use serde::{Deserialize, Serialize};

/// Least standard deviation of accuracies; smaller ones are noise.
pub(crate) const SD_MIN: f32 = 0.01;

/// Ridge on the scalars, then kernel ridge on what it leaves: one function of a dataset.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Level {
    pub(crate) intercept: f32,
    /// One for each scalar.
    pub(crate) weights: Vec<f32>,
    /// One for each training task.
    pub(crate) dual: Vec<f32>,
}

impl Level {
    /// Its value for standardised scalars and kernel values.
    pub(crate) fn at(&self, scalars: &[f32], kernel: &[f32]) -> f32 {
        self.intercept + dot_f32(&self.weights, scalars) + dot_f32(&self.dual, kernel)
    }
}

/// Expected accuracies and how far they were off on held-out tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Predictor {
    /// Logit of the mean accuracy.
    pub(crate) mean: Level,
    /// Logarithm of the standard deviation.
    pub(crate) sd: Level,
    /// Half-width of the 90 % interval in expected standard deviations.
    pub(crate) half_width: f32,
}

impl Predictor {
    /// Expected mean, which is that of guessing at least, and standard deviation.
    pub(crate) fn expect(&self, chance: f32, scalars: &[f32], kernel: &[f32]) -> (f32, f32) {
        let mean = 1.0 / (1.0 + (-self.mean.at(scalars, kernel)).exp());
        let sd = self.sd.at(scalars, kernel).exp();
        // Accuracies in 0..1 cannot spread further than half of it.
        (mean.max(chance), sd.clamp(SD_MIN, 0.5))
    }
}
