//! Whole networks: parity with ONNX Runtime, batches, features, bad input.

use super::Network;
use crate::graph::cost;
use crate::graph::exec::Device;
use crate::graph::formats::{self, Limits, onnx, pytorch};
use crate::graph::input::{ChannelOrder, InputContract, InputHints, Layout};
use crate::graph::{Attribute, Dtype, Error, Graph, Node, ValueInfo, Weight, spaces};
use crate::sample::Image;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;

const NETWORKS: &str = include_str!("../../../../tests/data/exec/networks.json");

/// The folder that scripts/fetch_packages.py fills. `None`, loudly, without it; a failure where it
/// is required.
pub(crate) fn package(name: &str) -> Option<PathBuf> {
    let named = std::env::var_os("TANS_PACKAGES").map(PathBuf::from);
    let cache =
        std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/tans/packages"));
    let folder = named.or(cache)?.join(name);
    if folder.is_dir() {
        return Some(folder);
    }
    let needed = std::env::var("REQUIRE_PACKAGES").is_ok_and(|value| value == "1");
    assert!(!needed, "{} is missing: run scripts/fetch_packages.py {name}", folder.display());
    #[expect(clippy::print_stderr, reason = "a skipped test must be seen")]
    {
        eprintln!("SKIPPED: {} is missing: run scripts/fetch_packages.py {name}", folder.display());
    }
    None
}

/// Photographs of the package `photos` as red, green, blue.
pub(crate) fn photos(files: &[&str]) -> Option<Vec<Image>> {
    let folder = package("photos")?;
    let read = |file: &&str| {
        let photo = image::open(folder.join(file)).expect("a readable photograph").to_rgb8();
        let (width, height) = (photo.width() as usize, photo.height() as usize);
        Image::new(width, height, 3, photo.into_raw()).expect("an image")
    };
    Some(files.iter().map(read).collect())
}

fn crop(image: &Image, rows: usize, columns: usize) -> Image {
    let start = |row: usize| ((40 + row) * image.width() + 60) * 3;
    let pixels = (0..rows).flat_map(|row| &image.pixels()[start(row)..start(row) + columns * 3]);
    Image::new(columns, rows, 3, pixels.copied().collect()).expect("a crop")
}

#[test]
fn third_party_networks_agree_with_onnx_runtime() {
    let records: Vec<Value> = serde_json::from_str(NETWORKS).expect("references");
    for record in &records {
        let name = record["folder"].as_str().expect("folder");
        let file = record["file"].as_str().expect("file");
        let files: Vec<&str> =
            record["photos"].as_array().expect("photos").iter().filter_map(Value::as_str).collect();
        let (Some(photos), Some(folder)) = (photos(&files), package(name)) else { continue };
        let bytes = std::fs::read(folder.join(file)).expect("a file");
        let graph = onnx::read(&bytes, &Limits::default()).expect("a network").graph;
        let input: InputContract =
            serde_json::from_value(record["contract"].clone()).expect("a contract");
        let images: Vec<Image> =
            photos.iter().map(|photo| crop(photo, input.height, input.width)).collect();
        let network = Network::new(&graph, &input, Device::Cpu).expect("a runnable network");
        let logits = network.logits(&images).expect("logits");
        assert_eq!(
            (logits.len(), Value::from(logits.dim())),
            (images.len(), record["size"].clone())
        );
        let worst = logits.iter().zip(record["outputs"].as_array().expect("outputs"));
        let step = record["step"].as_u64().expect("step") as usize;
        let worst =
            worst.map(|(row, expected)| difference(row, step, expected)).fold(0.0, f64::max);
        let tolerance = record["tolerance"].as_f64().expect("tolerance");
        assert!(worst <= tolerance, "{name}/{file}: off by {worst}");
        assert!(!network.trace(&Limits::default()).expect("a trace").is_empty());
        if let Some(head) = network.head() {
            let features = network.features(&images).expect("features");
            assert_eq!(features.len(), images.len(), "{name}/{file}");
            // Where time follows the batch, the features of its steps stay side by side.
            assert_eq!(features.dim() % head.feature_dim, 0, "{name}/{file}");
        }
    }
}

/// Largest difference between every `step`-th value and the expected ones, relative to the largest
/// expected value where that is above 1.
fn difference(row: &[f32], step: usize, expected: &Value) -> f64 {
    let expected: Vec<f64> = serde_json::from_value(expected.clone()).expect("numbers");
    let scale = expected.iter().fold(1.0_f64, |scale, value| scale.max(value.abs()));
    let found: Vec<f64> = row.iter().step_by(step).map(|&value| value.into()).collect();
    assert_eq!(found.len(), expected.len());
    found.iter().zip(&expected).map(|(a, b)| (a - b).abs() / scale).fold(0.0, f64::max)
}

fn node(op: &str, inputs: &[&str], output: &str) -> Node {
    Node {
        name: String::new(),
        op: op.to_string(),
        domain: String::new(),
        inputs: inputs.iter().map(|name| (*name).to_string()).collect(),
        outputs: vec![output.to_string()],
        attributes: BTreeMap::new(),
    }
}

fn value(name: &str) -> ValueInfo {
    ValueInfo { name: name.to_string(), dtype: None, dims: Vec::new() }
}

fn tiny_input() -> InputContract {
    InputContract {
        height: 2,
        width: 2,
        layout: Layout::Nchw,
        order: ChannelOrder::Grey,
        scale: 1.0,
        mean: vec![0.0],
        std: vec![1.0],
    }
}

/// Flattens four pixels by `reshape` and multiplies them by a 4 x 2 matrix.
fn tiny(reshape: &[i64]) -> Graph {
    let mut graph = Graph {
        inputs: vec![value("x")],
        outputs: vec![value("y")],
        nodes: vec![node("Reshape", &["x", "shape"], "flat"), node("MatMul", &["flat", "w"], "y")],
        ..Graph::default()
    };
    graph.opsets.insert(String::new(), 17);
    graph.weights.insert("shape".into(), Weight::from_i64(&[reshape.len()], reshape));
    let matrix = Weight::from_f32(&[4, 2], &[1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0]);
    graph.weights.insert("w".into(), matrix);
    graph
}

fn grey(pixels: [u8; 4]) -> Image {
    Image::new(2, 2, 1, pixels.to_vec()).expect("an image")
}

#[test]
fn a_batch_size_written_into_the_graph_does_not_mix_samples() {
    let images = [grey([1, 2, 3, 4]), grey([5, 6, 7, 8]), grey([9, 10, 11, 12])];
    let expected = [4.0, 6.0, 12.0, 14.0, 20.0, 22.0];
    // The last one has the batch in its second dimension, where no rule finds it.
    for reshape in [&[0, -1][..], &[-1, 4], &[1, -1], &[1, 4], &[1, 1, 4]] {
        let network = Network::new(&tiny(reshape), &tiny_input(), Device::Cpu).expect("network");
        let logits = network.logits(&images).expect("logits");
        assert_eq!(logits.values(), expected, "{reshape:?}");
    }
    let mut mixing = tiny(&[0, -1]);
    mixing.nodes.insert(1, node("ReduceMax", &["flat", "axes"], "top"));
    mixing.weights.insert("axes".into(), Weight::from_i64(&[1], &[0]));
    mixing.nodes.insert(2, node("Sub", &["flat", "top"], "shifted"));
    mixing.nodes[3].inputs[0] = "shifted".to_string();
    mixing.opsets.insert(String::new(), 18);
    let network = Network::new(&mixing, &tiny_input(), Device::Cpu).expect("network");
    assert_eq!(network.logits(&images).expect("logits").values(), [0.0; 6]);
}

/// As many images as the weight has numbers: its first dimension is no batch.
#[test]
fn a_weight_that_is_reshaped_is_no_batch() {
    let mut graph = tiny(&[0, -1]);
    graph.weights.insert("gain".into(), Weight::from_f32(&[2], &[1.0, 10.0]));
    graph.weights.insert("row".into(), Weight::from_i64(&[2], &[1, -1]));
    graph.nodes.push(node("Reshape", &["gain", "row"], "gains"));
    graph.nodes.push(node("Mul", &["y", "gains"], "z"));
    graph.outputs = vec![value("z")];
    let network = Network::new(&graph, &tiny_input(), Device::Cpu).expect("network");
    let logits = network.logits(&[grey([1, 2, 3, 4]), grey([5, 6, 7, 8])]).expect("logits");
    assert_eq!(logits.values(), [4.0, 60.0, 12.0, 140.0]);
}

#[test]
fn pixels_enter_as_the_whole_numbers_that_an_input_declares() {
    let mut graph = tiny(&[0, -1]);
    graph.inputs[0].dtype = Some(Dtype::U8);
    graph.inputs[0].dims = vec![None, Some(1), Some(2), Some(2)];
    graph.nodes.insert(0, node("Cast", &["x"], "floats"));
    graph.nodes[0].attributes.insert("to".into(), Attribute::Int(1));
    graph.nodes[1].inputs[0] = "floats".to_string();
    let input = InputContract::infer(&graph, &[], &InputHints::default()).expect("declared");
    let network = Network::new(&graph, &input, Device::Cpu).expect("network");
    let logits = network.logits(&[grey([1, 2, 3, 250])]).expect("logits");
    assert_eq!(logits.values(), [4.0, 252.0]);
}

#[test]
fn an_opset_of_the_future_is_refused_for_it_may_mean_something_else() {
    let mut graph = tiny(&[0, -1]);
    graph.opsets.insert(String::new(), 99);
    let Err(error) = Network::new(&graph, &tiny_input(), Device::Cpu) else { panic!("it runs") };
    assert!(matches!(error, Error::NotRunnable { opset: 99, .. }), "{error}");
}

#[test]
fn features_are_what_enters_the_head() {
    let network = Network::new(&tiny(&[0, -1]), &tiny_input(), Device::Cpu).expect("network");
    assert_eq!(network.head().map(|head| (head.feature_dim, head.classes)), Some((4, 2)));
    let features = network.features(&[grey([1, 2, 3, 4]), grey([5, 6, 7, 8])]).expect("features");
    assert_eq!(features.values(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
    assert!(network.features(&[]).expect("no rows").is_empty());
    assert!(network.latency_ms(3).expect("a time") > 0.0);
}

#[test]
fn features_that_are_not_finite_name_their_node() {
    let mut graph = tiny(&[0, -1]);
    graph.nodes.insert(1, node("Log", &["flat"], "logged"));
    graph.nodes[2].inputs[0] = "logged".to_string();
    let network = Network::new(&graph, &tiny_input(), Device::Cpu).expect("network");
    assert!(network.features(&[grey([1; 4])]).is_ok());
    let error = network.features(&[grey([1; 4]), grey([0, 1, 1, 1])]).expect_err("log of 0");
    let Error::Execution { node, op, .. } = error else { panic!("{error}") };
    assert_eq!((node.as_str(), op.as_str()), ("logged", "Log"));
}

#[test]
fn broken_graphs_give_errors() {
    let make = |change: fn(&mut Graph)| {
        let mut graph = tiny(&[0, -1]);
        change(&mut graph);
        Network::new(&graph, &tiny_input(), Device::Cpu)
    };
    let unknown = make(|graph| graph.nodes[0].op = "Bogus".to_string()).err().expect("unknown");
    assert!(matches!(&unknown, Error::NotRunnable { op, .. } if op == "Bogus"), "{unknown}");
    assert!(make(|graph| graph.nodes[1].inputs[0] = "nothing".to_string()).is_err());
    assert!(make(|graph| graph.inputs.clear()).is_err());
    assert!(make(|graph| graph.outputs.clear()).is_err());
    let short = Weight { dtype: safetensors::Dtype::F32, ..Weight::from_i64(&[4, 2], &[0; 2]) };
    let mut graph = tiny(&[0, -1]);
    graph.weights.insert("w".into(), short);
    assert!(Network::new(&graph, &tiny_input(), Device::Cpu).is_err());
    let mut graph = tiny(&[0, -1]);
    graph.nodes[0].op = "Pad".to_string();
    graph.weights.insert("shape".into(), Weight::from_i64(&[8], &[0; 8]));
    graph.nodes[0].attributes.insert("mode".into(), Attribute::String(b"odd".to_vec()));
    let network = Network::new(&graph, &tiny_input(), Device::Cpu).expect("known operators");
    assert!(matches!(network.trace(&Limits::default()), Err(Error::NotRunnable { .. })));
}

#[test]
fn folding_batch_norm_changes_nothing() {
    let made = spaces::generate("small:resnet8-w16@32x3", 5, 3).expect("a network");
    let mut graph = made.graph;
    // Statistics as after training, not at the identity.
    let names: Vec<String> = graph
        .nodes
        .iter()
        .filter(|node| node.op == "BatchNormalization")
        .flat_map(|node| node.inputs[1..].to_vec())
        .collect();
    assert!(!names.is_empty());
    for (index, name) in names.iter().enumerate() {
        let shape = graph.weights[name].shape.clone();
        let values: Vec<f32> =
            (0..shape[0]).map(|i| 0.5 + ((i * 7 + index * 3) % 11) as f32 / 10.0).collect();
        graph.weights.insert(name.clone(), Weight::from_f32(&shape, &values));
    }
    let network = Network::new(&graph, &made.input, Device::Cpu).expect("network");
    let pixels = (0..32 * 32 * 3).map(|index| (index * 37 % 251) as u8).collect();
    let image = Image::new(32, 32, 3, pixels).expect("an image");
    let folded = network.logits(std::slice::from_ref(&image)).expect("logits");
    let mut kept = graph.clone();
    // A second reader of each convolution forbids folding.
    for node in graph.nodes.iter().filter(|node| node.op == "BatchNormalization") {
        let spare = ValueInfo { name: node.inputs[0].clone(), dtype: None, dims: Vec::new() };
        kept.outputs.push(spare);
    }
    let plain = Network::new(&kept, &made.input, Device::Cpu).expect("network");
    let plain = plain.logits(&[image]).expect("logits");
    for (a, b) in folded.values().iter().zip(plain.values()) {
        assert!((a - b).abs() <= 1e-4 * b.abs().max(1.0), "{a} {b}");
    }
}

/// Millions of weights and of multiply-accumulates, as torchvision and the authors of EfficientNet-Lite state them. The
/// latter count what is done to each element too, five percent or so: ours must be just below.
#[test]
fn generated_architectures_cost_what_is_published() {
    let published = [
        ("resnet:18", 11.689_512, 1814.0, 0.995..1.005),
        ("resnet:34", 21.797_672, 3664.0, 0.995..1.005),
        ("resnet:50", 25.557_032, 4089.0, 0.995..1.005),
        ("efficientnet_lite:lite0", 4.652_008, 407.0, 0.94..0.99),
        ("efficientnet_lite:lite1", 5.416_680, 631.0, 0.94..0.99),
        ("efficientnet_lite:lite2", 6.092_072, 899.0, 0.94..0.99),
        ("efficientnet_lite:lite3", 8.197_096, 1440.0, 0.94..0.99),
        ("efficientnet_lite:lite4", 13.006_568, 2640.0, 0.94..0.99),
    ];
    for (spec, params_m, macs_m, share) in published {
        let made = spaces::generate(spec, 1000, 0).expect("a network");
        let network = Network::new(&made.graph, &made.input, Device::Cpu).expect("a network");
        let sizes = network.trace(&Limits::default()).expect("a trace");
        let cost = cost::cost(&made.graph, &sizes);
        let of = |found: u64, expected: f64| found as f64 / 1e6 / expected;
        assert!((of(cost.params, params_m) - 1.0).abs() < 5e-3, "{spec}: {cost:?}");
        assert!(share.contains(&of(cost.macs, macs_m)), "{spec}: {cost:?}");
    }
}

/// The weights that the backbone was rounded from, in PyTorch's format of before 2020.
#[test]
fn the_published_checkpoint_of_lite0_is_the_backbone() {
    let Some(folder) = package("lite0") else { return };
    let bytes = std::fs::read(folder.join("efficientnet-lite0-57934424.pth")).expect("a file");
    let state = pytorch::read(&bytes, &Limits::default()).expect("a state dict");
    let made = spaces::pretrained("efficientnet_lite:lite0", state).expect("a fit");
    assert_eq!(made.note, None, "it has the names of the package");
    let backbone =
        concat!(env!("CARGO_MANIFEST_DIR"), "/assets/backbone/efficientnet-lite0.safetensors");
    let bytes = std::fs::read(backbone).expect("the backbone");
    let rounded = formats::safetensors::read(&bytes).expect("the backbone").0.entries;
    assert!(rounded.len() > 200);
    for (name, rounded) in rounded {
        let found = made.network.graph.weights[&name].narrowed().expect("in range");
        assert_eq!(found.data(), rounded.data(), "{name}");
    }
}
