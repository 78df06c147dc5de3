//! Learns the `default` recipe: a task basis, each task's level, and what a model's standing is worth.

use super::levels::{Point, fit_predictor, leave_one_out};
use super::{FitOptions, TrainingSet, basis};
pub(super) use crate::encoder::closed_form::STANDING_SHRINK;
use crate::encoder::closed_form::{Borrowed, ClosedForm, MODEL_RIDGE, Spread, Standing, TaskLevel};
use crate::encoder::linalg::{Cholesky, dot, mean_sd, quantile};
use crate::encoder::predictor::Predictor;
use crate::encoder::{Error, Evidence, ModelEvidence};

/// A task's mean and spread count once this many models were measured on it.
const MEASURED_MIN: usize = 3;
/// M while there is no model to take it from, and its room above the largest model.
const RADIUS_DEFAULT: f32 = 3.0;
const RADIUS_ROOM: f32 = 1.5;
/// Interval half-width, in standard deviations, while fewer tasks than these can be held out.
const WIDE: f32 = 4.0;
const CONFORMAL_TASKS_MIN: usize = 5;
/// Models with signatures that a guess is learned from, and results that each must have.
const BORROW_MIN: usize = 8;
const BORROW_MAX: usize = 200;
const BORROW_RESULTS: usize = 3;
const BORROW_PENALTIES: [f64; 5] = [0.1, 0.3, 1.0, 3.0, 10.0];
/// The guess is used only if it leaves less than this share of the variance.
const BORROW_GAIN: f64 = 0.9;

/// Learns the recipe from a checked set.
pub(super) fn fit(set: &TrainingSet, options: &FitOptions) -> Result<ClosedForm, Error> {
    let samples: Vec<_> =
        set.tasks.iter().filter_map(|task| Some((task.id, task.sample.as_ref()?))).collect();
    let basis = basis::fit(&samples, options.seed)?;
    let mut levels = measured_levels(set, options);
    let points = points(&basis, &levels);
    let predictor = fit_predictor(&points)?;
    for (task, point) in points.iter().enumerate() {
        let level = levels.iter_mut().find(|level| level.id == basis.tasks[task]);
        if let Some(level) = level {
            level.predicted = Some(predictor.expect(&point.scalars, &point.kernel));
        }
    }
    levels.sort_by_key(|level| level.id);
    let mut out = ClosedForm { basis, levels, predictor, borrowed: None, radius: RADIUS_DEFAULT };
    let histories = histories(set, options);
    out.borrowed = borrow(&out, set, &histories)?;
    out.radius = radius(&out, set, &histories);
    out.predictor.half_width = half_width(&out, set, &histories, &points)?;
    Ok(out)
}

/// Usable results of each model.
pub(super) fn histories<'a>(set: &TrainingSet, options: &FitOptions) -> Vec<Vec<Evidence<'a>>> {
    let mut out: Vec<Vec<Evidence<'a>>> = set.models.iter().map(|_| Vec::new()).collect();
    for pair in set.pairs.iter().filter(|pair| options.uses(set, pair)) {
        let (task, kind) = (set.tasks[pair.task].id, pair.kind);
        out[pair.model].push(Evidence { task, kind, accuracy: pair.accuracy, encoding: None });
    }
    out
}

fn measured_levels(set: &TrainingSet, options: &FitOptions) -> Vec<TaskLevel> {
    let mut accuracies: Vec<[Vec<f64>; 3]> = set.tasks.iter().map(|_| Default::default()).collect();
    for pair in set.pairs.iter().filter(|pair| options.uses(set, pair)) {
        accuracies[pair.task][pair.kind as usize].push(f64::from(pair.accuracy));
    }
    let spread = |values: Vec<f64>| -> Option<Spread> {
        let (mean, sd) = mean_sd(&values);
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
fn points(basis: &crate::encoder::basis::Basis, levels: &[TaskLevel]) -> Vec<Point> {
    let count = basis.tasks.len();
    let kernel = basis::kernel(basis);
    let scalars = basis.blocks[2].len() / count.max(1);
    let point = |task: usize| Point {
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
    history: &'a [Evidence<'a>],
) -> ModelEvidence<'a> {
    let known = &set.models[model];
    ModelEvidence {
        numbers: &known.numbers,
        topology: &known.topology,
        signature: known.signature.as_deref(),
        history,
    }
}

fn radius(form: &ClosedForm, set: &TrainingSet, histories: &[Vec<Evidence<'_>>]) -> f32 {
    let length = |(model, history): (usize, &Vec<Evidence<'_>>)| -> f32 {
        let weights = form.weights(&evidence(set, model, history));
        weights.iter().map(|value| value * value).sum::<f32>().sqrt()
    };
    let longest = histories.iter().enumerate().map(length).fold(0.0, f32::max);
    if longest > 1e-6 { longest * RADIUS_ROOM } else { RADIUS_DEFAULT }
}

/// Ridge from signatures to mean standings; `None` where it would not help.
fn borrow(
    form: &ClosedForm,
    set: &TrainingSet,
    histories: &[Vec<Evidence<'_>>],
) -> Result<Option<Borrowed>, Error> {
    let mut known: Vec<(&[f32], f64)> = Vec::new();
    for (model, history) in histories.iter().enumerate() {
        let Some(signature) = set.models[model].signature.as_deref() else { continue };
        if form.standings(history).len() >= BORROW_RESULTS {
            let g = form.weights(&evidence(set, model, history))[0];
            known.push((signature, f64::from(g)));
        }
    }
    if known.len() > BORROW_MAX {
        let all = known.len();
        known = (0..BORROW_MAX).map(|index| known[index * all / BORROW_MAX]).collect();
    }
    if known.len() < BORROW_MIN {
        return Ok(None);
    }
    let count = known.len();
    let (mean, sd) = mean_sd(&known.iter().map(|entry| entry.1).collect::<Vec<_>>());
    let targets: Vec<f64> = known.iter().map(|entry| entry.1 - mean).collect();
    let similarity = |at: usize| {
        let (left, right) = (known[at / count].0, known[at % count].0);
        left.iter().zip(right).map(|(a, b)| f64::from(a * b)).sum::<f64>()
    };
    let gram: Vec<f64> = (0..count * count).map(similarity).collect();
    let mut best: Option<(f64, Vec<f64>)> = None;
    for penalty in BORROW_PENALTIES {
        let (dual, error) = leave_one_out(&gram, penalty, &targets)?;
        if best.as_ref().is_none_or(|(least, _)| error < *least) {
            best = Some((error, dual));
        }
    }
    let Some((_, dual)) = best.filter(|(error, _)| *error < BORROW_GAIN * sd * sd) else {
        return Ok(None);
    };
    let weights = (0..known[0].0.len()).map(|column| {
        let terms = known.iter().zip(&dual);
        terms.map(|(entry, dual)| f64::from(entry.0[column]) * dual).sum::<f64>() as f32
    });
    Ok(Some(Borrowed { intercept: mean as f32, weights: weights.collect() }))
}

/// 90 % quantile of how far predictions were off, in expected standard deviations, when each task is left out.
fn half_width(
    form: &ClosedForm,
    set: &TrainingSet,
    histories: &[Vec<Evidence<'_>>],
    points: &[Point],
) -> Result<f32, Error> {
    let known: Vec<usize> =
        (0..points.len()).filter(|&task| points[task].level.is_some()).collect();
    if known.len() <= CONFORMAL_TASKS_MIN {
        return Ok(WIDE);
    }
    let mut expected = vec![None; points.len()];
    for &task in &known {
        let others: Vec<Point> = points
            .iter()
            .enumerate()
            .map(|(index, point)| if index == task { point.unlabelled() } else { point.clone() })
            .collect();
        let predictor: Predictor = fit_predictor(&others)?;
        expected[task] = Some(predictor.expect(&points[task].scalars, &points[task].kernel));
    }
    let mut misses = Vec::new();
    let mut held = vec![false; points.len()];
    for (model, history) in histories.iter().enumerate() {
        for (one, standing) in history.iter().zip(left_out(form, set, model, history)?) {
            let task = form.basis.position(&one.task);
            if let Some((task, (mean, sd))) = task.and_then(|at| Some((at, expected[at]?))) {
                misses.push(f64::from((one.accuracy - mean - sd * standing).abs() / sd));
                held[task] = true;
            }
        }
    }
    let tasks = held.iter().filter(|&&held| held).count();
    if tasks < CONFORMAL_TASKS_MIN {
        return Ok(WIDE);
    }
    // Tasks are the exchangeable units: with few of them the level is raised a little.
    let level = (0.9 * (1.0 + 1.0 / tasks as f64)).min(1.0);
    Ok(quantile(&mut misses, level) as f32)
}

/// A model's predicted standing on the task of each of its results, from its other results.
///
/// With the ridge's hat diagonal h, the left-out residual is the residual over 1 - h.
fn left_out(
    form: &ClosedForm,
    set: &TrainingSet,
    model: usize,
    history: &[Evidence<'_>],
) -> Result<Vec<f32>, Error> {
    let bare = evidence(set, model, &[]);
    let guess = f64::from(form.weights(&bare)[0]);
    let single = |one: usize| form.standings(&history[one..=one]).pop();
    let standings: Vec<Option<Standing<'_>>> = (0..history.len()).map(single).collect();
    let known: Vec<&Standing<'_>> = standings.iter().flatten().collect();
    let k = form.basis.k;
    let wide = |at: &[f32]| -> Vec<f64> {
        if at.is_empty() { vec![0.0; k] } else { at.iter().map(|&v| f64::from(v)).collect() }
    };
    let (mut gram, mut right, mut ones) = (vec![0.0; k * k], vec![0.0; k], vec![0.0; k]);
    for standing in &known {
        let at = wide(standing.at);
        for (row, &left) in at.iter().enumerate() {
            right[row] += left * f64::from(standing.z);
            ones[row] += left;
            for (entry, value) in gram[row * k..(row + 1) * k].iter_mut().zip(&at) {
                *entry += left * value;
            }
        }
    }
    (0..k).for_each(|index| gram[index * k + index] += MODEL_RIDGE);
    let factor = Cholesky::new(k, gram)?;
    let (right, ones) = (factor.solve(&right), factor.solve(&ones));
    let sum: f64 = known.iter().map(|standing| f64::from(standing.z)).sum();
    let (count, shrink) = (known.len() as f64, f64::from(STANDING_SHRINK));
    let predicted = |standing: &Option<Standing<'_>>| -> f32 {
        let Some(standing) = standing else { return guess as f32 };
        let (at, z) = (wide(standing.at), f64::from(standing.z));
        let g = (sum - z + shrink * guess) / (count - 1.0 + shrink);
        let hat = dot(&at, &factor.solve(&at));
        let residual = (z - dot(&at, &right)) - g * (1.0 - dot(&at, &ones));
        (z - residual / (1.0 - hat).max(1e-9)) as f32
    };
    Ok(standings.iter().map(predicted).collect())
}
