//! Ridge classification in closed form, with leave-one-out model selection (PILOT: ridge probe).

use super::Error;
use crate::rows::Rows;

/// A fitted probe.
pub struct RidgeProbe {}

impl RidgeProbe {
    /// Standardises, centres, chooses lambda by closed-form leave-one-out error.
    ///
    /// # Errors
    /// `Error::Input` for fewer than two rows or classes, or rows that are not finite.
    pub fn fit(_rows: &Rows, _labels: &[u32], _classes: usize) -> Result<Self, Error> {
        todo!()
    }
    /// Leave-one-out top-1 accuracy on the training rows.
    pub fn loo_accuracy(&self) -> f32 {
        todo!()
    }
    /// Predicted labels.
    pub fn predict(&self, _rows: &Rows) -> Vec<u32> {
        todo!()
    }
    /// Top-1 accuracy.
    pub fn accuracy(&self, _rows: &Rows, _labels: &[u32]) -> f32 {
        todo!()
    }
}
