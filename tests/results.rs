//! Results on a dataset: how they are measured, and what they tell of other models.

#![cfg(all(feature = "cli", feature = "torch"))]

#[path = "common/command.rs"]
mod command;
#[path = "common/images.rs"]
mod images;
#[path = "common/zoo.rs"]
mod zoo;

use command::{done, objects, tans};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use zoo::zoo_of_one;

const DIGITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/queries/char_digits");

/// A probe is repeated on further splits, but not where those would test images that the network learned from.
#[test]
fn a_probe_is_averaged_over_splits_unless_the_network_learned_from_the_dataset() {
    let folder = zoo_of_one();
    let at = folder.path();
    let measured = |model: &str| {
        let line = format!("measure zoo {model} {DIGITS} --json");
        let row = objects(&done(at, &line).out).remove(0);
        let number = |field: &str| row[field].as_f64().expect("a number");
        (number("accuracy"), number("held_out_accuracy"), number("test_images"))
    };
    let (accuracy, held_out, images) = measured("base");
    let right = |accuracy: f64| (accuracy * images - (accuracy * images).round()).abs() < 1e-3;
    assert!(right(held_out) && accuracy != held_out, "{accuracy} {held_out}");
    assert!((accuracy - held_out).abs() < 0.2, "{accuracy} {held_out}");
    assert_eq!(measured("base"), (accuracy, held_out, images));
    done(at, &format!("finetune zoo base {DIGITS} --name tuned --epochs 1"));
    let (accuracy, held_out, _) = measured("tuned");
    assert_eq!(accuracy, held_out);
}

/// Predicted accuracies of `base` and of `other`.
fn predicted(at: &Path) -> [f64; 2] {
    let hits = objects(&done(at, &format!("query zoo {DIGITS} --json")).out);
    ["base", "other"].map(|model| {
        let hit = hits.iter().find(|hit| hit["model"] == model).expect("it is found");
        hit["predicted_accuracy"].as_f64().expect("a number")
    })
}

/// Reported accuracies are no probes: they tell something of the dataset, and less of other models than of their own.
#[test]
fn results_tell_what_probes_of_other_models_would_show() {
    let folder = zoo_of_one();
    let at = folder.path();
    done(at, &format!("task add zoo digits {DIGITS}"));
    done(at, "ingest zoo small:cnn-w18@32 --name other");
    let [base, other] = predicted(at);
    done(at, "record zoo base task:digits 0.9");
    let [known, same] = predicted(at);
    let moved = [known - base, same - other];
    assert!(moved[0] > moved[1] && moved[1] > 0.0, "{base} {known}, {other} {same}");
    done(at, &format!("measure zoo base {DIGITS}"));
    assert_ne!(predicted(at)[1], same);
}

/// It is the accuracy of its own features, and says nothing of networks that were not trained there.
#[test]
fn a_network_that_was_trained_here_is_expected_to_do_what_it_did() {
    let folder = zoo_of_one();
    let at = folder.path();
    done(at, "ingest zoo small:cnn-w18@32 --name other");
    let [before, _] = predicted(at);
    done(at, "remove zoo other");
    let line = format!("finetune zoo base {DIGITS} --name other --epochs 2 --json");
    let tuned = objects(&done(at, &line).out).pop().expect("a report");
    let reached = tuned["accuracy"].as_f64().expect("a number");
    let [base, other] = predicted(at);
    assert_eq!(base, before);
    assert!((other - reached).abs() < 0.03, "{other} after {reached}");
}

/// With steps too small to matter, what is left is the head that the training starts from.
#[test]
fn a_new_head_starts_from_the_probe() {
    let folder = zoo_of_one();
    let at = folder.path();
    let measured = objects(&done(at, &format!("measure zoo base {DIGITS} --json")).out);
    let probe = measured[0]["held_out_accuracy"].as_f64().expect("a number");
    for how in ["", "--head-only"] {
        let steps = format!("--epochs 1 --learning-rate 1e-9 --benchmark none {how} --json");
        let line = format!("finetune zoo base {DIGITS} {steps}");
        let printed = objects(&done(at, &line).out);
        let tuned = printed.last().expect("a report")["accuracy"].as_f64().expect("a number");
        assert!(probe > 0.3 && tuned > 0.6 * probe, "{how}: {tuned} beside {probe}");
    }
}

#[test]
fn a_file_says_how_its_accuracies_were_obtained() {
    let folder = zoo_of_one();
    let at = folder.path();
    let file = |text: &str| std::fs::write(at.join("results.csv"), text).expect("a written file");
    file(
        "model,dataset,accuracy,kind\nbase,there,0.5,finetune\nbase,there,0.4,probe\nbase,here,0.3,\n",
    );
    done(at, "record zoo results.csv");
    let shown = objects(&done(at, "show zoo base --json").out).remove(0);
    let results = shown["results"].as_array().expect("a list");
    let kind = |accuracy: f64| {
        let is_it = |it: &&serde_json::Value| {
            (it["accuracy"].as_f64().expect("a number") - accuracy).abs() < 1e-6
        };
        results.iter().find(is_it).expect("it is recorded")["kind"].clone()
    };
    assert_eq!([0.5, 0.4, 0.3].map(kind), ["finetune", "probe", "reported"]);
    file("model,dataset,accuracy,kind\nbase,there,0.6,finetune\nbase,there,0.6,tuned\n");
    let refused = tans(at, "record zoo results.csv");
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(
        refused.err.contains("results.csv:3") && refused.err.contains("\"tuned\""),
        "{refused:?}"
    );
}

/// Rows of `encode` are all that a zoo keeps of a dataset, so they are enough to keep it.
#[test]
fn a_dataset_becomes_a_task_by_its_rows_alone() {
    let folder = zoo_of_one();
    let at = folder.path();
    done(at, &format!("encode zoo {DIGITS} -o rows.npz"));
    let added = objects(&done(at, "task add zoo digits rows.npz --json").out).remove(0);
    assert_eq!(added["status"], "stored");
    let again = format!("task add zoo digits {DIGITS} --json");
    let again = objects(&done(at, &again).out).remove(0);
    assert_eq!((&again["status"], &again["id"]), (&"already stored".into(), &added["id"]));
    let cosine = |dataset: &str| {
        let hits = objects(&done(at, &format!("query zoo {dataset} --json")).out);
        hits[0]["cosine"].as_f64().expect("a number")
    };
    assert!((cosine("task:digits") - cosine(DIGITS)).abs() < 1e-3);
}

/// Copies feature rows with their numbers multiplied, or with seven of them a row.
fn other_rows(from: &Path, to: &Path, factor: Option<f32>) {
    let mut archive = zip::ZipArchive::new(File::open(from).expect("rows")).expect("an archive");
    let mut out = zip::ZipWriter::new(File::create(to).expect("files can be written"));
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).expect("an array");
        let name = entry.name().to_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).expect("its bytes");
        if name == "rows.npy" {
            let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
            let text = String::from_utf8_lossy(&bytes[10..start]).into_owned();
            match factor {
                Some(factor) => bytes[start..].as_chunks_mut().0.iter_mut().for_each(|value| {
                    *value = (f32::from_le_bytes(*value) * factor).to_le_bytes();
                }),
                None => {
                    let rows = (bytes.len() - start) / 4 / 1280;
                    bytes.truncate(start + rows * 4 * 7);
                    let text = text.replacen("1280", "7   ", 1);
                    bytes[10..start].copy_from_slice(text.as_bytes());
                }
            }
        }
        out.start_file(name, zip::write::SimpleFileOptions::default()).expect("an entry");
        out.write_all(&bytes).expect("its bytes");
    }
    out.finish().expect("an archive");
}

/// They would be stored as infinity, or as rows that nothing else fits, and every later result would be refused.
#[test]
fn rows_that_a_zoo_cannot_keep_are_refused() {
    let folder = zoo_of_one();
    let at = folder.path();
    done(at, "encode zoo colours -o rows.npz");
    for factor in [Some(1e9), None] {
        other_rows(&at.join("rows.npz"), &at.join("other.npz"), factor);
        for line in ["task add zoo other other.npz", "query zoo other.npz"] {
            let refused = tans(at, line);
            assert_eq!(refused.code, Some(2), "{refused:?}");
            assert!(refused.err.contains("rows of 1280 numbers"), "{refused:?}");
        }
    }
    done(at, "record zoo base colours 0.5");
}

/// Another sample of a dataset tells what a network reaches that was trained on the first.
#[test]
fn tasks_that_share_images_are_held_out_together() {
    let folder = zoo_of_one();
    let at = folder.path();
    for width in [18, 20, 22] {
        done(at, &format!("ingest zoo small:cnn-w{width}@32 --benchmark none"));
    }
    done(at, &format!("measure zoo --all {DIGITS}"));
    done(at, &format!("measure zoo --all {DIGITS} --split-seed 1"));
    let line = format!("finetune zoo base {DIGITS} --name child --epochs 1 --benchmark none");
    done(at, &line);
    let file = "model,dataset,accuracy,kind\nchild,char_digits-2,1,probe\n";
    std::fs::write(at.join("results.csv"), file).expect("a written file");
    done(at, "record zoo results.csv");
    let told = done(at, "evaluate zoo --closed-form-only --no-cold").out;
    let best = told.split("best network ").nth(1).expect("a figure");
    let best: f64 = best.split(',').next().expect("a number").parse().expect("a number");
    assert!(best < 0.95, "the child is a candidate: {told}");
}
