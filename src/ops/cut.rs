//! Cuts a smaller network out of a stored supernet and stores it as a new model.

use crate::graph::exec::Network;
use crate::graph::spaces::elastic::{Supernet, sort_channels};
use crate::graph::spaces::{Generated, specification};
use crate::state::State;
use crate::steps::admit::{self, Bench, NewModel, NewNetwork};
use crate::steps::benchmark::Benchmark;
use crate::steps::cutting::{self, Choice, Tried, Workshop};
use crate::steps::dataset::{self, DatasetSource, SampleOptions, Samples};
use crate::steps::embed::Known;
use crate::steps::network_file::{self, Format};
use crate::steps::{self, admit_name, probe, tuned};
use crate::{Error, Observer, Result};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;
use tans_storage::{Architecture, ModelRecord, PairKind, TaskId, TaskRecord};

/// Options of `cut`.
#[derive(Clone, Debug)]
pub struct CutOptions {
    /// Dataset that the batch-norm statistics of the cut network are estimated on, and its accuracy is measured; without
    /// one it keeps those of the supernet, which do not fit a smaller network.
    pub calibrate: Option<DatasetSource>,
    /// Images of the training part that statistics are estimated on, at most. Default 256.
    pub images: usize,
    /// Bring the channels into the order of their importance first: for a network that was trained at full size only. A
    /// supernet that was trained at all expansions has its order. Default false.
    pub sort: bool,
    /// Seed of the subnets and of the images that are drawn. Default 0.
    pub seed: u64,
    /// Name of the new model; made from supernet and subnet where none is given.
    pub name: Option<String>,
    /// SPDX expression; the supernet's where none is given.
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

impl Default for CutOptions {
    fn default() -> Self {
        Self {
            calibrate: None,
            images: 256,
            sort: false,
            seed: 0,
            name: None,
            license: None,
            tags: BTreeMap::new(),
            benchmark: Benchmark::default(),
            output: None,
            sample: SampleOptions::default(),
        }
    }
}

/// What `cut` made.
#[derive(Clone, Debug, Serialize)]
pub struct CutReport {
    /// Name of the new model.
    pub model: String,
    /// `stored`, or `already stored` when the very same network was there under its first name; name, license and tags of
    /// the options are not applied then.
    pub status: &'static str,
    /// Name of the supernet.
    pub parent: String,
    /// `SPACE:CONFIG@SIDE`.
    pub architecture: String,
    /// Parameters.
    pub params: u64,
    /// Multiply-accumulate operations of one sample.
    pub macs: u64,
    /// Images that its statistics were estimated on; 0 without a dataset.
    pub calibrated_images: usize,
    /// Name of the task that the dataset is stored as.
    pub task: Option<String>,
    /// Top-1 accuracy of a ridge probe on the test part, 0..=1; recorded.
    pub probe_accuracy: Option<f32>,
    /// Top-1 accuracy of its own head on the test part, 0..=1, where the supernet was trained for these very classes;
    /// recorded as that of a fine-tuned model.
    pub accuracy: Option<f32>,
    /// Images of the test part.
    pub test_images: usize,
    /// Subnets that were looked at under a bound, in the order they were drawn.
    pub candidates: Vec<Tried>,
    /// Seconds of choosing, cutting and measuring.
    pub seconds: f64,
    /// The file written.
    pub output: Option<PathBuf>,
    /// (file, reason) of images that could not be read.
    pub skipped: Vec<(String, String)>,
}

/// What a dataset says of the new model.
#[derive(Default)]
struct Measured {
    task: Option<TaskRecord>,
    is_new: bool,
    probe: Option<f32>,
    own: Option<f32>,
}

/// Cuts a subnet out of the supernet of that name.
pub(crate) fn run(
    state: &State,
    model: &str,
    choice: &Choice,
    options: &CutOptions,
    observer: Observer<'_>,
) -> Result<CutReport> {
    state.require_writer()?;
    check(state, choice, options)?;
    let clock = Instant::now();
    let parent = steps::model(&state.store, model)?;
    let space = supernet(&parent)?;
    let (mut graph, _) = admit::load_network(state, &parent)?;
    if options.sort {
        sort_channels(&mut graph)?;
    }
    let samples = options.calibrate.as_ref();
    let samples = samples.map(|it| dataset::samples(it, &options.sample)).transpose()?;
    let workshop = Workshop {
        space,
        graph: &graph,
        samples: samples.as_ref(),
        images: options.images,
        seed: options.seed,
        device: state.options.device,
    };
    let (subnet, candidates) = workshop.choose(choice, &mut *observer)?;
    let (made, calibrated_images) = workshop.make(&subnet)?;
    // Held until the record is written, which names the task's tensors.
    let mut staging = state.store.staging();
    let mut measured = Measured::default();
    if let Some(samples) = &samples {
        let seed = options.sample.seed;
        let (task, is_new) = dataset::task_of(state, &mut staging, samples, seed, &mut *observer)?;
        (measured.task, measured.is_new) = (Some(task), is_new);
        measure(state, &parent, &made, samples, &mut measured)?;
    }
    let seconds = clock.elapsed().as_secs_f64();
    let new = new_model(state, &parent, &made, &measured, options)?;
    let network = NewNetwork { graph: &made.graph, input: &made.input };
    let stored = admit::admit(state, &Bench::load(state)?, network, new, observer)?;
    write_output(state, &stored.record, options)?;
    Ok(CutReport {
        model: stored.record.name,
        status: if stored.is_known { "already stored" } else { "stored" },
        parent: parent.name,
        architecture: subnet.spec(),
        params: stored.record.cost.params,
        macs: stored.record.cost.macs,
        calibrated_images,
        task: measured.task.map(|task| task.name),
        probe_accuracy: measured.probe,
        accuracy: measured.own,
        test_images: samples.as_ref().map_or(0, |samples| samples.test.images.len()),
        candidates,
        seconds,
        output: options.output.clone(),
        skipped: samples.map_or_else(Vec::new, |samples| samples.skipped),
    })
}

/// What can be refused before anything is cut.
fn check(state: &State, choice: &Choice, options: &CutOptions) -> Result<()> {
    if let Choice::Within { params: None, macs: None, .. } = choice {
        return Err(Error::input(
            "expected a subnet, or a bound of parameters or MACs, found none",
        ));
    }
    if let Choice::Within { candidates: 0, .. } = choice {
        return Err(Error::input("candidates: expected at least 1, found 0"));
    }
    if options.images < 2 {
        return Err(Error::input(format!(
            "images: expected at least 2 to estimate statistics from, found {}",
            options.images
        )));
    }
    if let Some(name) = &options.name {
        admit_name::refuse_taken(&state.store, name)?;
    }
    let Some(output) = &options.output else { return Ok(()) };
    Format::of(output)?;
    steps::refuse_missing_folder(output)
}

fn supernet(model: &ModelRecord) -> Result<Supernet> {
    let refuse = |found: &str| {
        Error::input(format!(
            "{}: expected a supernet, found {found}: `tans ingest --space mobilenetv3:supernet` takes one in, `tans \
            finetune ZOO mobilenetv3_tiny:supernet DATASET --elastic` trains one",
            model.name
        ))
    };
    let Some(Architecture { space, config, .. }) = &model.architecture else {
        return Err(refuse("a network of no known space"));
    };
    let side = steps::input_contract(model)?.height;
    let spec = specification(space, config, side);
    Supernet::parse(&spec).map_err(|_| refuse(&spec))
}

fn measure(
    state: &State,
    parent: &ModelRecord,
    made: &Generated,
    samples: &Samples,
    measured: &mut Measured,
) -> Result<()> {
    let device = state.options.device;
    let network = Network::new(&made.graph, &made.input, device)?;
    // Its statistics, and perhaps its parent, come from the training part.
    measured.probe = Some(probe::probe(&network, samples, &[])?.held_out);
    // Classes of other datasets may have the same names.
    if parent.seen.contains(&samples.task) && parent.class_names == samples.class_names {
        measured.own = Some(cutting::own_accuracy(&made.graph, &made.input, samples, device)?);
    }
    Ok(())
}

fn new_model(
    state: &State,
    parent: &ModelRecord,
    made: &Generated,
    measured: &Measured,
    options: &CutOptions,
) -> Result<NewModel> {
    let name = match &options.name {
        Some(name) => name.clone(),
        None => tuned::free_name(state, &format!("{}-{}", parent.name, made.config))?,
    };
    let task = measured.task.as_ref();
    let of_task = |id: TaskId| {
        let probe = measured.probe.map(|value| (id, PairKind::Probe, value));
        probe.into_iter().chain(measured.own.map(|value| (id, PairKind::Finetune, value)))
    };
    let results: Vec<Known> = task.map_or_else(Vec::new, |task| of_task(task.id).collect());
    // Its statistics come from the dataset's images.
    let new = task.map(|task| task.id).filter(|id| !parent.seen.contains(id));
    Ok(NewModel {
        name,
        parent: Some(parent.id),
        seen: parent.seen.iter().copied().chain(new).collect(),
        license: options.license.clone().or_else(|| parent.license.clone()),
        tags: options.tags.clone(),
        architecture: Some(Architecture {
            space: made.space.clone(),
            config: made.config.clone(),
            numbers: made.numbers.clone(),
        }),
        class_names: parent.class_names.clone(),
        benchmark: options.benchmark,
        limits: tuned::as_its_start(),
        tasks: task.filter(|_| measured.is_new).cloned().into_iter().collect(),
        results,
        ..NewModel::default()
    })
}

fn write_output(state: &State, record: &ModelRecord, options: &CutOptions) -> Result<()> {
    let Some(output) = &options.output else { return Ok(()) };
    let bytes = network_file::encode(&state.store, record, Format::of(output)?)?;
    steps::write_file(output, &bytes)
}
