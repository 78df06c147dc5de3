//! Learns new encoders from everything the zoo knows, and installs them if they are better.

use crate::encoder::Encoders;
use crate::state::State;
use crate::steps::remembered::Remembered;
use crate::steps::{generation, training_set};
use crate::train::evaluate::{self, Contestant, Evaluation, MethodRow, Protocol};
use crate::train::{self, FitOptions, Memory, Recipe, TrainingSet};
use crate::{Error, Observer, Progress, Result};
use serde::Serialize;
use std::ops::ControlFlow;

/// Options of `train`.
#[derive(Clone, Copy, Debug, Default)]
pub struct TrainOptions {
    /// Recipe, epochs, seed.
    pub fit: FitOptions,
    /// Which recipes the gate chooses from.
    pub choice: Choice,
    /// Install even if the gate refuses.
    pub force: bool,
}

/// Which recipes the gate chooses from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The recipe of `fit`; and where that is `default` and the zoo has at least 300 tasks with rows, `listwise` as well.
    #[default]
    BySize,
    /// `default` and `listwise`, whatever the recipe of `fit`.
    Both,
    /// The recipe of `fit` alone.
    Named,
}

impl Choice {
    /// Recipe and choice by the word of a user: a recipe's name, `auto` for the better of two, or none.
    ///
    /// # Errors
    /// `Error::Input` for any other word.
    pub fn parse(word: Option<&str>) -> Result<(Recipe, Self)> {
        let refuse = || {
            let names = Recipe::ALL.map(Recipe::name).join(", ");
            let found = word.unwrap_or_default();
            Error::input(format!("recipe: expected {names} or auto, found {found:?}"))
        };
        match word {
            None => Ok((Recipe::Default, Self::BySize)),
            Some("auto") => Ok((Recipe::Default, Self::Both)),
            Some(name) => Ok((Recipe::parse(name).ok_or_else(refuse)?, Self::Named)),
        }
    }
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
    /// The recipe that was learned beside the new one and is not better; `None` where there was no choice.
    pub rival: Option<Rival>,
}

/// A recipe that the gate did not choose.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rival {
    /// Its name.
    pub recipe: String,
    /// First pick's loss in accuracy points.
    pub loss: f32,
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

/// From so many tasks with rows on `listwise` is learned beside `default`: below, the closed form ties with it (PILOT).
const LISTWISE_TASKS_MIN: usize = 300;

/// Row of the gate's evaluation.
const RUNNING: &str = "running";

/// Losses that differ by less than this many accuracy points are noise on some tens of tasks (PILOT), and no reason to
/// keep encoders that know fewer tasks.
const NOISE: f32 = 0.5;

/// Whether as many results came as `OpenOptions::retrain_after` says.
pub(crate) fn is_due(state: &State) -> bool {
    state.options.retrain_after.is_some_and(|count| state.unlearned() >= count.max(1))
}

/// Learns the running recipe again, with its usual options, or the better of two where `train` without a word would.
pub(crate) fn again(state: &State, observer: Observer<'_>) -> Result<TrainReport> {
    let recipe = recipe(&state.generation().encoders);
    let options =
        TrainOptions { fit: FitOptions { recipe, ..FitOptions::default() }, ..Default::default() };
    run(state, &options, observer)
}

pub(crate) fn run(
    state: &State,
    options: &TrainOptions,
    observer: Observer<'_>,
) -> Result<TrainReport> {
    state.require_writer()?;
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
    let candidates = candidates(&set, options);
    let memory = Remembered::of(&state.options);
    let running = &state.generation().encoders;
    let judged = gate(&set, &candidates, running, &memory, &mut *observer)?;
    let (fit, gate) = match judged {
        Some((fit, gate)) => (fit, Some(gate)),
        None => (candidates[0], None),
    };
    if !options.force
        && let Err(refused) = judge(gate.as_ref(), fit.recipe)
    {
        memory.forget();
        return Err(refused);
    }
    let mut fitted = |epoch, epochs, _loss| {
        let item = String::new();
        observer(Progress { step: "learning encoders", item, done: epoch, total: epochs })
    };
    let encoders = train::fit_once(&set, &fit, Some(&memory), &mut fitted)?;
    let recipe = encoders.recipe().to_owned();
    let notes = serde_json::to_string(&gate).unwrap_or_default();

    // What was ingested since the snapshot is embedded here as well: every model is, from the store.
    let _alone = state.lock_merges();
    let candidate = generation::Candidate { encoders, notes };
    let prepared = generation::prepare(&state.store, candidate, &mut *observer)?;
    let _ordered = state.lock_commits();
    let installed = generation::install(&state.store, prepared)?;
    let generation = installed.record.number;
    let models = installed.vector_count();
    state.install(installed);
    memory.forget();
    let (tasks, pairs) = (set.tasks.len(), set.pairs.len());
    Ok(TrainReport { generation, recipe, tasks, models, pairs, gate })
}

/// The recipes that the gate chooses from, never empty; the first one stands where nothing can be judged.
fn candidates(set: &TrainingSet, options: &TrainOptions) -> Vec<FitOptions> {
    let tasks = set.tasks.iter().filter(|task| task.sample.is_some()).count();
    let is_large = tasks >= LISTWISE_TASKS_MIN && options.fit.recipe == Recipe::Default;
    let both = match options.choice {
        Choice::BySize => is_large && cfg!(feature = "torch"),
        Choice::Both => true,
        Choice::Named => false,
    };
    let with = |recipe| FitOptions { recipe, ..options.fit };
    if both { vec![with(Recipe::Default), with(Recipe::Listwise)] } else { vec![options.fit] }
}

/// Scores the candidates, the running encoders and the static list on held-out tasks, and chooses the candidate whose
/// first pick loses least, of equals the first.
///
/// The running encoders were learned from most of these tasks, so that they themselves cannot be asked: their recipe is
/// learned anew in each fold, from their tasks without the fold's, and sees the newer tasks as they do.
fn gate(
    set: &TrainingSet,
    candidates: &[FitOptions],
    running: &Encoders,
    memory: &dyn Memory,
    observer: Observer<'_>,
) -> Result<Option<(FitOptions, Gate)>> {
    let mut contestants: Vec<Contestant<'_>> =
        candidates.iter().copied().map(Contestant::new).collect();
    contestants.push(Contestant {
        name: RUNNING,
        options: FitOptions { recipe: recipe(running), ..candidates[0] },
        tasks: Some(running.basis()),
    });
    let mut progress = |done, total| -> ControlFlow<()> {
        observer(Progress { step: "held-out tasks", item: String::new(), done, total })
    };
    // Nothing is timed: the gate looks at losses alone.
    let protocol =
        Protocol { folds: Some(GATE_FOLDS), memory: Some(memory), ..Protocol::default() };
    let evaluation = evaluate::leave_tasks_out(set, &contestants, &protocol, &mut progress)?;
    if evaluation.tasks.len() < GATE_TASKS_MIN {
        return Ok(None);
    }
    let loss = |name: &str| row(&evaluation, name).map(|row| row.loss);
    let mut judged: Vec<(FitOptions, f32)> =
        candidates.iter().filter_map(|fit| Some((*fit, loss(fit.recipe.name())?))).collect();
    judged.sort_by(|a, b| a.1.total_cmp(&b.1));
    let rival = judged.get(1).map(|&(fit, loss)| Rival { recipe: fit.recipe.name().into(), loss });
    match (judged.first(), loss(RUNNING), loss("static")) {
        (Some(&(fit, loss)), Some(running_loss), Some(static_loss)) => {
            let tasks = evaluation.tasks.len();
            Ok(Some((fit, Gate { tasks, loss, running_loss, static_loss, rival })))
        }
        _ => Ok(None),
    }
}

fn recipe(encoders: &Encoders) -> Recipe {
    match encoders {
        Encoders::Default(_) => Recipe::Default,
        Encoders::Tans2021(_) => Recipe::Tans2021,
        Encoders::Listwise(_) => Recipe::Listwise,
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
            Recipe::Tans2021 | Recipe::Listwise => Err(Error::Refused(format!(
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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]
mod tests {
    use super::*;
    use crate::train::tests::world;

    #[cfg(feature = "torch")]
    #[test]
    fn the_gate_takes_the_recipe_that_loses_least_whatever_its_place() {
        let set = world(20, 12, (30, 12));
        let with = |recipe| FitOptions { recipe, epochs: 3, ..FitOptions::default() };
        let (better, worse) = (with(Recipe::Default), with(Recipe::Tans2021));
        let go_on = &mut |_, _, _| ControlFlow::Continue(());
        let running = train::fit(&set, &better, go_on).unwrap();
        let nothing = Remembered::of(&crate::OpenOptions::default());
        for candidates in [[better, worse], [worse, better]] {
            let judged =
                gate(&set, &candidates, &running, &nothing, &mut crate::unobserved).unwrap();
            let (fit, gate) = judged.unwrap();
            assert_eq!((fit, gate.loss), (better, gate.running_loss));
            let rival = gate.rival.unwrap();
            assert!(rival.recipe == "tans2021" && rival.loss > gate.loss, "{rival:?}");
        }
        let (_, gate) =
            gate(&set, &[worse], &running, &nothing, &mut crate::unobserved).unwrap().unwrap();
        assert_eq!(gate.rival, None);
    }

    #[test]
    fn large_zoos_choose_by_themselves_and_a_named_recipe_stands_alone() {
        let mut set = world(LISTWISE_TASKS_MIN, 0, (6, 4));
        let recipes = |set: &TrainingSet, word: Option<&str>| -> Vec<&str> {
            let (recipe, choice) = Choice::parse(word).unwrap();
            let fit = FitOptions { recipe, ..FitOptions::default() };
            let chosen = candidates(set, &TrainOptions { fit, choice, force: false });
            chosen.into_iter().map(|fit| fit.recipe.name()).collect()
        };
        let both = ["default", "listwise"];
        let by_size = if cfg!(feature = "torch") { &both[..] } else { &both[..1] };
        assert_eq!(recipes(&set, None), by_size);
        assert_eq!(recipes(&set, Some("default")), ["default"]);
        set.tasks[0].sample = None;
        assert_eq!(recipes(&set, None), ["default"], "a reference task is not counted");
        assert_eq!(recipes(&set, Some("auto")), both);
        assert_eq!(recipes(&set, Some("listwise")), ["listwise"]);
        assert!(Choice::parse(Some("best")).is_err());
    }
}
