//! Which values are unsigned integers of more than 8 bits. libtorch has no arithmetic for them, so
//! they are held in a wider signed type, and what wraps around in ONNX is cut to their width here.

use super::ops::Fault;
use crate::graph::{Attribute, Dtype, Graph, Node};
use std::collections::HashMap;
use tch::Tensor;

/// Operators whose result has the type of their first input and may leave its range.
const WRAP: [&str; 10] = [
    "Add",
    "Sub",
    "Mul",
    "Pow",
    "Sum",
    "BitShift",
    "BitwiseNot",
    "ReduceSum",
    "ReduceProd",
    "CumSum",
];

/// Operators whose result has the type of their first input and stays in its range.
const KEEP: [&str; 19] = [
    "BitwiseAnd",
    "BitwiseOr",
    "BitwiseXor",
    "Div",
    "Mod",
    "Max",
    "Min",
    "Identity",
    "Reshape",
    "Transpose",
    "Squeeze",
    "Unsqueeze",
    "Flatten",
    "Concat",
    "Slice",
    "Gather",
    "Expand",
    "Tile",
    "Split",
];

/// The unsigned type of each value that has one, as far as the graph tells.
pub(super) fn types(graph: &Graph) -> HashMap<String, Dtype> {
    let wide = |dtype: Dtype| matches!(dtype, Dtype::U16 | Dtype::U32).then_some(dtype);
    let weights = graph.weights.iter().map(|(name, weight)| (name, Some(weight.dtype)));
    let inputs = graph.inputs.iter().map(|input| (&input.name, input.dtype));
    let mut types: HashMap<String, Dtype> = weights
        .chain(inputs)
        .filter_map(|(name, dtype)| Some((name.clone(), wide(dtype?)?)))
        .collect();
    for node in &graph.nodes {
        let op = node.op.as_str();
        let found = match (op, node.attributes.get("to")) {
            ("Cast", Some(Attribute::Int(4))) => Some(Dtype::U16),
            ("Cast", Some(Attribute::Int(12))) => Some(Dtype::U32),
            _ if WRAP.contains(&op) || KEEP.contains(&op) => of_first(node, &types),
            _ => None,
        };
        if let Some(dtype) = found {
            types.extend(node.outputs.iter().map(|name| (name.clone(), dtype)));
        }
    }
    types
}

/// The unsigned type of a node's first input.
pub(super) fn of_first(node: &Node, types: &HashMap<String, Dtype>) -> Option<Dtype> {
    types.get(node.inputs.first()?).copied()
}

/// Cuts what a node made of unsigned integers to their width.
pub(super) fn cut(node: &Node, dtype: Option<Dtype>, value: Tensor) -> Result<Tensor, Fault> {
    let mask = match dtype {
        Some(Dtype::U16) => 0xffff,
        Some(Dtype::U32) => 0xffff_ffff_i64,
        _ => return Ok(value),
    };
    Ok(if WRAP.contains(&node.op.as_str()) { value.f_bitwise_and(mask)? } else { value })
}
