//! Measures stored models on a dataset and records the results.

use crate::state::State;
use crate::steps::admit;
use crate::steps::dataset::{self, DatasetSource, SampleOptions, Samples};
use crate::steps::probe::{self, Estimate};
use crate::steps::tuning::{self, Candidate, Course, TuningOptions};
use crate::steps::{self, results};
use crate::{Error, ErrorKind, Observer, Result};
use serde::Serialize;
use tans_storage::{ModelRecord, PairKind};

/// How accuracy is measured.
#[derive(Clone, Debug, Default)]
pub enum MeasureBy {
    /// Ridge probe of penultimate features: seconds.
    #[default]
    Probe,
    /// Fine-tuning; the tuned weights are thrown away.
    Finetune(TuningOptions),
}

impl MeasureBy {
    fn kind(&self) -> PairKind {
        match self {
            Self::Probe => PairKind::Probe,
            Self::Finetune(_) => PairKind::Finetune,
        }
    }
}

/// Options of `measure`.
#[derive(Clone, Debug, Default)]
pub struct MeasureOptions {
    /// How.
    pub by: MeasureBy,
    /// How much of the dataset is used.
    pub sample: SampleOptions,
    /// Leave out models that have a result of this kind on this dataset, so that an interrupted run goes on. Default
    /// false.
    pub missing: bool,
}

/// One measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Measurement {
    /// Name of the model.
    pub model: String,
    /// Name of the task.
    pub task: String,
    /// `probe` or `finetune`.
    pub kind: &'static str,
    /// Top-1 accuracy that was recorded, 0..=1: of a probe the mean over five seeded splits, so that nearly every image
    /// was tested; after fine-tuning, or where the model learned from this dataset, the one on the test part.
    pub accuracy: f32,
    /// The accuracy of this kind that was recorded before, if it was another one.
    pub replaced: Option<f32>,
    /// Top-1 accuracy on the test part, which neither queries nor fine-tuning look at.
    pub held_out_accuracy: f32,
    /// Images of the test part.
    pub test_images: usize,
    /// Leave-one-out accuracy of the probe on the training part, of the same features; `None` after fine-tuning.
    pub loo_accuracy: Option<f32>,
    /// LogME of the training part; `None` after fine-tuning.
    pub logme: Option<f32>,
    /// Wall clock of the training part's features; `None` after fine-tuning.
    pub seconds: Option<f64>,
}

/// Answer of `measure`.
#[derive(Clone, Debug, Serialize)]
pub struct MeasureReport {
    /// One per model that could be run, in the order asked.
    pub measurements: Vec<Measurement>,
    /// (model, reason) of the others.
    pub unmeasured: Vec<(String, String)>,
    /// (file, reason) of images that could not be read.
    pub skipped: Vec<(String, String)>,
}

/// Measures the named models, or every stored model when `models` is empty.
///
/// # Errors
/// When no model of one or more can be run.
pub(crate) fn run(
    state: &State,
    models: &[String],
    source: &DatasetSource,
    options: &MeasureOptions,
    observer: Observer<'_>,
) -> Result<MeasureReport> {
    state.require_writer()?;
    let mut chosen = choose(state, models)?;
    let samples = dataset::samples(source, &options.sample)?;
    let mut staging = state.store.staging();
    let seed = options.sample.seed;
    let (mut task, is_new) = dataset::task_of(state, &mut staging, &samples, seed, &mut *observer)?;
    if options.missing {
        let known = state.store.pairs_of_task(task.id)?;
        let kind = options.by.kind();
        let measured = |row| known.iter().any(|pair| pair.model == row && pair.kind == kind);
        chosen.retain(|model| !measured(model.row));
    }
    // The task is stored with the first result on it, so that a refusal leaves nothing behind.
    let mut unstored = is_new;
    let mut report =
        MeasureReport { measurements: Vec::new(), unmeasured: Vec::new(), skipped: Vec::new() };
    for (done, model) in chosen.iter().enumerate() {
        crate::progress::report(&mut *observer, "measuring", &model.name, done, chosen.len())?;
        let kind = options.by.kind();
        match measure_one(state, model, &samples, options, &mut *observer) {
            Ok(Measured { accuracy, held_out, estimate }) => {
                if std::mem::take(&mut unstored) {
                    task = results::commit_new_task(state, task)?;
                }
                let result = [(task.id, kind, accuracy)];
                let replaced = results::differences(&state.store, model.row, &result, &result)?;
                results::record_results(state, model, &result)?;
                report.measurements.push(Measurement {
                    model: model.name.clone(),
                    task: task.name.clone(),
                    kind: kind.name(),
                    accuracy,
                    replaced: replaced.first().map(|difference| difference.stored),
                    held_out_accuracy: held_out,
                    test_images: samples.test.images.len(),
                    loo_accuracy: estimate.map(|it| it.loo_accuracy),
                    logme: estimate.map(|it| it.logme),
                    seconds: estimate.map(|it| it.seconds),
                });
            }
            Err(error) if error.kind() == ErrorKind::Input && models.len() != 1 => {
                report.unmeasured.push((model.name.clone(), error.to_string()));
            }
            Err(error) => return Err(error),
        }
    }
    // Those that were measured before are not among the chosen when only the missing are asked for.
    if let (true, false, Some((model, reason))) =
        (report.measurements.is_empty(), options.missing, report.unmeasured.first())
    {
        return Err(Error::input(format!(
            "expected a model that can be measured, found none (tried: {}); the first, {model}: {reason}",
            chosen.len()
        )));
    }
    report.skipped = samples.skipped;
    Ok(report)
}

fn choose(state: &State, names: &[String]) -> Result<Vec<ModelRecord>> {
    if names.is_empty() {
        let mut all = state.store.models()?.collect::<tans_storage::Result<Vec<_>>>()?;
        all.retain(|model| model.graph.is_some());
        return Ok(all);
    }
    names.iter().map(|name| steps::model(&state.store, name)).collect()
}

struct Measured {
    accuracy: f32,
    held_out: f32,
    estimate: Option<Estimate>,
}

fn measure_one(
    state: &State,
    model: &ModelRecord,
    samples: &Samples,
    options: &MeasureOptions,
    observer: Observer<'_>,
) -> Result<Measured> {
    Ok(match &options.by {
        MeasureBy::Probe => {
            let network = admit::load_runnable(state, model)?;
            let learned = model.seen.contains(&samples.task);
            let resplits = if learned { Vec::new() } else { samples.resplits() };
            let probe::Probed { accuracy, held_out, estimate } =
                probe::probe(&network, samples, &resplits)?;
            Measured { accuracy, held_out, estimate: Some(estimate) }
        }
        MeasureBy::Finetune(tuning) => {
            admit::load_runnable(state, model)?;
            let (graph, input) = admit::load_network(state, model)?;
            let candidate = Candidate { name: model.name.clone(), graph, input, supernet: None };
            let course = Course::new(&state.options, samples, tuning);
            let tuned = tuning::tune(&course, &candidate, observer)?;
            tuned.paused.forget();
            let accuracy = tuned.test_accuracy;
            Measured { accuracy, held_out: accuracy, estimate: None }
        }
    })
}
