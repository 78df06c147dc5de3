//! Parameters, multiply-accumulate operations and peak activation memory.

use super::Graph;

/// Shape and size of one value as seen in a run of one sample.
#[derive(Clone, Debug, PartialEq)]
pub struct ValueSize {
    /// Shape.
    pub shape: Vec<usize>,
    /// Bytes.
    pub bytes: usize,
}

/// What one forward pass of one sample costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GraphCost {
    /// Scalars in the weights.
    pub params: u64,
    /// Multiply-accumulate operations.
    pub macs: u64,
    /// Largest sum of live activations in bytes.
    pub peak_activation_bytes: u64,
}

/// Scalars in the floating-point weights that are learned (quantised integers count, shape constants do not).
pub fn params(_graph: &Graph) -> u64 {
    todo!()
}

/// Costs from the sizes of every value, as `exec::Network::trace` reports them.
pub fn cost(_graph: &Graph, _sizes: &std::collections::BTreeMap<String, ValueSize>) -> GraphCost {
    todo!()
}
