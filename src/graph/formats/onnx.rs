//! ONNX: reading, writing and the canonical form that a model's identity rests on.

use super::Limits;
use crate::graph::{Error, Graph, Weight};

/// A parsed file.
#[derive(Debug)]
pub struct OnnxFile {
    /// The network, Constants lifted to weights, nodes in topological order.
    pub graph: Graph,
    /// metadata_props, in order.
    pub metadata: Vec<(String, String)>,
}

/// A graph without weight bytes, and its weights in order of use: what identity is computed from and what the zoo stores.
pub struct Canonical {
    /// Deterministic GraphProto bytes.
    pub graph: Vec<u8>,
    /// (original name, weight) in order of use.
    pub weights: Vec<(String, Weight)>,
}

/// Parses ONNX bytes (weights in external files are refused with the advice to embed them).
pub fn read(_bytes: &[u8], _limits: &Limits) -> Result<OnnxFile, Error> {
    todo!()
}

/// Serialises a network with embedded weights.
pub fn write(_graph: &Graph, _metadata: &[(String, String)]) -> Result<Vec<u8>, Error> {
    todo!()
}

/// The canonical form (DESIGN: inner values renamed v0.., tensors t0.. in order of use, no docs, fixed topological order).
pub fn canonical(_graph: &Graph) -> Result<Canonical, Error> {
    todo!()
}

/// Rebuilds a network from its canonical form. Weight `i` becomes `t{i}`.
pub fn from_canonical(_graph: &[u8], _weights: Vec<Weight>) -> Result<Graph, Error> {
    todo!()
}
