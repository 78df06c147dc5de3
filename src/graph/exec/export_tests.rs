//! Exports: ours for scripts/check_exports.py, which runs them in ONNX Runtime, and PyTorch's.

use super::{Device, Network};
use crate::graph::cost::cost;
use crate::graph::formats::{Limits, onnx, pytorch};
use crate::graph::input::{InputContract, InputHints};
use crate::graph::spaces;
use crate::sample::Image;
use serde_json::Value;
use std::path::PathBuf;

const SPECS: [&str; 8] = [
    "small:cnn-w16",
    "small:resnet8-w14",
    "small:mobile-w16",
    "mobilenetv3:d2-k3-e4@64",
    "mobilenetv3:d4-k7-e6@128",
    "efficientnet_lite:lite0",
    "resnet:18-w0.5@64",
    "resnet:50-d1.1.1.1-w0.25@96",
];

#[test]
#[ignore = "writes files for scripts/check_exports.py"]
fn exports_for_another_runtime() {
    let folder = std::env::var_os("TANS_EXPORTS").map(PathBuf::from).expect("TANS_EXPORTS");
    for (index, spec) in SPECS.into_iter().enumerate() {
        let made = spaces::generate(spec, 7, index as u64).expect("a network");
        let input = &made.input;
        let (height, width, channels) = (input.height, input.width, input.channels());
        let pixels = (0..height * width * channels).map(|at| (at * 37 % 251) as u8).collect();
        let image = Image::new(width, height, channels, pixels).expect("an image");
        let network = Network::new(&made.graph, input, Device::Cpu).expect("a network");
        let logits = network.logits(std::slice::from_ref(&image)).expect("logits");
        let mut values = Vec::new();
        input.apply(&image, &mut values);
        let bytes = onnx::write(&made.graph, &input.to_metadata()).expect("a file");
        std::fs::write(folder.join(format!("{index}.onnx")), bytes).expect("a file");
        let record = serde_json::json!({
            "spec": spec,
            "shape": input.batch_shape(1),
            "input": values,
            "logits": logits.values(),
        });
        std::fs::write(folder.join(format!("{index}.json")), record.to_string()).expect("a file");
    }
}

#[test]
#[ignore = "needs the files of scripts/export_resnet18.py"]
fn exports_of_pytorch_give_its_logits() {
    let folder = std::env::var_os("TANS_TORCH_EXPORTS").map(PathBuf::from);
    let folder = folder.expect("TANS_TORCH_EXPORTS");
    for file in ["torchscript.onnx", "dynamo.onnx", "zip.pth", "legacy.pth"] {
        let path = folder.join(file);
        let text = std::fs::read(path.with_extension("json")).expect("a record");
        let record: Value = serde_json::from_slice(&text).expect("a record");
        let numbers = |key: &str| -> Vec<f32> {
            serde_json::from_value(record[key].clone()).expect("numbers")
        };
        let side = record["side"].as_u64().expect("a side") as usize;
        let bytes = std::fs::read(path).expect("a file");
        let (graph, input) = if file.ends_with(".onnx") {
            let graph = onnx::read(&bytes, &Limits::default()).expect("a network").graph;
            let hints = InputHints {
                mean: Some(numbers("mean")),
                std: Some(numbers("std")),
                ..InputHints::default()
            };
            let input = InputContract::infer(&graph, &[], &hints).expect("a contract");
            (graph, input)
        } else {
            let state = pytorch::read(&bytes, &Limits::default()).expect("a state dict");
            let made = spaces::pretrained(&format!("resnet:18@{side}"), state).expect("a fit");
            assert!(made.note.is_some(), "its layers have numbers, not torchvision's names");
            (made.network.graph, made.network.input)
        };
        let pixels = numbers("pixels").into_iter().map(|value| value as u8).collect();
        let image = Image::new(side, side, 3, pixels).expect("an image");
        let network = Network::new(&graph, &input, Device::Cpu).expect("a network");
        let head = network.head().expect("a head");
        assert_eq!((head.feature_dim, head.classes), (512, 1000), "{file}");
        let sizes = network.trace(&Limits::default()).expect("a trace");
        let cost = cost(&graph, &sizes);
        // 11.69 million weights and 1.81 billion operations at a side of 224.
        assert!((11_680_000..11_700_000).contains(&cost.params), "{file}: {cost:?}");
        let logits = network.logits(&[image]).expect("logits");
        for (a, b) in logits.values().iter().zip(numbers("logits")) {
            assert!((a - b).abs() <= 1e-4 * b.abs().max(1.0), "{file}: expected {b}, found {a}");
        }
    }
}
