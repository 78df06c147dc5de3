//! Content addresses.

use crate::dtype;
use safetensors::Dtype;
use serde::{Deserialize, Serialize};
use std::fmt;

/// blake3 of (format tag, canonical graph bytes, ordered tensor ids, input contract); of ("ref",
/// URI) for a reference model.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ModelId(pub [u8; 32]);

/// blake3 of (sorted image hashes, labels); of ("ref", name) for a reference task.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskId(pub [u8; 32]);

/// blake3 of (dtype, shape, bytes).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TensorId(pub [u8; 32]);

impl TensorId {
    /// Computes the id of a tensor: blake3 of `tans tensor 1`, the dtype code (`FORMAT.md`), the
    /// rank as u32, each dimension as u64 (all little-endian) and the bytes.
    pub fn of(dtype: Dtype, shape: &[usize], bytes: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"tans tensor 1");
        hasher.update(&[dtype::code(dtype)]);
        hasher.update(&(shape.len() as u32).to_le_bytes());
        for &dim in shape {
            hasher.update(&(dim as u64).to_le_bytes());
        }
        hasher.update(bytes);
        Self(*hasher.finalize().as_bytes())
    }
}

impl ModelId {
    /// Computes the id of a network: blake3 of `tans model 1`, the length of the canonical graph as
    /// u64 (little-endian), the graph, the number of tensors as u64, their ids in order, and the
    /// input contract.
    pub fn of_network(graph: &[u8], tensors: &[TensorId], input: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"tans model 1");
        hasher.update(&(graph.len() as u64).to_le_bytes());
        hasher.update(graph);
        hasher.update(&(tensors.len() as u64).to_le_bytes());
        tensors.iter().for_each(|tensor| {
            hasher.update(&tensor.0);
        });
        hasher.update(input);
        Self(*hasher.finalize().as_bytes())
    }

    /// Computes the id of a reference model: blake3 of `tans model ref 1` and the URI.
    pub fn of_reference(uri: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"tans model ref 1");
        hasher.update(uri.as_bytes());
        Self(*hasher.finalize().as_bytes())
    }
}

impl TaskId {
    /// Computes the id of a dataset: blake3 of `tans task 1` and, for each image in the order of
    /// their hashes, hash and label (u32, little-endian). The order of the images does not count.
    pub fn of_images(hashes: &[[u8; 32]], labels: &[u32]) -> Self {
        let mut samples: Vec<(&[u8; 32], u32)> =
            hashes.iter().zip(labels.iter().copied()).collect();
        samples.sort_unstable();
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"tans task 1");
        for (hash, label) in samples {
            hasher.update(hash);
            hasher.update(&label.to_le_bytes());
        }
        Self(*hasher.finalize().as_bytes())
    }

    /// Computes the id of a reference task: blake3 of `tans task ref 1` and the name.
    pub fn of_reference(name: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"tans task ref 1");
        hasher.update(name.as_bytes());
        Self(*hasher.finalize().as_bytes())
    }
}

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Display for TensorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Debug for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ModelId({self})")
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TaskId({self})")
    }
}

impl fmt::Debug for TensorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TensorId({self})")
    }
}

fn hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}
