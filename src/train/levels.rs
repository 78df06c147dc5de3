//! Learns the predictor of a task's mean accuracy and spread.

use crate::encoder::Error;
use crate::encoder::closed_form::Spread;
use crate::encoder::linalg::{Cholesky, dot};
use crate::encoder::predictor::{Level, Predictor, SD_MIN};

/// Ridge of the kernel part.
const KERNEL_RIDGE: f64 = 1.0;
/// Ridge candidates of the scalars' part.
const PENALTIES: [f64; 6] = [1.0, 3.0, 10.0, 30.0, 100.0, 1000.0];
/// Assumed where nothing was ever measured.
const LEVEL_DEFAULT: Spread = (0.5, 0.1);

/// A training task: what the predictor sees, and what it should say.
#[derive(Clone)]
pub(super) struct Point {
    /// Accuracy of guessing.
    pub(super) chance: f32,
    pub(super) scalars: Vec<f32>,
    /// Kernel values to all training tasks.
    pub(super) kernel: Vec<f32>,
    pub(super) level: Option<Spread>,
}

impl Point {
    /// What `predictor` expects of it.
    pub(super) fn expected(&self, predictor: &Predictor) -> Spread {
        predictor.expect(self.chance, &self.scalars, &self.kernel)
    }

    /// The same task with its answer hidden.
    pub(super) fn unlabelled(&self) -> Self {
        Self { level: None, ..self.clone() }
    }
}

/// Learns both levels; the interval is left to the caller.
pub(super) fn fit_predictor(points: &[Point]) -> Result<Predictor, Error> {
    let logit = |(mean, _): Spread| {
        let mean = f64::from(mean).clamp(0.01, 0.99);
        (mean / (1.0 - mean)).ln()
    };
    let log_sd = |(_, sd): Spread| f64::from(sd.max(SD_MIN)).ln();
    Ok(Predictor {
        mean: fit_level(points, logit)?,
        sd: fit_level(points, log_sd)?,
        half_width: f32::INFINITY,
    })
}

fn fit_level(points: &[Point], target: impl Fn(Spread) -> f64) -> Result<Level, Error> {
    let known: Vec<usize> =
        (0..points.len()).filter(|&index| points[index].level.is_some()).collect();
    let values: Vec<f64> =
        known.iter().filter_map(|&index| points[index].level).map(&target).collect();
    let scalars = points.first().map_or(0, |point| point.scalars.len());
    let mut level = Level {
        intercept: target(LEVEL_DEFAULT) as f32,
        weights: vec![0.0; scalars],
        dual: vec![0.0; points.len()],
    };
    if known.is_empty() {
        return Ok(level);
    }
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    level.intercept = mean as f32;
    if known.len() < 2 {
        return Ok(level);
    }
    let rest = fit_scalars(points, &known, &values, &mut level)?;
    let count = known.len();
    let similarity = |at: usize| f64::from(points[known[at / count]].kernel[known[at % count]]);
    let gram: Vec<f64> = (0..count * count).map(similarity).collect();
    let dual = crate::encoder::linalg::solve_ridge(&gram, KERNEL_RIDGE, &rest)?;
    for (&task, dual) in known.iter().zip(dual) {
        level.dual[task] = dual as f32;
    }
    Ok(level)
}

/// Fills the linear part of `level` and returns what it leaves.
fn fit_scalars(
    points: &[Point],
    known: &[usize],
    values: &[f64],
    level: &mut Level,
) -> Result<Vec<f64>, Error> {
    let (count, scalars) = (known.len(), level.weights.len());
    let value = |row: usize, column: usize| f64::from(points[known[row]].scalars[column]);
    let centre: Vec<f64> = (0..scalars)
        .map(|column| (0..count).map(|row| value(row, column)).sum::<f64>() / count as f64)
        .collect();
    let rows: Vec<Vec<f64>> = (0..count)
        .map(|row| (0..scalars).map(|column| value(row, column) - centre[column]).collect())
        .collect();
    let mean = values.iter().sum::<f64>() / count as f64;
    let targets: Vec<f64> = values.iter().map(|value| value - mean).collect();
    let (mut gram, mut right) = (vec![0.0; scalars * scalars], vec![0.0; scalars]);
    for (row, target) in rows.iter().zip(&targets) {
        for (i, left) in row.iter().enumerate() {
            right[i] += left * target;
            for (entry, value) in gram[i * scalars..(i + 1) * scalars].iter_mut().zip(row) {
                *entry += left * value;
            }
        }
    }
    let mut best: Option<(f64, Vec<f64>)> = None;
    for penalty in PENALTIES {
        let mut matrix = gram.clone();
        (0..scalars).for_each(|index| matrix[index * scalars + index] += penalty);
        let factor = Cholesky::new(scalars, matrix)?;
        let weights = factor.solve(&right);
        let missed = |(row, target): (&Vec<f64>, &f64)| {
            let hat = dot(row, &factor.solve(row)) + 1.0 / count as f64;
            ((target - dot(row, &weights)) / (1.0 - hat).max(1e-9)).powi(2)
        };
        let error = rows.iter().zip(&targets).map(missed).sum();
        if best.as_ref().is_none_or(|(least, _)| error < *least) {
            best = Some((error, weights));
        }
    }
    let weights = best.map_or_else(|| vec![0.0; scalars], |(_, weights)| weights);
    level.weights = weights.into_iter().map(|weight| weight as f32).collect();
    let shift: f64 =
        level.weights.iter().zip(&centre).map(|(weight, centre)| f64::from(*weight) * centre).sum();
    level.intercept = (mean - shift) as f32;
    let fitted = |row: &Vec<f64>| -> f64 {
        row.iter().zip(&level.weights).map(|(value, weight)| value * f64::from(*weight)).sum()
    };
    Ok(rows.iter().zip(&targets).map(|(row, target)| target - fitted(row)).collect())
}
