//! How good is the first pick on tasks that nothing was learned from?

use crate::state::State;
use crate::steps::table::{self, Table};
use crate::steps::training_set;
use crate::train::evaluate::{self, Contestant, Estimates, Evaluation, Protocol, Scores};
use crate::train::{FitOptions, Recipe};
use crate::{Error, Observer, Progress, Result};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Instant;
use tans_storage::Store;

/// Options of `evaluate`.
#[derive(Clone, Debug)]
pub struct EvaluateOptions {
    /// Folds over families; `None` holds out one family at a time.
    pub folds: Option<usize>,
    /// A CSV file of what each network's probe says of each task from its training part (columns `task`, `model`,
    /// `loo`, `logme` and perhaps `seconds`): it adds the rows for LogME and the probe of the whole zoo, and for the
    /// default recipe with some probes.
    pub scores: Option<PathBuf>,
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
        let (folds, scores) = (None, None);
        Self { folds, scores, closed_form_only: cfg!(not(feature = "torch")), epochs, seed }
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
    let scores = options.scores.as_deref().map(|path| scores(&state.store, path)).transpose()?;
    let default =
        FitOptions { epochs: options.epochs, seed: options.seed, ..FitOptions::default() };
    let mut contestants = vec![Contestant::new(default)];
    if !options.closed_form_only {
        contestants.push(Contestant::new(FitOptions { recipe: Recipe::Tans2021, ..default }));
    }
    let mut progress = |done, total| {
        observer(Progress { step: "held-out tasks", item: String::new(), done, total })
    };
    let protocol = Protocol { folds: options.folds, scores: scores.as_ref(), clock };
    let evaluation = evaluate::leave_tasks_out(&set, &contestants, &protocol, &mut progress)?;
    if evaluation.tasks.is_empty() {
        return Err(Error::input(
            "expected tasks with at least three measured models each, found none: measure models first (`tans measure ZOO --all DATASET`)",
        ));
    }
    Ok(evaluation)
}

/// Milliseconds since the first call.
pub(crate) fn clock() -> f64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_secs_f64() * 1e3
}

/// Reads a file of estimates; its indices are those of the training set.
fn scores(store: &Store, path: &Path) -> Result<Scores> {
    let table = Table::read(path)?;
    let [task, model, loo, logme] =
        table.columns([&["task", "dataset"], &["model"], &["loo"], &["logme"]])?;
    let seconds = table.column(&["seconds"])?;
    let names = training_set::Names::load(store)?;
    let rows = table.map(|record| {
        let place = (names.task(&record[task])?, names.model(&record[model])?);
        let estimates = Estimates {
            loo: table::number(&record[loo], "loo")?,
            logme: table::number(&record[logme], "logme")?,
            seconds: seconds
                .map(|column| &record[column])
                .filter(|text| !text.is_empty())
                .map(|text| table::number(text, "seconds"))
                .transpose()?,
        };
        if !(0.0..=1.0).contains(&estimates.loo) {
            let found = estimates.loo;
            return Err(Error::input(format!("loo: expected an accuracy in 0..1, found {found}")));
        }
        Ok((place, estimates))
    })?;
    Ok(rows.into_iter().collect())
}
