//! The frozen task basis of the `default` recipe: what a dataset looks like beside the training tasks.

use super::linalg::{distance_squared, dot_f32, normalise, product_f32};
use super::{Error, SCALARS, TaskSample};
use crate::rows::Rows;
use faer::MatRef;
use serde::{Deserialize, Serialize};

/// Added inside the logarithm of each spread.
const SPREAD_FLOOR: f32 = 0.05;
/// Variance that the contrast adds to that of the kernel, which is 1, where it is one standard deviation off.
const CONTRAST: f32 = 0.2;
/// One further off than this, in standard deviations, says no more.
const CONTRAST_MAX: f32 = 3.0;
/// Accuracies are kept this far from 0 and 1 in the contrast, which takes their logits.
const CONTRAST_MARGIN: f32 = 0.02;

/// Means and standard deviations that standardise a block of features.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Standardiser {
    pub(crate) mean: Vec<f32>,
    /// One over the standard deviation; 0 for constant features.
    pub(crate) scale: Vec<f32>,
}

impl Standardiser {
    /// Learns from rows of `dim` values; `None` values do not count.
    pub(crate) fn fit(rows: &[Vec<Option<f32>>], dim: usize) -> Self {
        let mut out = Self::default();
        for column in 0..dim {
            let present: Vec<f64> =
                rows.iter().filter_map(|row| row[column]).map(f64::from).collect();
            let (mean, sd) = super::linalg::mean_sd(&present);
            out.mean.push(mean as f32);
            out.scale.push(if sd > 1e-6 { (1.0 / sd) as f32 } else { 0.0 });
        }
        out
    }

    /// Standardised values; unknown ones become 0.
    pub(crate) fn apply(&self, row: &[Option<f32>]) -> Vec<f32> {
        let known = row.iter().zip(self.mean.iter().zip(&self.scale));
        known.map(|(value, (mean, scale))| value.map_or(0.0, |v| (v - mean) * scale)).collect()
    }
}

/// Whitened principal directions of backbone rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Directions {
    /// `[count, dim]`, each over the standard deviation along it.
    pub(crate) vectors: Vec<f32>,
    /// The centre's projection on each.
    pub(crate) offsets: Vec<f32>,
}

impl Directions {
    /// `[rows, count]`, row-major.
    fn project(&self, rows: &Rows) -> Vec<f32> {
        let count = self.offsets.len();
        let left = MatRef::from_row_major_slice(rows.values(), rows.len(), rows.dim());
        let right = MatRef::from_row_major_slice(&self.vectors, count, rows.dim());
        let out = product_f32(left, right.transpose());
        let entry = |index: usize| {
            let (row, column) = (index / count, index % count);
            out[(row, column)] - self.offsets[column]
        };
        (0..rows.len() * count).map(entry).collect()
    }
}

/// Mean, spread and scalars of a dataset, each ready for distances.
pub(crate) type Blocks = [Vec<f32>; 3];

/// Training tasks, how datasets are described, and the kernel between them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Basis {
    /// Ids of the training tasks.
    pub(crate) tasks: Vec<[u8; 32]>,
    /// Numbers in a backbone row; 0 while there is no training task.
    pub(crate) dim: usize,
    /// Mean of the training tasks' means.
    pub(crate) centre: Vec<f32>,
    pub(crate) directions: Directions,
    pub(crate) spread: Standardiser,
    /// Of the scalars and, behind them, of the contrast, which earlier versions lack.
    pub(crate) scalars: Standardiser,
    /// Blocks of each training task, row-major: mean, spread, scalars.
    pub(crate) blocks: Blocks,
    /// Median squared distance among training tasks, block by block.
    pub(crate) medians: [f32; 3],
    /// `[k - 1, tasks]`: U' / sqrt(w), from kernel values to all coordinates but the contrast.
    pub(crate) map: Vec<f32>,
    /// `[tasks, k]`: U sqrt(w) and the contrast, the training tasks' coordinates.
    pub(crate) coordinates: Vec<f32>,
    /// Number of coordinates.
    pub(crate) k: usize,
}

impl Basis {
    /// Position of a training task.
    pub(crate) fn position(&self, id: &[u8; 32]) -> Option<usize> {
        self.tasks.iter().position(|task| task == id)
    }

    /// Coordinates of a training task.
    pub(crate) fn coordinates_of(&self, task: usize) -> &[f32] {
        &self.coordinates[task * self.k..(task + 1) * self.k]
    }

    /// # Errors
    /// `Error::Input` unless the sample has this basis' row dimension, two classes and finite numbers.
    pub(crate) fn check(&self, sample: &TaskSample) -> Result<(), Error> {
        check_sample(sample)?;
        if self.dim != 0 && sample.rows.dim() != self.dim {
            return Err(Error::Input {
                what: "backbone rows",
                expected: format!("{} numbers each, from the zoo's backbone", self.dim),
                found: format!("{} numbers each", sample.rows.dim()),
            });
        }
        Ok(())
    }

    /// The three standardised blocks of a checked sample.
    pub(crate) fn describe(&self, sample: &TaskSample) -> Blocks {
        let mean = centred_mean(&class_mean(sample), &self.centre);
        let spread = spread(sample, &self.directions);
        [mean, self.spread.apply(&spread), self.scalars.apply(&sample.scalars)]
    }

    /// exp(-D) to each training task, with D the mean over blocks of distance / median distance.
    pub(crate) fn kernel(&self, blocks: &Blocks) -> Vec<f32> {
        let distance = |task: usize| -> f32 {
            (0..3)
                .filter(|&block| self.medians[block] > 0.0)
                .map(|block| {
                    let len = blocks[block].len();
                    let known = &self.blocks[block][task * len..(task + 1) * len];
                    distance_squared(&blocks[block], known) / self.medians[block] / 3.0
                })
                .sum()
        };
        (0..self.tasks.len()).map(|task| (-distance(task)).exp()).collect()
    }

    /// Coordinates of a dataset with these kernel values.
    pub(crate) fn locate(&self, sample: &TaskSample, kernel: &[f32]) -> Vec<f32> {
        let rows = self.map.chunks_exact(kernel.len().max(1));
        rows.map(|row| dot_f32(row, kernel)).chain(self.contrast(sample)).collect()
    }

    /// How much more the backbone tells of the classes than the pixels do, as a coordinate: networks differ in which
    /// of the two they follow, and a kernel of many features hardly sees it. `None` for the basis of an earlier version.
    pub(crate) fn contrast(&self, sample: &TaskSample) -> Option<f32> {
        let value = self.scalars.apply(&scalar_row(sample)).get(SCALARS).copied();
        value.map(|value| CONTRAST.sqrt() * value.clamp(-CONTRAST_MAX, CONTRAST_MAX))
    }
}

/// # Errors
/// `Error::Input` for samples that `TaskSample::measure` would not have made.
pub(crate) fn check_sample(sample: &TaskSample) -> Result<(), Error> {
    let refuse =
        |expected: String, found: String| Error::Input { what: "dataset", expected, found };
    super::check_rows(&sample.rows, &sample.labels, sample.class_means.len())?;
    if sample.class_means.dim() != sample.rows.dim() {
        let expected = format!("class means of {} numbers", sample.rows.dim());
        return Err(refuse(expected, sample.class_means.dim().to_string()));
    }
    let mut numbers = sample.class_means.values().iter().chain(sample.scalars.iter().flatten());
    if numbers.any(|value| !value.is_finite()) {
        return Err(refuse("finite class means and scalars".into(), "NaN or infinity".into()));
    }
    Ok(())
}

/// Mean of the class means: every class counts alike, however many rows it has.
pub(crate) fn class_mean(sample: &TaskSample) -> Vec<f32> {
    let mut mean = vec![0.0_f32; sample.class_means.dim()];
    let share = 1.0 / sample.class_means.len().max(1) as f32;
    for row in sample.class_means.iter() {
        for (sum, value) in mean.iter_mut().zip(row) {
            *sum += share * value;
        }
    }
    mean
}

/// `normalise(mean - centre)`.
pub(crate) fn centred_mean(mean: &[f32], centre: &[f32]) -> Vec<f32> {
    // Without a basis there is no centre, and nothing is compared.
    let mut out: Vec<f32> = mean.iter().zip(centre).map(|(value, centre)| value - centre).collect();
    normalise(&mut out);
    out
}

/// log within-class sd, log between-class sd and their difference along each direction, not yet standardised.
pub(crate) fn spread(sample: &TaskSample, directions: &Directions) -> Vec<Option<f32>> {
    let count = directions.offsets.len();
    if count == 0 {
        return Vec::new();
    }
    let rows = directions.project(&sample.rows);
    let means = directions.project(&sample.class_means);
    let mut within = vec![0.0_f32; count];
    for (row, &label) in rows.chunks_exact(count).zip(&sample.labels) {
        let mean = &means[label as usize * count..(label as usize + 1) * count];
        for ((sum, value), mean) in within.iter_mut().zip(row).zip(mean) {
            *sum += (value - mean).powi(2) / sample.labels.len() as f32;
        }
    }
    let classes = sample.class_means.len() as f32;
    let mut centre = vec![0.0_f32; count];
    let mut square = vec![0.0_f32; count];
    for row in means.chunks_exact(count) {
        for (sum, value) in centre.iter_mut().zip(row) {
            *sum += value / classes;
        }
    }
    for row in means.chunks_exact(count) {
        for ((sum, value), centre) in square.iter_mut().zip(row).zip(&centre) {
            *sum += (value - centre).powi(2) / classes;
        }
    }
    let log = |variances: &[f32]| -> Vec<f32> {
        variances.iter().map(|variance| (variance.sqrt() + SPREAD_FLOOR).ln()).collect()
    };
    let (within, between) = (log(&within), log(&square));
    let difference: Vec<f32> = between.iter().zip(&within).map(|(b, w)| b - w).collect();
    [within, between, difference].concat().into_iter().map(Some).collect()
}

/// Scalars and contrast as a row for `Standardiser::fit`.
pub(crate) fn scalar_row(sample: &TaskSample) -> Vec<Option<f32>> {
    let logit = |accuracy: f32| {
        let accuracy = accuracy.clamp(CONTRAST_MARGIN, 1.0 - CONTRAST_MARGIN);
        (accuracy / (1.0 - accuracy)).ln()
    };
    let [_, _, _, _, by_rows, by_pixels, ..] = sample.scalars;
    let contrast = by_rows.zip(by_pixels).map(|(rows, pixels)| logit(rows) - logit(pixels));
    let row: [Option<f32>; SCALARS] = sample.scalars;
    row.into_iter().chain([contrast]).collect()
}
