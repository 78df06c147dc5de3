//! Steps of training: what changes, what must not, and what is refused.

use super::{Optimizer, Trainer, TrainerOptions};
use crate::graph::exec::{Device, Network};
use crate::graph::spaces::{self, Generated};
use crate::graph::{Attribute, Error, Graph, Node, Weight};
use crate::sample::Image;
use std::collections::BTreeSet;

fn network() -> Generated {
    spaces::generate("small:resnet8-w16@32x3", 10, 1).expect("a network")
}

fn options() -> TrainerOptions {
    TrainerOptions {
        classes: 4,
        new_head: true,
        head_only: false,
        from_scratch: false,
        optimizer: Optimizer::Sgd,
        weight_decay: 0.0,
        label_smoothing: 0.0,
        augment: false,
        seed: 9,
        device: Device::Cpu,
    }
}

fn images() -> Vec<Image> {
    let image = |index: usize| {
        let pixels = (0..32 * 32 * 3).map(|at| ((at * (index + 3)) % 251) as u8).collect();
        Image::new(32, 32, 3, pixels).expect("an image")
    };
    (0..8).map(image).collect()
}

const LABELS: [u32; 8] = [0, 1, 2, 3, 0, 1, 2, 3];

fn steps(trainer: &mut Trainer, count: usize, rate: f32) -> Vec<f32> {
    let images = images();
    let images: Vec<&Image> = images.iter().collect();
    (0..count).map(|_| trainer.step(&images, &LABELS, rate).expect("a step")).collect()
}

/// Names of the weights whose bytes differ.
fn changed(before: &Graph, after: &Graph) -> BTreeSet<String> {
    let differs =
        |(name, weight): &(&String, &Weight)| weight.data() != after.weights[*name].data();
    before.weights.iter().filter(differs).map(|(name, _)| name.clone()).collect()
}

fn norms(graph: &Graph, inputs: std::ops::Range<usize>) -> BTreeSet<String> {
    let norms = graph.nodes.iter().filter(|node| node.op == "BatchNormalization");
    norms.flat_map(|node| node.inputs[inputs.clone()].to_vec()).collect()
}

#[test]
fn both_optimisers_lower_the_loss() {
    for (optimizer, rate) in [(Optimizer::Sgd, 0.02), (Optimizer::AdamW, 3e-3)] {
        let made = network();
        let options = TrainerOptions { optimizer, ..options() };
        let mut trainer = Trainer::new(&made.graph, &made.input, &options).expect("a trainer");
        let losses = steps(&mut trainer, 12, rate);
        assert!(losses[11] < 0.3 * losses[0], "{optimizer:?} {losses:?}");
    }
}

#[test]
fn every_learned_weight_moves_and_at_rate_zero_only_running_statistics() {
    let made = network();
    let mut trainer = Trainer::new(&made.graph, &made.input, &options()).expect("a trainer");
    let before = trainer.graph().expect("a graph");
    steps(&mut trainer, 2, 0.0);
    let idle = trainer.graph().expect("a graph");
    assert_eq!(changed(&before, &idle), norms(&before, 3..5));
    steps(&mut trainer, 2, 0.05);
    let moved = changed(&before, &trainer.graph().expect("a graph"));
    let layers = before.nodes.iter().filter(|node| ["Conv", "Gemm"].contains(&node.op.as_str()));
    let mut learned: BTreeSet<String> = layers.flat_map(|node| node.inputs[1..].to_vec()).collect();
    learned.extend(norms(&before, 1..5));
    assert_eq!(moved, learned);
}

#[test]
fn a_head_alone_leaves_the_rest_as_it_was() {
    let made = network();
    let options = TrainerOptions { head_only: true, ..options() };
    let mut trainer = Trainer::new(&made.graph, &made.input, &options).expect("a trainer");
    let before = trainer.graph().expect("a graph");
    let losses = steps(&mut trainer, 5, 0.1);
    assert!(losses[4] < losses[0]);
    let head = before.nodes.iter().rfind(|node| node.op == "Gemm").expect("a head");
    let expected: BTreeSet<String> = head.inputs[1..].iter().cloned().collect();
    assert_eq!(changed(&before, &trainer.graph().expect("a graph")), expected);
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_gives_others() {
    let run = |seed: u64| {
        let made = network();
        let options = TrainerOptions { seed, augment: true, from_scratch: true, ..options() };
        let mut trainer = Trainer::new(&made.graph, &made.input, &options).expect("a trainer");
        steps(&mut trainer, 3, 0.05);
        trainer.checkpoint().expect("a checkpoint")
    };
    let first = run(1);
    assert!(first == run(1));
    assert!(first != run(2));
}

#[test]
fn a_restored_checkpoint_goes_on_as_if_never_stopped() {
    for optimizer in [Optimizer::Sgd, Optimizer::AdamW] {
        let made = network();
        let options = TrainerOptions { optimizer, augment: true, ..options() };
        let fresh = || Trainer::new(&made.graph, &made.input, &options).expect("a trainer");
        let mut whole = fresh();
        steps(&mut whole, 2, 0.01);
        let saved = whole.checkpoint().expect("a checkpoint");
        steps(&mut whole, 2, 0.01);
        let mut resumed = fresh();
        resumed.restore(&saved).expect("a restored trainer");
        steps(&mut resumed, 2, 0.01);
        assert!(whole.checkpoint().expect("bytes") == resumed.checkpoint().expect("bytes"));
        let damaged = &saved[..saved.len() - 1];
        assert!(matches!(resumed.restore(damaged), Err(Error::Malformed { .. })));
    }
}

#[test]
fn training_from_scratch_forgets_every_learned_weight() {
    let made = network();
    let mut graph = made.graph.clone();
    for weight in graph.weights.values_mut() {
        if weight.dtype == safetensors::Dtype::F32 {
            *weight = Weight::from_f32(&weight.shape, &vec![0.123; weight.elements()]);
        }
    }
    let options = TrainerOptions { from_scratch: true, ..options() };
    let start = Trainer::new(&graph, &made.input, &options).expect("a trainer");
    let start = start.graph().expect("a graph");
    for (name, weight) in start.weights.iter().filter(|(_, w)| w.dtype == safetensors::Dtype::F32) {
        let old = 0.123_f32.to_le_bytes();
        assert!(weight.data().chunks_exact(4).all(|value| value != old), "{name}");
    }
    let mean = norms(&start, 3..4)
        .into_iter()
        .all(|name| start.weights[&name].data().iter().all(|&b| b == 0));
    assert!(mean);
}

/// A convolution with a bias and nothing after it, as left by folding batch-norm; a softmax ends
/// the graph.
#[test]
fn a_graph_with_folded_norms_and_a_softmax_trains_on_its_logits() {
    let made = network();
    let mut graph = made.graph.clone();
    for node in graph.nodes.iter_mut().filter(|node| node.op == "BatchNormalization") {
        node.op = "Identity".to_string();
        node.inputs.truncate(1);
    }
    for index in 0..graph.nodes.len() {
        if graph.nodes[index].op == "Conv" {
            let channels = graph.weights[&graph.nodes[index].inputs[1]].shape[0];
            let name = format!("bias{index}");
            graph.weights.insert(name.clone(), Weight::from_f32(&[channels], &vec![0.0; channels]));
            graph.nodes[index].inputs.truncate(2);
            graph.nodes[index].inputs.push(name);
        }
    }
    let used: BTreeSet<String> = graph.nodes.iter().flat_map(|node| node.inputs.clone()).collect();
    graph.weights.retain(|name, _| used.contains(name));
    let logits = graph.outputs[0].name.clone();
    graph.nodes.push(Node {
        name: String::new(),
        op: "Softmax".to_string(),
        domain: String::new(),
        inputs: vec![logits],
        outputs: vec!["probabilities".to_string()],
        attributes: Default::default(),
    });
    graph.outputs[0].name = "probabilities".to_string();
    let mut trainer = Trainer::new(&graph, &made.input, &options()).expect("a trainer");
    let before = trainer.graph().expect("a graph");
    let losses = steps(&mut trainer, 30, 0.02);
    // The loss of a softmax of a softmax cannot fall below 0.74 with four classes.
    assert!(losses[29] < 0.6, "{losses:?}");
    let after = trainer.graph().expect("a graph");
    assert!(changed(&before, &after).iter().any(|name| name.starts_with("bias")));
    let network = Network::new(&after, &made.input, Device::Cpu).expect("a network");
    let rows = network.logits(&images()).expect("probabilities");
    assert_eq!(rows.dim(), 4);
    assert!(rows.iter().all(|row| (row.iter().sum::<f32>() - 1.0).abs() < 1e-5));
}

/// The same network with its strided pointwise convolutions as slices before plain ones.
fn sliced(graph: &Graph) -> Graph {
    let mut out = graph.clone();
    let numbers = [("starts", [0, 0]), ("ends", [1 << 20; 2]), ("axes", [2, 3]), ("steps", [2, 2])];
    for (name, values) in numbers {
        out.weights.insert(name.into(), Weight::from_i64(&[2], &values));
    }
    out.nodes.clear();
    for node in &graph.nodes {
        let mut node = node.clone();
        let is_point = node.inputs.get(1).and_then(|name| graph.weights.get(name));
        let is_point = is_point
            .is_some_and(|weight| weight.shape.len() == 4 && weight.shape.ends_with(&[1, 1]));
        if node.op == "Conv"
            && is_point
            && matches!(node.attributes.get("strides"), Some(Attribute::Ints(strides)) if strides[..] == [2, 2])
        {
            let points = format!("{}/points", node.outputs[0]);
            let data = std::mem::replace(&mut node.inputs[0], points.clone());
            node.attributes.insert("strides".into(), Attribute::Ints(vec![1, 1]));
            let inputs = std::iter::once(data.as_str()).chain(numbers.map(|(name, _)| name));
            out.nodes.push(Node {
                name: String::new(),
                op: "Slice".to_string(),
                domain: String::new(),
                inputs: inputs.map(str::to_owned).collect(),
                outputs: vec![points],
                attributes: Default::default(),
            });
        }
        out.nodes.push(node);
    }
    assert!(out.nodes.len() > graph.nodes.len(), "the network has such convolutions");
    out
}

/// With fewer than 16 channels their weights' gradients were wrong, or memory was: oneDNN issue 6035.
#[test]
fn strided_pointwise_convolutions_of_few_channels_learn() {
    let made = spaces::generate("small:resnet8-w12@32x3", 10, 1).expect("a network");
    let (images, labels) = (images(), LABELS.repeat(4));
    let batch: Vec<&Image> = images.iter().cycle().take(32).collect();
    let losses = |graph: &Graph| {
        let mut trainer = Trainer::new(graph, &made.input, &options()).expect("a trainer");
        let mut step =
            |size: usize| trainer.step(&batch[..size], &labels[..size], 0.02).expect("a step");
        (1..33).map(&mut step).collect::<Vec<f32>>()
    };
    let (found, expected) = (losses(&made.graph), losses(&sliced(&made.graph)));
    let pairs = found.iter().zip(&expected);
    assert!(pairs.clone().all(|(a, b)| (a - b).abs() < 1e-4), "{found:?} {expected:?}");
}

#[test]
fn what_does_not_fit_is_refused() {
    let made = network();
    let make = |options: TrainerOptions| Trainer::new(&made.graph, &made.input, &options);
    assert!(make(TrainerOptions { new_head: false, ..options() }).is_err());
    assert!(make(TrainerOptions { classes: 0, ..options() }).is_err());
    assert!(make(TrainerOptions { label_smoothing: 1.0, ..options() }).is_err());
    let mut trainer = make(options()).expect("a trainer");
    let images = images();
    let images: Vec<&Image> = images.iter().collect();
    assert!(trainer.step(&images, &[4; 8], 0.1).is_err());
    assert!(trainer.step(&images, &[0; 7], 0.1).is_err());
    assert!(trainer.step(&[], &[], 0.1).is_err());
    let mut headless = made.graph.clone();
    headless.nodes.retain(|node| node.op != "Gemm");
    assert!(Trainer::new(&headless, &made.input, &options()).is_err());
}
