//! Fine-tunes a network on the user's dataset and stores the result as a new model.

use crate::graph::formats::onnx;
use crate::graph::input::InputContract;
use crate::graph::{Graph, spaces};
use crate::state::State;
use crate::steps::admit::{self, Bench, NewModel, NewNetwork};
use crate::steps::benchmark::Benchmark;
use crate::steps::dataset::{self, DatasetSource, SampleOptions, Samples};
use crate::steps::fit::EpochReport;
use crate::steps::tuning::{self, TuningOptions};
use crate::steps::{self, admit_name};
use crate::{Error, Observer, Result};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;
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
    /// Also write it here as ONNX.
    pub output: Option<PathBuf>,
    /// How much of the dataset is used.
    pub sample: SampleOptions,
}

/// What `finetune` made.
#[derive(Clone, Debug, Serialize)]
pub struct FinetuneReport {
    /// Name of the new model.
    pub model: String,
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
    /// Parameters.
    pub params: u64,
    /// Seconds of training, the first forward pass to the test score.
    pub seconds: f64,
    /// The ONNX file.
    pub output: Option<PathBuf>,
    /// (file, reason) of images that could not be read.
    pub skipped: Vec<(String, String)>,
}

/// Where a fine-tuning starts.
struct Start {
    graph: Graph,
    input: InputContract,
    parent: Option<ModelRecord>,
    architecture: Option<Architecture>,
}

pub(crate) fn run(
    state: &State,
    model: &str,
    source: &DatasetSource,
    options: &FinetuneOptions,
    observer: Observer<'_>,
) -> Result<FinetuneReport> {
    if let Some(name) = &options.name {
        admit_name::refuse_taken(&state.store, name)?;
    }
    let mut samples = dataset::samples(source, &options.sample)?;
    let tuning = &options.tuning;
    let start = start(state, model, samples.class_names.len(), tuning)?;
    options.output.as_deref().map_or(Ok(()), steps::refuse_missing_folder)?;
    let clock = Instant::now();
    let tuned = tuning::tune(
        &start.graph,
        &start.input,
        &samples,
        &options.tuning,
        state.options.device,
        &mut *observer,
    )?;
    let seconds = clock.elapsed().as_secs_f64();
    let (task, is_new) = dataset::task_of(state, &samples, options.sample.seed, &mut *observer)?;
    let new = new_model(state, model, &start, &samples, options)?;
    let new = NewModel {
        seen: seen(&start, task.id),
        results: vec![(task.id, PairKind::Finetune, tuned.test_accuracy)],
        tasks: is_new.then(|| task.clone()).into_iter().collect(),
        ..new
    };
    // The very same network (same start, data and seed) is stored once and only gains the result.
    let network = NewNetwork { graph: &tuned.graph, input: &start.input };
    let record = admit::admit(state, &Bench::load(state)?, network, new, observer)?.record;
    write_output(state, &record, options.output.as_deref())?;
    Ok(FinetuneReport {
        model: record.name,
        parent: start.parent.map(|parent| parent.name),
        task: task.name,
        kind: steps::kind_name(PairKind::Finetune),
        accuracy: tuned.test_accuracy,
        test_images: samples.test.images.len(),
        epochs: tuned.epochs,
        best_epoch: tuned.best_epoch,
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
        let (graph, input) = admit::load_network(state, &parent)?;
        let architecture = parent.architecture.clone();
        // Training from random initialisation takes over an architecture, not what its weights have seen.
        let parent = (!tuning.from_scratch).then_some(parent);
        return Ok(Start { graph, input, parent, architecture });
    }
    if model.split_once(':').is_some_and(|(space, _)| spaces::NAMES.contains(&space)) {
        let made = spaces::generate(model, classes, tuning.seed)?;
        let architecture =
            Architecture { space: made.space, config: made.config, numbers: made.numbers };
        let (graph, input, architecture) = (made.graph, made.input, Some(architecture));
        return Ok(Start { graph, input, parent: None, architecture });
    }
    Err(Error::input(format!(
        "no model is named {model:?}; `tans list` shows the names, and SPACE:CONFIG generates a network (spaces: {})",
        spaces::NAMES.join(", ")
    )))
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
    model: &str,
    start: &Start,
    samples: &Samples,
    options: &FinetuneOptions,
) -> Result<NewModel> {
    let name = match &options.name {
        Some(name) => name.clone(),
        None => free_name(state, &format!("{}-on-{}", model.replace(':', "-"), samples.name))?,
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
        ..NewModel::default()
    })
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

fn write_output(
    state: &State,
    record: &ModelRecord,
    output: Option<&std::path::Path>,
) -> Result<()> {
    let Some(output) = output else { return Ok(()) };
    let graph = steps::stored_graph(&state.store, record)?;
    let bytes = onnx::write(&graph, &steps::metadata(record)?)?;
    steps::write_file(output, &bytes)
}
