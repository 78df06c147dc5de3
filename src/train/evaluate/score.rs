//! Figures of one method on one task, and of all tasks together.

use crate::encoder::Prediction;
use crate::encoder::linalg::quantile;
use crate::encoder::metrics::{ranking, spearman, weighted_tau};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Resamples of the bootstrap.
const RESAMPLES: usize = 1000;

/// One method's figures, averaged over held-out tasks, each with its 90 % bootstrap interval over tasks. Losses and
/// errors are in accuracy points (0..100), `cover` is a fraction.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct MethodRow {
    /// random, params, static, nearest, logme, probe, the contestant's name with perhaps its number of probes, `cold`
    /// with perhaps the number of tasks that the networks were measured on; `held-out` is added to a name that is judged
    /// once more on the images that no probe saw.
    pub method: String,
    /// Tasks on which the method could answer.
    pub tasks: usize,
    /// First pick's loss.
    pub loss: f32,
    /// Its interval.
    pub loss_interval: [f32; 2],
    /// Best of the first five's loss.
    pub best5: f32,
    /// Its interval.
    pub best5_interval: [f32; 2],
    /// Spearman's rank correlation.
    pub spearman: f32,
    /// Its interval.
    pub spearman_interval: [f32; 2],
    /// Weighted Kendall tau.
    pub tau: f32,
    /// Its interval.
    pub tau_interval: [f32; 2],
    /// Mean absolute error of predicted accuracy; `None` where the method predicts none.
    pub mae: Option<f32>,
    /// Its interval.
    pub mae_interval: Option<[f32; 2]>,
    /// Share of accuracies inside the predicted 90 % interval.
    pub cover: Option<f32>,
    /// Its interval.
    pub cover_interval: Option<[f32; 2]>,
    /// Milliseconds of a query whose dataset is encoded, probes included; `None` where they were not measured.
    pub ms: Option<f32>,
    /// Its interval.
    pub ms_interval: Option<[f32; 2]>,
    /// Paired difference of loss to the static list (negative = better), with its interval.
    pub against_static: Option<(f32, [f32; 2])>,
    /// Loss of each held-out task, in the order of `Evaluation::tasks`; `None` where the method has no answer.
    pub losses: Vec<Option<f32>>,
}

/// One method on one task; losses in accuracy points.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scored {
    pub(super) loss: f32,
    pub(super) best5: f32,
    pub(super) spearman: f32,
    pub(super) tau: f32,
    /// Mean absolute error in points.
    pub(super) mae: Option<f32>,
    pub(super) cover: Option<f32>,
    pub(super) ms: Option<f32>,
}

impl Scored {
    pub(super) fn new(scores: &[f32], truth: &[f32]) -> Self {
        let best = truth.iter().copied().fold(0.0, f32::max);
        let order = ranking(scores);
        let reached =
            |count: usize| order.iter().take(count).map(|&index| truth[index]).fold(0.0, f32::max);
        Self {
            loss: 100.0 * (best - reached(1)),
            best5: 100.0 * (best - reached(5)),
            spearman: spearman(scores, truth),
            tau: weighted_tau(scores, truth),
            mae: None,
            cover: None,
            ms: None,
        }
    }

    /// With the error and the cover of predicted accuracies.
    pub(super) fn with_predictions(self, predictions: &[Prediction], truth: &[f32]) -> Self {
        let accuracies: Vec<f32> = predictions.iter().map(|one| one.accuracy).collect();
        let covers = |(predicted, truth): &(&Prediction, &f32)| {
            (predicted.interval[0]..=predicted.interval[1]).contains(truth)
        };
        let inside = predictions.iter().zip(truth).filter(covers).count();
        let cover = Some(inside as f32 / truth.len().max(1) as f32);
        Self { cover, ..self.with_accuracies(&accuracies, truth) }
    }

    /// With the error of predicted accuracies that come without intervals.
    pub(super) fn with_accuracies(self, accuracies: &[f32], truth: &[f32]) -> Self {
        let errors: Vec<f32> =
            accuracies.iter().zip(truth).map(|(found, truth)| (found - truth).abs()).collect();
        Self { mae: Some(100.0 * mean(&errors)), ..self }
    }

    pub(super) fn taking(self, ms: Option<f32>) -> Self {
        Self { ms, ..self }
    }

    /// Expected figures of a random order.
    pub(super) fn random(truth: &[f32]) -> Self {
        let mut sorted = truth.to_vec();
        sorted.sort_by(f32::total_cmp);
        let count = sorted.len();
        let best = sorted.last().copied().unwrap_or(0.0);
        let mean = sorted.iter().sum::<f32>() / count.max(1) as f32;
        let drawn = count.min(5);
        // The largest of the draw is at or below position i in C(i + 1, drawn) of C(count, drawn) draws.
        let below = |position: usize| -> f64 {
            (0..drawn)
                .map(|j| (position + 1).saturating_sub(j) as f64 / (count - j) as f64)
                .product()
        };
        let mut reached = 0.0;
        for (position, &value) in sorted.iter().enumerate() {
            let lower = if position == 0 { 0.0 } else { below(position - 1) };
            reached += f64::from(value) * (below(position) - lower);
        }
        Self {
            loss: 100.0 * (best - mean),
            best5: 100.0 * (best - reached as f32),
            spearman: 0.0,
            tau: 0.0,
            mae: None,
            cover: None,
            ms: None,
        }
    }

    /// The average of several; `None` of none.
    pub(super) fn mean(several: &[Self]) -> Option<Self> {
        let count = several.len() as f32;
        let average = |take: fn(&Self) -> f32| several.iter().map(take).sum::<f32>() / count;
        let all = |take: fn(&Self) -> Option<f32>| {
            several.iter().map(take).sum::<Option<f32>>().map(|sum| sum / count)
        };
        (!several.is_empty()).then(|| Self {
            loss: average(|one| one.loss),
            best5: average(|one| one.best5),
            spearman: average(|one| one.spearman),
            tau: average(|one| one.tau),
            mae: all(|one| one.mae),
            cover: all(|one| one.cover),
            ms: all(|one| one.ms),
        })
    }
}

/// The row of one method from its figures on each task; `fixed` are the static list's losses.
pub(super) fn row(
    method: String,
    outcomes: &[Option<Scored>],
    fixed: &[Option<f32>],
    seed: u64,
) -> MethodRow {
    let known: Vec<Scored> = outcomes.iter().flatten().copied().collect();
    let figure = |take: &dyn Fn(&Scored) -> Option<f32>| -> Option<(f32, [f32; 2])> {
        let values: Vec<f32> = known.iter().filter_map(take).collect();
        (!values.is_empty()).then(|| (mean(&values), bootstrap(&values, seed)))
    };
    let whole =
        |take: fn(&Scored) -> f32| figure(&|one| Some(take(one))).unwrap_or((0.0, [0.0, 0.0]));
    let (loss, loss_interval) = whole(|one| one.loss);
    let (best5, best5_interval) = whole(|one| one.best5);
    let (spearman, spearman_interval) = whole(|one| one.spearman);
    let (tau, tau_interval) = whole(|one| one.tau);
    let (mae, cover) = (figure(&|one| one.mae), figure(&|one| one.cover));
    let ms = figure(&|one| one.ms);
    let losses: Vec<Option<f32>> = outcomes.iter().map(|one| one.map(|one| one.loss)).collect();
    MethodRow {
        tasks: known.len(),
        loss,
        loss_interval,
        best5,
        best5_interval,
        spearman,
        spearman_interval,
        tau,
        tau_interval,
        mae: mae.map(|figure| figure.0),
        mae_interval: mae.map(|figure| figure.1),
        cover: cover.map(|figure| figure.0),
        cover_interval: cover.map(|figure| figure.1),
        ms: ms.map(|figure| figure.0),
        ms_interval: ms.map(|figure| figure.1),
        against_static: difference(&losses, fixed, seed).filter(|_| method != "static"),
        method,
        losses,
    }
}

/// Mean difference over the tasks on which both have an answer, and its 90 % interval.
pub(super) fn difference(
    losses: &[Option<f32>],
    others: &[Option<f32>],
    seed: u64,
) -> Option<(f32, [f32; 2])> {
    let pairs = losses.iter().zip(others);
    let differences: Vec<f32> = pairs.filter_map(|(a, b)| Some((*a)? - (*b)?)).collect();
    (!differences.is_empty()).then(|| (mean(&differences), bootstrap(&differences, seed)))
}

pub(super) fn mean(values: &[f32]) -> f32 {
    let sum: f64 = values.iter().map(|&value| f64::from(value)).sum();
    (sum / values.len().max(1) as f64) as f32
}

/// 90 % interval of the mean, by drawing tasks with replacement.
fn bootstrap(values: &[f32], seed: u64) -> [f32; 2] {
    if values.is_empty() {
        return [0.0, 0.0];
    }
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut means: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let draw = (0..values.len()).map(|_| values[random.random_range(0..values.len())]);
            draw.map(f64::from).sum::<f64>() / values.len() as f64
        })
        .collect();
    let low = quantile(&mut means, 0.05) as f32;
    [low, quantile(&mut means, 0.95) as f32]
}
