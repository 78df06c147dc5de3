//! Leave-tasks-out evaluation: how good is the first pick on tasks never seen?

use super::{FitOptions, TrainingSet};
use crate::encoder::Error;
use std::ops::ControlFlow;

/// One method's figures, averaged over held-out tasks. Accuracy points are 0..100 where named so, fractions elsewhere.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct MethodRow {
    /// random, params, static, nearest, default, tans2021.
    pub method: String,
    /// First pick's loss in accuracy points, with its 90 % bootstrap interval over tasks.
    pub loss: f32,
    /// Interval of the loss.
    pub loss_interval: [f32; 2],
    /// Best of the first five's loss in accuracy points.
    pub best5: f32,
    /// Spearman.
    pub spearman: f32,
    /// Weighted Kendall tau.
    pub tau: f32,
    /// Mean absolute error of predicted accuracy in accuracy points; `None` where the method predicts none.
    pub mae: Option<f32>,
    /// Share of accuracies inside the 90 % interval.
    pub cover: Option<f32>,
    /// Paired difference of loss to the static list (negative = better), with its 90 % interval.
    pub against_static: Option<(f32, [f32; 2])>,
    /// Loss of each held-out task, in the order of `Evaluation::tasks`.
    pub losses: Vec<f32>,
}

/// Result of an evaluation.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Evaluation {
    /// Indices of the tasks that were held out and had candidates.
    pub tasks: Vec<usize>,
    /// Best network's accuracy, averaged over tasks.
    pub best_accuracy: f32,
    /// Mean network's accuracy, averaged over tasks.
    pub mean_accuracy: f32,
    /// One row per method.
    pub rows: Vec<MethodRow>,
}

/// Holds out each family in turn (folds of families when `folds` is given), fits on the rest, ranks the uncontaminated models.
pub fn leave_tasks_out(
    _set: &TrainingSet,
    _recipes: &[FitOptions],
    _folds: Option<usize>,
    _progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Evaluation, Error> {
    todo!()
}
