//! The network: a graph in the ONNX operator vocabulary with named weights, its cost and its input contract.

pub mod cost;
mod error;
#[cfg(feature = "torch")]
pub mod exec;
pub mod formats;
pub mod input;
pub mod spaces;
pub mod topology;

pub use error::Error;
pub use safetensors::Dtype;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Shared bytes: owned, or a slice of a mapped file.
pub type Bytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// A weight tensor: little-endian, row-major.
#[derive(Clone)]
pub struct Weight {
    /// Element type.
    pub dtype: Dtype,
    /// Shape; empty for a scalar.
    pub shape: Vec<usize>,
    /// Exactly as many bytes as dtype and shape ask for.
    pub bytes: Bytes,
}

/// A runtime input or output.
#[derive(Clone, Debug, PartialEq)]
pub struct ValueInfo {
    /// Name.
    pub name: String,
    /// Element type, where declared.
    pub dtype: Option<Dtype>,
    /// Dimensions; `None` where symbolic or unknown. Declared shapes may be wrong: never trust them over data.
    pub dims: Vec<Option<usize>>,
}

/// One operator call.
#[derive(Clone, Debug)]
pub struct Node {
    /// Name; may be empty.
    pub name: String,
    /// Operator, such as `Conv`.
    pub op: String,
    /// Operator domain; empty for the ONNX standard.
    pub domain: String,
    /// Names of inputs; an empty name is an omitted optional input.
    pub inputs: Vec<String>,
    /// Names of outputs.
    pub outputs: Vec<String>,
    /// Attributes by name.
    pub attributes: BTreeMap<String, Attribute>,
}

/// An attribute's value.
#[derive(Clone, Debug)]
pub enum Attribute {
    /// Integer.
    Int(i64),
    /// Float.
    Float(f32),
    /// Bytes, usually UTF-8.
    String(Vec<u8>),
    /// Tensor.
    Tensor(Weight),
    /// Integers.
    Ints(Vec<i64>),
    /// Floats.
    Floats(Vec<f32>),
    /// Byte strings.
    Strings(Vec<Vec<u8>>),
    /// Subgraph.
    Graph(Box<Graph>),
}

/// A network: nodes in topological order over named values, and named weights.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// Runtime inputs (weights are not among them).
    pub inputs: Vec<ValueInfo>,
    /// Outputs; the first holds the logits.
    pub outputs: Vec<ValueInfo>,
    /// In topological order. Constant nodes have been lifted to weights.
    pub nodes: Vec<Node>,
    /// By name.
    pub weights: BTreeMap<String, Weight>,
    /// Operator-set version by domain.
    pub opsets: BTreeMap<String, i64>,
}

impl std::fmt::Debug for Weight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Weight({:?} {:?})", self.dtype, self.shape)
    }
}

impl Weight {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
    /// An f32 weight from values.
    pub fn from_f32(shape: &[usize], values: &[f32]) -> Self {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { dtype: Dtype::F32, shape: shape.to_vec(), bytes: Arc::new(bytes) }
    }
    /// An i64 weight from values.
    pub fn from_i64(shape: &[usize], values: &[i64]) -> Self {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { dtype: Dtype::I64, shape: shape.to_vec(), bytes: Arc::new(bytes) }
    }
}
