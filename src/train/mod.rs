//! Pure learning: a training set in, encoders and metrics out. No database, no clock.

mod closed_form;
pub mod evaluate;
#[cfg(feature = "torch")]
mod tans2021;

use crate::encoder::{Encoders, Error, Kind, TaskSample};
use std::ops::ControlFlow;

/// A task to learn from.
pub struct TrainingTask {
    /// Task id.
    pub id: [u8; 32],
    /// Tasks of one family are held out together.
    pub family: String,
    /// `None` for reference tasks: their results count for the static part only.
    pub sample: Option<TaskSample>,
    /// Mean and standard deviation of probe accuracies over a reference population, used while fewer than three models were measured.
    pub prior: Option<(f32, f32)>,
}

/// A model to learn from.
pub struct TrainingModel {
    /// Row id.
    pub row: u64,
    /// The 45 numbers of the Once-for-all space, or empty.
    pub numbers: Vec<f32>,
    /// Fixed-length summary of the graph.
    pub topology: Vec<f32>,
    /// 512 numbers.
    pub signature: Option<Vec<f32>>,
    /// Parameters.
    pub params: u64,
    /// Indices of tasks it was trained on.
    pub seen: Vec<usize>,
}

/// One measured accuracy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrainingPair {
    /// Index of the task.
    pub task: usize,
    /// Index of the model.
    pub model: usize,
    /// How it was measured.
    pub kind: Kind,
    /// 0..=1.
    pub accuracy: f32,
}

/// Everything that encoders are learned from.
#[derive(Default)]
pub struct TrainingSet {
    /// Tasks.
    pub tasks: Vec<TrainingTask>,
    /// Models.
    pub models: Vec<TrainingModel>,
    /// The latest accuracy per (task, model, kind).
    pub pairs: Vec<TrainingPair>,
}

/// How encoders are learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Recipe {
    /// Closed form (DESIGN §7).
    Default,
    /// The published baseline.
    Tans2021,
}

/// Options of `fit`.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct FitOptions {
    /// Recipe.
    pub recipe: Recipe,
    /// Epochs of the recipes that iterate. Default 200.
    pub epochs: usize,
    /// Seed.
    pub seed: u64,
}

/// Learns encoders. `progress(epoch, epochs, loss)`; `Break` cancels.
pub fn fit(
    _set: &TrainingSet,
    _options: &FitOptions,
    _progress: &mut dyn FnMut(usize, usize, f32) -> ControlFlow<()>,
) -> Result<Encoders, Error> {
    todo!()
}
