//! The `listwise` recipe: linear maps on both sides of what `default` knows, forward pass.
//!
//! A dataset is q = W_q [1, phi] with phi its coordinates among the training tasks; a model is m = W_m [w, f] with w what
//! `default` expects of it at [1, phi] from its kin and its own results, and f what it is, does and was trained on. So a
//! recorded result moves w and with it the vector at once, and a network without results is placed by its kin. As in
//! `default` a last coordinate completes every model to the same length, so that the cosine ranks as <q, m>.

use super::ClosedForm;
use super::closed_form::complete;
use super::linalg::dot_f32;
use super::{Error, ModelEvidence, Prediction, TaskEncoding, TaskSample};
use serde::{Deserialize, Serialize};

/// W_q, W_m and the closed form that describes datasets and models.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Listwise {
    pub(crate) base: ClosedForm,
    /// `[rows, 1 + coordinates]`.
    pub(crate) query: Vec<f32>,
    /// `[rows, 1 + coordinates + features]`.
    pub(crate) model: Vec<f32>,
    /// Standing for a unit of <q, m>.
    pub(crate) slope: f32,
    /// Length of every model's vector before normalising.
    pub(crate) radius: f32,
}

impl Listwise {
    /// Dimension of every vector.
    pub(crate) fn dim(&self) -> usize {
        self.query.len() / (self.base.basis.k + 1) + 1
    }

    pub(crate) fn encode_task(&self, sample: &TaskSample) -> Result<TaskEncoding, Error> {
        let mut task = self.base.encode_task(sample)?;
        let mut vector = project(&self.query, &query_input(&task.features));
        let length = dot_f32(&vector, &vector).sqrt();
        if length.is_nan() || length <= 0.0 {
            return Err(Error::Numerical("the dataset's vector has no length".into()));
        }
        vector.iter_mut().for_each(|value| *value /= length);
        vector.push(0.0);
        task.scale = length * self.radius * self.slope;
        task.vector = vector;
        Ok(task)
    }

    pub(crate) fn encode_model(&self, model: &ModelEvidence<'_>) -> Vec<f32> {
        complete(self.model_vector(&model_input(&self.base, model)), self.radius)
    }

    pub(crate) fn predict(&self, task: &TaskEncoding, cosine: f32) -> Prediction {
        self.base.predict(task, cosine)
    }

    /// W_m x, not yet completed.
    pub(crate) fn model_vector(&self, input: &[f32]) -> Vec<f32> {
        project(&self.model, input)
    }
}

/// [1, phi].
pub(crate) fn query_input(features: &[f32]) -> Vec<f32> {
    let mut input = vec![1.0];
    input.extend(features);
    input
}

/// [w, f]; what is not known of the network counts as average.
pub(crate) fn model_input(base: &ClosedForm, model: &ModelEvidence<'_>) -> Vec<f32> {
    let mut input = base.weights(model);
    if let Some(kinship) = &base.kinship {
        input.extend(kinship.describe(model, &base.sources(model)).0);
    }
    input
}

fn project(weights: &[f32], input: &[f32]) -> Vec<f32> {
    weights.chunks_exact(input.len().max(1)).map(|row| dot_f32(row, input)).collect()
}
