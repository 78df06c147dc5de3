//! Which stored networks should be fine-tuned on this dataset?

use crate::encoder::TaskEncoding;
use crate::state::{self, Generation, State};
use crate::steps::dataset::{self, DatasetSource, SampleOptions};
use crate::steps::search::{self, Found};
use crate::steps::summary;
use crate::{Error, Observer, Result};
use serde::Serialize;
use std::time::Instant;
use tans_index::Filter;
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
    let found = search::search(state, &generation, &task, &options.filter, wanted)?;
    times.lookup = milliseconds(start);

    let start = Instant::now();
    let mut ranked: Vec<(Found, Option<f32>)> = found.into_iter().map(|hit| (hit, None)).collect();
    if options.rerank > 0 {
        ranked = rerank(state, &query, ranked, options.rerank, observer)?;
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
        skipped: query.skipped,
        zoo_is_empty,
    })
}

fn milliseconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

fn hit(state: &State, rank: usize, found: Found, probed_accuracy: Option<f32>) -> Result<Hit> {
    let Found { model, cosine, prediction } = found;
    let cost = state::attributes(&model);
    Ok(Hit {
        rank,
        cosine,
        predicted_accuracy: prediction.accuracy,
        interval: prediction.interval,
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
#[cfg(feature = "torch")]
fn rerank(
    state: &State,
    query: &dataset::Query,
    mut ranked: Vec<(Found, Option<f32>)>,
    count: usize,
    observer: Observer<'_>,
) -> Result<Vec<(Found, Option<f32>)>> {
    use crate::steps::{admit, probe};
    let samples = query.samples.as_ref().ok_or_else(|| {
        Error::input("re-ranking runs networks on images: expected a dataset of images, found rows or a stored task")
    })?;
    let tail = ranked.split_off(count.min(ranked.len()));
    let total = ranked.len();
    for (done, (found, probed)) in ranked.iter_mut().enumerate() {
        crate::progress::report(observer, "probing candidates", &found.model.name, done, total)?;
        // A reference or a network that cannot run keeps its predicted place.
        let Ok(network) = admit::load_runnable(state, &found.model) else { continue };
        let classes = samples.class_names.len();
        *probed = Some(probe::probe_loo(&network, classes, &samples.train)?);
    }
    let measured: Vec<f32> = ranked.iter().filter_map(|(_, probed)| *probed).collect();
    let (probe_mean, probe_sd) = mean_sd(&measured);
    let predicted: Vec<f32> = ranked.iter().map(|(found, _)| found.prediction.accuracy).collect();
    let (prior_mean, prior_sd) = mean_sd(&predicted);
    let score = |(found, probed): &(Found, Option<f32>)| {
        let prior = (found.prediction.accuracy - prior_mean) / prior_sd;
        probed.map_or(prior, |accuracy| (accuracy - probe_mean) / probe_sd + PRIOR_WEIGHT * prior)
    };
    ranked.sort_by(|a, b| score(b).total_cmp(&score(a)));
    ranked.extend(tail);
    Ok(ranked)
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
    _: Vec<(Found, Option<f32>)>,
    _: usize,
    _: Observer<'_>,
) -> Result<Vec<(Found, Option<f32>)>> {
    Err(Error::input("this build has no libtorch (feature `torch`): it cannot re-rank by probes"))
}
