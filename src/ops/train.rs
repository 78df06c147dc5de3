//! Learns new encoders from everything the zoo knows, and installs them if they are better.

use crate::encoder::Encoders;
use crate::state::State;
use crate::steps::{generation, training_set};
use crate::train::evaluate::{self, Contestant, Evaluation, MethodRow, Protocol};
use crate::train::{self, FitOptions, Recipe, TrainingSet};
use crate::{Error, Observer, Progress, Result};
use serde::Serialize;
use std::ops::ControlFlow;

/// Options of `train`.
#[derive(Clone, Copy, Debug, Default)]
pub struct TrainOptions {
    /// Recipe, epochs, seed.
    pub fit: FitOptions,
    /// Install even if the gate refuses.
    pub force: bool,
}

/// What the gate found on held-out tasks; losses in accuracy points.
#[derive(Clone, Debug, Serialize)]
pub struct Gate {
    /// Tasks that were held out and had candidates.
    pub tasks: usize,
    /// First pick's loss of the new recipe.
    pub loss: f32,
    /// First pick's loss of the running encoders' recipe, learned in each fold from no other tasks than the running
    /// encoders know.
    pub running_loss: f32,
    /// First pick's loss of the static list.
    pub static_loss: f32,
}

/// What `train` did.
#[derive(Clone, Debug, Serialize)]
pub struct TrainReport {
    /// Number of the installed generation.
    pub generation: u64,
    /// Recipe of its encoders.
    pub recipe: String,
    /// Tasks learned from.
    pub tasks: usize,
    /// Models embedded.
    pub models: usize,
    /// Pairs learned from.
    pub pairs: usize,
    /// `None` where too few tasks have measured models to judge.
    pub gate: Option<Gate>,
}

/// Fewer held-out tasks than this decide nothing.
const GATE_TASKS_MIN: usize = 5;

/// Folds over families in the gate.
const GATE_FOLDS: usize = 10;

/// Rows of the gate's evaluation.
const CANDIDATE: &str = "candidate";
const RUNNING: &str = "running";

/// Losses that differ by less than this many accuracy points are noise on some tens of tasks (PILOT), and no reason to
/// keep encoders that know fewer tasks.
const NOISE: f32 = 0.5;

/// Whether as many results came as `OpenOptions::retrain_after` says.
pub(crate) fn is_due(state: &State) -> bool {
    state.options.retrain_after.is_some_and(|count| state.unlearned() >= count.max(1))
}

/// Learns again as the running encoders were learned.
pub(crate) fn again(state: &State, observer: Observer<'_>) -> Result<TrainReport> {
    let recipe = recipe(&state.generation().encoders);
    let options =
        TrainOptions { fit: FitOptions { recipe, ..FitOptions::default() }, force: false };
    run(state, &options, observer)
}

pub(crate) fn run(
    state: &State,
    options: &TrainOptions,
    observer: Observer<'_>,
) -> Result<TrainReport> {
    let results = state.results();
    let learned = learn(state, options, observer);
    if !matches!(learned, Err(Error::Cancelled)) {
        state.learned(results);
    }
    learned
}

fn learn(state: &State, options: &TrainOptions, observer: Observer<'_>) -> Result<TrainReport> {
    let set = training_set::load(&state.store)?;
    if set.pairs.is_empty() {
        return Err(Error::input(
            "expected results to learn from, found none: ingest networks, then `tans measure` them or `tans record` their results",
        ));
    }
    let gate = gate(&set, &options.fit, &state.generation().encoders, &mut *observer)?;
    if !options.force {
        judge(gate.as_ref(), options.fit.recipe)?;
    }
    let mut fitted = |epoch, epochs, _loss| {
        let item = String::new();
        observer(Progress { step: "learning encoders", item, done: epoch, total: epochs })
    };
    let encoders = train::fit(&set, &options.fit, &mut fitted)?;
    let recipe = encoders.recipe().to_owned();
    let notes = serde_json::to_string(&gate).unwrap_or_default();

    // What was ingested since the snapshot is embedded here as well: every model is, from the store.
    let _alone = state.lock_merges();
    let prepared = generation::prepare(&state.store, generation::Candidate { encoders, notes })?;
    let _ordered = state.lock_commits();
    let installed = generation::install(&state.store, prepared)?;
    let generation = installed.record.number;
    let models = installed.vector_count();
    state.install(installed);
    let (tasks, pairs) = (set.tasks.len(), set.pairs.len());
    Ok(TrainReport { generation, recipe, tasks, models, pairs, gate })
}

/// Scores the new recipe, the running encoders and the static list on held-out tasks.
///
/// The running encoders were learned from most of these tasks, so that they themselves cannot be asked: their recipe is
/// learned anew in each fold, from their tasks without the fold's, and sees the newer tasks as they do.
fn gate(
    set: &TrainingSet,
    fit: &FitOptions,
    running: &Encoders,
    observer: Observer<'_>,
) -> Result<Option<Gate>> {
    let contestants = [
        Contestant { name: CANDIDATE, options: *fit, tasks: None },
        Contestant {
            name: RUNNING,
            options: FitOptions { recipe: recipe(running), ..*fit },
            tasks: Some(running.basis()),
        },
    ];
    let mut progress = |done, total| -> ControlFlow<()> {
        observer(Progress { step: "held-out tasks", item: String::new(), done, total })
    };
    // Nothing is timed: the gate looks at losses alone.
    let protocol = Protocol { folds: Some(GATE_FOLDS), scores: None, cold: false, clock: || 0.0 };
    let evaluation = evaluate::leave_tasks_out(set, &contestants, &protocol, &mut progress)?;
    if evaluation.tasks.len() < GATE_TASKS_MIN {
        return Ok(None);
    }
    let loss = |name: &str| row(&evaluation, name).map(|row| row.loss);
    match (loss(CANDIDATE), loss(RUNNING), loss("static")) {
        (Some(loss), Some(running_loss), Some(static_loss)) => {
            let tasks = evaluation.tasks.len();
            Ok(Some(Gate { tasks, loss, running_loss, static_loss }))
        }
        _ => Ok(None),
    }
}

fn recipe(encoders: &Encoders) -> Recipe {
    match encoders {
        Encoders::Default(_) => Recipe::Default,
        Encoders::Tans2021(_) => Recipe::Tans2021,
    }
}

fn row<'a>(evaluation: &'a Evaluation, name: &str) -> Option<&'a MethodRow> {
    evaluation.rows.iter().find(|row| row.method == name)
}

/// The closed form is the default and needs no judge on a zoo too small to judge it; other recipes do.
fn judge(gate: Option<&Gate>, recipe: Recipe) -> Result<()> {
    let name = recipe.name();
    let Some(gate) = gate else {
        return match recipe {
            Recipe::Default => Ok(()),
            Recipe::Tans2021 => Err(Error::Refused(format!(
                "{name} can only be judged on {GATE_TASKS_MIN} or more tasks with three measured models each; --force installs it all the same"
            ))),
        };
    };
    let refuse = |other: &str, other_loss: f32| {
        Err(Error::Refused(format!(
            "on {} held-out tasks the first pick of {name} loses {:.2} accuracy points, {:.2} more than {other}; --force installs it all the same",
            gate.tasks,
            gate.loss,
            gate.loss - other_loss
        )))
    };
    if gate.loss > gate.running_loss + NOISE {
        return refuse("the running encoders", gate.running_loss);
    }
    if gate.loss > gate.static_loss {
        return refuse("the static list", gate.static_loss);
    }
    Ok(())
}
