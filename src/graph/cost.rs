//! Parameters, multiply-accumulate operations and peak activation memory.

use super::{Attribute, Dtype, Graph, Node, Weight};
use std::collections::{BTreeMap, HashMap, HashSet};

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

/// Scalars in the weights that are learned: floating point, and quantised integers where an
/// operator takes its weight.
///
/// Shape constants, scalar constants, zero points, scales and bounds do not count, nor do the
/// running statistics of batch normalisation. A weight that several nodes share counts once; one
/// that no node reads does not count.
pub fn params(graph: &Graph) -> u64 {
    let mut counted = HashSet::new();
    let mut total = 0_u64;
    count(graph, &[], &mut |weight| {
        if counted.insert(std::ptr::from_ref(weight)) {
            total = total.saturating_add(elements(&weight.shape));
        }
    });
    total
}

/// Costs from the sizes of every value, as `exec::Network::trace` reports them.
///
/// A value that `sizes` does not have (inside a subgraph, say) adds nothing.
pub fn cost(graph: &Graph, sizes: &BTreeMap<String, ValueSize>) -> GraphCost {
    let shape = |name: &str| -> Option<&[usize]> {
        let weight = graph.weights.get(name).map(|weight| weight.shape.as_slice());
        weight.or_else(|| sizes.get(name).map(|size| size.shape.as_slice()))
    };
    let macs = graph.nodes.iter().filter_map(|node| macs(node, &shape));
    GraphCost {
        params: params(graph),
        macs: macs.fold(0, u64::saturating_add),
        peak_activation_bytes: peak(graph, sizes),
    }
}

/// Calls `visit` for each learned weight that a node reads, subgraphs included; `outer` are the
/// enclosing graphs.
fn count<'a>(graph: &'a Graph, outer: &[&'a Graph], visit: &mut dyn FnMut(&'a Weight)) {
    let scopes: Vec<&Graph> = outer.iter().copied().chain([graph]).collect();
    for node in &graph.nodes {
        for (slot, name) in node.inputs.iter().enumerate() {
            let weight = scopes.iter().rev().find_map(|scope| scope.weights.get(name));
            weight
                .filter(|weight| is_learned(node, slot, weight))
                .into_iter()
                .for_each(&mut *visit);
        }
        node.subgraphs().for_each(|subgraph| count(subgraph, &scopes, visit));
    }
}

fn is_learned(node: &Node, slot: usize, weight: &Weight) -> bool {
    let float = matches!(weight.dtype, Dtype::F16 | Dtype::BF16 | Dtype::F32 | Dtype::F64)
        || matches!(weight.dtype, Dtype::F8_E4M3 | Dtype::F8_E5M2);
    match (node.op.as_str(), slot) {
        ("BatchNormalization", slot) => float && matches!(slot, 1 | 2),
        ("QLinearConv", slot) => matches!(slot, 3 | 8),
        ("QLinearMatMul", slot) => matches!(slot, 0 | 3),
        ("ConvInteger" | "MatMulInteger" | "MatMulIntegerToFloat", slot) => slot <= 1,
        ("DynamicQuantizeMatMul", 1) => true,
        ("DynamicQuantizeLSTM", slot) => matches!(slot, 1..=3 | 7),
        ("DequantizeLinear", slot) => slot == 0,
        ("QuantizeLinear" | "QLinearAdd" | "QLinearMul" | "QLinearGlobalAveragePool", slot) => {
            float && slot == 0
        }
        ("Clip" | "Pad" | "Resize" | "Upsample" | "Range" | "OneHot" | "Where", _) => false,
        ("Conv" | "ConvTranspose" | "Gemm" | "MatMul" | "PRelu" | "LayerNormalization", _)
        | ("InstanceNormalization" | "GroupNormalization", _) => float,
        // A single float anywhere else is a constant of the formula, such as the 6 of a hard-swish.
        _ => float && elements(&weight.shape) > 1,
    }
}

/// Multiply-accumulate operations of one node; `None` for operators without any.
fn macs<'a>(node: &Node, shape: &dyn Fn(&str) -> Option<&'a [usize]>) -> Option<u64> {
    let input = |slot: usize| shape(node.inputs.get(slot)?);
    let output = || shape(node.outputs.first()?);
    let conv =
        |kernel: &[usize]| Some(elements(output()?).saturating_mul(elements(kernel.get(1..)?)));
    let product = |depth: usize| Some(elements(output()?).saturating_mul(depth as u64));
    match node.op.as_str() {
        "Conv" | "FusedConv" | "ConvInteger" => conv(input(1)?),
        "QLinearConv" => conv(input(3)?),
        "ConvTranspose" => Some(elements(input(0)?).saturating_mul(elements(input(1)?.get(1..)?))),
        "Gemm" | "FusedGemm" => {
            let transposed = matches!(node.attributes.get("transA"), Some(Attribute::Int(1)));
            let rows = input(0)?;
            product(*if transposed { rows.first()? } else { rows.last()? })
        }
        "MatMul"
        | "FusedMatMul"
        | "MatMulInteger"
        | "QLinearMatMul"
        | "MatMulIntegerToFloat"
        | "DynamicQuantizeMatMul" => product(*input(0)?.last()?),
        // Every weight is used once in each step of each sample.
        "RNN" | "GRU" | "LSTM" | "DynamicQuantizeLSTM" => {
            let weights = elements(input(1)?).saturating_add(elements(input(2)?));
            Some(elements(input(0)?.get(..2)?).saturating_mul(weights))
        }
        "Einsum" => einsum(node, &|slot| input(slot)),
        "Attention" => attention(input(0)?, input(1)?, input(2)?),
        _ => None,
    }
}

/// One operation for each combination of the letters' values; `None` where an ellipsis hides some.
fn einsum<'a>(node: &Node, input: &dyn Fn(usize) -> Option<&'a [usize]>) -> Option<u64> {
    let Some(Attribute::String(equation)) = node.attributes.get("equation") else { return None };
    let equation = std::str::from_utf8(equation).ok()?;
    let terms = equation.split("->").next()?.split(',');
    let mut sides = BTreeMap::new();
    for (slot, term) in terms.enumerate() {
        let letters: Vec<char> = term.chars().filter(|letter| !letter.is_whitespace()).collect();
        let shape = input(slot).filter(|shape| shape.len() == letters.len())?;
        sides.extend(letters.into_iter().zip(shape.iter().copied()));
    }
    Some(elements(&sides.into_values().collect::<Vec<_>>()))
}

/// Both products of attention: `[.., time, width]` of queries against so many keys and values.
fn attention(query: &[usize], key: &[usize], value: &[usize]) -> Option<u64> {
    let keys = *key.get(key.len().checked_sub(2)?)? as u64;
    let rows = elements(query) / (*query.last()? as u64).max(1);
    let widths = (*query.last()? as u64).saturating_add(*value.last()? as u64);
    Some(rows.saturating_mul(keys).saturating_mul(widths))
}

/// Largest sum of bytes that are live while a node runs: its inputs and outputs, and all that is
/// read later.
fn peak(graph: &Graph, sizes: &BTreeMap<String, ValueSize>) -> u64 {
    let end = graph.nodes.len();
    let mut last_use: HashMap<&str, usize> = HashMap::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        last_use.extend(node.reads().into_iter().map(|name| (name, index)));
    }
    last_use.extend(graph.outputs.iter().map(|output| (output.name.as_str(), end)));
    let size = |name: &str| match sizes.get(name) {
        Some(size) if !graph.weights.contains_key(name) => size.bytes as u64,
        _ => 0,
    };
    let mut live: u64 = graph.inputs.iter().map(|input| size(&input.name)).sum();
    let mut peak = live;
    let mut freed = HashSet::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        live = node.outputs.iter().fold(live, |live, name| live.saturating_add(size(name)));
        peak = peak.max(live);
        let unused = node.outputs.iter().map(String::as_str).filter(|n| !last_use.contains_key(n));
        let finished = node.reads().into_iter().filter(|name| last_use.get(name) == Some(&index));
        for name in finished.chain(unused) {
            if freed.insert(name) {
                live = live.saturating_sub(size(name));
            }
        }
    }
    peak
}

fn elements(shape: &[usize]) -> u64 {
    shape.iter().fold(1, |product, &side| product.saturating_mul(side as u64))
}
