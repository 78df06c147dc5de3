//! A network on a device, ready to run.

use super::Device;
use crate::graph::{Error, Graph, cost::ValueSize, input::InputContract};
use crate::rows::Rows;
use crate::sample::Image;
use std::collections::BTreeMap;

/// The last linear layer, found by data flow from the first output.
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    /// Index of its node (Gemm, MatMul or 1x1 Conv).
    pub node: usize,
    /// Name of the value that enters it: the penultimate activations.
    pub features: String,
    /// Dimension of the features.
    pub feature_dim: usize,
    /// Number of logits.
    pub classes: usize,
}

/// A network with its weights on a device. Send, not Sync.
pub struct Network {}

impl Network {
    /// Loads weights and resolves every operator.
    ///
    /// # Errors
    /// `Error::NotRunnable` for the first operator that is missing.
    pub fn new(_graph: &Graph, _input: &InputContract, _device: Device) -> Result<Self, Error> {
        todo!()
    }
    /// The last linear layer, if there is one.
    pub fn head(&self) -> Option<&Head> {
        todo!()
    }
    /// Sizes of every value in a run of one sample (zeros), for `cost`.
    pub fn trace(&self) -> Result<BTreeMap<String, ValueSize>, Error> {
        todo!()
    }
    /// First output, flattened to `[n, classes]`; images pass through the input contract, in batches, without gradients.
    pub fn logits(&self, _images: &[Image]) -> Result<Rows, Error> {
        todo!()
    }
    /// Penultimate activations `[n, feature_dim]` (spatial dimensions averaged); without a head, the flattened first output.
    pub fn features(&self, _images: &[Image]) -> Result<Rows, Error> {
        todo!()
    }
    /// Median milliseconds of repeated single-sample runs.
    pub fn latency_ms(&self, _runs: usize) -> Result<f32, Error> {
        todo!()
    }
}
