//! ONNX: reading, writing and the canonical form that a model's identity rests on.

mod canonical;
mod read;
mod tensor;
#[cfg(test)]
mod tests;
mod write;

pub(crate) use tensor::dtype_of;

use super::Limits;
use crate::graph::{Error, Graph, Weight};

/// The messages of `assets/onnx/onnx.proto`.
mod proto {
    include!(concat!(env!("OUT_DIR"), "/onnx.rs"));
}

/// A parsed file.
#[derive(Debug)]
pub struct OnnxFile {
    /// The network, Constants lifted to weights, nodes in topological order.
    pub graph: Graph,
    /// metadata_props, in order.
    pub metadata: Vec<(String, String)>,
}

/// A graph without weight bytes, and its weights in order of use: what identity is computed from
/// and what the zoo stores.
#[derive(Debug)]
pub struct Canonical {
    /// Deterministic GraphProto bytes.
    pub graph: Vec<u8>,
    /// (original name, weight) in order of use.
    pub weights: Vec<(String, Weight)>,
}

/// Parses ONNX bytes (weights in external files are refused with the advice to embed them).
///
/// Initialisers and Constant nodes become weights of the element type that the file has; a raw
/// tensor is copied once.
///
/// # Errors
/// `Error::Malformed` if the bytes are not a sound ONNX model: damaged, of another format, with a
/// cycle, an unknown or twice defined value, or a tensor whose data does not fit its shape.
/// `Error::Limit` beyond `limits`. `Error::Contract` for what ONNX allows and the zoo cannot hold:
/// external data, local functions, sparse or string tensors.
pub fn read(bytes: &[u8], limits: &Limits) -> Result<OnnxFile, Error> {
    read::read(bytes, limits)
}

/// Name and value of a tensor in a file of its own.
#[cfg(test)]
pub(crate) fn read_tensor(bytes: &[u8]) -> Result<(String, Weight), Error> {
    let proto = <proto::TensorProto as prost::Message>::decode(bytes)
        .map_err(|error| Error::Contract(format!("expected a tensor: {error}")))?;
    Ok((proto.name().to_owned(), tensor::to_weight(proto)?))
}

/// Serialises a network with embedded weights.
///
/// # Errors
/// `Error::Contract` or `Error::Malformed` if a weight's bytes do not fit its type and shape.
pub fn write(graph: &Graph, metadata: &[(String, String)]) -> Result<Vec<u8>, Error> {
    write::write(graph, metadata)
}

/// The canonical form (DESIGN: inner values renamed v0.., tensors t0.. in order of use, no docs,
/// fixed topological order).
///
/// The bytes depend on the function, on the names and declared shapes of inputs and outputs, and on
/// the operator sets in use; not on other names, on the order of nodes and weights, or on nodes and
/// weights that no output needs.
///
/// # Errors
/// `Error::Malformed` if a value is read that nothing defines.
pub fn canonical(graph: &Graph) -> Result<Canonical, Error> {
    canonical::canonical(graph)
}

/// Rebuilds a network from its canonical form. Weight `i` becomes `t{i}`.
///
/// # Errors
/// `Error::Malformed` if the bytes are damaged or the weights do not have the stated types and
/// shapes.
pub fn from_canonical(graph: &[u8], weights: Vec<Weight>) -> Result<Graph, Error> {
    canonical::from_canonical(graph, weights)
}

fn malformed(what: String) -> Error {
    Error::Malformed { format: "ONNX", what }
}
