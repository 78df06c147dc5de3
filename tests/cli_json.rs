//! The command line's `--json`: one documented object a line, and nothing else.

#![cfg(all(feature = "cli", feature = "torch"))]

#[path = "common/command.rs"]
mod command;
#[path = "common/images.rs"]
mod images;
#[path = "common/zoo.rs"]
mod zoo;

use command::{done, objects};
use serde_json::Value;
use zoo::zoo_of_one;

/// (command, how many lines it prints, fields of each line).
type Printed = (&'static str, usize, &'static [&'static str]);

const HIT: [&str; 11] = [
    "rank",
    "model",
    "cosine",
    "predicted_accuracy",
    "interval",
    "measured",
    "probed_accuracy",
    "source_tasks",
    "params",
    "macs",
    "license",
];
const SUMMARY: [&str; 8] =
    ["model", "id", "params", "macs", "license", "tags", "source_tasks", "status"];
const INGESTED: [&str; 6] = ["source", "model", "status", "note", "params", "macs"];
const EXPLAINED: [&str; 10] = [
    "dataset",
    "model",
    "cosine",
    "predicted_accuracy",
    "interval",
    "expected_accuracy",
    "terms",
    "measured",
    "similar_tasks",
    "cost",
];
const PROBED: [&str; 8] =
    ["model", "task", "kind", "accuracy", "test_images", "loo_accuracy", "logme", "seconds"];
const PRINTED: [Printed; 21] = [
    ("init other", 1, &["zoo", "models", "tasks", "pairs"]),
    ("ingest zoo small:cnn-w18@32 --benchmark none", 1, &INGESTED),
    ("query zoo colours", 2, &HIT),
    ("query zoo colours --rerank 2", 2, &HIT),
    ("query zoo colours --budget 10s", 2, &HIT),
    ("list zoo", 2, &SUMMARY),
    ("show zoo base", 1, &["model", "parent", "architecture", "input", "weight_bytes", "results"]),
    ("task add zoo seen colours", 1, &["task", "id", "family", "classes", "rows", "pairs"]),
    ("measure zoo --all colours", 2, &PROBED),
    ("explain zoo colours base", 1, &EXPLAINED),
    ("record zoo base seen 0.5", 1, &["pairs", "new_models", "new_tasks"]),
    ("encode zoo colours -o rows.npz", 1, &["output", "rows", "dim", "backbone_ms"]),
    ("query zoo rows.npz", 2, &HIT),
    ("export zoo base -o base.safetensors", 1, &["model", "output", "bytes", "models"]),
    ("stats zoo", 1, &["models", "tasks", "pairs", "generation", "recipe", "disk_bytes"]),
    ("train zoo --force", 1, &["generation", "recipe", "models"]),
    ("edit zoo base --tag a=b", 1, &["model", "status"]),
    ("remove zoo base", 1, &["model", "status"]),
    ("task remove zoo seen", 1, &["task", "status"]),
    ("reindex zoo", 1, &["generation", "models", "measured"]),
    ("check zoo", 1, &["sound", "records", "tensors", "networks", "vectors", "findings"]),
];

#[test]
fn json_prints_documented_objects_and_nothing_else() {
    let folder = zoo_of_one();
    let at = folder.path();
    for (line, count, fields) in PRINTED {
        let printed = objects(&done(at, &format!("{line} --json")).out);
        assert_eq!(printed.len(), count, "tans {line}: {printed:?}");
        for object in &printed {
            for field in fields {
                assert!(object.get(field).is_some(), "tans {line}: no {field} in {object}");
            }
        }
    }
}

#[test]
fn a_hit_has_just_the_documented_fields() {
    let folder = zoo_of_one();
    let hits = objects(&done(folder.path(), "query zoo colours --json").out);
    assert_eq!(hits.len(), 1);
    for (index, hit) in hits.iter().enumerate() {
        assert_eq!(hit.as_object().map(|fields| fields.len()), Some(HIT.len()), "{hit}");
        assert_eq!(hit["rank"], index + 1);
        let number = |value: &Value| value.as_f64().expect("a number");
        let (low, high) = (number(&hit["interval"][0]), number(&hit["interval"][1]));
        let predicted = number(&hit["predicted_accuracy"]);
        assert!(0.0 <= low && low <= predicted && predicted <= high && high <= 1.0, "{hit}");
        assert!((-1.0..=1.0).contains(&number(&hit["cosine"])), "{hit}");
    }
}
