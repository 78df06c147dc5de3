//! A dataset as statistics of its backbone rows: mean, spread and ten landmark scalars (PILOT: dataset features).

use super::linalg::product_f32;
use super::ridge::RidgeProbe;
use super::{Error, check_rows};
use crate::rows::Rows;
use crate::sample::Image;
use faer::MatRef;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// Number of landmark scalars.
pub const SCALARS: usize = 10;

/// At most this many rows of a dataset are kept.
pub const ROWS_MAX: usize = 200;

/// Images are compared and measured at this many pixels a side.
const PIXELS_SIDE: usize = 32;

/// What the zoo keeps of a dataset.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskSample {
    /// At most `ROWS_MAX` class-stratified backbone rows of the training split.
    pub rows: Rows,
    /// Label of each row.
    pub labels: Vec<u32>,
    /// Class means over the full training split, `[classes, dim]`.
    pub class_means: Rows,
    /// log n, log C, log(n/C), ridge LOO accuracy, 1-NN accuracy (cosine), 1-NN accuracy on pixels, pixel mean, pixel sd,
    /// mean |R-B|, share of the largest class. `None` where one could not be measured (pixel statistics of bare rows).
    pub scalars: [Option<f32>; SCALARS],
}

impl TaskSample {
    /// Measures a dataset's training split: all `rows` with labels `0..classes`; images where there are any (same order).
    ///
    /// Accuracies and pixel statistics are measured on the kept rows, sizes and class means on all of them.
    ///
    /// # Errors
    /// `Error::Input` for fewer than two classes, a class without rows, lengths that differ, or rows that are not
    /// finite.
    pub fn measure(
        rows: &Rows,
        labels: &[u32],
        images: Option<&[Image]>,
        seed: u64,
    ) -> Result<Self, Error> {
        let classes = labels.iter().max().map_or(0, |&label| label as usize + 1);
        if let Some(images) = images.filter(|images| images.len() != rows.len()) {
            return Err(Error::Input {
                what: "images of the dataset",
                expected: format!("{} (one for each row)", rows.len()),
                found: images.len().to_string(),
            });
        }
        if classes > rows.len() {
            return Err(Error::Input {
                what: "labels",
                expected: format!("numbers below the {} rows", rows.len()),
                found: format!("label {}", classes - 1),
            });
        }
        check_rows(rows, labels, classes)?;
        let members = members(labels, classes)?;
        let kept = stratified(&members, seed);
        let sample_rows = rows.select(&kept);
        let sample_labels: Vec<u32> = kept.iter().map(|&index| labels[index]).collect();
        let probe = RidgeProbe::fit(&sample_rows, &sample_labels, classes)?;
        let (count, kinds) = (rows.len() as f32, classes as f32);
        let largest = members.iter().map(Vec::len).max().unwrap_or(0);
        let mut scalars = [None; SCALARS];
        scalars[0] = Some(count.ln());
        scalars[1] = Some(kinds.ln());
        scalars[2] = Some((count / kinds).ln());
        scalars[3] = Some(probe.loo_accuracy());
        scalars[4] = Some(nearest_accuracy(&unit_rows(&sample_rows), &sample_labels));
        scalars[9] = Some(largest as f32 / count);
        if let Some(images) = images {
            let images: Vec<&Image> = kept.iter().map(|&index| &images[index]).collect();
            scalars[5..9].copy_from_slice(&pixel_scalars(&images, &sample_labels));
        }
        let class_means = class_means(rows, &members);
        Ok(Self { rows: sample_rows, labels: sample_labels, class_means, scalars })
    }

    /// Accuracy of guessing among classes of equal size.
    pub(crate) fn chance(&self) -> f32 {
        1.0 / self.class_means.len().max(1) as f32
    }
}

/// Row indices of each class.
fn members(labels: &[u32], classes: usize) -> Result<Vec<Vec<usize>>, Error> {
    let mut members = vec![Vec::new(); classes];
    for (index, &label) in labels.iter().enumerate() {
        members[label as usize].push(index);
    }
    match members.iter().position(Vec::is_empty) {
        None => Ok(members),
        Some(empty) => Err(Error::Input {
            what: "labels",
            expected: format!("at least one row of each of the {classes} classes"),
            found: format!("none of class {empty}"),
        }),
    }
}

/// Takes one row of each class in turn, at random within a class, until enough are chosen; ascending.
fn stratified(members: &[Vec<usize>], seed: u64) -> Vec<usize> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut shuffled = members.to_vec();
    for class in &mut shuffled {
        class.shuffle(&mut random);
    }
    shuffled.shuffle(&mut random);
    let deepest = shuffled.iter().map(Vec::len).max().unwrap_or(0);
    let turns = (0..deepest).flat_map(|turn| shuffled.iter().filter_map(move |c| c.get(turn)));
    let mut kept: Vec<usize> = turns.copied().take(ROWS_MAX).collect();
    kept.sort_unstable();
    kept
}

fn class_means(rows: &Rows, members: &[Vec<usize>]) -> Rows {
    let mut values = Vec::with_capacity(members.len() * rows.dim());
    for class in members {
        let mut sums = vec![0.0_f64; rows.dim()];
        for &index in class {
            for (sum, &value) in sums.iter_mut().zip(rows.row(index)) {
                *sum += f64::from(value);
            }
        }
        values.extend(sums.iter().map(|sum| (sum / class.len() as f64) as f32));
    }
    Rows::new(rows.dim(), values).unwrap_or_default()
}

/// Rows minus their mean, each of length 1.
fn unit_rows(rows: &Rows) -> Rows {
    let mut mean = vec![0.0_f64; rows.dim()];
    for row in rows.iter() {
        for (sum, &value) in mean.iter_mut().zip(row) {
            *sum += f64::from(value) / rows.len() as f64;
        }
    }
    let mut values = Vec::with_capacity(rows.values().len());
    for row in rows.iter() {
        let mut centred: Vec<f32> =
            row.iter().zip(&mean).map(|(&value, mean)| (f64::from(value) - mean) as f32).collect();
        super::linalg::normalise(&mut centred);
        values.extend(centred);
    }
    Rows::new(rows.dim(), values).unwrap_or_default()
}

/// Share of rows whose nearest other row (squared Euclidean distance) has their label.
fn nearest_accuracy(rows: &Rows, labels: &[u32]) -> f32 {
    let view = MatRef::from_row_major_slice(rows.values(), rows.len(), rows.dim());
    let gram = product_f32(view, view.transpose());
    let right = (0..rows.len()).filter(|&row| {
        let others = (0..rows.len()).filter(|&other| other != row);
        let distance = |other: usize| gram[(other, other)] - 2.0 * gram[(other, row)];
        let nearest = others.min_by(|&a, &b| distance(a).total_cmp(&distance(b)));
        nearest.is_some_and(|nearest| labels[nearest] == labels[row])
    });
    right.count() as f32 / rows.len().max(1) as f32
}

/// 1-NN accuracy on pixels, pixel mean, pixel sd, mean |R-B|, on images of one size with values in 0..1.
fn pixel_scalars(images: &[&Image], labels: &[u32]) -> [Option<f32>; 4] {
    let dim = PIXELS_SIDE * PIXELS_SIDE * 3;
    let values: Vec<f32> = images.iter().flat_map(|image| small_pixels(image)).collect();
    let count = values.len().max(1) as f64;
    let mean = values.iter().map(|&value| f64::from(value)).sum::<f64>() / count;
    let square = values.iter().map(|&value| (f64::from(value) - mean).powi(2)).sum::<f64>() / count;
    let tint = values.chunks_exact(3).map(|pixel| f64::from((pixel[0] - pixel[2]).abs()));
    let tint = tint.sum::<f64>() / (count / 3.0);
    let nearest = Rows::new(dim, values).map(|rows| nearest_accuracy(&rows, labels));
    [nearest, Some(mean as f32), Some(square.sqrt() as f32), Some(tint as f32)]
}

/// The image at a fixed size as red, green, blue in 0..1: the average of the pixels under each cell.
fn small_pixels(image: &Image) -> Vec<f32> {
    let mut out = Vec::with_capacity(PIXELS_SIDE * PIXELS_SIDE * 3);
    for row in 0..PIXELS_SIDE {
        for column in 0..PIXELS_SIDE {
            let (top, bottom) = cell(row, image.height());
            let (left, right) = cell(column, image.width());
            for colour in 0..3 {
                let channel = colour.min(image.channels() - 1);
                let mut sum = 0_u64;
                for y in top..bottom {
                    let start = y * image.width();
                    let pixels = start + left..start + right;
                    sum += pixels
                        .map(|at| u64::from(image.pixels()[at * image.channels() + channel]))
                        .sum::<u64>();
                }
                let area = ((bottom - top) * (right - left)) as f32;
                out.push(sum as f32 / area / 255.0);
            }
        }
    }
    out
}

/// Pixels `start..end` of `side` that lie under cell `index`; at least one.
fn cell(index: usize, side: usize) -> (usize, usize) {
    let start = index * side / PIXELS_SIDE;
    (start, ((index + 1) * side / PIXELS_SIDE).max(start + 1))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]
mod tests {
    use super::*;

    /// 3 classes x 100 rows whose class shows in one feature each, and images whose class shows in their brightness.
    fn dataset() -> (Rows, Vec<u32>, Vec<Image>) {
        let labels: Vec<u32> = (0..300).map(|index| index % 3).collect();
        let noise = |index: usize| ((index * 7919 % 101) as f32 / 101.0 - 0.5) * 0.2;
        let values = labels.iter().enumerate().flat_map(|(index, &label)| {
            (0..4).map(move |k| noise(index * 4 + k as usize) + if k == label { 1.0 } else { 0.0 })
        });
        let rows = Rows::new(4, values.collect()).unwrap();
        let image = |&label: &u32| Image::new(5, 40, 1, vec![label as u8 * 100; 200]).unwrap();
        let images = labels.iter().map(image).collect();
        (rows, labels, images)
    }

    #[test]
    fn measures_what_is_there() {
        let (rows, labels, images) = dataset();
        let sample = TaskSample::measure(&rows, &labels, Some(&images), 0).unwrap();
        assert_eq!((sample.rows.len(), sample.class_means.len()), (ROWS_MAX, 3));
        for class in 0..3 {
            let count = sample.labels.iter().filter(|&&label| label == class).count();
            assert!((66..=67).contains(&count), "{count} rows of class {class}");
            let mean = sample.class_means.row(class as usize)[class as usize];
            assert!((mean - 1.0).abs() < 0.05, "{mean}");
        }
        let scalars = sample.scalars.map(|scalar| scalar.unwrap());
        let expected = [300_f32.ln(), 3_f32.ln(), 100_f32.ln(), 1.0, 1.0, 1.0];
        for (found, expected) in scalars.iter().zip(expected) {
            assert!((found - expected).abs() < 0.05, "{scalars:?}");
        }
        assert!((scalars[6] - 100.0 / 255.0).abs() < 0.01 && scalars[8] == 0.0, "{scalars:?}");
        assert!((scalars[7] - 81.6 / 255.0).abs() < 0.01, "{scalars:?}");
        assert!((scalars[9] - 1.0 / 3.0).abs() < 1e-6);
    }

    #[test]
    fn the_seed_decides_and_bare_rows_have_no_pixels() {
        let (rows, labels, _) = dataset();
        let measure = |seed| TaskSample::measure(&rows, &labels, None, seed).unwrap();
        assert_eq!(measure(3), measure(3));
        assert_ne!(measure(3).rows, measure(4).rows);
        assert_eq!(measure(3).scalars[5..9], [None; 4]);
    }

    #[test]
    fn hostile_datasets_are_refused() {
        let (rows, labels, images) = dataset();
        let refused = |rows: &Rows, labels: &[u32], images: Option<&[Image]>| {
            TaskSample::measure(rows, labels, images, 0).is_err()
        };
        assert!(refused(&rows, &labels[..299], None));
        assert!(refused(&rows, &labels, Some(&images[..9])));
        assert!(refused(&rows, &[0; 300], None));
        let gap: Vec<u32> = labels.iter().map(|label| label * 2).collect();
        assert!(refused(&rows, &gap, None));
        assert!(refused(&rows, &[u32::MAX; 300], None));
        assert!(refused(&Rows::default(), &[], None));
        let nan = Rows::new(4, vec![f32::NAN; 1200]).unwrap();
        assert!(refused(&nan, &labels, None));
    }
}
