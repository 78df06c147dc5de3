//! Finds the classification head: the last linear layer, by data flow from the first output.

use super::{Attribute, Graph, Node, Weight};
use std::collections::HashMap;

/// The last linear layer, with all that is needed to replace it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadSite {
    /// Index of its node (Gemm, MatMul or 1x1 Conv).
    pub node: usize,
    /// Index of the Add that holds a MatMul's bias, if it is a node of its own.
    pub bias_node: Option<usize>,
    /// Name of the value that enters it: the penultimate activations.
    pub features: String,
    /// Name of its weight.
    pub weight: String,
    /// Name of its bias weight, if there is one.
    pub bias: Option<String>,
    /// Whether the weight is stored `[classes, feature_dim]` (a Gemm with transB, or a 1x1 Conv)
    /// rather than `[feature_dim, classes]`.
    pub transposed: bool,
    /// Number of logits.
    pub classes: usize,
    /// Dimension of the features.
    pub feature_dim: usize,
}

/// What is said of a network without one.
#[cfg(feature = "torch")]
pub const NO_HEAD: &str = "expected a last linear layer to train as the head, found none";

/// Operators between the last linear layer and the output that keep its place the last.
const PASS_THROUGH: [&str; 19] = [
    "Softmax",
    "LogSoftmax",
    "Sigmoid",
    "HardSigmoid",
    "Reshape",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "Identity",
    "Clip",
    "Cast",
    "Dropout",
    "Transpose",
    "Relu",
    "Exp",
    "Log",
    "GlobalAveragePool",
    "ReduceMean",
    "AveragePool",
];

/// Finds the last linear layer: walks back from the first output through activations and reshapes
/// to a Gemm, MatMul (with or without an Add for the bias) or 1x1 Conv whose second operand is a
/// weight. `None` if there is none.
pub fn find_head(graph: &Graph) -> Option<HeadSite> {
    let producers = producers(graph);
    let mut name = graph.outputs.first()?.name.as_str();
    let mut bias = None;
    // A sound graph has no cycle; the bound keeps a graph made by hand from looping.
    for _ in 0..=graph.nodes.len() {
        let index = *producers.get(name)?;
        let node = &graph.nodes[index];
        let standard = node.domain.is_empty();
        match node.op.as_str() {
            "Gemm" | "MatMul" | "Conv" if standard => return linear(graph, index, bias),
            "Add" if standard => {
                let (value, constant) = split_operands(graph, node)?;
                bias = Some((index, constant));
                name = value;
            }
            // Scaling the logits by a constant (a temperature) does not make another layer the
            // last.
            "Mul" | "Div" if standard => (name, bias) = (split_operands(graph, node)?.0, None),
            op if standard && PASS_THROUGH.contains(&op) => {
                name = node.inputs.first()?;
                bias =
                    bias.filter(|_| matches!(op, "Identity" | "Reshape" | "Squeeze" | "Flatten"));
            }
            _ => return None,
        }
    }
    None
}

fn producers(graph: &Graph) -> HashMap<&str, usize> {
    let outputs = graph.nodes.iter().enumerate();
    outputs
        .flat_map(|(index, node)| node.outputs.iter().map(move |o| (o.as_str(), index)))
        .collect()
}

/// (the runtime operand, the name of the weight) of a binary node.
fn split_operands<'a>(graph: &Graph, node: &'a Node) -> Option<(&'a str, &'a str)> {
    let [a, b] = node.inputs.as_slice() else {
        return None;
    };
    match (graph.weights.contains_key(a), graph.weights.contains_key(b)) {
        (false, true) => Some((a, b)),
        (true, false) => Some((b, a)),
        _ => None,
    }
}

fn linear(graph: &Graph, index: usize, added: Option<(usize, &str)>) -> Option<HeadSite> {
    let node = &graph.nodes[index];
    let [features, weight_name] = [node.inputs.first()?, node.inputs.get(1)?];
    if graph.weights.contains_key(features) {
        return None;
    }
    let (rows, columns, transposed) = matrix(node, graph.weights.get(weight_name)?)?;
    let (feature_dim, classes) = if transposed { (columns, rows) } else { (rows, columns) };
    let own = node.inputs.get(2).filter(|name| graph.weights.contains_key(*name));
    // An Add counts as the bias only if its weight has one number per class.
    let added = added.filter(|(_, name)| {
        own.is_none() && graph.weights.get(*name).is_some_and(|bias| bias.elements() == classes)
    });
    Some(HeadSite {
        node: index,
        bias_node: added.map(|(index, _)| index),
        features: features.clone(),
        weight: weight_name.clone(),
        bias: own.cloned().or_else(|| added.map(|(_, name)| name.to_owned())),
        transposed,
        classes,
        feature_dim,
    })
}

/// (rows, columns, transposed) of a linear layer's weight.
fn matrix(node: &Node, weight: &Weight) -> Option<(usize, usize, bool)> {
    let flag = |name: &str| matches!(node.attributes.get(name), Some(Attribute::Int(1)));
    let group = match node.attributes.get("group") {
        Some(Attribute::Int(group)) => *group,
        _ => 1,
    };
    match (node.op.as_str(), weight.shape.as_slice()) {
        ("Gemm", &[rows, columns]) if !flag("transA") => Some((rows, columns, flag("transB"))),
        ("MatMul", &[rows, columns]) => Some((rows, columns, false)),
        ("Conv", &[rows, columns, 1, 1]) if group == 1 => Some((rows, columns, true)),
        _ => None,
    }
}
