//! The vector type that the index takes: finite, normalised, of known dimension.

use crate::{Error, Result};

/// A unit vector. Checked once here, trusted everywhere else.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedding(Vec<f32>);

impl Embedding {
    /// Normalises `values`.
    ///
    /// # Errors
    /// `Error::Dimension` if it is not `dim` long, `Error::NotAVector` if it holds NaN or infinity or has no length.
    pub fn new(_values: Vec<f32>, _dim: usize) -> Result<Self> {
        todo!()
    }
    /// The unit vector's components.
    pub fn as_slice(&self) -> &[f32] {
        &self.0
    }
    /// Number of components.
    pub fn dim(&self) -> usize {
        self.0.len()
    }
}
