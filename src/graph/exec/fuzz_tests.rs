//! Damaged ONNX files: whatever the bytes, an answer or an error, within the limits.

use super::budget::Budget;
use super::network::package;
use super::ops::Mode;
use super::plan::{Feed, Plan};
use super::tensor::kind_of;
use crate::graph::formats::{Limits, fuzz_tests, onnx};
use crate::graph::{Attribute, Graph, Node, ValueInfo, Weight};
use safetensors::Dtype;
use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor};

/// Small enough that a run which keeps them cannot be noticed.
const LIMITS: Limits = Limits {
    weight_bytes_max: 16 << 20,
    nodes_max: 10_000,
    constant_bytes_max: 4 << 20,
    value_bytes_max: 16 << 20,
};

fn node(op: &str, inputs: &[&str], output: &str, attributes: &[(&str, Attribute)]) -> Node {
    let attributes = attributes.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
    Node {
        name: String::new(),
        op: op.to_owned(),
        domain: String::new(),
        inputs: inputs.iter().map(|&name| name.to_owned()).collect(),
        outputs: vec![output.to_owned()],
        attributes: attributes.collect(),
    }
}

fn graph(nodes: Vec<Node>, weights: &[(&str, Weight)]) -> Graph {
    let value = |name: &str, dims: &[usize]| ValueInfo {
        name: name.to_owned(),
        dtype: Some(Dtype::F32),
        dims: dims.iter().copied().map(Some).collect(),
    };
    Graph {
        inputs: vec![value("x", &[1, 3, 8, 8])],
        outputs: vec![value(&nodes[nodes.len() - 1].outputs[0].clone(), &[])],
        nodes,
        weights: weights
            .iter()
            .map(|(name, weight)| ((*name).to_owned(), weight.clone()))
            .collect(),
        opsets: BTreeMap::from([(String::new(), 18)]),
    }
}

fn floats(shape: &[usize]) -> Weight {
    let count = shape.iter().product::<usize>();
    let values: Vec<f32> = (0..count).map(|index| (index % 7) as f32 / 7.0 - 0.4).collect();
    Weight::from_f32(shape, &values)
}

/// Networks that use what is delicate: windows, shapes computed at run time, resizing, time, loops.
fn seeds() -> Vec<Vec<u8>> {
    let ints = |list: &[i64]| Attribute::Ints(list.to_vec());
    let whole = |list: &[i64]| Weight::from_i64(&[list.len()], list);
    let window = [("kernel_shape", ints(&[3, 3])), ("pads", ints(&[1, 1, 1, 1]))];
    let stride = [("strides", ints(&[2, 2]))];
    let cnn = graph(
        vec![
            node("Conv", &["x", "w", "b"], "c", &window),
            node("BatchNormalization", &["c", "b", "b", "b", "v"], "n", &[]),
            node("Relu", &["n"], "r", &[]),
            node("MaxPool", &["r"], "p", &[&window[..], &stride].concat()),
            node("ConvTranspose", &["p", "t"], "u", &stride),
            node("GlobalAveragePool", &["u"], "g", &[]),
            node("Flatten", &["g"], "f", &[]),
            node("Gemm", &["f", "m"], "y", &[]),
        ],
        &[
            ("w", floats(&[4, 3, 3, 3])),
            ("b", floats(&[4])),
            ("v", Weight::from_f32(&[4], &[1.0; 4])),
            ("t", floats(&[4, 2, 2, 2])),
            ("m", floats(&[2, 5])),
        ],
    );
    let shapes = graph(
        vec![
            node("Resize", &["x", "", "scales"], "r", &[]),
            node("Pad", &["r", "pads"], "p", &[]),
            node("Shape", &["p"], "s", &[]),
            node("Gather", &["s", "zero"], "n", &[]),
            node("Concat", &["n", "rest"], "to", &[("axis", Attribute::Int(0))]),
            node("Reshape", &["p", "to"], "q", &[]),
            node("Tile", &["q", "times"], "z", &[]),
            node("ReduceMean", &["z", "rest"], "y", &[]),
        ],
        &[
            ("scales", Weight::from_f32(&[4], &[1.0, 1.0, 1.5, 2.0])),
            ("pads", whole(&[0, 0, 1, 1, 0, 0, 1, 1])),
            ("zero", whole(&[0])),
            ("rest", whole(&[-1])),
            ("times", whole(&[1, 2])),
        ],
    );
    let time = graph(
        vec![
            node("Reshape", &["x", "steps"], "s", &[]),
            node("LSTM", &["s", "w", "r"], "y", &[("hidden_size", Attribute::Int(2))]),
        ],
        &[("steps", whole(&[8, 3, 8])), ("w", floats(&[1, 8, 8])), ("r", floats(&[1, 8, 2]))],
    );
    [cnn, shapes, time].iter().map(|graph| onnx::write(graph, &[]).expect("a file")).collect()
}

/// Everything that an ingested file goes through; errors are answers.
fn take_in(bytes: &[u8]) -> bool {
    let _guard = tch::no_grad_guard();
    let Ok(file) = onnx::read(bytes, &LIMITS) else { return false };
    _ = file.graph.check_finite();
    if let Ok(canonical) = onnx::canonical(&file.graph) {
        let weights = canonical.weights.into_iter().map(|(_, weight)| weight).collect();
        _ = onnx::from_canonical(&canonical.graph, weights);
    }
    _ = onnx::write(&file.graph, &[]);
    run(&file.graph).is_ok()
}

fn run(graph: &Graph) -> Result<(), crate::graph::Error> {
    let plan = Plan::new(graph)?;
    let targets: Vec<&str> = graph.outputs.iter().map(|output| output.name.as_str()).collect();
    let program = plan.program(&targets)?;
    let weights = plan.load(graph, Device::Cpu)?;
    let input = |value: &ValueInfo| {
        let kind = value.dtype.and_then(kind_of).unwrap_or(Kind::Float);
        let dims: Vec<i64> =
            value.dims.iter().map(|side| side.unwrap_or(1).min(16) as i64).collect();
        Tensor::ones(&dims[..dims.len().min(5)], (Kind::Float, Device::Cpu)).to_kind(kind)
    };
    let inputs = graph.inputs.iter().map(input).collect();
    let budget = Budget::strict(&LIMITS, graph);
    let feed = Feed { weights: &weights, inputs, mode: &Mode::Inference, budget: &budget };
    plan.run(&program, feed, &mut |_, _, _| Ok(())).map(|_| ())
}

#[test]
fn damaged_files_give_an_answer_or_an_error() {
    for seed in seeds() {
        assert!(take_in(&seed), "the undamaged network runs");
    }
    let (rounds, ran) = fuzz_tests::run(seeds(), take_in, |round| round < 1500);
    assert!(ran > rounds / 50 && ran < rounds, "{ran} of {rounds} still run");
}

#[test]
#[ignore = "runs for TANS_FUZZ_SECONDS, by default 60"]
fn damaged_models_of_the_corpus_give_an_answer_or_an_error() {
    let Some(corpus) = package("onnx-corpus") else { return };
    let mut seeds = seeds();
    for entry in std::fs::read_dir(corpus.join("node")).expect("the corpus") {
        let model = entry.expect("an entry").path().join("model.onnx");
        seeds.push(std::fs::read(model).expect("a model"));
    }
    seeds.sort();
    fuzz_tests::run_long(seeds, take_in);
}
