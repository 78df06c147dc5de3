//! The network: a graph in the ONNX operator vocabulary with named weights, its cost and its input
//! contract.

pub mod cost;
mod error;
#[cfg(feature = "torch")]
pub mod exec;
pub mod formats;
pub mod head;
pub mod input;
pub mod order;
pub mod spaces;
#[cfg(test)]
mod tests;
pub mod topology;

pub use error::Error;
pub use safetensors::Dtype;
use std::collections::{BTreeMap, HashSet};
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
    /// Dimensions; `None` where symbolic or unknown. Declared shapes may be wrong: never trust them
    /// over data.
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
    /// The bytes.
    pub fn data(&self) -> &[u8] {
        (*self.bytes).as_ref()
    }
    /// Bytes that type and shape ask for; `None` if that overflows.
    pub fn byte_size(&self) -> Option<usize> {
        let elements =
            self.shape.iter().try_fold(1_usize, |product, &side| product.checked_mul(side));
        Some(elements?.checked_mul(self.dtype.bitsize())?.div_ceil(8))
    }
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
    /// An f32 weight from values.
    pub fn from_f32(shape: &[usize], values: &[f32]) -> Self {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { dtype: Dtype::F32, shape: shape.to_vec(), bytes: Arc::new(bytes) }
    }
    /// The same weight as f32, if it is f16; any other stays as it is.
    pub fn widened(&self) -> Self {
        if self.dtype != Dtype::F16 {
            return self.clone();
        }
        let (halves, _) = self.data().as_chunks();
        let halves = halves.iter().map(|&half| half::f16::from_le_bytes(half));
        let wide: Vec<u8> = halves.flat_map(|half| half.to_f32().to_le_bytes()).collect();
        Self { dtype: Dtype::F32, shape: self.shape.clone(), bytes: Arc::new(wide) }
    }
    /// An f32 weight as f16; `None` for other types and for values beyond the range of f16.
    pub fn narrowed(&self) -> Option<Self> {
        let values = self.floats().filter(|_| self.dtype == Dtype::F32)?;
        let halves: Vec<half::f16> = values.into_iter().map(half::f16::from_f32).collect();
        if halves.iter().any(|half| half.is_infinite()) {
            return None;
        }
        let bytes: Vec<u8> = halves.iter().flat_map(|half| half.to_le_bytes()).collect();
        Some(Self { dtype: Dtype::F16, shape: self.shape.clone(), bytes: Arc::new(bytes) })
    }
    /// Values of an f32, f16 or bf16 weight; `None` for another type or a wrong number of bytes.
    pub fn floats(&self) -> Option<Vec<f32>> {
        let bytes = self.data();
        let values: Vec<f32> = match self.dtype {
            Dtype::F32 => {
                bytes.as_chunks().0.iter().map(|&four| f32::from_le_bytes(four)).collect()
            }
            Dtype::F16 => {
                let (halves, _) = bytes.as_chunks();
                halves.iter().map(|&two| half::f16::from_le_bytes(two).to_f32()).collect()
            }
            Dtype::BF16 => {
                let (halves, _) = bytes.as_chunks();
                halves.iter().map(|&two| half::bf16::from_le_bytes(two).to_f32()).collect()
            }
            _ => return None,
        };
        (values.len() == self.elements()).then_some(values)
    }
    /// An i64 weight from values.
    pub fn from_i64(shape: &[usize], values: &[i64]) -> Self {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { dtype: Dtype::I64, shape: shape.to_vec(), bytes: Arc::new(bytes) }
    }
}

impl Graph {
    /// Gives the weights of a canonical graph, `t0` and so on, names by their number; leaves all as they are if a name
    /// is missing, comes twice or is that of a value, or if there are subgraphs.
    pub fn rename_weights<'a>(&mut self, name_of: impl Fn(usize) -> Option<&'a str>) {
        let fresh = |old: &str| name_of(old.strip_prefix('t')?.parse().ok()?);
        let mut taken: HashSet<&str> =
            self.inputs.iter().chain(&self.outputs).map(|value| value.name.as_str()).collect();
        taken.extend(self.nodes.iter().flat_map(|node| &node.outputs).map(String::as_str));
        let is_free = |old: &String| fresh(old).is_some_and(|name| taken.insert(name));
        let is_flat = self.nodes.iter().all(|node| node.subgraphs().next().is_none());
        if !is_flat || !self.weights.keys().all(is_free) {
            return;
        }
        for input in self.nodes.iter_mut().flat_map(|node| &mut node.inputs) {
            if self.weights.contains_key(input) {
                *input = fresh(input).unwrap_or_default().to_owned();
            }
        }
        let weights = std::mem::take(&mut self.weights).into_iter();
        self.weights = weights
            .map(|(old, weight)| (fresh(&old).unwrap_or_default().to_owned(), weight))
            .collect();
    }

    /// Looks for NaN and infinities in every floating-point weight, subgraphs and tensor attributes
    /// included.
    ///
    /// An infinite weight of one element passes: exporters write the open bound of a clip or a mask
    /// that way.
    ///
    /// # Errors
    /// `Error::NotFinite` for the first weight that holds such values.
    pub fn check_finite(&self) -> Result<(), Error> {
        self.weights.iter().try_for_each(|(name, weight)| check_weight(name, weight))?;
        for node in &self.nodes {
            for (name, attribute) in &node.attributes {
                match attribute {
                    Attribute::Tensor(weight) => check_weight(name, weight)?,
                    Attribute::Graph(graph) => graph.check_finite()?,
                    Attribute::Int(_)
                    | Attribute::Float(_)
                    | Attribute::String(_)
                    | Attribute::Ints(_)
                    | Attribute::Floats(_)
                    | Attribute::Strings(_) => {}
                }
            }
        }
        Ok(())
    }
}

fn check_weight(name: &str, weight: &Weight) -> Result<(), Error> {
    let (count, nan) = not_finite(weight);
    let is_bound = count == 1 && !nan && weight.elements() == 1;
    if count == 0 || is_bound {
        return Ok(());
    }
    Err(Error::NotFinite { name: name.to_owned(), count })
}

/// How many values are NaN or infinite, and whether one is NaN.
fn not_finite(weight: &Weight) -> (usize, bool) {
    let bytes = weight.data();
    match weight.dtype {
        Dtype::F32 => count_not_finite(bytes, |b: [u8; 4]| f32::from_le_bytes(b).into()),
        Dtype::F64 => count_not_finite(bytes, f64::from_le_bytes),
        Dtype::F16 => count_not_finite(bytes, |b: [u8; 2]| half::f16::from_le_bytes(b).into()),
        Dtype::BF16 => count_not_finite(bytes, |b: [u8; 2]| half::bf16::from_le_bytes(b).into()),
        _ => (0, false),
    }
}

fn count_not_finite<const N: usize>(bytes: &[u8], value: fn([u8; N]) -> f64) -> (usize, bool) {
    let (chunks, _) = bytes.as_chunks::<N>();
    let bad = || chunks.iter().map(|chunk| value(*chunk)).filter(|value| !value.is_finite());
    (bad().count(), bad().any(f64::is_nan))
}
