//! Cost, summary and head on graphs whose numbers can be counted by hand.

use super::cost::{GraphCost, ValueSize, cost, params};
use super::head::find_head;
use super::spaces::generate;
use super::topology::{SUMMARY_LEN, summary};
use super::{Attribute, Dtype, Graph, Node, ValueInfo, Weight};
use std::collections::BTreeMap;

fn value(name: &str) -> ValueInfo {
    ValueInfo { name: name.into(), dtype: Some(Dtype::F32), dims: vec![None, Some(3)] }
}

fn node(op: &str, inputs: &[&str], output: &str) -> Node {
    Node {
        name: output.into(),
        op: op.into(),
        domain: String::new(),
        inputs: inputs.iter().map(|&name| name.into()).collect(),
        outputs: vec![output.into()],
        attributes: BTreeMap::new(),
    }
}

fn graph(nodes: Vec<Node>, weights: &[(&str, &[usize])]) -> Graph {
    let output = nodes.last().map(|node| node.outputs[0].clone()).unwrap_or_default();
    let weight = |&(name, shape): &(&str, &[usize])| {
        let count = shape.iter().product();
        (name.to_owned(), Weight::from_f32(shape, &vec![0.5; count]))
    };
    Graph {
        inputs: vec![value("x")],
        outputs: vec![value(&output)],
        nodes,
        weights: weights.iter().map(weight).collect(),
        opsets: BTreeMap::from([(String::new(), 13)]),
    }
}

fn sizes(shapes: &[(&str, &[usize])]) -> BTreeMap<String, ValueSize> {
    let size = |&(name, shape): &(&str, &[usize])| {
        let bytes = 4 * shape.iter().product::<usize>();
        (name.to_owned(), ValueSize { shape: shape.to_vec(), bytes })
    };
    shapes.iter().map(size).collect()
}

#[test]
fn learned_weights_count_and_constants_do_not() {
    let nodes = vec![
        node("Conv", &["x", "conv", "bias"], "a"),
        node("BatchNormalization", &["a", "scale", "shift", "mean", "variance"], "b"),
        node("Clip", &["b", "low", "high"], "c"),
        node("Mul", &["c", "six"], "d"),
        // A shared weight counts once.
        node("Conv", &["d", "conv"], "e"),
        node("Reshape", &["e", "shape"], "y"),
    ];
    let channels: &[usize] = &[8];
    let scalar: &[usize] = &[];
    let mut graph = graph(
        nodes,
        &[
            ("conv", &[8, 8, 3, 3]),
            ("bias", channels),
            ("scale", channels),
            ("shift", channels),
            ("mean", channels),
            ("variance", channels),
            ("low", scalar),
            ("high", scalar),
            ("six", scalar),
            ("unread", channels),
        ],
    );
    graph.weights.insert("shape".into(), Weight::from_i64(&[4], &[0, -1, 1, 1]));
    assert_eq!(params(&graph), 8 * 8 * 9 + 3 * 8);
}

#[test]
fn quantised_weights_count() {
    let zero = |shape: &[usize], dtype| {
        let bytes = std::sync::Arc::new(vec![0_u8; shape.iter().product()]);
        Weight { dtype, shape: shape.to_vec(), bytes }
    };
    let inputs = ["x", "x_scale", "x_zero", "w", "w_scale", "w_zero", "y_scale", "y_zero"];
    let mut graph = graph(vec![node("QLinearConv", &inputs, "y")], &[("w_scale", &[4])]);
    graph.weights.insert("w".into(), zero(&[4, 2, 3, 3], Dtype::I8));
    graph.weights.insert("w_zero".into(), zero(&[4], Dtype::I8));
    assert_eq!(params(&graph), 4 * 2 * 9);
    let found = cost(&graph, &sizes(&[("x", &[1, 2, 5, 5]), ("y", &[1, 4, 3, 3])]));
    assert_eq!(found.macs, 4 * 9 * 2 * 9);
}

#[test]
fn macs_are_those_of_the_loops() {
    let mut gemm = node("Gemm", &["p", "w2"], "y");
    gemm.attributes.insert("transA".into(), Attribute::Int(1));
    let nodes = vec![
        node("Conv", &["x", "depthwise"], "a"),
        node("ConvTranspose", &["a", "up"], "b"),
        node("MatMul", &["b", "w1"], "p"),
        gemm,
    ];
    let weights: [(&str, &[usize]); 4] =
        [("depthwise", &[3, 1, 5, 5]), ("up", &[3, 2, 2, 2]), ("w1", &[8, 6]), ("w2", &[7, 9])];
    let graph = graph(nodes, &weights);
    let sizes = sizes(&[
        ("x", &[1, 3, 4, 4]),
        ("a", &[1, 3, 4, 4]),
        ("b", &[1, 2, 8, 8]),
        ("p", &[7, 6]),
        ("y", &[6, 9]),
    ]);
    let expected = 3 * 16 * 25 + 3 * 16 * 8 + 7 * 6 * 8 + 6 * 9 * 7;
    assert_eq!(cost(&graph, &sizes).macs, expected);
}

#[test]
fn recurrent_layers_and_sums_of_products_count() {
    let mut einsum = node("Einsum", &["h", "e"], "s");
    einsum.attributes.insert("equation".into(), Attribute::String(b"tdbh, hk -> bk".to_vec()));
    let nodes =
        vec![node("LSTM", &["x", "w", "r"], "h"), einsum, node("Attention", &["q", "q", "q"], "y")];
    let weights: [(&str, &[usize]); 4] =
        [("w", &[2, 20, 3]), ("r", &[2, 20, 5]), ("e", &[5, 4]), ("q", &[1, 2, 6, 8])];
    let found = cost(&graph(nodes, &weights), &sizes(&[("x", &[7, 1, 3]), ("h", &[7, 2, 1, 5])]));
    let lstm = 7 * (2 * 20 * 3 + 2 * 20 * 5);
    assert_eq!(found.macs, lstm + 7 * 2 * 5 * 4 + 2 * (2 * 6 * 6 * 8));
    assert_eq!(found.params, 2 * 20 * 3 + 2 * 20 * 5 + 20 + 96);
}

#[test]
fn peak_holds_what_is_still_needed() {
    // x (4 bytes) is needed until the sum, a and b follow each other.
    let nodes = vec![
        node("Relu", &["x"], "a"),
        node("Relu", &["a"], "b"),
        node("Add", &["b", "x"], "c"),
        node("Relu", &["c"], "y"),
    ];
    let graph = graph(nodes, &[]);
    let one: &[usize] = &[1];
    let sizes = sizes(&[("x", one), ("a", &[100]), ("b", one), ("c", &[50]), ("y", &[60])]);
    // Node by node: x a = 404, x a b = 408, x b c = 208, c y = 440.
    assert_eq!(cost(&graph, &sizes).peak_activation_bytes, 440);
}

#[test]
fn heads_are_found_through_what_follows() {
    let site = |nodes, weights: &[(&str, &[usize])]| find_head(&graph(nodes, weights));
    let head = site(
        vec![
            node("MatMul", &["x", "w"], "m"),
            node("Add", &["b", "m"], "s"),
            node("Softmax", &["s"], "y"),
        ],
        &[("w", &[16, 5]), ("b", &[5])],
    )
    .expect("MatMul and Add");
    assert_eq!((head.node, head.bias_node, head.bias.as_deref()), (0, Some(1), Some("b")));
    assert_eq!((head.classes, head.feature_dim, head.transposed), (5, 16, false));
    let head = site(
        vec![node("Conv", &["x", "w", "b"], "c"), node("Flatten", &["c"], "y")],
        &[("w", &[5, 16, 1, 1]), ("b", &[5])],
    )
    .expect("1x1 Conv");
    assert_eq!((head.classes, head.feature_dim, head.transposed), (5, 16, true));
    assert_eq!((head.features.as_str(), head.bias.as_deref()), ("x", Some("b")));
    let wide = vec![node("Conv", &["x", "w"], "y")];
    assert_eq!(site(wide, &[("w", &[5, 16, 3, 3])]), None);
    assert_eq!(site(vec![node("MatMul", &["x", "x"], "y")], &[]), None);
    let residual = vec![node("MatMul", &["x", "w"], "m"), node("Add", &["m", "x"], "y")];
    assert_eq!(site(residual, &[("w", &[5, 5])]), None);
    assert_eq!(find_head(&Graph::default()), None);
    // A graph made by hand may hold a cycle.
    assert_eq!(site(vec![node("Relu", &["y"], "y")], &[]), None);
}

#[test]
fn summaries_have_one_length_and_tell_networks_apart() {
    let largest = GraphCost { params: u64::MAX, macs: u64::MAX, peak_activation_bytes: u64::MAX };
    let of = |spec| summary(&generate(spec, 10, 0).expect("allowed").graph, &GraphCost::default());
    let some = [
        summary(&Graph::default(), &GraphCost::default()),
        summary(&Graph::default(), &largest),
        of("small:cnn-w16"),
        of("small:cnn-w18"),
        of("mobilenetv3:d2-k3-e4@64"),
        of("mobilenetv3:d2-k3-e6@64"),
    ];
    for (index, numbers) in some.iter().enumerate() {
        assert_eq!(numbers.len(), SUMMARY_LEN);
        assert!(numbers.iter().all(|number| number.is_finite() && *number >= 0.0));
        assert!(some[..index].iter().all(|other| other != numbers));
    }
    assert_eq!(of("small:cnn-w16"), some[2]);
}

/// What lies deep inside is looked into once a level, not twice.
#[test]
fn deeply_nested_subgraphs_are_ordered_at_once() {
    let mut inner = graph(vec![node("Relu", &["x"], "y0")], &[]);
    inner.inputs.clear();
    for depth in 1..40 {
        let mut outer = node("If", &["x"], &format!("y{depth}"));
        outer.attributes.insert("then_branch".into(), Attribute::Graph(Box::new(inner)));
        inner = graph(vec![outer], &[]);
        inner.inputs.clear();
    }
    assert_eq!(super::order::captures(&inner), ["x"]);
}
