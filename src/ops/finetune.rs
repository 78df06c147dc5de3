//! Fine-tunes a network on the user's dataset and stores the result as a new model.

use crate::graph::exec::Evaluation;
use crate::graph::head::{NO_HEAD, find_head};
use crate::graph::spaces;
use crate::state::State;
use crate::steps::admit::Bench;
use crate::steps::benchmark::Benchmark;
use crate::steps::dataset::{self, DatasetSource, SampleOptions, Samples};
use crate::steps::fit::EpochReport;
use crate::steps::network_file::{self, Format};
use crate::steps::search::{self, Found};
use crate::steps::tuned::{self, Labels, Start, Trained};
use crate::steps::tuning::{self, Candidate, Course, Raced, TuningOptions};
use crate::steps::{self, admit_name, known};
use crate::{Error, Observer, Result};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;
use tans_index::Filter;
use tans_storage::{ModelRecord, PairKind};

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
    /// The epoch whose weights were kept, from 1; 0 where no epoch was better in validation than the start: the head of
    /// a ridge probe and, where batch norm is trained, statistics of these images.
    pub best_epoch: usize,
    /// What the start did in validation; `None` where its weights could not be kept.
    pub start: Option<Evaluation>,
    /// Epochs that were done before, by the same training when it was stopped.
    pub resumed_epochs: usize,
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
        let start = Start::stored(state, hit.model, from_scratch)?;
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
    state.require_writer()?;
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
    let course = Course::new(&state.options, &samples, &options.tuning);
    let candidates: Vec<&Candidate> = starts.iter().map(|start| &start.candidate).collect();
    let (winner, tuned, candidates) = tuning::race(&course, &candidates, &mut *observer)?;
    let seconds = clock.elapsed().as_secs_f64();
    let start = starts.swap_remove(winner);
    let labels = Labels {
        name: options.name.as_deref(),
        license: options.license.as_deref(),
        tags: &options.tags,
        benchmark: options.benchmark,
    };
    let trained = Trained { start: &start, tuned: &tuned, samples: &samples };
    let bench = Bench::load(state)?;
    let seed = options.sample.seed;
    let stored = tuned::store(state, &bench, (trained, seed), &labels, observer)?;
    let (record, task) = (stored.record, stored.task);
    write_output(state, &record, options.output.as_deref())?;
    Ok(FinetuneReport {
        model: record.name,
        status: stored.status,
        parent: start.parent.map(|parent| parent.name),
        task: task.name,
        kind: PairKind::Finetune.name(),
        accuracy: tuned.test_accuracy,
        test_images: samples.test.images.len(),
        epochs: tuned.epochs,
        best_epoch: tuned.best_epoch,
        start: tuned.start,
        resumed_epochs: tuned.resumed_epochs,
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
        return Start::stored(state, parent, tuning.from_scratch);
    }
    if model.split_once(':').is_some_and(|(space, _)| spaces::NAMES.contains(&space)) {
        return Start::generated(model, classes, tuning.seed);
    }
    Err(Error::input(format!(
        "no model is named {model:?}; `tans list` shows the names, and SPACE:CONFIG generates a network (spaces: {})",
        spaces::NAMES.join(", ")
    )))
}

fn write_output(state: &State, record: &ModelRecord, output: Option<&Path>) -> Result<()> {
    let Some(output) = output else { return Ok(()) };
    let bytes = network_file::encode(&state.store, record, Format::of(output)?)?;
    steps::write_file(output, &bytes)
}
