//! Files that hold weights without a graph: safetensors and PyTorch checkpoints, through the public API.

#![cfg(feature = "torch")]

#[path = "common/images.rs"]
mod images;
#[path = "common/pytorch.rs"]
mod pytorch;

use safetensors::SafeTensors;
use std::fs;
use std::path::Path;
use tans::{
    Benchmark, CheckOptions, Database, DatasetSource, FinetuneOptions, IngestOptions, Ingested,
    InitOptions, InputHints, OpenOptions, TuningOptions, unobserved,
};
use tempfile::TempDir;

const SPEC: &str = "small:cnn-w16@64";

fn options(space: Option<&str>) -> IngestOptions {
    IngestOptions {
        space: space.map(Into::into),
        benchmark: Benchmark::None,
        ..IngestOptions::default()
    }
}

fn ingest(zoo: &Database, source: &Path, options: &IngestOptions) -> Ingested {
    zoo.ingest(&source.display().to_string(), options, &mut unobserved)
        .expect("a usable network")
        .remove(0)
}

fn refusal(zoo: &Database, source: &Path, options: &IngestOptions) -> String {
    let source = source.display().to_string();
    zoo.ingest(&source, options, &mut unobserved).expect_err("a refusal").to_string()
}

/// A zoo with the generated network `base` and its fine-tuned child `child`.
fn zoo_of_two() -> (TempDir, Database) {
    let folder = TempDir::new().expect("a temporary folder");
    let at = folder.path().join("zoo");
    let (zoo, _) = Database::init(&at, &InitOptions::default(), OpenOptions::default())
        .expect("a zoo can be made");
    let named = IngestOptions { name: Some("base".into()), ..options(None) };
    zoo.ingest(SPEC, &named, &mut unobserved).expect("a generated network");
    let colours = DatasetSource::Path(images::colours(&folder.path().join("colours"), 12, 4));
    let tuning = TuningOptions { epochs: Some(1), ..TuningOptions::default() };
    let child = FinetuneOptions {
        tuning,
        name: Some("child".into()),
        benchmark: Benchmark::None,
        ..FinetuneOptions::default()
    };
    zoo.finetune("base", &colours, &child, &mut unobserved).expect("a child");
    (folder, zoo)
}

/// Tensors of an exported file in the order of its layers, and their names there.
fn tensors(file: &Path) -> Vec<(String, Vec<usize>, Vec<u8>)> {
    let bytes = fs::read(file).expect("an export");
    let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let tensor = |name: &str| {
        let view = file.tensor(name).expect("a tensor of the network");
        (name.to_owned(), view.shape().to_vec(), view.data().to_vec())
    };
    let layers = ["stem", "layer0", "layer1", "layer2", "layer3"];
    let parts = ["weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"];
    let names = layers.iter().flat_map(|layer| parts.map(|part| format!("{layer}.{part}")));
    let head = ["head.weight".to_owned(), "head.bias".to_owned()];
    names.chain(head).map(|name| tensor(&name)).collect()
}

#[test]
fn exported_weights_are_the_same_network() {
    let (folder, zoo) = zoo_of_two();
    for name in ["base", "child"] {
        let file = folder.path().join(format!("{name}.safetensors"));
        zoo.export(name, &file).expect("an export");
        let again = ingest(&zoo, &file, &options(None));
        assert_eq!((again.status, again.model.as_deref()), ("already stored", Some(name)));
        assert_eq!(again.note, None);
    }
    // Without what our export wrote beside the weights, they need a name for their architecture.
    let file = folder.path().join("child.safetensors");
    let weights = tensors(&file);
    let views = weights.iter().map(|(name, shape, bytes)| {
        let view =
            safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes);
        (name, view.expect("a tensor"))
    });
    fs::write(&file, safetensors::serialize(views, None).expect("a file")).expect("a file");
    let message = refusal(&zoo, &file, &options(None));
    assert!(message.contains("--space") && message.contains("child.safetensors"), "{message}");
    let again = ingest(&zoo, &file, &options(Some(SPEC)));
    assert_eq!((again.status, again.model.as_deref()), ("already stored", Some("child")));
    assert!(zoo.check(CheckOptions::default()).expect("the check runs").sound);
}

#[test]
fn a_checkpoint_is_the_network_that_its_space_names() {
    let (folder, zoo) = zoo_of_two();
    let exported = folder.path().join("child.safetensors");
    zoo.export("child", &exported).expect("an export");
    let named = tensors(&exported);
    let file = folder.path().join("net.pth");
    fs::write(&file, pytorch::checkpoint(&named)).expect("a file");
    let again = ingest(&zoo, &file, &options(Some(SPEC)));
    assert_eq!((again.status, again.model.as_deref()), ("already stored", Some("child")));

    let message = refusal(&zoo, &file, &options(None));
    assert!(message.contains("net.pth") && message.contains("--space resnet:18"), "{message}");
    let message = refusal(&zoo, &file, &options(Some("small:cnn-w18@64")));
    assert!(message.contains("do not fit small:cnn-w18@64"), "{message}");
    let hints = InputHints { shape: Some((3, 32, 32)), ..InputHints::default() };
    let message = refusal(&zoo, &file, &IngestOptions { input: hints, ..options(Some(SPEC)) });
    assert!(message.contains("takes [1, 3, 64, 64], found [1, 3, 32, 32]"), "{message}");
    let onnx = folder.path().join("child.onnx");
    zoo.export("child", &onnx).expect("an export");
    let message = refusal(&zoo, &onnx, &options(Some(SPEC)));
    assert!(message.contains("expected a file of weights alone"), "{message}");

    // Other names: the report says how the weights were placed. Other preprocessing: another model.
    let numbered = named.iter().enumerate().map(|(at, (name, shape, bytes))| {
        let layer = if at + 2 < named.len() { at / 5 * 2 + usize::from(at % 5 > 0) } else { 10 };
        let leaf = name.rsplit('.').next().expect("a name");
        (format!("{layer}.{leaf}"), shape.clone(), bytes.clone())
    });
    fs::write(&file, pytorch::checkpoint(&numbered.collect::<Vec<_>>())).expect("a file");
    let hints = InputHints { mean: Some(vec![0.5; 3]), ..InputHints::default() };
    let other = ingest(&zoo, &file, &IngestOptions { input: hints, ..options(Some(SPEC)) });
    assert_eq!((other.status, other.model.as_deref()), ("stored", Some("net")));
    let note = other.note.expect("a note");
    assert!(
        note.contains("by shape and order") && note.contains("stem.weight is 0.weight"),
        "{note}"
    );
    assert!(zoo.check(CheckOptions::default()).expect("the check runs").sound);
}

#[test]
fn a_manifest_names_the_space_of_a_file() {
    let (folder, zoo) = zoo_of_two();
    let exported = folder.path().join("base.safetensors");
    zoo.export("base", &exported).expect("an export");
    fs::write(folder.path().join("net.pth"), pytorch::checkpoint(&tensors(&exported)))
        .expect("a file");
    let manifest = folder.path().join("networks.jsonl");
    let lines = format!(
        "{{\"path\": \"net.pth\", \"space\": \"{SPEC}\"}}\n{{\"path\": \"net.pth\"}}\n\
        {{\"path\": \"net.pth\", \"uri\": \"x\"}}\n"
    );
    fs::write(&manifest, lines).expect("a manifest");
    let source = manifest.display().to_string();
    let reports = zoo.ingest(&source, &options(None), &mut unobserved).expect("a report");
    let status: Vec<&str> = reports.iter().map(|report| report.status).collect();
    assert_eq!(status, ["already stored", "refused", "refused"], "{reports:?}");
    // A default for the lines that need one.
    let reports = zoo.ingest(&source, &options(Some(SPEC)), &mut unobserved).expect("a report");
    assert_eq!(reports[1].status, "already stored", "{reports:?}");
    // A generated network brings its own.
    let error = zoo.ingest("small:cnn-w18", &options(Some(SPEC)), &mut unobserved);
    assert!(error.expect_err("a refusal").to_string().contains("expected with a file of weights"));
    assert!(zoo.check(CheckOptions::default()).expect("the check runs").sound);
}
