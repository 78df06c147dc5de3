//! Which stored networks should be fine-tuned on this dataset?

use crate::encoder::TaskEncoding;
use crate::state::{self, Generation, State};
use crate::steps::dataset::{self, DatasetSource, SampleOptions};
use crate::steps::known;
use crate::steps::search::{self, Found};
use crate::steps::summary;
use crate::{Error, Observer, Result};
use serde::Serialize;
use std::time::{Duration, Instant};
use tans_index::Filter;
use tans_storage::TaskId;

/// Options of `query`.
#[derive(Clone, Debug)]
pub struct QueryOptions {
    /// Hits wanted, at least 1. Default 5.
    pub k: usize,
    /// Conditions on the models.
    pub filter: Filter,
    /// Probe up to this many candidates on the query's training part, each time the one that promises most, and rank
    /// all of them again; fewer where no further probe is worth its time. Default 0.
    pub rerank: usize,
    /// Begin no probe later than this long after the first one; without `rerank`, their number is not limited.
    /// Default `None`.
    pub budget: Option<Duration>,
    /// How much of the dataset is used.
    pub sample: SampleOptions,
}

impl Default for QueryOptions {
    fn default() -> Self {
        Self {
            k: 5,
            filter: Filter::default(),
            rerank: 0,
            budget: None,
            sample: SampleOptions::default(),
        }
    }
}

/// Models that probes choose from, at least.
const CANDIDATES: usize = 1024;

impl QueryOptions {
    fn is_probing(&self) -> bool {
        self.rerank > 0 || self.budget.is_some()
    }

    /// Models to look up: probes choose from many and move what is predicted of them all.
    fn wanted(&self) -> usize {
        if self.is_probing() { self.k.max(self.rerank).max(CANDIDATES) } else { self.k }
    }
}

/// One model found.
#[derive(Clone, Debug, Serialize)]
pub struct Hit {
    /// From 1.
    pub rank: usize,
    /// Name of the model.
    pub model: String,
    /// Cosine of its vector with the dataset's.
    pub cosine: f32,
    /// Predicted accuracy after a ridge probe, 0..=1.
    pub predicted_accuracy: f32,
    /// 90 % interval of the prediction, `[lo, hi]`.
    pub interval: [f32; 2],
    /// Its results on this very dataset, which the prediction takes in: fine-tuned before probed before reported.
    pub measured: Vec<MeasuredHere>,
    /// Leave-one-out accuracy measured on the query's training part, where the hit was probed.
    pub probed_accuracy: Option<f32>,
    /// Names of the tasks that the model was trained on.
    pub source_tasks: Vec<String>,
    /// Parameters; `None` where unknown.
    pub params: Option<u64>,
    /// Multiply-accumulate operations of one sample; `None` where unknown.
    pub macs: Option<u64>,
    /// SPDX expression.
    pub license: Option<String>,
    /// `stored`, `reference`, or the reason why it cannot be run.
    pub status: String,
}

/// A result that the zoo holds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct MeasuredHere {
    /// 0..=1.
    pub accuracy: f32,
    /// `probe`, `finetune` or `reported`.
    pub kind: &'static str,
}

/// Where the time of a query went, in milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct QueryTimes {
    /// Reading and decoding the dataset, and its landmarks.
    pub dataset: f64,
    /// The backbone (0 where rows were cached or stored).
    pub backbone: f64,
    /// The dataset encoder.
    pub encode: f64,
    /// Index search, records and predictions.
    pub lookup: f64,
    /// Probes of the re-rank.
    pub rerank: f64,
}

/// Answer of `query`.
#[derive(Clone, Debug, Serialize)]
pub struct QueryReport {
    /// What was asked about.
    pub dataset: String,
    /// Best first.
    pub hits: Vec<Hit>,
    /// Number of the generation that answered.
    pub generation: u64,
    /// Recipe of its encoders.
    pub recipe: String,
    /// Fingerprint of its encoders.
    pub encoders: String,
    /// Names and kernel values of the most similar tasks.
    pub nearest_tasks: Vec<(String, f32)>,
    /// A task of the dataset's name that has results, but on other images, so that they are not taken in.
    pub namesake: Option<String>,
    /// Where the time went.
    pub times_ms: QueryTimes,
    /// Networks that were probed.
    pub probes: usize,
    /// (model, reason) of candidates that were to be probed and could not be; they rank by their prediction.
    pub unprobed: Vec<(String, String)>,
    /// (file, reason) of images that could not be read.
    pub skipped: Vec<(String, String)>,
    /// Whether there is nothing to find, whatever the filter.
    pub zoo_is_empty: bool,
}

pub(crate) fn run(
    state: &State,
    source: &DatasetSource,
    options: &QueryOptions,
    observer: Observer<'_>,
) -> Result<QueryReport> {
    if options.k == 0 {
        return Err(Error::input("k: expected at least 1, found 0"));
    }
    refuse_missing_device(state)?;
    state.refresh()?;
    let generation = state.generation();
    generation.require_whole()?;
    // The backbone takes seconds, and is not asked for an answer that is empty whatever it says.
    if !search::finds_any(state, &generation, &options.filter)? {
        return Ok(nothing(&generation, dataset::check(state, source, &options.sample)?));
    }
    let mut times = QueryTimes::default();
    let start = Instant::now();
    let query = dataset::query(state, source, &options.sample, &mut *observer)?;
    times.backbone = query.backbone_ms;
    times.dataset = milliseconds(start) - query.backbone_ms;

    let start = Instant::now();
    let task = generation.encoders.encode_task(&query.sample)?;
    times.encode = milliseconds(start);

    let start = Instant::now();
    let asked = (query.task, &task);
    let mut found = known::answers(state, &generation, asked, &options.filter, options.wanted())?;
    times.lookup = milliseconds(start);

    let start = Instant::now();
    let mut unprobed = Vec::new();
    if options.is_probing() {
        let asked = (&query, &task);
        unprobed = rerank(state, &generation, asked, &mut found, (options, observer))?;
        times.rerank = milliseconds(start);
    }
    let probes = found.iter().filter(|hit| hit.probed.is_some()).count();
    found.truncate(options.k);
    let hits = found.into_iter().enumerate();
    let hits = hits.map(|(index, found)| hit(state, index + 1, found)).collect::<Result<_>>()?;
    let namesake = namesake(state, query.task, &query.name)?;
    Ok(QueryReport {
        dataset: query.name,
        hits,
        generation: generation.record.number,
        recipe: generation.encoders.recipe().to_owned(),
        encoders: dataset::hex(&generation.fingerprint),
        nearest_tasks: nearest_tasks(state, &generation, &task)?,
        namesake,
        times_ms: times,
        probes,
        unprobed,
        skipped: query.skipped,
        zoo_is_empty: false,
    })
}

/// A device that was named must be there, whether or not this query needs it; any other is looked for when it is needed.
#[cfg(feature = "torch")]
fn refuse_missing_device(state: &State) -> Result<()> {
    use crate::graph::exec::{Device, device};
    match state.options.device {
        named @ Device::Cuda(_) => Ok(device::check(named)?),
        Device::Auto | Device::Cpu => Ok(()),
    }
}

#[cfg(not(feature = "torch"))]
fn refuse_missing_device(_: &State) -> Result<()> {
    Ok(())
}

/// The answer where no model matches.
fn nothing(generation: &Generation, dataset: String) -> QueryReport {
    QueryReport {
        dataset,
        hits: Vec::new(),
        generation: generation.record.number,
        recipe: generation.encoders.recipe().to_owned(),
        encoders: dataset::hex(&generation.fingerprint),
        nearest_tasks: Vec::new(),
        namesake: None,
        times_ms: QueryTimes::default(),
        probes: 0,
        unprobed: Vec::new(),
        skipped: Vec::new(),
        zoo_is_empty: !generation.has_vectors(),
    }
}

/// A stored task of this name that has results and is another one than `task`, if that is not stored.
fn namesake(state: &State, task: Option<TaskId>, name: &str) -> Result<Option<String>> {
    let Some(task) = task else { return Ok(None) };
    let Some(other) = state.store.task_by_name(name)? else { return Ok(None) };
    let is_known = other.id == task || state.store.task(task)?.is_some();
    let has_results = !is_known && !state.store.pairs_of_task(other.id)?.is_empty();
    Ok(has_results.then_some(other.name))
}

fn milliseconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

fn hit(state: &State, rank: usize, found: Found) -> Result<Hit> {
    let Found { model, cosine, prediction, measured, probed } = found;
    let measured = measured.into_iter();
    let measured =
        measured.map(|known| MeasuredHere { accuracy: known.accuracy, kind: known.kind.name() });
    let cost = state::attributes(&model);
    Ok(Hit {
        rank,
        cosine,
        predicted_accuracy: prediction.accuracy,
        interval: prediction.interval,
        measured: measured.collect(),
        probed_accuracy: probed,
        source_tasks: summary::task_names(&state.store, &model.seen)?,
        params: cost.params,
        macs: cost.macs,
        status: summary::status(&model),
        license: model.license,
        model: model.name,
    })
}

fn nearest_tasks(
    state: &State,
    generation: &Generation,
    task: &TaskEncoding,
) -> Result<Vec<(String, f32)>> {
    let basis = generation.encoders.basis();
    let mut nearest = Vec::new();
    // What rounds to nothing is not similar.
    let similar = task.nearest.iter().filter(|(_, similarity)| *similarity >= 0.005);
    for &(index, similarity) in similar.take(3) {
        let Some(id) = basis.get(index) else { continue };
        // One that was removed since the encoders were learned has no name any more.
        nearest.extend(state.store.task(TaskId(*id))?.map(|task| (task.name, similarity)));
    }
    Ok(nearest)
}

/// Probes candidates and ranks all of them again; (model, reason) of those that could not be probed.
#[cfg(feature = "torch")]
fn rerank(
    state: &State,
    generation: &Generation,
    (query, task): (&dataset::Query, &TaskEncoding),
    found: &mut Vec<Found>,
    (options, observer): (&QueryOptions, Observer<'_>),
) -> Result<Vec<(String, String)>> {
    use crate::steps::rerank::{self, Allowance};
    let samples = query.samples.as_ref().ok_or_else(|| {
        Error::input("re-ranking runs networks on images: expected a dataset of images, found rows or a stored task")
    })?;
    let allowance = Allowance {
        probes: if options.rerank > 0 { options.rerank } else { usize::MAX },
        // One that never ends is none.
        until: options.budget.and_then(|budget| Instant::now().checked_add(budget)),
    };
    rerank::rerank(state, generation, (task, samples), found, (allowance, observer))
}

#[cfg(not(feature = "torch"))]
fn rerank(
    _: &State,
    _: &Generation,
    _: (&dataset::Query, &TaskEncoding),
    _: &mut [Found],
    _: (&QueryOptions, Observer<'_>),
) -> Result<Vec<(String, String)>> {
    Err(Error::input("this build has no libtorch (feature `torch`): it cannot re-rank by probes"))
}
