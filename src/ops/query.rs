//! Which stored networks should be fine-tuned on this dataset?

use crate::encoder::TaskEncoding;
#[cfg(feature = "torch")]
use crate::error::ErrorKind;
use crate::state::{self, Generation, State};
use crate::steps::dataset::{self, DatasetSource, SampleOptions};
use crate::steps::known;
use crate::steps::search::Found;
use crate::steps::{self, summary};
use crate::{Error, Observer, Result};
use serde::Serialize;
use std::time::Instant;
use tans_index::Filter;
#[cfg(feature = "torch")]
use tans_storage::ModelRecord;
use tans_storage::TaskId;

/// Options of `query`.
#[derive(Clone, Debug)]
pub struct QueryOptions {
    /// Hits wanted, at least 1. Default 5.
    pub k: usize,
    /// Conditions on the models.
    pub filter: Filter,
    /// Probe this many of the first candidates on the query's training part and rank them again. Default 0.
    pub rerank: usize,
    /// How much of the dataset is used.
    pub sample: SampleOptions,
}

impl Default for QueryOptions {
    fn default() -> Self {
        Self { k: 5, filter: Filter::default(), rerank: 0, sample: SampleOptions::default() }
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
    /// Accuracy measured on this very dataset earlier, which the prediction takes in; `None` where there is none.
    pub measured: Option<MeasuredHere>,
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
    /// Where the time went.
    pub times_ms: QueryTimes,
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
    state.refresh()?;
    let generation = state.generation();
    let mut times = QueryTimes::default();
    let start = Instant::now();
    let query = dataset::query(state, source, &options.sample, &mut *observer)?;
    times.backbone = query.backbone_ms;
    times.dataset = milliseconds(start) - query.backbone_ms;

    let start = Instant::now();
    let task = generation.encoders.encode_task(&query.sample)?;
    times.encode = milliseconds(start);

    let start = Instant::now();
    let wanted = options.k.max(options.rerank);
    let asked = (query.task, &task);
    let found = known::answers(state, &generation, asked, &options.filter, wanted)?;
    times.lookup = milliseconds(start);

    let start = Instant::now();
    let mut ranked: Vec<Ranked> = found.into_iter().map(|hit| (hit, None)).collect();
    let mut unprobed = Vec::new();
    if options.rerank > 0 {
        unprobed = rerank(state, &query, &mut ranked, options.rerank, observer)?;
        times.rerank = milliseconds(start);
    }
    let zoo_is_empty = ranked.is_empty() && generation.vector_count() == 0;
    ranked.truncate(options.k);
    let mut hits = Vec::with_capacity(ranked.len());
    for (index, (found, probed)) in ranked.into_iter().enumerate() {
        hits.push(hit(state, index + 1, found, probed)?);
    }
    Ok(QueryReport {
        dataset: query.name,
        hits,
        generation: generation.record.number,
        recipe: generation.encoders.recipe().to_owned(),
        encoders: dataset::hex(&generation.fingerprint),
        nearest_tasks: nearest_tasks(state, &generation, &task)?,
        times_ms: times,
        unprobed,
        skipped: query.skipped,
        zoo_is_empty,
    })
}

/// A model found, and its accuracy in a probe where it was probed.
type Ranked = (Found, Option<f32>);

fn milliseconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

fn hit(state: &State, rank: usize, found: Found, probed_accuracy: Option<f32>) -> Result<Hit> {
    let Found { model, cosine, prediction, measured } = found;
    let measured = measured
        .map(|known| MeasuredHere { accuracy: known.accuracy, kind: steps::kind_name(known.kind) });
    let cost = state::attributes(&model);
    Ok(Hit {
        rank,
        cosine,
        predicted_accuracy: prediction.accuracy,
        interval: prediction.interval,
        measured,
        probed_accuracy,
        source_tasks: summary::task_names(&state.store, &model.seen)?,
        params: cost.params,
        macs: cost.macs,
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
    for &(index, similarity) in task.nearest.iter().take(3) {
        let Some(id) = basis.get(index) else { continue };
        for name in summary::task_names(&state.store, &[TaskId(*id)])? {
            nearest.push((name, similarity));
        }
    }
    Ok(nearest)
}

/// Weight of the prediction against the probe's standardised accuracy (DESIGN: z + 0.5-1 prior).
#[cfg(feature = "torch")]
const PRIOR_WEIGHT: f32 = 0.75;

/// Probes the first `count` candidates and orders them by probe and prediction together; the rest keep their order.
/// Returns (model, reason) of those that could not be probed.
#[cfg(feature = "torch")]
fn rerank(
    state: &State,
    query: &dataset::Query,
    ranked: &mut [Ranked],
    count: usize,
    observer: Observer<'_>,
) -> Result<Vec<(String, String)>> {
    let samples = query.samples.as_ref().ok_or_else(|| {
        Error::input("re-ranking runs networks on images: expected a dataset of images, found rows or a stored task")
    })?;
    let total = count.min(ranked.len());
    let candidates = &mut ranked[..total];
    let mut unprobed = Vec::new();
    for (done, (found, probed)) in candidates.iter_mut().enumerate() {
        let name = &found.model.name;
        crate::progress::report(observer, "probing candidates", name, done, total)?;
        match probe(state, &found.model, samples) {
            Ok(accuracy) => *probed = Some(accuracy),
            // A reference, or a network that cannot run or gives NaN, keeps its predicted standing.
            Err(error) if error.kind() == ErrorKind::Input => {
                unprobed.push((name.clone(), error.to_string()));
            }
            Err(error) => return Err(error),
        }
    }
    let measured: Vec<f32> = candidates.iter().filter_map(|(_, probed)| *probed).collect();
    let (probe_mean, probe_sd) = mean_sd(&measured);
    let predicted: Vec<f32> =
        candidates.iter().map(|(found, _)| found.prediction.accuracy).collect();
    let (prior_mean, prior_sd) = mean_sd(&predicted);
    let score = |(found, probed): &Ranked| {
        let prior = (found.prediction.accuracy - prior_mean) / prior_sd;
        probed.map_or(prior, |accuracy| (accuracy - probe_mean) / probe_sd + PRIOR_WEIGHT * prior)
    };
    candidates.sort_by(|a, b| score(b).total_cmp(&score(a)));
    Ok(unprobed)
}

#[cfg(feature = "torch")]
fn probe(state: &State, model: &ModelRecord, samples: &dataset::Samples) -> Result<f32> {
    use crate::steps::{admit, probe};
    let network = admit::load_runnable(state, model)?;
    probe::probe_loo(&network, samples.class_names.len(), &samples.train)
}

#[cfg(feature = "torch")]
fn mean_sd(values: &[f32]) -> (f32, f32) {
    let n = values.len().max(1) as f32;
    let mean = values.iter().sum::<f32>() / n;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f32>() / n;
    (mean, variance.sqrt().max(0.01))
}

#[cfg(not(feature = "torch"))]
fn rerank(
    _: &State,
    _: &dataset::Query,
    _: &mut [Ranked],
    _: usize,
    _: Observer<'_>,
) -> Result<Vec<(String, String)>> {
    Err(Error::input("this build has no libtorch (feature `torch`): it cannot re-rank by probes"))
}
