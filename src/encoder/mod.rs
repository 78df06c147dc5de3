//! One embedding space for datasets and networks: plain `f32` in and out.

#[cfg(feature = "torch")]
pub mod backbone;
pub(crate) mod basis;
pub mod belief;
pub(crate) mod closed_form;
mod error;
pub(crate) mod kinship;
pub(crate) mod linalg;
pub(crate) mod listwise;
pub mod logme;
pub mod metrics;
pub mod normal;
pub(crate) mod predictor;
pub mod ridge;
pub mod signature;
#[cfg(feature = "torch")]
pub mod staircase;
#[cfg(feature = "torch")]
pub mod surrogate;
pub(crate) mod tans2021;
pub mod task;
mod terms;

pub use closed_form::ClosedForm;
pub use error::Error;

/// Fingerprint of the built-in backbone: blake3 of its version and weights. Known without libtorch as well, because
/// feature rows and tasks carry it; `backbone::fingerprint` computes it.
pub const BACKBONE_FINGERPRINT: [u8; 32] = [
    0x81, 0xd1, 0x9d, 0x5e, 0x52, 0x85, 0x2b, 0xea, 0xf0, 0x63, 0xaa, 0xf7, 0x88, 0xbb, 0xed, 0x54,
    0x07, 0x79, 0x71, 0xb8, 0x78, 0xc6, 0x06, 0x15, 0x6c, 0x48, 0x87, 0xf2, 0x44, 0xcf, 0x03, 0x7f,
];

/// Numbers in one of its rows.
pub const BACKBONE_DIM: usize = 1280;

pub use listwise::Listwise;
pub use tans2021::Tans2021;
pub use task::{SCALARS, TaskSample};
pub use terms::Term;

use crate::rows::Rows;
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
    /// Coordinates among the training tasks, with which results on this dataset enter a model's vector (`default` and
    /// `listwise`).
    pub features: Vec<f32>,
}

/// One known result of a model.
#[derive(Clone, Copy)]
pub struct Evidence<'a> {
    /// Task id.
    pub task: [u8; 32],
    /// How it was measured.
    pub kind: Kind,
    /// 0..=1.
    pub accuracy: f32,
    /// The task's encoding under these encoders; needed for tasks outside the basis, `None` for reference tasks.
    pub encoding: Option<&'a TaskEncoding>,
    /// Whether it is a probe on a task that the model was trained on, which flatters it.
    pub is_own: bool,
}

/// A task that a model was trained on.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// Task id.
    pub task: [u8; 32],
    /// As in `Evidence`.
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
    /// Tasks that it was trained on, as far as they are known.
    pub sources: &'a [Source<'a>],
    /// Whether it was trained on anything, known or not.
    pub is_trained: bool,
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
    Default(Box<ClosedForm>),
    /// `tans2021`: the published baseline (arXiv 2103.01495).
    Tans2021(Box<Tans2021>),
    /// `listwise`: linear maps of what `default` knows, learned to order each task's networks.
    Listwise(Box<Listwise>),
}

impl Encoders {
    /// Dimension of every vector.
    pub fn dim(&self) -> usize {
        match self {
            Self::Default(recipe) => recipe.dim(),
            Self::Tans2021(_) => tans2021::DIM,
            Self::Listwise(recipe) => recipe.dim(),
        }
    }

    /// `default`, `tans2021` or `listwise`.
    pub fn recipe(&self) -> &'static str {
        match self {
            Self::Default(_) => "default",
            Self::Tans2021(_) => "tans2021",
            Self::Listwise(_) => "listwise",
        }
    }

    /// Task ids of the training tasks, in the order that `TaskEncoding::nearest` counts.
    pub fn basis(&self) -> &[[u8; 32]] {
        match self {
            Self::Default(recipe) => recipe.tasks(),
            Self::Tans2021(recipe) => &recipe.tasks,
            Self::Listwise(recipe) => recipe.base.tasks(),
        }
    }

    /// E_Q: a dataset's vector and expected accuracies.
    ///
    /// # Errors
    /// `Error` if the rows' dimension differs from the backbone's or fewer than two classes are present.
    pub fn encode_task(&self, sample: &TaskSample) -> Result<TaskEncoding, Error> {
        match self {
            Self::Default(recipe) => recipe.encode_task(sample),
            Self::Tans2021(recipe) => recipe.encode_task(sample),
            Self::Listwise(recipe) => recipe.encode_task(sample),
        }
    }

    /// E_M: a model's unit vector. A model of which nothing is known gets the neutral vector.
    ///
    /// `default` and `listwise` use every result in `history` that they can standardise.
    pub fn encode_model(&self, model: &ModelEvidence<'_>) -> Vec<f32> {
        match self {
            Self::Default(recipe) => recipe.encode_model(model),
            Self::Tans2021(recipe) => recipe.encode_model(model),
            Self::Listwise(recipe) => recipe.encode_model(model),
        }
    }

    /// S: the accuracy that a cosine stands for.
    pub fn predict(&self, task: &TaskEncoding, cosine: f32) -> Prediction {
        match self {
            Self::Default(recipe) => recipe.predict(task, cosine),
            Self::Tans2021(recipe) => recipe.predict(task, cosine),
            Self::Listwise(recipe) => recipe.predict(task, cosine),
        }
    }
}

/// An accuracy with its interval, within 0..=1.
fn prediction(accuracy: f32, half_width: f32) -> Prediction {
    let accuracy = if accuracy.is_nan() { 0.5 } else { accuracy.clamp(0.0, 1.0) };
    let half_width = if half_width.is_nan() { 1.0 } else { half_width };
    let interval = [(accuracy - half_width).max(0.0), (accuracy + half_width).min(1.0)];
    Prediction { accuracy, interval }
}

/// # Errors
/// `Error::Input` unless there are two classes, two finite rows and one label below `classes` for each.
fn check_rows(rows: &Rows, labels: &[u32], classes: usize) -> Result<(), Error> {
    let refuse = |what, expected: &str, found: String| {
        Err(Error::Input { what, expected: expected.into(), found })
    };
    if classes < 2 {
        return refuse("classes", "at least 2", classes.to_string());
    }
    if rows.len() < 2 {
        return refuse("feature rows", "at least 2", rows.len().to_string());
    }
    if labels.len() != rows.len() {
        return refuse(
            "labels",
            "one for each row",
            format!("{} for {}", labels.len(), rows.len()),
        );
    }
    if let Some(label) = labels.iter().find(|&&label| label as usize >= classes) {
        return refuse("labels", "numbers below the number of classes", label.to_string());
    }
    match rows.values().iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(at) => refuse("feature rows", "finite numbers", format!("NaN or infinity at {at}")),
    }
}
