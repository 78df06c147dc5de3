//! How good is the first pick on tasks that nothing was learned from?

use crate::state::State;
use crate::steps::training_set;
use crate::train::evaluate::{self, Contestant, Evaluation};
use crate::train::{FitOptions, Recipe};
use crate::{Error, Observer, Progress, Result};

/// Options of `evaluate`.
#[derive(Clone, Copy, Debug)]
pub struct EvaluateOptions {
    /// Folds over families; `None` holds out one family at a time.
    pub folds: Option<usize>,
    /// Leave the libtorch recipe out.
    pub closed_form_only: bool,
    /// Epochs of the libtorch recipe.
    pub epochs: usize,
    /// Seed.
    pub seed: u64,
}

impl Default for EvaluateOptions {
    fn default() -> Self {
        let FitOptions { epochs, seed, .. } = FitOptions::default();
        Self { folds: None, closed_form_only: cfg!(not(feature = "torch")), epochs, seed }
    }
}

pub(crate) fn run(
    state: &State,
    options: &EvaluateOptions,
    observer: Observer<'_>,
) -> Result<Evaluation> {
    if let Some(folds @ 0..2) = options.folds {
        return Err(Error::input(format!(
            "folds: expected at least 2, so that something is left to learn from, found {folds}"
        )));
    }
    state.refresh()?;
    let set = training_set::load(&state.store)?;
    let default =
        FitOptions { epochs: options.epochs, seed: options.seed, ..FitOptions::default() };
    let mut contestants = vec![Contestant::new(default)];
    if !options.closed_form_only {
        contestants.push(Contestant::new(FitOptions { recipe: Recipe::Tans2021, ..default }));
    }
    let mut progress = |done, total| {
        observer(Progress { step: "held-out tasks", item: String::new(), done, total })
    };
    let evaluation = evaluate::leave_tasks_out(&set, &contestants, options.folds, &mut progress)?;
    if evaluation.tasks.is_empty() {
        return Err(Error::input(
            "expected tasks with at least three measured models each, found none: measure models first (`tans measure ZOO --all DATASET`)",
        ));
    }
    Ok(evaluation)
}
