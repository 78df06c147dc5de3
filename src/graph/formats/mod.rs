//! Reads and writes network files.

#[cfg(test)]
pub(crate) mod fuzz_tests;
pub mod onnx;
pub mod pytorch;
pub mod safetensors;

use super::Weight;

/// Named weights without a graph.
#[derive(Debug)]
pub struct StateDict {
    /// Names and values, in the order of the file.
    pub entries: Vec<(String, Weight)>,
    /// Whether that order is the one in which the network's layers were made.
    pub is_ordered: bool,
}

/// Limits on what a file may make us allocate or compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest total of weight bytes. Default 8 GiB.
    pub weight_bytes_max: u64,
    /// Largest number of nodes, and of the steps of one run where loops repeat them. Default
    /// 1,000,000.
    pub nodes_max: u64,
    /// Largest total of bytes of what the graph computes from constants alone in its first run,
    /// beyond 16 times the bytes of its weights. Default 64 MiB.
    pub constant_bytes_max: u64,
    /// Largest sum of bytes of the values that are alive at once in a run. Default 4 GiB.
    pub value_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            weight_bytes_max: 8 << 30,
            nodes_max: 1_000_000,
            constant_bytes_max: 64 << 20,
            value_bytes_max: 4 << 30,
        }
    }
}
