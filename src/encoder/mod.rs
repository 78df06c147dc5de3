//! One embedding space for datasets and networks: plain `f32` in and out.

#[cfg(feature = "torch")]
pub mod backbone;
mod closed_form;
mod error;
pub mod metrics;
pub mod ridge;
pub mod signature;
mod tans2021;
pub mod task;

pub use closed_form::ClosedForm;
pub use error::Error;
pub use tans2021::Tans2021;
pub use task::{SCALARS, TaskSample};

use serde::{Deserialize, Serialize};

/// Which measurement an accuracy comes from; accuracies are standardised within (task, kind).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// Ridge probe of penultimate features.
    Probe,
    /// Test accuracy after fine-tuning.
    Finetune,
    /// Measured elsewhere.
    Reported,
}

/// A dataset as the encoders see it.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskEncoding {
    /// Unit vector; its cosine with a model's vector ranks the models.
    pub vector: Vec<f32>,
    /// Length of the vector before normalising: turns a cosine back into a standing.
    pub scale: f32,
    /// Expected mean accuracy of the zoo's networks on this dataset.
    pub accuracy_mean: f32,
    /// Expected standard deviation of their accuracies.
    pub accuracy_sd: f32,
    /// (index into the basis, kernel value) of the nearest training tasks, nearest first.
    pub nearest: Vec<(usize, f32)>,
}

/// One known result of a model.
pub struct Evidence<'a> {
    /// Task id.
    pub task: [u8; 32],
    /// How it was measured.
    pub kind: Kind,
    /// 0..=1.
    pub accuracy: f32,
    /// The task's encoding under these encoders; needed for tasks outside the basis, `None` for reference tasks.
    pub encoding: Option<&'a TaskEncoding>,
}

/// What is known of a model.
#[derive(Default)]
pub struct ModelEvidence<'a> {
    /// The 45 numbers of the Once-for-all space; empty for other networks.
    pub numbers: &'a [f32],
    /// Fixed-length summary of the graph.
    pub topology: &'a [f32],
    /// 512 numbers.
    pub signature: Option<&'a [f32]>,
    /// Known results.
    pub history: &'a [Evidence<'a>],
}

/// A predicted accuracy.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Prediction {
    /// 0..=1.
    pub accuracy: f32,
    /// 90 % interval `[lo, hi]`, within 0..=1.
    pub interval: [f32; 2],
}

/// One immutable version of E_Q, E_M and S.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Encoders {
    /// `default`: kernel ridge over measured pairs, in closed form.
    Default(ClosedForm),
    /// `tans2021`: the published baseline (arXiv 2103.01495).
    Tans2021(Tans2021),
}

impl Encoders {
    /// Dimension of every vector.
    pub fn dim(&self) -> usize {
        todo!()
    }
    /// `default` or `tans2021`.
    pub fn recipe(&self) -> &'static str {
        todo!()
    }
    /// Task ids of the training tasks, in the order that `TaskEncoding::nearest` counts.
    pub fn basis(&self) -> &[[u8; 32]] {
        todo!()
    }
    /// E_Q: a dataset's vector and expected accuracies.
    ///
    /// # Errors
    /// `Error` if the rows' dimension differs from the backbone's or fewer than two classes are present.
    pub fn encode_task(&self, _sample: &TaskSample) -> Result<TaskEncoding, Error> {
        todo!()
    }
    /// E_M: a model's unit vector. A model of which nothing is known gets the neutral vector.
    pub fn encode_model(&self, _model: &ModelEvidence<'_>) -> Vec<f32> {
        todo!()
    }
    /// S: the accuracy that a cosine stands for.
    pub fn predict(&self, _task: &TaskEncoding, _cosine: f32) -> Prediction {
        todo!()
    }
}
