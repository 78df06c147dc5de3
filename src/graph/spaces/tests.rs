use super::mobilenetv3::Config;
use super::{efficientnet_lite, generate, small};
use crate::graph::cost::params;
use crate::graph::head::find_head;
use crate::graph::{Graph, Weight};
use std::collections::BTreeMap;

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
fn lite0_takes_named_weights_and_pads_like_tensorflow() {
    let variant = efficientnet_lite::Variant::new(0).expect("lite0");
    let reference = efficientnet_lite::graph(variant, 1000, 3, &|_| None).expect("allowed");
    let supply = |name: &str| reference.weights.get(name).cloned();
    let filled = efficientnet_lite::pretrained(variant, 1000, &supply).expect("complete");
    assert_eq!(bytes(&filled), bytes(&reference));
    for name in
        ["_conv_stem.weight", "_blocks.0._depthwise_conv.weight", "_blocks.15._bn2.running_var"]
    {
        assert!(filled.weights.contains_key(name), "{name}");
    }
    // The first block does not expand, so it has no expansion to name.
    assert!(!filled.weights.contains_key("_blocks.0._expand_conv.weight"));
    let without = |name: &str| supply(name).filter(|_| name != "_fc.bias");
    let error = efficientnet_lite::pretrained(variant, 1000, &without).expect_err("incomplete");
    assert!(error.to_string().contains("_fc.bias is missing"), "{error}");
    let wrong = |name: &str| (name == "_fc.bias").then(|| Weight::from_f32(&[5], &[0.0; 5]));
    assert!(efficientnet_lite::graph(variant, 1000, 3, &wrong).is_err());
    let pads = |name: &str| {
        let node = filled.nodes.iter().find(|node| node.name == name).expect("the node");
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
        ("resnet", "small, mobilenetv3"),
        ("", "small, mobilenetv3"),
    ];
    for (spec, expected) in refused {
        let message = generate(spec, 10, 0).err().expect("a refusal").to_string();
        assert!(message.contains(expected), "{spec}: {message}");
    }
    assert!(generate("small:cnn-w16@32", 0, 0).is_err());
}
