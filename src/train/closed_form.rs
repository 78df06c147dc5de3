//! Learns the `default` recipe: a task basis, each task's level, and what a model's standing is worth.

use super::levels::{Point, fit_predictor};
use super::{FitOptions, TrainingModel, TrainingPair, TrainingSet, basis, kinship};
use crate::encoder::closed_form::{ClosedForm, Spread, TaskLevel};
use crate::encoder::linalg::{mean_sd, quantile};
use crate::encoder::predictor::Predictor;
use crate::encoder::{Error, Evidence, Kind, ModelEvidence, Source, TaskEncoding};
use std::collections::{BTreeSet, HashMap};

/// A task's mean and spread count once this many models were measured on it.
const MEASURED_MIN: usize = 3;
/// M while there is no model to take it from, and its room above the largest model.
const RADIUS_DEFAULT: f32 = 3.0;
const RADIUS_ROOM: f32 = 1.5;
/// Interval half-width, in standard deviations, while fewer tasks than these can be held out.
const WIDE: f32 = 4.0;
const CONFORMAL_TASKS_MIN: usize = 5;
/// Groups of families that are left out to see how far predictions are off.
const CONFORMAL_FOLDS: usize = 6;
/// Results by which a task's measured spread is shrunk towards the usual one: few networks, or few that differ, tell
/// little of what others will do.
const SPREAD_SHRINK: f64 = 3.0;
const SPREAD_USUAL: f64 = 0.1;

/// The closed form without its interval, and what it was learned by.
pub(super) struct Learned {
    pub(super) form: ClosedForm,
    /// `None` where too few networks have results.
    pub(super) process: Option<kinship::Process>,
    pub(super) points: Vec<Point>,
}

/// Whether a task is held out.
pub(super) type Held<'a> = dyn Fn(&[u8; 32]) -> bool + 'a;

/// A standing that was predicted without its task's family: task, model, standing.
pub(super) type Foretold = ([u8; 32], usize, f32);

/// Learns the recipe from a checked set.
pub(super) fn fit(set: &TrainingSet, options: &FitOptions) -> Result<ClosedForm, Error> {
    let Learned { mut form, process, points } = learn(set, options)?;
    if let Some(process) = process {
        form.predictor.half_width = half_width(&form, set, &points, &|held| process.without(held))?;
    }
    Ok(form)
}

/// Learns all but how far predictions are off.
pub(super) fn learn(set: &TrainingSet, options: &FitOptions) -> Result<Learned, Error> {
    let samples: Vec<_> =
        set.tasks.iter().filter_map(|task| Some((task.id, task.sample.as_deref()?))).collect();
    let basis = basis::fit(&samples, options.seed)?;
    let mut levels = measured_levels(set, options);
    let chances: Vec<f32> = samples.iter().map(|(_, sample)| sample.chance()).collect();
    let points = points(&basis, &levels, &chances);
    let predictor = fit_predictor(&points)?;
    for (task, point) in points.iter().enumerate() {
        let level = levels.iter_mut().find(|level| level.id == basis.tasks[task]);
        if let Some(level) = level {
            level.predicted = Some(point.expected(&predictor));
        }
    }
    levels.sort_by_key(|level| level.id);
    let mut out = ClosedForm { basis, levels, predictor, kinship: None, radius: RADIUS_DEFAULT };
    let known = known(set, &|_| None);
    let process = kinship::learn(&out, &members(&out, set, &known))?;
    out.kinship = process.as_ref().map(|process| process.kinship().clone());
    out.radius =
        radius((0..known.len()).map(|model| out.weights(&evidence(set, model, &known[model]))));
    Ok(Learned { form: out, process, points })
}

/// What a set knows of one model.
#[derive(Clone, Default)]
pub(super) struct Known<'a> {
    pub(super) history: Vec<Evidence<'a>>,
    sources: Vec<Source<'a>>,
}

/// What is known of each model; `encoding` gives those of tasks outside the encoders' basis.
pub(super) fn known<'a>(
    set: &TrainingSet,
    encoding: &dyn Fn(&[u8; 32]) -> Option<&'a TaskEncoding>,
) -> Vec<Known<'a>> {
    let source = |&task: &usize| {
        let task = set.tasks[task].id;
        Source { task, encoding: encoding(&task) }
    };
    let mut out: Vec<Known<'a>> = set
        .models
        .iter()
        .map(|model| Known {
            history: Vec::new(),
            sources: model.seen.iter().map(source).collect(),
        })
        .collect();
    for pair in &set.pairs {
        let (task, kind) = (set.tasks[pair.task].id, pair.kind);
        let is_own = kind == Kind::Probe && set.models[pair.model].seen.contains(&pair.task);
        let (accuracy, encoding) = (pair.accuracy, encoding(&task));
        out[pair.model].history.push(Evidence { task, kind, accuracy, encoding, is_own });
    }
    out
}

impl<'a> Known<'a> {
    /// Tasks with results that do not flatter the model.
    pub(super) fn tasks(&self) -> impl Iterator<Item = [u8; 32]> {
        self.history.iter().filter(|one| !one.is_own).map(|one| one.task)
    }

    /// The same without the results on the tasks that `held` names.
    pub(super) fn without(&self, held: &dyn Fn(&[u8; 32]) -> bool) -> Self {
        let those = self.history.iter().filter(|one| !held(&one.task));
        Self { history: those.copied().collect(), sources: self.sources.clone() }
    }

    /// The same after no more than these results.
    pub(super) fn after(&self, tasks: &[[u8; 32]]) -> Self {
        let those = self.history.iter().filter(|one| tasks.contains(&one.task) && !one.is_own);
        Self { history: those.copied().collect(), sources: self.sources.clone() }
    }
}

fn members<'a>(
    form: &'a ClosedForm,
    set: &'a TrainingSet,
    known: &'a [Known<'a>],
) -> Vec<kinship::Member<'a>> {
    let member = |(model, known): (usize, &'a Known<'a>)| {
        let evidence = evidence(set, model, known);
        let sources = form.sources(&evidence);
        kinship::Member { evidence, sources, standings: form.standings(&known.history) }
    };
    known.iter().enumerate().map(member).collect()
}

/// Groups of families that predictions are judged on, each predicted without it.
pub(super) fn folds(set: &TrainingSet) -> Vec<Vec<[u8; 32]>> {
    let groups = super::evaluate::groups(set, Some(CONFORMAL_FOLDS));
    let ids = |group: Vec<usize>| group.into_iter().map(|task| set.tasks[task].id).collect();
    groups.into_iter().map(ids).collect()
}

fn measured_levels(set: &TrainingSet, options: &FitOptions) -> Vec<TaskLevel> {
    let mut accuracies: Vec<[Vec<f64>; 3]> = set.tasks.iter().map(|_| Default::default()).collect();
    for pair in set.pairs.iter().filter(|pair| options.uses(set, pair)) {
        accuracies[pair.task][pair.kind as usize].push(f64::from(pair.accuracy));
    }
    let spread = |values: Vec<f64>| -> Option<Spread> {
        let (mean, sd) = mean_sd(&values);
        let count = values.len() as f64;
        let variance = count * sd.powi(2) + SPREAD_SHRINK * SPREAD_USUAL.powi(2);
        let sd = (variance / (count + SPREAD_SHRINK)).sqrt();
        (values.len() >= MEASURED_MIN).then_some((mean as f32, sd as f32))
    };
    let tasks = set.tasks.iter().zip(accuracies);
    tasks
        .map(|(task, accuracies)| TaskLevel {
            id: task.id,
            measured: accuracies.map(spread),
            prior: task.prior,
            predicted: None,
        })
        .collect()
}

/// The training tasks as the predictor sees them.
fn points(
    basis: &crate::encoder::basis::Basis,
    levels: &[TaskLevel],
    chances: &[f32],
) -> Vec<Point> {
    let count = basis.tasks.len();
    let kernel = basis::kernel(basis);
    let scalars = basis.blocks[2].len() / count.max(1);
    let point = |task: usize| Point {
        chance: chances[task],
        scalars: basis.blocks[2][task * scalars..(task + 1) * scalars].to_vec(),
        kernel: kernel[task * count..(task + 1) * count].to_vec(),
        level: levels.iter().find(|level| level.id == basis.tasks[task]).and_then(|level| {
            let [probe, finetune, reported] = level.measured;
            probe.or(level.prior).or(finetune).or(reported)
        }),
    };
    (0..count).map(point).collect()
}

/// What a set knows of a model.
pub(super) fn evidence<'a>(
    set: &'a TrainingSet,
    model: usize,
    known: &'a Known<'a>,
) -> ModelEvidence<'a> {
    let TrainingModel { numbers, topology, signature, is_trained, .. } = &set.models[model];
    ModelEvidence {
        numbers,
        topology,
        signature: signature.as_deref(),
        history: &known.history,
        sources: &known.sources,
        is_trained: *is_trained,
    }
}

/// Length that models are completed to.
pub(super) fn radius(vectors: impl Iterator<Item = Vec<f32>>) -> f32 {
    let length = |vector: Vec<f32>| vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    let longest = vectors.map(length).fold(0.0, f32::max);
    if longest > 1e-6 { longest * RADIUS_ROOM } else { RADIUS_DEFAULT }
}

/// 90 % quantile of how far predictions were off, in expected standard deviations, with families left out.
///
/// `without` gives the standings on the tasks that it is asked for, predicted without them.
pub(super) fn half_width(
    form: &ClosedForm,
    set: &TrainingSet,
    points: &[Point],
    without: &dyn Fn(&Held<'_>) -> Vec<Foretold>,
) -> Result<f32, Error> {
    let known = points.iter().filter(|point| point.level.is_some()).count();
    if known <= CONFORMAL_TASKS_MIN {
        return Ok(WIDE);
    }
    // Of several kinds the first counts, as in a standing.
    let mut pairs: Vec<&TrainingPair> = set.pairs.iter().collect();
    pairs.sort_by_key(|pair| std::cmp::Reverse(pair.kind));
    let truth: HashMap<(usize, [u8; 32]), f32> = pairs
        .into_iter()
        .map(|pair| ((pair.model, set.tasks[pair.task].id), pair.accuracy))
        .collect();
    let (mut misses, mut held) = (Vec::new(), BTreeSet::new());
    for ids in folds(set) {
        let is_held = |id: &[u8; 32]| ids.contains(id);
        let hidden = points
            .iter()
            .zip(&form.basis.tasks)
            .map(|(point, id)| if is_held(id) { point.unlabelled() } else { point.clone() });
        let predictor: Predictor = fit_predictor(&hidden.collect::<Vec<_>>())?;
        for (task, model, standing) in without(&is_held) {
            let Some(at) = form.basis.position(&task) else { continue };
            let Some(accuracy) = truth.get(&(model, task)) else { continue };
            let (mean, sd) = points[at].expected(&predictor);
            misses.push(f64::from((accuracy - mean - sd * standing).abs() / sd));
            held.insert(task);
        }
    }
    if held.len() < CONFORMAL_TASKS_MIN {
        return Ok(WIDE);
    }
    // Tasks are the exchangeable units: with few of them the level is raised a little.
    let level = (0.9 * (1.0 + 1.0 / held.len() as f64)).min(1.0);
    Ok(quantile(&mut misses, level) as f32)
}
