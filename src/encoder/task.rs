//! A dataset as statistics of its backbone rows: mean, spread and ten landmark scalars (PILOT: dataset features).

use super::Error;
use crate::rows::Rows;
use crate::sample::Image;

/// Number of landmark scalars.
pub const SCALARS: usize = 10;

/// At most this many rows of a dataset are kept.
pub const ROWS_MAX: usize = 200;

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
    /// # Errors
    /// `Error::Input` for fewer than two classes, lengths that differ, or rows that are not finite.
    pub fn measure(
        _rows: &Rows,
        _labels: &[u32],
        _images: Option<&[Image]>,
        _seed: u64,
    ) -> Result<Self, Error> {
        todo!()
    }
}
