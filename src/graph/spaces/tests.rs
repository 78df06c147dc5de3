use super::mobilenetv3::Config;
use super::{generate, pretrained, small};
use crate::graph::cost::params;
use crate::graph::formats::{StateDict, onnx};
use crate::graph::head::find_head;
use crate::graph::{Dtype, Graph, Weight};
use std::collections::BTreeMap;
use std::sync::Arc;

fn bytes(graph: &Graph) -> BTreeMap<String, Vec<u8>> {
    graph.weights.iter().map(|(name, weight)| (name.clone(), weight.data().to_vec())).collect()
}

#[test]
fn same_seed_same_weights() {
    let draw = |seed| bytes(&generate("small:resnet8-w16@32", 10, seed).expect("allowed").graph);
    assert_eq!(draw(7), draw(7));
    assert_ne!(draw(7)["stem.weight"], draw(8)["stem.weight"]);
}

#[test]
fn he_initialisation_has_its_spread() {
    let graph = generate("small:cnn-w32@32", 10, 1).expect("allowed").graph;
    let weight = &graph.weights["layer3.weight"];
    let (chunks, _) = weight.data().as_chunks::<4>();
    let values: Vec<f64> = chunks.iter().map(|bytes| f32::from_le_bytes(*bytes).into()).collect();
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64;
    let expected = 2.0 / (64.0 * 9.0);
    assert!((variance / expected - 1.0).abs() < 0.05 && mean.abs() < 0.002, "{mean} {variance}");
}

#[test]
fn the_small_space_is_small() {
    for config in small::configs() {
        for side in small::SIDES {
            let made = generate(&format!("small:{config}@{side}"), 10, 1).expect("allowed");
            let count = params(&made.graph);
            assert!((20_000..=280_000).contains(&count), "{config}@{side}: {count}");
            assert_eq!((made.input.height, made.config.as_str()), (side, config.as_str()));
            let head = find_head(&made.graph).expect("a head");
            assert_eq!((head.classes, head.transposed), (10, true));
            assert_eq!(head.features, "features");
        }
    }
}

#[test]
fn efficientnet_lite_has_its_published_size() {
    // Parameters of the five variants as the family's authors state them, in millions.
    let published = [4.7, 5.4, 6.1, 8.2, 13.0];
    for (number, millions) in published.into_iter().enumerate() {
        let graph =
            generate(&format!("efficientnet_lite:lite{number}"), 1000, 0).expect("allowed").graph;
        let found = params(&graph) as f64 / 1e6;
        assert!((found - millions).abs() < 0.06, "lite{number}: {found}");
    }
}

#[test]
fn lite0_has_the_names_of_its_package_and_pads_like_tensorflow() {
    let graph = generate("efficientnet_lite:lite0", 1000, 3).expect("allowed").graph;
    for name in
        ["_conv_stem.weight", "_blocks.0._depthwise_conv.weight", "_blocks.15._bn2.running_var"]
    {
        assert!(graph.weights.contains_key(name), "{name}");
    }
    // The first block does not expand, so it has no expansion to name.
    assert!(!graph.weights.contains_key("_blocks.0._expand_conv.weight"));
    let pads = |name: &str| {
        let node = graph.nodes.iter().find(|node| node.name == name).expect("the node");
        format!("{:?}", node.attributes["pads"])
    };
    // Stride 2 on an even side needs one row, at the end; kernel 5 needs three, two of them at the
    // end.
    assert_eq!(pads("_conv_stem"), "Ints([0, 0, 1, 1])");
    assert_eq!(pads("_blocks.1._depthwise_conv"), "Ints([0, 0, 1, 1])");
    assert_eq!(pads("_blocks.3._depthwise_conv"), "Ints([1, 1, 2, 2])");
    assert_eq!(pads("_blocks.4._depthwise_conv"), "Ints([2, 2, 2, 2])");
}

#[test]
fn resnet_has_the_names_and_notation_of_its_family() {
    let graph = generate("resnet:50@64", 10, 0).expect("allowed").graph;
    for (name, shape) in [
        ("conv1.weight", &[64, 3, 7, 7][..]),
        ("layer1.0.downsample.0.weight", &[256, 64, 1, 1]),
        ("layer4.2.conv3.weight", &[2048, 512, 1, 1]),
        ("layer4.0.downsample.1.running_var", &[2048]),
        ("fc.weight", &[10, 2048]),
    ] {
        assert_eq!(graph.weights[name].shape, shape, "{name}");
    }
    // torchvision's state dict without the batch counters.
    assert_eq!(graph.weights.len(), 320 - 53);
    for (text, config) in [
        ("18", "18"),
        ("34-d3.4.6.3-w1", "34"),
        ("18-w0.5", "18-w0.5"),
        ("50-d1.1.1.2-w0.25", "50-d1.1.1.2-w0.25"),
    ] {
        let made = generate(&format!("resnet:{text}@32"), 10, 0).expect("allowed");
        assert_eq!((made.config.as_str(), made.input.height), (config, 32));
    }
    let half = generate("resnet:18-w0.5@32", 10, 0).expect("allowed").graph;
    let published = generate("resnet18-w0.5@32", 10, 0).expect("the published name");
    assert_eq!((bytes(&published.graph), published.config.as_str()), (bytes(&half), "18-w0.5"));
    let published = generate("efficientnet-lite0", 10, 0).expect("the published name");
    assert_eq!(published.space, "efficientnet_lite");
    assert_eq!(half.weights["layer4.1.conv2.weight"].shape, [256, 256, 3, 3]);
}

/// A network's own weights as a checkpoint would hold them: in the order of its layers.
fn checkpoint(spec: &str, classes: usize) -> (Vec<(String, Weight)>, Graph) {
    let graph = generate(spec, classes, 5).expect("allowed").graph;
    let canonical = onnx::canonical(&graph).expect("canonical").weights;
    let layer_of = |name: &str| name.rsplit_once('.').map(|(layer, _)| layer.to_owned());
    let mut entries: Vec<(String, Weight)> = Vec::new();
    for (name, weight) in canonical {
        if name.starts_with("relu6") {
            continue;
        }
        let is_statistic = name.ends_with(".running_var");
        let counter = layer_of(&name).map(|layer| format!("{layer}.num_batches_tracked"));
        entries.push((name, weight));
        entries.extend(counter.filter(|_| is_statistic).map(|n| (n, Weight::from_i64(&[], &[7]))));
    }
    (entries, graph)
}

fn ordered(entries: Vec<(String, Weight)>) -> StateDict {
    StateDict { entries, is_ordered: true }
}

#[test]
fn a_checkpoint_finds_its_places_by_name() {
    for spec in ["resnet:18-w0.25@32", "small:mobile-w12", "mobilenetv3:d2-k3-e3@32"] {
        let (mut entries, graph) = checkpoint(spec, 7);
        for (name, _) in &mut entries {
            name.insert_str(0, "module.net.");
        }
        entries.reverse();
        let made = pretrained(spec, StateDict { entries, is_ordered: false }).expect("a fit");
        assert_eq!(made.note, None);
        assert_eq!(bytes(&made.network.graph), bytes(&graph), "{spec}");
    }
}

#[test]
fn a_checkpoint_with_other_names_finds_its_places_by_shape_and_order() {
    for spec in ["small:resnet8-w12", "small:mobile-w12"] {
        let (mut entries, graph) = checkpoint(spec, 7);
        // Layers are numbered, and a layer's weights come in another order.
        let mut layers: Vec<String> = Vec::new();
        for (name, _) in &mut entries {
            let (layer, leaf) = name.rsplit_once('.').expect("a layer");
            if layers.last().is_none_or(|last| last != layer) {
                layers.push(layer.to_owned());
            }
            *name = format!("{}.{leaf}", layers.len() - 1);
        }
        let mut shuffled = Vec::new();
        for layer in entries.chunk_by(|a, b| a.0.split('.').next() == b.0.split('.').next()) {
            shuffled.extend(layer.iter().rev().cloned());
        }
        let made = pretrained(spec, ordered(shuffled.clone())).expect("a fit");
        let note = made.note.expect("a note");
        assert!(note.contains("stem.weight is 0.weight"), "{note}");
        assert_eq!(bytes(&made.network.graph), bytes(&graph), "{spec}");
        // Without an order such names say nothing.
        assert!(pretrained(spec, StateDict { entries: shuffled, is_ordered: false }).is_err());
    }
}

#[test]
fn weights_of_other_types_are_widened() {
    let (mut entries, graph) = checkpoint("small:cnn-w16", 3);
    let exact: Vec<f64> = vec![0.25; 16];
    for (name, weight) in &mut entries {
        if name == "stem.bn.weight" {
            let bytes = exact.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
            *weight = Weight { dtype: Dtype::F64, shape: vec![16], bytes: Arc::new(bytes) };
        } else if name == "stem.bn.running_var" {
            *weight = weight.narrowed().expect("in range");
        }
    }
    let made = pretrained("small:cnn-w16", ordered(entries.clone())).expect("a fit").network;
    assert_eq!(made.graph.weights["stem.bn.weight"].floats(), Some(vec![0.25; 16]));
    assert_eq!(bytes(&made.graph)["stem.bn.running_var"], bytes(&graph)["stem.bn.running_var"]);
    entries[0].1 = Weight { dtype: Dtype::I32, ..entries[0].1.clone() };
    let error = pretrained("small:cnn-w16", ordered(entries)).err().expect("a refusal").to_string();
    assert!(error.contains("stem.weight: expected floating-point values, found I32"), "{error}");
}

#[test]
fn what_does_not_fit_is_named_with_both_sides() {
    let refusal = |spec: &str, entries| {
        pretrained(spec, ordered(entries)).err().expect("a refusal").to_string()
    };
    let (entries, _) = checkpoint("resnet:18-w0.25@32", 7);
    let message = refusal("resnet:18-w0.5@32", entries.clone());
    assert!(
        message
            .contains("expected a head fc.weight of [classes, 256], found fc.weight of [7, 128]")
    );
    let message = refusal("resnet:34-w0.25@32", entries.clone());
    for part in [
        "102 of 182 weights",
        "expected layer1.2.conv1.weight of [16, 16, 3, 3], found none",
        "layer 11: expected layer1.2.conv1.weight of [16, 16, 3, 3], found layer2.0.conv1.weight of [32, 16, 3, 3]",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    let mut more = entries.clone();
    more.push(("aux.weight".into(), Weight::from_f32(&[2, 128], &[0.0; 256])));
    let message = refusal("resnet:18-w0.25@32", more);
    assert!(message.contains("aux.weight of [2, 128] and 0 others have no place"), "{message}");
    assert!(message.contains("expected no layer after the head, found aux.weight"), "{message}");
    let headless: Vec<_> = entries.into_iter().filter(|(name, _)| name != "fc.weight").collect();
    let message = refusal("resnet:18-w0.25@32", headless);
    assert!(message.contains("of [classes, 128], found none"), "{message}");
}

#[test]
fn mobilenetv3_notation_round_trips() {
    let long = "d2.3.4.4.2-k3.5.3.7.7-e3.4.6.6.3-w1.2";
    for text in ["d2-k3-e4", "d4-k7-e6-w1.2", long] {
        let config = Config::parse(text).expect("allowed");
        let again = Config::parse(&config.to_string()).expect("its own notation");
        assert_eq!(again, config, "{text}");
        assert_eq!(config.numbers().len(), 45);
    }
    assert_eq!(Config::parse("d2-k3-e4").expect("allowed").to_string(), "d2-k3-e4");
    let numbers = Config::parse(long).expect("allowed").numbers();
    assert_eq!(numbers[..5], [2.0, 3.0, 4.0, 4.0, 2.0]);
    assert_eq!(numbers[5..13], [3.0, 3.0, 0.0, 0.0, 5.0, 5.0, 5.0, 0.0]);
    assert_eq!(numbers[25..29], [3.0, 3.0, 0.0, 0.0]);
}

#[test]
fn refusals_say_what_is_allowed() {
    let refused = [
        ("small:resnet9-w16@32", "resnet8-w12"),
        ("small:resnet8-w17@32", "resnet8-w12"),
        ("small:resnet8-w16@48", "@32 or @64"),
        ("small:resnet8-w16@x", "a side after @"),
        ("mobilenetv3:d5-k3-e4@224", "depths of 2, 3, 4"),
        ("mobilenetv3:d2-k4-e4@224", "kernels of 3, 5, 7"),
        ("mobilenetv3:d2-k3-e4@9999", "SIDE 32 to 512"),
        ("efficientnet_lite:lite9", "lite0 to lite4"),
        ("efficientnet_lite:lite0@64", "224"),
        ("resnet", "resnet:18, resnet:34 or resnet:50"),
        ("resnet:101", "resnet:18, resnet:34 or resnet:50"),
        ("resnet:18-w9", "0.125 to 2"),
        ("resnet:18-d2.2.2", "each of the four stages"),
        ("resnet:18-w1-d2.2.2.2", "-dA.B.C.D"),
        ("resnet:18@16", "@SIDE (32 to 512)"),
        ("vgg", "small, mobilenetv3, mobilenetv3_tiny, resnet"),
        ("", "small, mobilenetv3"),
    ];
    for (spec, expected) in refused {
        let message = generate(spec, 10, 0).err().expect("a refusal").to_string();
        assert!(message.contains(expected), "{spec}: {message}");
    }
    assert!(generate("small:cnn-w16@32", 0, 0).is_err());
}
