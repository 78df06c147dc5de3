//! Why does a model stand where it does in the answer for a dataset?

use crate::encoder::TaskEncoding;
use crate::state::{self, Generation, State};
use crate::steps::dataset::{self, DatasetSource, SampleOptions};
use crate::steps::search::{self, Found};
use crate::steps::summary::{self, KnownResult};
use crate::steps::{self, embed, known};
use crate::{Error, Observer, Result};
use serde::Serialize;
use tans_storage::{ModelRecord, TaskId};

/// Sums of a few accuracies differ by no more.
const ROUNDING: f32 = 1e-5;

/// Options of `explain`.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExplainOptions {
    /// How much of the dataset is used.
    pub sample: SampleOptions,
}

/// One addend of the score.
#[derive(Clone, Debug, Serialize)]
pub struct ScoreTerm {
    /// What it stands for.
    pub term: &'static str,
    /// Its part of the cosine; 0 for what moves the prediction alone: results on the dataset itself, and the bounds of an
    /// accuracy.
    pub cosine: f32,
    /// What it adds to the predicted accuracy.
    pub accuracy: f32,
    /// Its size among all terms, by accuracy, 0..=1.
    pub share: f32,
}

/// A task that resembles the dataset.
#[derive(Clone, Debug, Serialize)]
pub struct SimilarTask {
    /// Name of the task.
    pub task: String,
    /// Kernel value, 0..=1; 1 for the very same statistics.
    pub similarity: f32,
    /// Whether the model or an ancestor was trained on it, so that a probe there flatters it.
    pub seen: bool,
    /// What the model measured there.
    pub measured: Vec<KnownResult>,
}

/// A latency and where it was measured.
#[derive(Clone, Debug, Serialize)]
pub struct LatencyReport {
    /// Median of single-sample runs, in milliseconds.
    pub median_ms: f32,
    /// Device.
    pub device: String,
    /// Threads.
    pub threads: u32,
}

/// What running the model costs; `None` where it is not known.
#[derive(Clone, Debug, Serialize)]
pub struct CostReport {
    /// Parameters.
    pub params: Option<u64>,
    /// Whether they were counted in the network; those of a reference are as they were stated.
    pub params_counted: bool,
    /// Multiply-accumulate operations of one sample, counted.
    pub macs: Option<u64>,
    /// Largest sum of live activations of one sample, in bytes: an estimate from shapes.
    pub peak_activation_bytes: Option<u64>,
    /// Measured when the model was stored.
    pub latency: Option<LatencyReport>,
}

/// Answer of `explain`.
#[derive(Clone, Debug, Serialize)]
pub struct ExplainReport {
    /// The dataset.
    pub dataset: String,
    /// The model.
    pub model: String,
    /// Number of the generation that answered.
    pub generation: u64,
    /// Recipe of its encoders.
    pub recipe: String,
    /// The score that ranks: cosine of the two vectors.
    pub cosine: f32,
    /// Estimate: accuracy after a ridge probe, 0..=1.
    pub predicted_accuracy: f32,
    /// 90 % interval of the estimate, `[lo, hi]`.
    pub interval: [f32; 2],
    /// Estimate for a model of cosine 0 on this dataset: what the terms are added to.
    pub expected_accuracy: f32,
    /// What the prediction adds up from, beginning at `expected_accuracy`.
    pub terms: Vec<ScoreTerm>,
    /// Measured: the model's results on this very dataset, where the zoo remembers it.
    pub measured: Vec<KnownResult>,
    /// Results of the model on any task, from which its vector was learned.
    pub results: usize,
    /// Tasks that resemble the dataset, nearest first.
    pub similar_tasks: Vec<SimilarTask>,
    /// What running it costs.
    pub cost: CostReport,
    /// (file, reason) of images that could not be read.
    pub skipped: Vec<(String, String)>,
}

pub(crate) fn run(
    state: &State,
    source: &DatasetSource,
    name: &str,
    options: &ExplainOptions,
    observer: Observer<'_>,
) -> Result<ExplainReport> {
    state.refresh()?;
    let generation = state.generation();
    generation.require_whole()?;
    let model = steps::model(&state.store, name)?;
    let query = dataset::query(state, source, &options.sample, observer)?;
    let task = generation.encoders.encode_task(&query.sample)?;
    let vector = search::vectors(state, &generation, &[model.row])?.remove(0).ok_or_else(|| {
        Error::input(format!("{name} has no vector of the running encoders: run `tans reindex`"))
    })?;
    let cosine = search::cosine(&vector, &task);
    let prediction = generation.encoders.predict(&task, cosine);
    let found = Found::new(model, cosine, prediction);
    let context = embed::Context::load(&state.store, &generation.encoders, &generation.encoded)?;
    let expected = context.expected(&state.store, &found.model)?;
    let mut terms = terms(&generation, &task, (&vector, &expected), cosine);
    let measured = match query.task {
        Some(id) => summary::known_results(&state.store, found.model.row, Some(id))?,
        None => Vec::new(),
    };
    let found = known::answer(state, &generation, (query.task, &task), found)?;
    if found.prediction != prediction {
        let accuracy = found.prediction.accuracy - prediction.accuracy;
        terms.push(ScoreTerm {
            term: match measured.is_empty() {
                true => "results of others on this dataset",
                false => "results on this dataset",
            },
            cosine: 0.0,
            accuracy,
            share: 0.0,
        });
    }
    share_out(&mut terms);
    let Found { model, prediction, .. } = found;
    Ok(ExplainReport {
        generation: generation.record.number,
        recipe: generation.encoders.recipe().to_owned(),
        cosine,
        predicted_accuracy: prediction.accuracy,
        interval: prediction.interval,
        expected_accuracy: generation.encoders.predict(&task, 0.0).accuracy,
        terms,
        measured,
        results: state.store.pairs_of_model(model.row)?.len(),
        similar_tasks: similar_tasks(state, &generation, &task, &model)?,
        cost: cost(&model),
        dataset: query.name,
        model: model.name,
        skipped: query.skipped,
    })
}

fn terms(
    generation: &Generation,
    task: &TaskEncoding,
    (vector, expected): (&[f32], &[f32]),
    cosine: f32,
) -> Vec<ScoreTerm> {
    let encoders = &generation.encoders;
    let terms = encoders.terms(task, vector, expected);
    let with = encoders.predict(task, cosine).accuracy;
    let score = |term: crate::encoder::Term| ScoreTerm {
        term: term.name,
        cosine: term.cosine,
        accuracy: with - encoders.predict(task, cosine - term.cosine).accuracy,
        share: 0.0,
    };
    let mut scores: Vec<ScoreTerm> = terms.into_iter().map(score).collect();
    let sum: f32 = scores.iter().map(|term| term.accuracy).sum();
    let cut = with - encoders.predict(task, 0.0).accuracy - sum;
    if cut.abs() > ROUNDING {
        scores.push(ScoreTerm {
            term: "accuracies end at 0 and 1",
            cosine: 0.0,
            accuracy: cut,
            share: 0.0,
        });
    }
    scores
}

fn share_out(terms: &mut [ScoreTerm]) {
    let total: f32 = terms.iter().map(|term| term.accuracy.abs()).sum();
    for term in terms.iter_mut().filter(|_| total > 0.0) {
        term.share = term.accuracy.abs() / total;
    }
}

fn similar_tasks(
    state: &State,
    generation: &Generation,
    task: &TaskEncoding,
    model: &ModelRecord,
) -> Result<Vec<SimilarTask>> {
    let basis = generation.encoders.basis();
    let mut similar = Vec::new();
    for &(index, similarity) in &task.nearest {
        let Some(&id) = basis.get(index) else { continue };
        // A task that was removed since the encoders were learned has no results either.
        let Some(found) = state.store.task(TaskId(id))? else { continue };
        similar.push(SimilarTask {
            measured: summary::known_results(&state.store, model.row, Some(found.id))?,
            seen: model.seen.contains(&found.id),
            task: found.name,
            similarity,
        });
    }
    Ok(similar)
}

fn cost(model: &ModelRecord) -> CostReport {
    let known = state::attributes(model);
    CostReport {
        params: known.params,
        params_counted: model.graph.is_some(),
        macs: known.macs,
        peak_activation_bytes: known.macs.map(|_| model.cost.peak_activation_bytes),
        latency: model.cost.latency.as_ref().map(|latency| LatencyReport {
            median_ms: latency.median_ms,
            device: latency.device.clone(),
            threads: latency.threads,
        }),
    }
}
