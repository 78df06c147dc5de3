//! The `default` recipe: kernel ridge over measured pairs, served as one cosine.
//!
//! A dataset is q = [1, phi(q), 0]; a model is [g, Phi' a, rest], where g is its mean standing, a its ridge
//! coefficients and `rest` completes every model to the same length, so that the cosine ranks as the inner product.

use super::basis::Basis;
use super::linalg::{dot_f32, solve_ridge};
use super::predictor::{Predictor, SD_MIN};
use super::{Error, Evidence, Kind, ModelEvidence, Prediction, TaskEncoding, TaskSample};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Results that a model's mean standing is shrunk by: g = sum z / (n + 3).
pub(crate) const STANDING_SHRINK: f32 = 3.0;
/// Ridge of a model's coefficients.
pub(crate) const MODEL_RIDGE: f64 = 0.5;
/// Standings beyond this are cut: one result on an easily misjudged task must not decide everything.
const STANDING_MAX: f32 = 3.0;
/// Nearest training tasks that are reported.
const NEAREST: usize = 8;

/// Mean and standard deviation of accuracies.
pub(crate) type Spread = (f32, f32);

/// What is frozen of one training task's accuracies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct TaskLevel {
    pub(crate) id: [u8; 32],
    /// Measured over at least three models: probe, finetune, reported.
    pub(crate) measured: [Option<Spread>; 3],
    /// Over a reference population.
    pub(crate) prior: Option<Spread>,
    /// From the predictor; `None` for reference tasks.
    pub(crate) predicted: Option<Spread>,
}

impl TaskLevel {
    /// Mean and spread to standardise an accuracy of this kind with.
    pub(crate) fn spread(&self, kind: Kind) -> Option<Spread> {
        self.measured[kind as usize].or(self.prior).or(self.predicted)
    }
}

/// A guess at the mean standing of a model from its signature: linear in the signature, so that it is a kernel ridge
/// over linear CKA.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Borrowed {
    pub(crate) intercept: f32,
    pub(crate) weights: Vec<f32>,
}

/// Frozen task basis and static parts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClosedForm {
    pub(crate) basis: Basis,
    /// Sorted by id.
    pub(crate) levels: Vec<TaskLevel>,
    pub(crate) predictor: Predictor,
    pub(crate) borrowed: Option<Borrowed>,
    /// Length of every model's vector before normalising.
    pub(crate) radius: f32,
}

/// A standing at a point of the task space.
pub(crate) struct Standing<'a> {
    pub(crate) z: f32,
    /// Coordinates of the task; empty for reference tasks.
    pub(crate) at: &'a [f32],
}

impl ClosedForm {
    /// Dimension of every vector.
    pub(crate) fn dim(&self) -> usize {
        self.basis.k + 2
    }

    /// Training tasks.
    pub(crate) fn tasks(&self) -> &[[u8; 32]] {
        &self.basis.tasks
    }

    pub(crate) fn encode_task(&self, sample: &TaskSample) -> Result<TaskEncoding, Error> {
        self.basis.check(sample)?;
        let blocks = self.basis.describe(sample);
        let kernel = self.basis.kernel(&blocks);
        let (accuracy_mean, accuracy_sd) = self.predictor.expect(&blocks[2], &kernel);
        let features = self.basis.locate(&kernel);
        if features.iter().chain([&accuracy_mean]).any(|value| !value.is_finite()) {
            return Err(Error::Numerical("the dataset's features overflow".into()));
        }
        let mut vector = vec![1.0];
        vector.extend(&features);
        vector.push(0.0);
        let length = dot_f32(&vector, &vector).sqrt();
        vector.iter_mut().for_each(|value| *value /= length);
        let mut nearest: Vec<(usize, f32)> = kernel.into_iter().enumerate().collect();
        nearest.sort_by(|a, b| b.1.total_cmp(&a.1));
        nearest.truncate(NEAREST);
        let scale = length * self.radius;
        Ok(TaskEncoding { vector, scale, accuracy_mean, accuracy_sd, nearest, features })
    }

    pub(crate) fn encode_model(&self, model: &ModelEvidence<'_>) -> Vec<f32> {
        let mut vector = self.weights(model);
        let length = dot_f32(&vector, &vector).sqrt();
        if length > self.radius {
            vector.iter_mut().for_each(|value| *value *= self.radius / length);
        }
        let rest = (self.radius.powi(2) - length.min(self.radius).powi(2)).max(0.0).sqrt();
        vector.push(rest);
        super::linalg::normalise(&mut vector);
        vector
    }

    pub(crate) fn predict(&self, task: &TaskEncoding, cosine: f32) -> Prediction {
        let accuracy = task.accuracy_mean + task.accuracy_sd * cosine * task.scale;
        let half = self.predictor.half_width * task.accuracy_sd;
        super::prediction(accuracy, half)
    }

    /// Standings from a history: one for each task, probes before fine-tunes before reports.
    pub(crate) fn standings<'a>(&'a self, history: &'a [Evidence<'a>]) -> Vec<Standing<'a>> {
        let mut chosen: BTreeMap<[u8; 32], &Evidence<'_>> = BTreeMap::new();
        for evidence in history.iter().filter(|evidence| evidence.accuracy.is_finite()) {
            let entry = chosen.entry(evidence.task).or_insert(evidence);
            if evidence.kind < entry.kind {
                *entry = evidence;
            }
        }
        chosen.into_values().filter_map(|evidence| self.standing(evidence)).collect()
    }

    /// `None` where nothing is known that the accuracy could be compared with.
    fn standing<'a>(&'a self, evidence: &'a Evidence<'a>) -> Option<Standing<'a>> {
        let encoding = evidence.encoding.filter(|encoding| self.fits(encoding));
        let known = self.levels.binary_search_by_key(&evidence.task, |level| level.id).ok();
        let (mean, sd) = known
            .and_then(|index| self.levels[index].spread(evidence.kind))
            .or_else(|| encoding.map(|encoding| (encoding.accuracy_mean, encoding.accuracy_sd)))?;
        let at = match self.basis.position(&evidence.task) {
            Some(task) => self.basis.coordinates_of(task),
            None => encoding.map_or(&[][..], |encoding| &encoding.features),
        };
        Some(Standing { z: standardised(evidence.accuracy, (mean, sd)), at })
    }

    /// Encodings of other encoders may reach us by mistake; they must not panic.
    fn fits(&self, encoding: &TaskEncoding) -> bool {
        encoding.features.len() == self.basis.k
            && encoding.features.iter().all(|value| value.is_finite())
            && encoding.accuracy_mean.is_finite()
            && encoding.accuracy_sd.is_finite()
    }

    /// [g, Phi' a], not yet clipped.
    pub(crate) fn weights(&self, model: &ModelEvidence<'_>) -> Vec<f32> {
        let standings = self.standings(model.history);
        let guess = self.borrow(model.signature);
        let sum: f32 = standings.iter().map(|standing| standing.z).sum();
        let count = standings.len() as f32;
        let g = (sum + STANDING_SHRINK * guess) / (count + STANDING_SHRINK);
        let mut out = vec![g];
        out.extend(self.slopes(&standings, g));
        out
    }

    fn borrow(&self, signature: Option<&[f32]>) -> f32 {
        let (Some(borrowed), Some(signature)) = (&self.borrowed, signature) else {
            return 0.0;
        };
        let usable = signature.len() == borrowed.weights.len();
        let guess = borrowed.intercept + dot_f32(&borrowed.weights, signature);
        if usable && guess.is_finite() { guess.clamp(-STANDING_MAX, STANDING_MAX) } else { 0.0 }
    }

    /// Phi' (Phi Phi' + r I)^-1 (z - g), in its k-sized form (Phi' Phi + r I)^-1 Phi' (z - g).
    fn slopes(&self, standings: &[Standing<'_>], g: f32) -> Vec<f32> {
        let k = self.basis.k;
        let (mut gram, mut right) = (vec![0.0; k * k], vec![0.0; k]);
        for standing in standings.iter().filter(|standing| !standing.at.is_empty()) {
            let at: Vec<f64> = standing.at.iter().map(|&value| f64::from(value)).collect();
            for (row, &left) in at.iter().enumerate() {
                right[row] += left * f64::from(standing.z - g);
                for (entry, value) in gram[row * k..=row * k + row].iter_mut().zip(&at) {
                    *entry += left * value;
                }
            }
        }
        // The matrix is positive definite by the ridge, so a failure means overflow: then the mean alone stands.
        let solved = solve_ridge(&gram, MODEL_RIDGE, &right).unwrap_or_else(|_| vec![0.0; k]);
        solved.into_iter().map(|value| value as f32).collect()
    }
}

/// The accuracy in standard deviations from the mean, cut at both ends.
pub(crate) fn standardised(accuracy: f32, (mean, sd): Spread) -> f32 {
    ((accuracy - mean) / sd.max(SD_MIN)).clamp(-STANDING_MAX, STANDING_MAX)
}
