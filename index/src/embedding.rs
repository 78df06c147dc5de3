//! The vector type that the index takes: finite, normalised, of known dimension.

use crate::{Error, Result};

/// Most dimensions that a vector may have.
pub const DIM_MAX: usize = 65_536;

/// A unit vector. Checked once here, trusted everywhere else.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedding(Vec<f32>);

impl Embedding {
    /// Normalises `values`.
    ///
    /// # Errors
    /// `Error::Dimension` if it is not `dim` long, `Error::NotAVector` if it holds NaN or infinity
    /// or has no length, `Error::Option` if `dim` is above [`DIM_MAX`].
    ///
    /// # Examples
    /// ```
    /// let unit = tans_index::Embedding::new(vec![3.0, 4.0], 2)?;
    /// assert_eq!(unit.as_slice(), &[0.6, 0.8]);
    /// # Ok::<(), tans_index::Error>(())
    /// ```
    pub fn new(mut values: Vec<f32>, dim: usize) -> Result<Self> {
        if values.len() != dim {
            return Err(Error::Dimension { expected: dim, found: values.len() });
        }
        if dim > DIM_MAX {
            return Err(Error::Option {
                name: "dim",
                expected: format!("at most {DIM_MAX}"),
                found: dim.to_string(),
            });
        }
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            return Err(Error::NotAVector { found: format!("{} at component {at}", values[at]) });
        }
        // The squares are summed in f64: those of large f32 values overflow and those of small
        // ones vanish in f32, although both have a direction.
        let norm = values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
        if norm == 0.0 {
            return Err(Error::NotAVector { found: format!("{dim} components, all zero") });
        }
        for value in &mut values {
            *value = (f64::from(*value) / norm) as f32;
        }
        Ok(Self(values))
    }

    /// Takes components that were normalised before, without changing a bit of them.
    ///
    /// Bytes from disk come back through here, so that a merge does not drift.
    pub(crate) fn from_unit(values: Vec<f32>) -> Result<Self> {
        let norm = values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>();
        // A NaN fails this comparison too.
        if (norm - 1.0).abs() < 1e-3 {
            Ok(Self(values))
        } else {
            Err(Error::NotAVector { found: format!("a squared length of {norm}, not of 1") })
        }
    }

    /// The unit vector's components.
    pub fn as_slice(&self) -> &[f32] {
        &self.0
    }

    /// Number of components.
    pub fn dim(&self) -> usize {
        self.0.len()
    }

    /// The components, followed by zeros up to a multiple of 16: cosines stay as they are.
    pub(crate) fn padded(&self) -> Vec<f32> {
        let mut values = self.0.clone();
        values.resize(padded_dim(self.dim()), 0.0);
        values
    }
}

/// `dim` rounded up to a multiple of 16 components, which fill a cache line.
pub(crate) fn padded_dim(dim: usize) -> usize {
    dim.next_multiple_of(16)
}
