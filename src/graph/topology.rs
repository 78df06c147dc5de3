//! Fixed-length summary of any graph, for the model encoder.

use super::order::flow_order;
use super::{Attribute, Graph, Node, cost::GraphCost};
use std::collections::HashMap;

/// Length of `summary`.
pub const SUMMARY_LEN: usize = 48;

/// Groups of operators that are counted together.
const OPERATORS: [&[&str]; 16] = [
    &["Gemm", "MatMul", "QLinearMatMul", "MatMulInteger", "FusedMatMul", "FusedGemm"],
    &["BatchNormalization"],
    &[
        "LayerNormalization",
        "InstanceNormalization",
        "GroupNormalization",
        "SimplifiedLayerNormalization",
    ],
    &["Relu", "LeakyRelu", "PRelu", "Elu", "Selu"],
    &["Clip"],
    &["HardSwish", "HardSigmoid"],
    &["Sigmoid", "Gelu", "Erf", "Mish", "Tanh", "Softplus"],
    &["Softmax", "LogSoftmax"],
    &["Add", "Sub", "Sum"],
    &["Mul", "Div"],
    &["Concat", "Split"],
    &["MaxPool", "AveragePool", "LpPool"],
    &["GlobalAveragePool", "GlobalMaxPool", "ReduceMean"],
    &["Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Gather"],
    &["Attention", "MultiHeadAttention", "LSTM", "GRU", "RNN", "Einsum"],
    &["QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger", "DynamicQuantizeLinear"],
];

/// Log-scaled counts of operators, kernel sizes, widths, depth and cost; the same length for every
/// graph.
///
/// In order: 7 numbers of cost and size, 16 counts of operator groups, 12 of convolutions by kind,
/// 13 of widths and depth. Each is `ln(1 + x)`, so all are finite and at least 0.
pub fn summary(graph: &Graph, cost: &GraphCost) -> Vec<f32> {
    let convs: Vec<ConvShape> =
        graph.nodes.iter().filter_map(|n| ConvShape::of(n, graph)).collect();
    let mut numbers = size_numbers(graph, cost);
    for group in OPERATORS {
        numbers.push(
            graph.nodes.iter().filter(|node| group.contains(&node.op.as_str())).count() as f64
        );
    }
    numbers.extend(conv_numbers(&convs));
    numbers.extend(width_numbers(graph, &convs));
    debug_assert_eq!(numbers.len(), SUMMARY_LEN);
    numbers.into_iter().map(|number| number.max(0.0).ln_1p() as f32).collect()
}

fn size_numbers(graph: &Graph, cost: &GraphCost) -> Vec<f64> {
    let GraphCost { params, macs, peak_activation_bytes } = *cost;
    let ratio = macs as f64 / (params.max(1)) as f64;
    let side = |axis: usize| {
        let dims = graph.inputs.first().map(|input| input.dims.as_slice()).unwrap_or_default();
        dims.get(axis).copied().flatten().unwrap_or_default() as f64
    };
    vec![
        params as f64,
        macs as f64,
        peak_activation_bytes as f64,
        ratio,
        graph.nodes.len() as f64,
        graph.weights.len() as f64,
        side(2),
    ]
}

/// What the summary counts of one convolution.
struct ConvShape {
    kernel: usize,
    stride: i64,
    dilated: bool,
    group: usize,
    inputs: usize,
    outputs: usize,
    weights: f64,
}

impl ConvShape {
    fn of(node: &Node, graph: &Graph) -> Option<Self> {
        let slot = match node.op.as_str() {
            "Conv" | "FusedConv" | "ConvInteger" | "ConvTranspose" => 1,
            "QLinearConv" => 3,
            _ => return None,
        };
        let shape = &graph.weights.get(node.inputs.get(slot)?)?.shape;
        let first = |name: &str| match node.attributes.get(name) {
            Some(Attribute::Ints(values)) => values.first().copied().unwrap_or(1),
            _ => 1,
        };
        let group = match node.attributes.get("group") {
            Some(Attribute::Int(group)) => usize::try_from(*group).unwrap_or(1),
            _ => 1,
        };
        let outputs = *shape.first()?;
        let inputs = shape.get(1)?.saturating_mul(group);
        Some(Self {
            kernel: shape.get(2..)?.iter().copied().max().unwrap_or(1),
            stride: first("strides"),
            dilated: first("dilations") > 1,
            group,
            inputs,
            outputs,
            weights: shape.iter().map(|&side| side as f64).product(),
        })
    }

    fn is_depthwise(&self) -> bool {
        self.group > 1 && self.group == self.inputs
    }
}

fn conv_numbers(convs: &[ConvShape]) -> Vec<f64> {
    let count = |test: &dyn Fn(&ConvShape) -> bool| convs.iter().filter(|c| test(c)).count() as f64;
    let weights = |test: &dyn Fn(&ConvShape) -> bool| -> f64 {
        convs.iter().filter(|conv| test(conv)).map(|conv| conv.weights).sum()
    };
    vec![
        count(&|c| c.kernel == 1),
        count(&|c| c.kernel == 3),
        count(&|c| c.kernel == 5),
        count(&|c| c.kernel >= 7),
        count(&ConvShape::is_depthwise),
        count(&|c| c.group > 1 && !c.is_depthwise()),
        count(&|c| c.stride > 1),
        count(&|c| c.dilated),
        weights(&|c| c.kernel == 1),
        weights(&|c| c.kernel == 3),
        weights(&|c| c.kernel >= 5),
        weights(&ConvShape::is_depthwise),
    ]
}

fn width_numbers(graph: &Graph, convs: &[ConvShape]) -> Vec<f64> {
    let mut widths: Vec<usize> = convs.iter().map(|conv| conv.outputs).collect();
    // Quartiles by position along the network, then extremes over all.
    let at = |share: f64| {
        let last = widths.len().saturating_sub(1) as f64;
        widths.get((share * last).round() as usize).copied().unwrap_or_default() as f64
    };
    let by_place = [0.0, 0.25, 0.5, 0.75, 1.0].map(at);
    let mean = widths.iter().map(|&width| width as f64).sum::<f64>() / widths.len().max(1) as f64;
    widths.sort_unstable();
    let median = widths.get(widths.len() / 2).copied().unwrap_or_default() as f64;
    let largest = widths.last().copied().unwrap_or_default() as f64;
    let expansions = convs.iter().filter(|c| c.kernel == 1 && c.outputs > c.inputs).count() as f64;
    let head = super::head::find_head(graph);
    let feature_dim = head.as_ref().map_or(0, |head| head.feature_dim) as f64;
    let mut numbers = by_place.to_vec();
    numbers.extend([mean, median, largest, expansions, feature_dim]);
    let (depth, linear_depth) = depths(graph);
    let outputs = graph.outputs.len() as f64;
    numbers.extend([depth, linear_depth, outputs]);
    numbers
}

/// Longest path from an input to an output, in nodes and in nodes that multiply by weights.
fn depths(graph: &Graph) -> (f64, f64) {
    let mut reach: HashMap<&str, (u64, u64)> = HashMap::new();
    let mut deepest = (0, 0);
    for index in flow_order(graph) {
        let node = &graph.nodes[index];
        let reads = node.reads();
        let sources = || reads.iter().filter_map(|name| reach.get(name));
        let own = u64::from(matches!(node.op.as_str(), "Conv" | "Gemm" | "MatMul" | "QLinearConv"));
        let nodes = sources().map(|depth| depth.0).max().unwrap_or_default() + 1;
        let linear = sources().map(|depth| depth.1).max().unwrap_or_default() + own;
        reach.extend(node.outputs.iter().map(|output| (output.as_str(), (nodes, linear))));
        deepest = (deepest.0.max(nodes), deepest.1.max(linear));
    }
    (deepest.0 as f64, deepest.1 as f64)
}
