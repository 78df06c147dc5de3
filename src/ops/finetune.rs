//! Fine-tunes a network on the user's dataset and stores the result as a new model.

use crate::graph::formats::Limits;
use crate::graph::head::{NO_HEAD, find_head};
use crate::graph::spaces;
use crate::state::State;
use crate::steps::admit::{self, Bench, NewModel, NewNetwork};
use crate::steps::benchmark::Benchmark;
use crate::steps::dataset::{self, DatasetSource, SampleOptions, Samples};
use crate::steps::fit::EpochReport;
use crate::steps::network_file::{self, Format};
use crate::steps::search::{self, Found};
use crate::steps::tuning::{self, Candidate, Course, Raced, TuningOptions};
use crate::steps::{self, admit_name, known};
use crate::{Error, Observer, Result};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;
use tans_index::Filter;
use tans_storage::{Architecture, ModelRecord, PairKind, TaskId};

/// Options of `finetune`.
#[derive(Clone, Debug, Default)]
pub struct FinetuneOptions {
    /// How it is trained.
    pub tuning: TuningOptions,
    /// Name of the new model; made from model and dataset where none is given.
    pub name: Option<String>,
    /// SPDX expression; the parent's where none is given.
    pub license: Option<String>,
    /// Labels.
    pub tags: BTreeMap<String, String>,
    /// Benchmark tasks to measure the new model on.
    pub benchmark: Benchmark,
    /// Also write it here, as ONNX or safetensors by the suffix.
    pub output: Option<PathBuf>,
    /// How much of the dataset is used.
    pub sample: SampleOptions,
}

/// Which models `finetune_top` races.
#[derive(Clone, Debug)]
pub struct TopOptions {
    /// How many of the query's first answers that can be run. Default 5.
    pub count: usize,
    /// Conditions on the models.
    pub filter: Filter,
}

impl Default for TopOptions {
    fn default() -> Self {
        Self { count: 5, filter: Filter::default() }
    }
}

/// What `finetune` made.
#[derive(Clone, Debug, Serialize)]
pub struct FinetuneReport {
    /// Name of the new model.
    pub model: String,
    /// `stored`, or `already stored` when the very same network was there under its first name; name, license and tags
    /// of the options are not applied then.
    pub status: &'static str,
    /// Name of the model it was made from; `None` for a generated network.
    pub parent: Option<String>,
    /// Name of the task that the dataset is stored as.
    pub task: String,
    /// `finetune`.
    pub kind: &'static str,
    /// Top-1 accuracy on the test part, 0..=1.
    pub accuracy: f32,
    /// Images of the test part.
    pub test_images: usize,
    /// One report per epoch.
    pub epochs: Vec<EpochReport>,
    /// The epoch whose weights were kept, from 1.
    pub best_epoch: usize,
    /// Those that raced for it, in the query's order, then answers that were left out; one for a model that was named.
    pub candidates: Vec<Raced>,
    /// Parameters.
    pub params: u64,
    /// Seconds of training, the first forward pass to the test score.
    pub seconds: f64,
    /// The file written.
    pub output: Option<PathBuf>,
    /// (file, reason) of images that could not be read.
    pub skipped: Vec<(String, String)>,
}

/// Where a fine-tuning starts.
struct Start {
    candidate: Candidate,
    parent: Option<ModelRecord>,
    architecture: Option<Architecture>,
}

/// Fine-tunes the model of that name.
pub(crate) fn run(
    state: &State,
    model: &str,
    source: &DatasetSource,
    options: &FinetuneOptions,
    observer: Observer<'_>,
) -> Result<FinetuneReport> {
    check(state, options)?;
    let samples = dataset::samples(source, &options.sample)?;
    let start = start(state, model, samples.class_names.len(), &options.tuning)?;
    tune_and_store(state, vec![start], samples, options, observer)
}

/// Races the best answers to the query for the dataset, and keeps the winner.
pub(crate) fn top(
    state: &State,
    source: &DatasetSource,
    top: &TopOptions,
    options: &FinetuneOptions,
    observer: Observer<'_>,
) -> Result<FinetuneReport> {
    if top.count == 0 {
        return Err(Error::input("top: expected at least 1 candidate, found 0"));
    }
    check(state, options)?;
    // References and networks that cannot be run are answers, but no candidates.
    let top = TopOptions { filter: Filter { runnable: true, ..top.filter.clone() }, ..*top };
    let generation = state.generation();
    if !search::finds_any(state, &generation, &top.filter)? {
        return Err(no_candidate());
    }
    let samples = dataset::samples(source, &options.sample)?;
    let (sample, _) = dataset::measure(state, &samples, options.sample.seed, &mut *observer)?;
    let task = generation.encoders.encode_task(&sample)?;
    let asked = (Some(samples.task), &task);
    let from_scratch = options.tuning.from_scratch;
    let mut wanted = top.count;
    let (starts, left_out) = loop {
        let found = known::answers(state, &generation, asked, &top.filter, wanted)?;
        let is_all = found.len() < wanted;
        let (starts, left_out) = with_heads(state, found, top.count, from_scratch)?;
        if is_all || starts.len() == top.count {
            break (starts, left_out);
        }
        wanted = wanted.saturating_mul(4);
    };
    if starts.is_empty() {
        return Err(no_candidate());
    }
    let mut report = tune_and_store(state, starts, samples, options, observer)?;
    report.candidates.extend(left_out);
    Ok(report)
}

/// The first `count` answers that have a head to be replaced, and what is said of those that would have come before.
fn with_heads(
    state: &State,
    found: Vec<Found>,
    count: usize,
    from_scratch: bool,
) -> Result<(Vec<Start>, Vec<Raced>)> {
    let (mut starts, mut left_out) = (Vec::new(), Vec::new());
    for hit in found {
        if starts.len() == count {
            break;
        }
        let start = stored_start(state, hit.model, from_scratch)?;
        if find_head(&start.candidate.graph).is_some() {
            starts.push(start);
            continue;
        }
        left_out.push(Raced {
            model: start.candidate.name,
            epochs: 0,
            validation_accuracy: None,
            failure: Some(format!("left out: {NO_HEAD}")),
        });
    }
    Ok((starts, left_out))
}

fn no_candidate() -> Error {
    Error::input(
        "expected a model that can be fine-tuned among the answers, found none: ingest networks, or loosen the filter",
    )
}

/// What can be refused before anything is trained.
fn check(state: &State, options: &FinetuneOptions) -> Result<()> {
    if let Some(name) = &options.name {
        admit_name::refuse_taken(&state.store, name)?;
    }
    let Some(output) = &options.output else { return Ok(()) };
    Format::of(output)?;
    steps::refuse_missing_folder(output)
}

fn tune_and_store(
    state: &State,
    mut starts: Vec<Start>,
    mut samples: Samples,
    options: &FinetuneOptions,
    observer: Observer<'_>,
) -> Result<FinetuneReport> {
    let clock = Instant::now();
    let course =
        Course { samples: &samples, options: &options.tuning, device: state.options.device };
    let candidates: Vec<&Candidate> = starts.iter().map(|start| &start.candidate).collect();
    let (winner, tuned, candidates) = tuning::race(&course, &candidates, &mut *observer)?;
    let seconds = clock.elapsed().as_secs_f64();
    let start = starts.swap_remove(winner);
    let mut staging = state.store.staging();
    let seed = options.sample.seed;
    let (task, is_new) = dataset::task_of(state, &mut staging, &samples, seed, &mut *observer)?;
    let new = NewModel {
        seen: seen(&start, task.id),
        results: vec![(task.id, PairKind::Finetune, tuned.test_accuracy)],
        tasks: is_new.then(|| task.clone()).into_iter().collect(),
        ..new_model(state, &start, &samples, options)?
    };
    // The very same network (same start, data and seed) is stored once and only gains the result.
    let network = NewNetwork { graph: &tuned.graph, input: &start.candidate.input };
    let admitted = admit::admit(state, &Bench::load(state)?, network, new, observer)?;
    let (record, status) =
        (admitted.record, if admitted.is_known { "already stored" } else { "stored" });
    write_output(state, &record, options.output.as_deref())?;
    Ok(FinetuneReport {
        model: record.name,
        status,
        parent: start.parent.map(|parent| parent.name),
        task: task.name,
        kind: steps::kind_name(PairKind::Finetune),
        accuracy: tuned.test_accuracy,
        test_images: samples.test.images.len(),
        epochs: tuned.epochs,
        best_epoch: tuned.best_epoch,
        candidates,
        params: record.cost.params,
        seconds,
        output: options.output.clone(),
        skipped: std::mem::take(&mut samples.skipped),
    })
}

fn start(state: &State, model: &str, classes: usize, tuning: &TuningOptions) -> Result<Start> {
    if let Some(parent) = state.store.model_by_name(model)? {
        if let Some(reason) = &parent.not_runnable {
            return Err(Error::input(format!("{model} cannot be fine-tuned: {reason}")));
        }
        return stored_start(state, parent, tuning.from_scratch);
    }
    if model.split_once(':').is_some_and(|(space, _)| spaces::NAMES.contains(&space)) {
        let made = spaces::generate(model, classes, tuning.seed)?;
        let architecture =
            Architecture { space: made.space, config: made.config, numbers: made.numbers };
        let (name, graph, input) = (model.to_owned(), made.graph, made.input);
        let candidate = Candidate { name, graph, input };
        return Ok(Start { candidate, parent: None, architecture: Some(architecture) });
    }
    Err(Error::input(format!(
        "no model is named {model:?}; `tans list` shows the names, and SPACE:CONFIG generates a network (spaces: {})",
        spaces::NAMES.join(", ")
    )))
}

fn stored_start(state: &State, parent: ModelRecord, from_scratch: bool) -> Result<Start> {
    let (graph, input) = admit::load_network(state, &parent)?;
    let architecture = parent.architecture.clone();
    let candidate = Candidate { name: parent.name.clone(), graph, input };
    // Training from random initialisation takes over an architecture, not what its weights have seen.
    let parent = (!from_scratch).then_some(parent);
    Ok(Start { candidate, parent, architecture })
}

fn seen(start: &Start, task: TaskId) -> Vec<TaskId> {
    let mut seen = start.parent.as_ref().map_or_else(Vec::new, |parent| parent.seen.clone());
    if !seen.contains(&task) {
        seen.push(task);
    }
    seen
}

fn new_model(
    state: &State,
    start: &Start,
    samples: &Samples,
    options: &FinetuneOptions,
) -> Result<NewModel> {
    let from = start.candidate.name.replace(':', "-");
    let name = match &options.name {
        Some(name) => name.clone(),
        None => free_name(state, &format!("{from}-on-{}", samples.name))?,
    };
    let parent: Option<&ModelRecord> = start.parent.as_ref();
    Ok(NewModel {
        name,
        parent: parent.map(|parent| parent.id),
        license: options.license.clone().or_else(|| parent.and_then(|it| it.license.clone())),
        tags: options.tags.clone(),
        architecture: start.architecture.clone(),
        class_names: samples.class_names.clone(),
        benchmark: options.benchmark,
        limits: as_its_start(),
        ..NewModel::default()
    })
}

/// The constants of a network were held to a limit when it was let in; its child makes the same ones.
fn as_its_start() -> Limits {
    Limits { constant_bytes_max: u64::MAX, ..Limits::default() }
}

fn free_name(state: &State, wanted: &str) -> Result<String> {
    let mut name = wanted.to_owned();
    let mut number = 2;
    while state.store.model_by_name(&name)?.is_some() {
        name = format!("{wanted}-{number}");
        number += 1;
    }
    Ok(name)
}

fn write_output(state: &State, record: &ModelRecord, output: Option<&Path>) -> Result<()> {
    let Some(output) = output else { return Ok(()) };
    let bytes = network_file::encode(&state.store, record, Format::of(output)?)?;
    steps::write_file(output, &bytes)
}
