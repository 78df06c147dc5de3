//! Ridge classification in closed form, with leave-one-out model selection (PILOT: ridge probe).

use super::linalg::{eigh, product};
use super::{Error, check_rows};
use crate::rows::Rows;
use faer::{Mat, MatRef};

/// Candidates of the penalty, in units of a hundredth of the number of rows.
const PENALTIES: [f64; 6] = [0.01, 0.1, 1.0, 10.0, 100.0, 1000.0];

/// Candidates of the factor that makes logits of scores.
const LOGIT_SCALES: [f64; 6] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0];

/// A fitted probe.
pub struct RidgeProbe {
    /// Mean of each feature.
    mean: Vec<f64>,
    /// `[dim, classes]`, for features that are centred but not scaled.
    weights: Mat<f64>,
    /// Score of each class at the mean.
    intercept: Vec<f64>,
    loo_accuracy: f32,
}

/// A linear layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    /// Row-major `[classes, dim]`.
    pub weights: Vec<f32>,
    /// One per class.
    pub bias: Vec<f32>,
}

impl RidgeProbe {
    /// Standardises, centres, chooses lambda by closed-form leave-one-out error.
    ///
    /// `rows`: `[n, dim]`, `labels`: n numbers below `classes`. Constant features are ignored.
    ///
    /// # Errors
    /// `Error::Input` for fewer than two rows or classes, or rows that are not finite.
    pub fn fit(rows: &Rows, labels: &[u32], classes: usize) -> Result<Self, Error> {
        Self::solve(rows, labels, classes).map(|(probe, ..)| probe)
    }

    /// The fitted probe as a layer that gives logits: its scores times the factor that makes the left-out rows'
    /// cross-entropy least.
    ///
    /// # Errors
    /// As `fit`.
    pub fn fit_layer(rows: &Rows, labels: &[u32], classes: usize) -> Result<Linear, Error> {
        let (probe, problem, penalty) = Self::solve(rows, labels, classes)?;
        Ok(probe.layer(problem.logit_scale(penalty, labels)))
    }

    /// The probe, what it was fitted to, and the penalty that was chosen.
    fn solve(rows: &Rows, labels: &[u32], classes: usize) -> Result<(Self, Problem, f64), Error> {
        check_rows(rows, labels, classes)?;
        let (features, mean, scale) = standardise(rows);
        let (targets, intercept) = centred_targets(labels, classes);
        let (vectors, values) = left_singular(features.as_ref())?;
        let coefficients = product(vectors.transpose(), targets.as_ref());
        let problem = Problem { vectors, values, coefficients, targets, intercept };
        let best = problem.choose(labels);
        let dual = problem.dual(best.penalty);
        let mut weights = product(features.transpose(), dual.as_ref());
        for (row, scale) in scale.iter().enumerate() {
            for class in 0..classes {
                weights[(row, class)] *= scale;
            }
        }
        let (intercept, loo_accuracy) = (problem.intercept.clone(), best.accuracy);
        Ok((Self { mean, weights, intercept, loo_accuracy }, problem, best.penalty))
    }

    fn layer(&self, scale: f64) -> Linear {
        let (dim, classes) = (self.weights.nrows(), self.weights.ncols());
        let column = |class: usize| (0..dim).map(move |row| self.weights[(row, class)]);
        let at_mean = |class| -> f64 { column(class).zip(&self.mean).map(|(w, m)| w * m).sum() };
        let bias = (0..classes).map(|class| scale * (self.intercept[class] - at_mean(class)));
        Linear {
            weights: (0..classes).flat_map(column).map(|weight| (scale * weight) as f32).collect(),
            bias: bias.map(|bias| bias as f32).collect(),
        }
    }

    /// Leave-one-out top-1 accuracy on the training rows.
    pub fn loo_accuracy(&self) -> f32 {
        self.loo_accuracy
    }

    /// Predicted labels. Rows of another dimension than the fitted ones give none.
    pub fn predict(&self, rows: &Rows) -> Vec<u32> {
        if rows.dim() != self.mean.len() {
            return Vec::new();
        }
        let centred = Mat::from_fn(rows.len(), rows.dim(), |row, column| {
            f64::from(rows.row(row)[column]) - self.mean[column]
        });
        let scores = product(centred.as_ref(), self.weights.as_ref());
        (0..rows.len()).map(|row| self.top_class(&scores, row)).collect()
    }

    /// Top-1 accuracy; 0 if there are no rows or their number or dimension does not fit.
    pub fn accuracy(&self, rows: &Rows, labels: &[u32]) -> f32 {
        let predicted = self.predict(rows);
        if predicted.is_empty() || predicted.len() != labels.len() {
            return 0.0;
        }
        let right = predicted.iter().zip(labels).filter(|(predicted, label)| predicted == label);
        right.count() as f32 / labels.len() as f32
    }

    fn top_class(&self, scores: &Mat<f64>, row: usize) -> u32 {
        let score = |class: usize| scores[(row, class)] + self.intercept[class];
        largest(self.intercept.len(), score)
    }
}

/// The eigen-decomposed regression: every penalty is a rescaling away.
struct Problem {
    /// Left singular vectors, `[n, rank]`.
    vectors: Mat<f64>,
    /// Squared singular values.
    values: Vec<f64>,
    /// Targets in that basis, `[rank, classes]`.
    coefficients: Mat<f64>,
    /// Centred targets, `[n, classes]`.
    targets: Mat<f64>,
    intercept: Vec<f64>,
}

struct Choice {
    penalty: f64,
    error: f64,
    accuracy: f32,
}

impl Problem {
    fn choose(&self, labels: &[u32]) -> Choice {
        let unit = labels.len() as f64 / 100.0;
        let choices = PENALTIES.iter().map(|penalty| self.leave_one_out(penalty * unit, labels));
        let best = choices.min_by(|a, b| a.error.total_cmp(&b.error));
        best.expect("the list of penalties is not empty")
    }

    /// Error and accuracy when each row is predicted by the fit without it.
    fn leave_one_out(&self, penalty: f64, labels: &[u32]) -> Choice {
        let scores = self.left_out_scores(penalty);
        let (mut error, mut right) = (0.0, 0);
        for (row, &label) in labels.iter().enumerate() {
            let residual = |class: usize| {
                self.targets[(row, class)] + self.intercept[class] - scores[(row, class)]
            };
            error += (0..self.intercept.len()).map(|class| residual(class).powi(2)).sum::<f64>();
            right += usize::from(largest(scores.ncols(), |class| scores[(row, class)]) == label);
        }
        Choice { penalty, error, accuracy: right as f32 / labels.len() as f32 }
    }

    /// Scores `[n, classes]` of each row by the fit without it: with hat diagonal h, the left-out residual is the residual
    /// over 1 - h.
    fn left_out_scores(&self, penalty: f64) -> Mat<f64> {
        let (count, classes) = (self.targets.nrows(), self.targets.ncols());
        let shrink: Vec<f64> = self.values.iter().map(|value| value / (value + penalty)).collect();
        let shrunk = scaled_rows(&self.coefficients, &shrink);
        let fitted = product(self.vectors.as_ref(), shrunk.as_ref());
        let rest: Vec<f64> = (0..count)
            .map(|row| {
                let own = |(at, share): (usize, &f64)| self.vectors[(row, at)].powi(2) * share;
                let hat: f64 = shrink.iter().enumerate().map(own).sum();
                (1.0 - hat - 1.0 / count as f64).max(1e-9)
            })
            .collect();
        Mat::from_fn(count, classes, |row, class| {
            let target = self.targets[(row, class)];
            target - (target - fitted[(row, class)]) / rest[row] + self.intercept[class]
        })
    }

    /// The factor by which left-out scores are the best logits.
    fn logit_scale(&self, penalty: f64, labels: &[u32]) -> f64 {
        let scores = self.left_out_scores(penalty);
        let cross_entropy = |scale: f64| -> f64 {
            let of_row = |(row, &label): (usize, &u32)| {
                let logit = |class: usize| scale * scores[(row, class)];
                let most = (0..scores.ncols()).map(logit).fold(f64::NEG_INFINITY, f64::max);
                let sum: f64 = (0..scores.ncols()).map(|class| (logit(class) - most).exp()).sum();
                most + sum.ln() - logit(label as usize)
            };
            labels.iter().enumerate().map(of_row).sum()
        };
        let found = LOGIT_SCALES.into_iter().map(|scale| (scale, cross_entropy(scale)));
        found.min_by(|a, b| a.1.total_cmp(&b.1)).map_or(1.0, |(scale, _)| scale)
    }

    /// `U (s^2 + penalty)^-1 U' Y`: the weights are the features' transpose times this.
    fn dual(&self, penalty: f64) -> Mat<f64> {
        let shrink: Vec<f64> = self.values.iter().map(|value| 1.0 / (value + penalty)).collect();
        product(self.vectors.as_ref(), scaled_rows(&self.coefficients, &shrink).as_ref())
    }
}

fn scaled_rows(matrix: &Mat<f64>, factors: &[f64]) -> Mat<f64> {
    Mat::from_fn(matrix.nrows(), matrix.ncols(), |row, column| matrix[(row, column)] * factors[row])
}

fn largest(classes: usize, score: impl Fn(usize) -> f64) -> u32 {
    let mut best = 0;
    for class in 1..classes {
        if score(class) > score(best) {
            best = class;
        }
    }
    best as u32
}

/// Standardised features, their means, and one over their standard deviations (0 for constant features).
fn standardise(rows: &Rows) -> (Mat<f64>, Vec<f64>, Vec<f64>) {
    let (count, dim) = (rows.len() as f64, rows.dim());
    let mut mean = vec![0.0; dim];
    for row in rows.iter() {
        for (sum, &value) in mean.iter_mut().zip(row) {
            *sum += f64::from(value) / count;
        }
    }
    let mut scale = vec![0.0; dim];
    for row in rows.iter() {
        for ((sum, &value), mean) in scale.iter_mut().zip(row).zip(&mean) {
            *sum += (f64::from(value) - mean).powi(2) / count;
        }
    }
    for (scale, mean) in scale.iter_mut().zip(&mean) {
        // Rounding alone gives a constant feature a spread of about 1e-7 of its size.
        let constant = scale.sqrt() <= 1e-6 * mean.abs() || *scale <= 1e-24;
        *scale = if constant { 0.0 } else { 1.0 / scale.sqrt() };
    }
    let features = Mat::from_fn(rows.len(), dim, |row, column| {
        (f64::from(rows.values()[row * dim + column]) - mean[column]) * scale[column]
    });
    (features, mean, scale)
}

/// Targets of +1 for the label and -1 elsewhere, centred, and their means.
fn centred_targets(labels: &[u32], classes: usize) -> (Mat<f64>, Vec<f64>) {
    let mut mean = vec![-1.0; classes];
    for &label in labels {
        mean[label as usize] += 2.0 / labels.len() as f64;
    }
    let targets = Mat::from_fn(labels.len(), classes, |row, class| {
        let target = if labels[row] as usize == class { 1.0 } else { -1.0 };
        target - mean[class]
    });
    (targets, mean)
}

/// Left singular vectors and squared singular values, from the smaller of the two Gram matrices.
pub(super) fn left_singular(features: MatRef<'_, f64>) -> Result<(Mat<f64>, Vec<f64>), Error> {
    let wide = features.ncols() > features.nrows();
    let gram = if wide {
        product(features, features.transpose())
    } else {
        product(features.transpose(), features)
    };
    let (mut values, vectors) = eigh(gram.as_ref())?;
    let floor = values.first().map_or(0.0, |largest| largest * 1e-10).max(1e-12);
    values.retain(|&value| value > floor);
    let kept = vectors.subcols(0, values.len());
    if wide {
        return Ok((kept.to_owned(), values));
    }
    let mut left = product(features, kept);
    for (column, value) in values.iter().enumerate() {
        let length = value.sqrt();
        for row in 0..left.nrows() {
            left[(row, column)] /= length;
        }
    }
    Ok((left, values))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    /// Classes that differ by a shift of `gap` in feature 0; feature 1 is constant.
    fn blobs(count: usize, dim: usize, gap: f32) -> (Rows, Vec<u32>) {
        let mut random = ChaCha8Rng::seed_from_u64(7);
        let labels: Vec<u32> = (0..count).map(|index| (index % 3) as u32).collect();
        let mut values: Vec<f32> =
            (0..count * dim).map(|_| random.random_range(-1.0..1.0)).collect();
        for (row, label) in labels.iter().enumerate() {
            values[row * dim + *label as usize] += gap;
            values[row * dim + 3] = 5.1;
        }
        (Rows::new(dim, values).unwrap(), labels)
    }

    #[test]
    fn leave_one_out_equals_fitting_without_each_row() {
        for (count, dim) in [(24, 40), (40, 8)] {
            let (rows, labels) = blobs(count, dim, 0.7);
            let (features, _, _) = standardise(&rows);
            let (targets, intercept) = centred_targets(&labels, 3);
            let (vectors, values) = left_singular(features.as_ref()).unwrap();
            let coefficients = product(vectors.transpose(), targets.as_ref());
            let problem = Problem { vectors, values, coefficients, targets, intercept };
            let found = problem.leave_one_out(2.0, &labels).error;
            let direct: f64 =
                (0..count).map(|left| direct_error(&features, &problem.targets, left)).sum();
            assert!((found - direct).abs() < 1e-6 * direct, "{count} x {dim}: {found} {direct}");
        }
    }

    /// Squared error at row `left` of the ridge with free intercept and penalty 2 fitted on the other rows.
    fn direct_error(features: &Mat<f64>, targets: &Mat<f64>, left: usize) -> f64 {
        let others: Vec<usize> = (0..features.nrows()).filter(|&row| row != left).collect();
        let (count, dim) = (others.len() as f64, features.ncols());
        let mean = |matrix: &Mat<f64>, column: usize| {
            others.iter().map(|&row| matrix[(row, column)]).sum::<f64>() / count
        };
        let means: Vec<f64> = (0..dim).map(|column| mean(features, column)).collect();
        let centred = Mat::from_fn(others.len(), dim, |r, c| features[(others[r], c)] - means[c]);
        let gram = product(centred.transpose(), centred.as_ref());
        let flat: Vec<f64> = (0..dim * dim).map(|i| gram[(i / dim, i % dim)]).collect();
        (0..targets.ncols())
            .map(|class| {
                let level = mean(targets, class);
                let right: Vec<f64> = (0..dim)
                    .map(|c| {
                        let terms = others.iter().enumerate();
                        terms.map(|(r, &o)| centred[(r, c)] * (targets[(o, class)] - level)).sum()
                    })
                    .collect();
                let weights = super::super::linalg::solve_ridge(&flat, 2.0, &right).unwrap();
                let terms = weights.iter().enumerate();
                let score: f64 =
                    terms.map(|(c, weight)| weight * (features[(left, c)] - means[c])).sum();
                (targets[(left, class)] - level - score).powi(2)
            })
            .sum()
    }

    #[test]
    fn separable_classes_are_learned_and_noise_is_not() {
        let (rows, labels) = blobs(90, 20, 4.0);
        let probe = RidgeProbe::fit(&rows, &labels, 3).unwrap();
        assert!(probe.loo_accuracy() > 0.95, "{}", probe.loo_accuracy());
        assert!(probe.accuracy(&rows, &labels) > 0.95);
        let (noise, labels) = blobs(90, 200, 0.0);
        let probe = RidgeProbe::fit(&noise, &labels, 3).unwrap();
        assert!(probe.loo_accuracy() < 0.55, "{}", probe.loo_accuracy());
    }

    /// As a layer it decides as before, and says how sure it is: noise is not worth large logits.
    #[test]
    fn a_probe_is_a_layer_of_calibrated_logits() {
        let largest_logit = |gap: f32| {
            let (rows, labels) = blobs(90, 20, gap);
            let probe = RidgeProbe::fit(&rows, &labels, 3).unwrap();
            let Linear { weights, bias } = RidgeProbe::fit_layer(&rows, &labels, 3).unwrap();
            let logits: Vec<Vec<f32>> = rows
                .iter()
                .map(|row| {
                    let dot = |class: usize| -> f32 {
                        row.iter().zip(&weights[20 * class..]).map(|(a, b)| a * b).sum()
                    };
                    (0..3).map(|class| dot(class) + bias[class]).collect()
                })
                .collect();
            let top = |row: &Vec<f32>| super::largest(3, |class| f64::from(row[class]));
            assert_eq!(logits.iter().map(top).collect::<Vec<_>>(), probe.predict(&rows));
            logits.iter().flatten().fold(0.0_f32, |most, logit| most.max(logit.abs()))
        };
        assert!(largest_logit(4.0) > 3.0, "{}", largest_logit(4.0));
        assert!(largest_logit(0.0) < 3.0, "{}", largest_logit(0.0));
    }

    #[test]
    fn hostile_input_is_an_error_or_a_dull_answer() {
        let constant = Rows::new(3, vec![2.5; 30]).unwrap();
        let labels = [0, 1, 0, 1, 0, 1, 0, 1, 0, 1];
        let probe = RidgeProbe::fit(&constant, &labels, 2).unwrap();
        assert!(probe.accuracy(&constant, &labels) <= 0.5);
        let mut values = vec![0.5; 30];
        values[7] = f32::NAN;
        assert!(RidgeProbe::fit(&Rows::new(3, values).unwrap(), &labels, 2).is_err());
        assert!(RidgeProbe::fit(&constant, &[0; 10], 1).is_err());
        assert!(RidgeProbe::fit(&constant, &[5; 10], 2).is_err());
        assert!(RidgeProbe::fit(&constant, &labels[..9], 2).is_err());
        assert!(RidgeProbe::fit(&Rows::default(), &[], 2).is_err());
        assert!(probe.predict(&Rows::new(2, vec![0.0; 4]).unwrap()).is_empty());
    }

    /// Prints the times that the probe is budgeted for; run with `--release -- --ignored --nocapture`.
    #[test]
    #[ignore = "a measurement"]
    fn times() {
        for (count, dim) in [(600, 1280), (60, 100), (200, 1280)] {
            let (rows, labels) = blobs(count, dim, 0.3);
            let mut best = f64::MAX;
            for _ in 0..3 {
                let start = std::time::Instant::now();
                std::hint::black_box(RidgeProbe::fit(&rows, &labels, 3).unwrap());
                best = best.min(start.elapsed().as_secs_f64());
            }
            assert!(best < if count == 600 { 0.5 } else { 0.1 }, "{count} x {dim}: {best} s");
        }
    }
}
