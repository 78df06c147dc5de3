//! LogME: the log evidence of labels under a Bayesian linear model on a network's features (You et al., ICML 2021).

use super::linalg::product;
use super::ridge::left_singular;
use super::{Error, check_rows};
use crate::rows::Rows;
use faer::{Mat, MatRef};

/// Rounds of the fixed point, and the relative change of alpha / beta at which it stands.
const ROUNDS: usize = 100;
const SETTLED: f64 = 1e-4;
/// Keeps the precisions finite where the labels are fitted exactly or not at all.
const LEAST: f64 = 1e-5;

/// Evidence per row, averaged over the classes against the rest: higher is better, comparable between networks on one
/// dataset only.
///
/// `rows`: `[n, dim]`, `labels`: n numbers below `classes`. For each class the targets are y in {0, 1}, the prior of
/// the weights is N(0, 1 / alpha), the noise N(0, 1 / beta), and both precisions maximise the evidence by MacKay's
/// fixed point on the singular values of the features.
///
/// # Errors
/// `Error::Input` for fewer than two rows or classes, or rows that are not finite.
pub fn logme(rows: &Rows, labels: &[u32], classes: usize) -> Result<f32, Error> {
    check_rows(rows, labels, classes)?;
    let features = MatRef::from_row_major_slice(rows.values(), rows.len(), rows.dim());
    let features = Mat::from_fn(rows.len(), rows.dim(), |i, j| f64::from(features[(i, j)]));
    let (vectors, values) = left_singular(features.as_ref())?;
    let targets = Mat::from_fn(labels.len(), classes, |row, class| {
        f64::from(u8::from(labels[row] as usize == class))
    });
    let projected = product(vectors.transpose(), targets.as_ref());
    let total: f64 = (0..classes)
        .map(|class| {
            let squares: Vec<f64> =
                (0..values.len()).map(|at| projected[(at, class)].powi(2)).collect();
            let length = (0..labels.len()).map(|row| targets[(row, class)].powi(2)).sum::<f64>();
            let rest = (length - squares.iter().sum::<f64>()).max(0.0);
            evidence(&values, &squares, rest, labels.len() as f64)
        })
        .sum();
    Ok((total / classes as f64) as f32)
}

/// Maximal log evidence per row. `values`: squared singular values; `squares`: squared projections of the targets on
/// their left singular vectors; `rest`: squared length of the targets outside of these; `count` rows.
fn evidence(values: &[f64], squares: &[f64], rest: f64, count: f64) -> f64 {
    let (mut alpha, mut beta) = (1.0_f64, 1.0_f64);
    for _ in 0..ROUNDS {
        let ratio = alpha / beta;
        let known: f64 = values.iter().map(|value| value / (value + ratio)).sum();
        let (length, error) = fit(values, squares, rest, ratio);
        alpha = (known / (length + LEAST)).max(LEAST);
        beta = (count - known).max(LEAST) / (error + LEAST);
        if (alpha / beta / ratio - 1.0).abs() < SETTLED {
            break;
        }
    }
    let (length, error) = fit(values, squares, rest, alpha / beta);
    let rank = values.len() as f64;
    let volume: f64 = values.iter().map(|value| (alpha + beta * value).ln()).sum();
    let density = rank * alpha.ln() + count * beta.ln() - volume - beta * error - alpha * length;
    (density / count - (2.0 * std::f64::consts::PI).ln()) / 2.0
}

/// Squared length of the posterior mean weights and its squared error at a ratio alpha / beta.
fn fit(values: &[f64], squares: &[f64], rest: f64, ratio: f64) -> (f64, f64) {
    let terms = values.iter().zip(squares);
    terms.fold((0.0, rest), |(length, error), (value, square)| {
        let share = square / (value + ratio).powi(2);
        (length + value * share, error + ratio.powi(2) * share)
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]
mod tests {
    use super::super::linalg::{Cholesky, dot};
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn features(count: usize, dim: usize, gap: f32) -> (Rows, Vec<u32>) {
        let mut random = ChaCha8Rng::seed_from_u64(5);
        let labels: Vec<u32> = (0..count).map(|index| (index % 3) as u32).collect();
        let mut values: Vec<f32> =
            (0..count * dim).map(|_| random.random_range(-1.0..1.0) + 0.2).collect();
        for (row, &label) in labels.iter().enumerate() {
            values[row * dim + label as usize] += gap;
        }
        (Rows::new(dim, values).unwrap(), labels)
    }

    /// Log density per row of y under N(0, F F' / alpha + I / beta), by the covariance itself.
    fn density(rows: &Rows, y: &[f64], alpha: f64, beta: f64) -> f64 {
        let count = rows.len();
        let inner = |i: usize, j: usize| -> f64 {
            let pairs = rows.row(i).iter().zip(rows.row(j));
            pairs.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
        };
        let covariance: Vec<f64> = (0..count * count)
            .map(|at| {
                let noise = if at / count == at % count { 1.0 / beta } else { 0.0 };
                inner(at / count, at % count) / alpha + noise
            })
            .collect();
        // The determinant from the conditional variances: each is one over the last entry of the inverse so far.
        let log_det: f64 = (1..=count)
            .map(|size| {
                let corner: Vec<f64> =
                    (0..size * size).map(|at| covariance[at / size * count + at % size]).collect();
                let mut unit = vec![0.0; size];
                unit[size - 1] = 1.0;
                -Cholesky::new(size, corner).unwrap().solve(&unit)[size - 1].ln()
            })
            .sum();
        let solved = Cholesky::new(count, covariance).unwrap().solve(y);
        let constant = (2.0 * std::f64::consts::PI).ln() * count as f64;
        -0.5 * (dot(y, &solved) + log_det + constant) / count as f64
    }

    /// The largest density over a grid of precisions that closes in on its best point.
    fn reference(rows: &Rows, labels: &[u32], class: u32) -> f64 {
        let y: Vec<f64> = labels.iter().map(|&label| f64::from(u8::from(label == class))).collect();
        let (mut centre, mut step, mut best) = ([2.0_f64, 2.0], 2.0, f64::MIN);
        while step > 0.01 {
            let around = centre;
            for at in 0..25 {
                let point = [
                    around[0] + step * (f64::from(at / 5) - 2.0),
                    around[1] + step * (f64::from(at % 5) - 2.0),
                ];
                let found = density(rows, &y, point[0].exp(), point[1].exp());
                if found > best {
                    (best, centre) = (found, point);
                }
            }
            if centre == around {
                step /= 2.0;
            }
        }
        best
    }

    #[test]
    fn it_is_the_largest_evidence() {
        for (count, dim) in [(24, 5), (15, 30)] {
            let (rows, labels) = features(count, dim, 1.0);
            let found = f64::from(logme(&rows, &labels, 3).unwrap());
            let expected = (0..3).map(|class| reference(&rows, &labels, class)).sum::<f64>() / 3.0;
            assert!((found - expected).abs() < 2e-3, "{count} x {dim}: {found} {expected}");
        }
    }

    #[test]
    fn better_features_score_higher_and_hostile_ones_are_refused() {
        let score = |gap| {
            let (rows, labels) = features(60, 12, gap);
            logme(&rows, &labels, 3).unwrap()
        };
        assert!(score(3.0) > score(1.0) && score(1.0) > score(0.0));
        let constant = Rows::new(3, vec![0.0; 30]).unwrap();
        assert!(logme(&constant, &[0, 1, 0, 1, 0, 1, 0, 1, 0, 1], 2).unwrap().is_finite());
        assert!(logme(&constant, &[0; 10], 1).is_err());
        let nan = Rows::new(1, vec![f32::NAN; 4]).unwrap();
        assert!(logme(&nan, &[0, 1, 0, 1], 2).is_err());
    }
}
