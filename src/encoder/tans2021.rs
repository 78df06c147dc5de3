//! The `tans2021` recipe: three linear layers (arXiv 2103.01495), forward pass.

use super::basis::{Standardiser, check_sample, class_mean};
use super::linalg::{dot_f32, normalise};
use super::{Error, ModelEvidence, Prediction, TaskEncoding, TaskSample};
use serde::{Deserialize, Serialize};

/// Dimension of the shared space.
pub(crate) const DIM: usize = 128;
/// Numbers of the Once-for-all space.
pub(crate) const NUMBERS: usize = 45;
/// Nearest training tasks that are reported.
const NEAREST: usize = 8;

/// W_q, W_m, W_s and what standardises their inputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tans2021 {
    pub(crate) tasks: Vec<[u8; 32]>,
    /// `[tasks, 128]`: the training tasks' vectors.
    pub(crate) task_vectors: Vec<f32>,
    pub(crate) rows: Standardiser,
    /// Of [45 numbers; summary of the graph].
    pub(crate) topology: Standardiser,
    pub(crate) signature_len: usize,
    /// `[128, row dim]`.
    pub(crate) query: Vec<f32>,
    /// `[128, topology + signature]`.
    pub(crate) model: Vec<f32>,
    /// `[256]`: W_s over [q; m].
    pub(crate) score: Vec<f32>,
    /// Intercept of W_s.
    pub(crate) score_bias: f32,
    pub(crate) calibration: Calibration,
}

/// From cosines to accuracies: S needs the model's vector, which a search result does not carry, so that S at the
/// average model gives the level, and a line over the training pairs gives what a cosine adds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Calibration {
    /// Average over training models of W_s' share of m.
    pub(crate) model_share: f32,
    pub(crate) slope: f32,
    pub(crate) offset: f32,
    /// Standard deviation of accuracies around a task's mean.
    pub(crate) sd: f32,
    /// Half-width of the 90 % interval.
    pub(crate) half_width: f32,
}

impl Tans2021 {
    pub(crate) fn encode_task(&self, sample: &TaskSample) -> Result<TaskEncoding, Error> {
        check_sample(sample)?;
        if sample.rows.dim() != self.rows.mean.len() {
            return Err(Error::Input {
                what: "backbone rows",
                expected: format!("{} numbers each", self.rows.mean.len()),
                found: format!("{} numbers each", sample.rows.dim()),
            });
        }
        let vector = self.query_vector(&query_input(&self.rows, sample));
        let mut nearest: Vec<(usize, f32)> = self
            .task_vectors
            .chunks_exact(DIM)
            .map(|known| dot_f32(known, &vector))
            .enumerate()
            .collect();
        nearest.sort_by(|a, b| b.1.total_cmp(&a.1));
        nearest.truncate(NEAREST);
        let share = dot_f32(&self.score[..DIM], &vector) + self.calibration.model_share;
        Ok(TaskEncoding {
            accuracy_mean: sigmoid(share + self.score_bias),
            accuracy_sd: self.calibration.sd,
            scale: 1.0,
            vector,
            nearest,
            features: Vec::new(),
        })
    }

    pub(crate) fn encode_model(&self, model: &ModelEvidence<'_>) -> Vec<f32> {
        self.model_vector(&model_input(&self.topology, self.signature_len, model))
    }

    pub(crate) fn predict(&self, task: &TaskEncoding, cosine: f32) -> Prediction {
        let Calibration { slope, offset, half_width, .. } = self.calibration;
        super::prediction(task.accuracy_mean + slope * cosine + offset, half_width)
    }

    /// normalise(W_q x) for the standardised mean row x.
    pub(crate) fn query_vector(&self, input: &[f32]) -> Vec<f32> {
        project(&self.query, input)
    }

    /// normalise(W_m x) for an input of length 1; without one (nothing is known) the neutral vector.
    pub(crate) fn model_vector(&self, input: &[f32]) -> Vec<f32> {
        project(&self.model, input)
    }
}

/// Standardised mean row of a dataset: the layer is linear, so that the mean of its outputs is its output of the mean.
pub(crate) fn query_input(rows: &Standardiser, sample: &TaskSample) -> Vec<f32> {
    rows.apply(&class_mean(sample).into_iter().map(Some).collect::<Vec<_>>())
}

/// normalise([topology; function]); what is missing is zero.
pub(crate) fn model_input(
    topology: &Standardiser,
    signature_len: usize,
    model: &ModelEvidence<'_>,
) -> Vec<f32> {
    let row = topology_row(model.numbers, model.topology, topology.mean.len());
    let mut input = topology.apply(&row);
    // Standardised numbers have length sqrt(n) and a signature has length 1: without this the graph would drown it.
    let share = 1.0 / (input.len().max(1) as f32).sqrt();
    input.iter_mut().for_each(|value| *value *= share);
    let signature = model.signature.filter(|signature| signature.len() == signature_len);
    match signature {
        Some(signature) => input.extend(signature),
        None => input.resize(input.len() + signature_len, 0.0),
    }
    normalise(&mut input);
    input
}

/// [45 numbers; summary], with `None` where a network has none, cut or filled to `len`.
pub(crate) fn topology_row(numbers: &[f32], summary: &[f32], len: usize) -> Vec<Option<f32>> {
    let finite = |value: &f32| value.is_finite().then_some(*value);
    let mut row: Vec<Option<f32>> = numbers.iter().take(NUMBERS).map(finite).collect();
    row.resize(NUMBERS, None);
    row.extend(summary.iter().map(finite));
    row.resize(len, None);
    row
}

pub(crate) fn sigmoid(value: f32) -> f32 {
    1.0 / (1.0 + (-value).exp())
}

fn project(weights: &[f32], input: &[f32]) -> Vec<f32> {
    let rows = weights.chunks_exact(input.len().max(1));
    let mut out: Vec<f32> = rows.map(|row| dot_f32(row, input)).collect();
    normalise(&mut out);
    if out.iter().all(|&value| value == 0.0) {
        out[DIM - 1] = 1.0;
    }
    out
}
