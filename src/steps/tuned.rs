//! From what is to be trained to a stored model with its task and result.

use super::admit::{self, Bench, NewModel, NewNetwork};
use super::admit_name;
use super::benchmark::Benchmark;
use super::dataset::{self, Samples};
use super::tuning::{Candidate, Tuned};
use crate::graph::formats::Limits;
use crate::graph::input::InputContract;
use crate::graph::spaces;
use crate::graph::spaces::elastic::Supernet;
use crate::state::State;
use crate::{Observer, Result};
use std::collections::BTreeMap;
use tans_storage::{Architecture, ModelRecord, PairKind, TaskId, TaskRecord};

/// Where a training starts.
pub struct Start {
    /// The network to train.
    pub candidate: Candidate,
    /// Whose weights it begins with; `None` for random ones.
    pub parent: Option<ModelRecord>,
    /// Where it comes from in a generated space.
    pub architecture: Option<Architecture>,
}

impl Start {
    /// A generated network, `SPACE:CONFIG@SIDE`, with weights drawn by the seed.
    pub fn generated(spec: &str, classes: usize, seed: u64) -> Result<Self> {
        let made = spaces::generate(spec, classes, seed)?;
        let architecture =
            Architecture { space: made.space, config: made.config, numbers: made.numbers };
        let (graph, input) = (made.graph, made.input);
        let supernet = supernet(&architecture, &input).map(|space| (space, false));
        let candidate = Candidate { name: spec.to_owned(), graph, input, supernet };
        Ok(Self { candidate, parent: None, architecture: Some(architecture) })
    }

    /// A stored network. Training from random initialisation takes over an architecture, not what its weights have seen.
    pub fn stored(state: &State, parent: ModelRecord, from_scratch: bool) -> Result<Self> {
        let (graph, input) = admit::load_network(state, &parent)?;
        let architecture = parent.architecture.clone();
        let supernet = architecture.as_ref().and_then(|it| supernet(it, &input));
        let supernet = supernet.map(|space| (space, true));
        let candidate = Candidate { name: parent.name.clone(), graph, input, supernet };
        Ok(Self { candidate, parent: (!from_scratch).then_some(parent), architecture })
    }

    fn seen(&self, task: TaskId) -> Vec<TaskId> {
        let mut seen = self.parent.as_ref().map_or_else(Vec::new, |parent| parent.seen.clone());
        if !seen.contains(&task) {
            seen.push(task);
        }
        seen
    }
}

fn supernet(architecture: &Architecture, input: &InputContract) -> Option<Supernet> {
    let Architecture { space, config, numbers: _ } = architecture;
    Supernet::parse(&spaces::specification(space, config, input.height)).ok()
}

/// What the user wants a trained network to be called, and to be measured on.
#[derive(Clone, Copy)]
pub struct Labels<'a> {
    /// Name; made from model and dataset where none is given.
    pub name: Option<&'a str>,
    /// SPDX expression; the parent's where none is given.
    pub license: Option<&'a str>,
    /// Labels.
    pub tags: &'a BTreeMap<String, String>,
    /// Benchmark tasks to measure it on.
    pub benchmark: Benchmark,
}

/// A training that is done.
#[derive(Clone, Copy)]
pub struct Trained<'a> {
    /// Where it started.
    pub start: &'a Start,
    /// What it led to.
    pub tuned: &'a Tuned,
    /// What it was trained on.
    pub samples: &'a Samples,
}

/// What was stored.
pub struct Stored {
    /// The model, under its first name.
    pub record: ModelRecord,
    /// The task that the dataset is stored as.
    pub task: TaskRecord,
    /// `stored`, or `already stored`.
    pub status: &'static str,
}

/// Stores a trained network with its task and its result by one commit. The very same network (same start, data and seed)
/// is stored once and only gains the result. `seed` is that of the sampling.
///
/// # Errors
/// As `admit`.
pub fn store(
    state: &State,
    bench: &Bench,
    (trained, seed): (Trained<'_>, u64),
    labels: &Labels<'_>,
    observer: Observer<'_>,
) -> Result<Stored> {
    let Trained { start, tuned, samples } = trained;
    let mut staging = state.store.staging();
    let (task, is_new) = dataset::task_of(state, &mut staging, samples, seed, &mut *observer)?;
    let new = NewModel {
        seen: start.seen(task.id),
        results: vec![(task.id, PairKind::Finetune, tuned.test_accuracy)],
        tasks: is_new.then(|| task.clone()).into_iter().collect(),
        ..new_model(state, start, samples, labels)?
    };
    let network = NewNetwork { graph: &tuned.graph, input: &start.candidate.input };
    let admitted = admit::admit(state, bench, network, new, observer)?;
    tuned.paused.forget();
    let status = if admitted.is_known { "already stored" } else { "stored" };
    Ok(Stored { record: admitted.record, task, status })
}

fn new_model(
    state: &State,
    start: &Start,
    samples: &Samples,
    labels: &Labels<'_>,
) -> Result<NewModel> {
    let from = start.candidate.name.replace(':', "-");
    let name = match labels.name {
        Some(name) => name.to_owned(),
        None => free_name(state, &format!("{from}-on-{}", samples.name))?,
    };
    let parent: Option<&ModelRecord> = start.parent.as_ref();
    let license = labels.license.map(str::to_owned);
    Ok(NewModel {
        name,
        parent: parent.map(|parent| parent.id),
        license: license.or_else(|| parent.and_then(|it| it.license.clone())),
        tags: labels.tags.clone(),
        architecture: start.architecture.clone(),
        class_names: samples.class_names.clone(),
        benchmark: labels.benchmark,
        limits: as_its_start(),
        ..NewModel::default()
    })
}

/// The constants of a network were held to a limit when it was let in; its child makes the same ones.
pub fn as_its_start() -> Limits {
    Limits { constant_bytes_max: u64::MAX, ..Limits::default() }
}

/// The name that is wanted, with a number when it belongs to another model.
pub fn free_name(state: &State, wanted: &str) -> Result<String> {
    admit_name::free(wanted, |name| Ok(state.store.model_by_name(name)?.is_some()))
}
