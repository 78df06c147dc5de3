//! Reads and writes network files.

pub mod onnx;
pub mod safetensors;

/// Limits on what a file may make us allocate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest total of weight bytes. Default 8 GiB.
    pub weight_bytes_max: u64,
    /// Largest number of nodes. Default 1,000,000.
    pub nodes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { weight_bytes_max: 8 << 30, nodes_max: 1_000_000 }
    }
}
