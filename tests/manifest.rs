//! Many networks at once: folders and manifests.

#![cfg(feature = "torch")]

#[path = "common/library.rs"]
mod library;

use library::{all_names, assert_sound, init, knowledge, results, zoo_of_three};
use std::fs;
use std::ops::ControlFlow;
use tans::{Benchmark, Database, Error, IngestOptions, Ingested, ListOptions, unobserved};
use tempfile::TempDir;

#[test]
fn a_manifest_names_files_generated_networks_and_references() {
    let (folder, zoo) = zoo_of_three();
    let at = folder.path();
    zoo.export("middle", &at.join("middle.onnx")).expect("an export");
    zoo.remove(&["middle".to_owned()]).expect("a removal");
    let lines = [
        r#"{"path": "middle.onnx", "name": "back", "task": "t", "accuracy": 0.25, "tags": {"a": "1"}}"#,
        r#"{"space": "small:cnn-w28@32", "name": "made", "task": "t", "accuracy": 0.5, "license": "ISC"}"#,
        r#"{"uri": "https://example.org/far", "name": "far", "task": "t", "accuracy": 0.75, "params": 12}"#,
        r#"{"uri": "https://example.org/no-task", "accuracy": 0.75}"#,
        r#"{"uri": "https://example.org/hint", "mean": [0.5]}"#,
        r#"{"space": "small:cnn-w30@32", "scale": 1.0}"#,
        r#"{"space": "small:cnn-w30@32", "params": 7}"#,
        r#"{"space": "large:cnn-w30@32"}"#,
        r#"{"space": "small:cnn-w30@32", "uri": "https://example.org/both"}"#,
        r#"{"space": "small:cnn-w30@32", "accuracy": 1.5, "task": "t"}"#,
    ];
    fs::write(at.join("all.jsonl"), lines.join("\n")).expect("the tempdir takes files");
    let options = IngestOptions { benchmark: Benchmark::None, ..IngestOptions::default() };
    let source = at.join("all.jsonl").display().to_string();
    let all = zoo.ingest(&source, &options, &mut unobserved).expect("a readable manifest");
    for (model, accuracy) in [("back", 0.25), ("made", 0.5), ("far", 0.75)] {
        assert_eq!(results(&zoo, model, "t"), [("reported", accuracy)], "{model}");
        assert_eq!(zoo.show(model).expect("it is there").summary.source_tasks, ["t"], "{model}");
    }
    assert_eq!(zoo.show("back").expect("it is there").summary.tags["a"], "1");
    assert_eq!(zoo.show("made").expect("it is there").summary.license.as_deref(), Some("ISC"));
    let expected = [
        "task",
        "with the file",
        "with the file",
        "with a uri only",
        "SPACE:CONFIG",
        "one of path, uri and space",
        "0..1",
    ];
    assert_eq!(all.len(), 3 + expected.len());
    for (refused, expected) in all[3..].iter().zip(expected) {
        let note = refused.note.as_deref().unwrap_or_default();
        assert_eq!(refused.status, "refused", "{refused:?}");
        assert!(note.contains(expected), "{expected}: {note}");
        assert!(refused.source.contains("all.jsonl:"), "{refused:?}");
    }
    assert_eq!(all_names(&zoo), ["back", "far", "made", "narrow", "wide"]);
    assert_sound(&zoo);
}

#[test]
fn networks_in_subfolders_are_named_by_the_path_to_them() {
    let (folder, zoo) = zoo_of_three();
    let networks = folder.path().join("networks");
    for (model, path) in
        [("narrow", "model.onnx"), ("middle", "a/model.onnx"), ("wide", "a/b/model.onnx")]
    {
        let path = networks.join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("the tempdir takes folders");
        zoo.export(model, &path).expect("an export");
    }
    let other = init(&folder.path().join("other"), Vec::new());
    let options = IngestOptions { benchmark: Benchmark::None, ..IngestOptions::default() };
    let source = networks.display().to_string();
    let stored = other.ingest(&source, &options, &mut unobserved).expect("a folder");
    assert!(stored.iter().all(|it| it.status == "stored"), "{stored:?}");
    assert_eq!(all_names(&other), ["a/b/model", "a/model", "model"]);
}

#[test]
fn a_manifest_states_inputs_and_is_not_empty() {
    let (folder, zoo) = zoo_of_three();
    let at = folder.path();
    zoo.export("middle", &at.join("middle.safetensors")).expect("an export");
    let file = at.join("all.jsonl");
    let source = file.display().to_string();
    let options = IngestOptions { benchmark: Benchmark::None, ..IngestOptions::default() };
    let line = |input: &str| format!(r#"{{"path": "middle.safetensors", "input": {input}}}"#);
    let lines = [line(r#""3x32x32""#), line("[3, 32, 32]"), line(r#""3x32""#), line("7")];
    fs::write(&file, lines.join("\n")).expect("the tempdir takes files");
    let all = zoo.ingest(&source, &options, &mut unobserved).expect("a readable manifest");
    let statuses: Vec<&str> = all.iter().map(|it| it.status).collect();
    assert_eq!(statuses, ["already stored", "already stored", "refused", "refused"], "{all:?}");
    for refused in &all[2..] {
        let note = refused.note.as_deref().unwrap_or_default();
        assert!(note.contains("CHANNELSxHEIGHTxWIDTH"), "{note}");
    }
    fs::write(&file, "\n").expect("the tempdir takes files");
    let empty = zoo.ingest(&source, &options, &mut unobserved).expect_err("nothing to do");
    assert!(empty.to_string().contains("found none"), "{empty}");
}

#[test]
fn each_network_of_a_folder_is_reported_as_soon_as_it_is_stored() {
    let (folder, zoo) = zoo_of_three();
    let other = init(&folder.path().join("other"), Vec::new());
    let networks = folder.path().join("networks");
    fs::create_dir(&networks).expect("the tempdir takes folders");
    for name in ["narrow", "middle", "wide"] {
        zoo.export(name, &networks.join(format!("{name}.onnx"))).expect("an export");
    }
    let source = networks.display().to_string();
    let options = IngestOptions { benchmark: Benchmark::None, ..IngestOptions::default() };
    let mut reports = 0;
    let mut report = |ingested: Ingested| {
        reports += 1;
        let stored = other.list(&ListOptions::default()).expect("models can be read");
        assert_eq!(stored.len(), reports, "{ingested:?}");
        if reports < 2 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    let stopped = other.ingest_each(&source, &options, &mut report, &mut unobserved);
    assert!(matches!(stopped, Err(Error::Cancelled)), "{stopped:?}");
    assert_eq!(other.list(&ListOptions::default()).expect("models can be read").len(), 2);
    assert_sound(&other);
}

#[test]
fn side_by_side_stores_what_one_by_one_stores() {
    let folder = TempDir::new().expect("a temporary folder");
    let at = folder.path();
    let mut lines = Vec::new();
    for width in [16, 18, 20, 22, 24] {
        lines
            .push(format!(r#"{{"space": "small:cnn-w{width}@32", "task": "t", "accuracy": 0.5}}"#));
        for copy in 0..3 {
            // The third is one that is known by then, with a name of its own.
            let uri = format!("https://example.org/{width}-{}", copy % 2);
            let task = format!("t{copy}");
            lines.push(format!(
                r#"{{"uri": "{uri}", "name": "far-{width}-{copy}", "task": "{task}", "accuracy": 0.25}}"#
            ));
        }
        lines.push(format!(r#"{{"uri": "https://example.org/{width}", "accuracy": 0.5}}"#));
    }
    fs::write(at.join("all.jsonl"), lines.join("\n")).expect("the tempdir takes files");
    let source = at.join("all.jsonl").display().to_string();
    let run = |zoo: &Database, jobs| {
        let options =
            IngestOptions { benchmark: Benchmark::None, jobs, ..IngestOptions::default() };
        let lines = zoo.ingest(&source, &options, &mut unobserved).expect("a readable manifest");
        let mut told: Vec<_> = lines
            .into_iter()
            .map(|line| (line.source, line.model, line.status, line.note.is_some()))
            .collect();
        told.sort();
        told
    };
    let (one, three) = (init(&at.join("one"), Vec::new()), init(&at.join("three"), Vec::new()));
    let told = run(&one, 1);
    assert_eq!(run(&three, 3), told);
    let count = |wanted: &str| told.iter().filter(|(_, _, status, _)| *status == wanted).count();
    assert_eq!((count("stored"), count("already stored"), count("refused")), (15, 5, 5));
    // Rows follow the order of commits.
    let sorted = |zoo: &Database| {
        let mut lines: Vec<String> = knowledge(zoo).lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&three), sorted(&one));
    assert!(run(&three, 2).iter().all(|(_, _, status, _)| *status != "stored"), "all are known");
    assert_eq!(sorted(&three), sorted(&one));
    assert_sound(&three);
}

#[test]
fn a_manifest_that_is_repeated_says_nothing_new() {
    let folder = TempDir::new().expect("a temporary folder");
    let zoo = init(&folder.path().join("zoo"), Vec::new());
    let manifest = folder.path().join("all.jsonl");
    let line = |number: usize, tag: &str| {
        let uri = format!("https://example.org/{number}");
        format!(
            r#"{{"uri": "{uri}", "name": "m{number}", "task": "t", "accuracy": 0.5, "tags": {{"a": "{tag}"}}}}"#
        )
    };
    let large = "x".repeat(1_200_000);
    let lines = [line(1, "b"), line(2, &large), line(3, "b")];
    fs::write(&manifest, lines.join("\n")).expect("the tempdir takes files");
    let run = || {
        let source = manifest.display().to_string();
        let options = IngestOptions::default();
        let lines = zoo.ingest(&source, &options, &mut unobserved).expect("a readable manifest");
        lines.into_iter().map(|line| line.status).collect::<Vec<_>>()
    };
    // One that the store refuses does not take the others along.
    assert_eq!(run(), ["stored", "refused", "stored"]);
    zoo.record("m1", "t", 0.9).expect("a newer result");
    let before = zoo.stats().expect("figures can be read");
    assert_eq!(run(), ["already stored", "refused", "already stored"]);
    assert_eq!(results(&zoo, "m1", "t"), [("reported", 0.9)], "the newer result stays");
    let after = zoo.stats().expect("figures can be read");
    assert_eq!((after.pairs, after.generation), (before.pairs, before.generation));
    assert_sound(&zoo);
}
