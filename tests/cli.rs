//! The command line: exit codes, what is said on which stream, and that a refusal changes nothing.

#![cfg(all(feature = "cli", feature = "torch"))]

#[path = "common/command.rs"]
mod command;
#[path = "common/images.rs"]
mod images;
#[path = "common/zoo.rs"]
mod zoo;

use command::{Answer, command, done, objects, tans};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use tans::{CheckOptions, Database, ListOptions, OpenOptions};
use zoo::zoo_of_one;

/// Fields of a result as `measure` and `finetune` print it.
const RESULT: [&str; 4] = ["model", "task", "kind", "accuracy"];

fn reader(folder: &Path) -> Database {
    let options = OpenOptions { read_only: true, ..OpenOptions::default() };
    Database::open(&folder.join("zoo"), options).expect("the zoo opens")
}

/// Everything that users can see of a zoo, which must be sound.
fn state(zoo: &Database) -> String {
    let check = zoo.check(CheckOptions::default()).expect("the check runs");
    assert!(check.sound, "the zoo is damaged: {:?}", check.findings);
    let models = zoo.list(&ListOptions::default()).expect("models can be read");
    let tasks = zoo.tasks().expect("tasks can be read");
    let stats = zoo.stats().expect("figures can be read");
    format!("{models:?}\n{tasks:?}\n{} pairs, generation {}", stats.pairs, stats.generation)
}

#[track_caller]
fn assert_answer(line: &str, answer: &Answer, code: i32, parts: &[&str]) {
    assert_eq!(answer.code, Some(code), "tans {line}: {}{}", answer.out, answer.err);
    for part in parts {
        assert!(answer.err.contains(part), "tans {line}: expected {part:?} in {:?}", answer.err);
    }
    assert!(!answer.err.contains("panicked"), "tans {line}: {}", answer.err);
    assert!(answer.err.matches("os error").count() <= 1, "a cause said twice: {}", answer.err);
}

/// Runs every row of (arguments, parts of the message): exit code `code`, an error on standard error
/// alone, and the zoo as it was.
#[track_caller]
fn assert_refused(folder: &Path, code: i32, rows: &[(&str, &[&str])]) {
    let zoo = reader(folder);
    let before = state(&zoo);
    for (line, parts) in rows {
        let answer = tans(folder, line);
        assert_answer(line, &answer, code, parts);
        assert_eq!(answer.out, "", "tans {line} refuses, yet prints a result");
        assert_eq!(state(&zoo), before, "tans {line} was refused, yet changed the zoo");
    }
    assert_eq!(state(&reader(folder)), before, "a zoo that is opened anew");
}

/// Exports `base` and writes what `damage` makes of its bytes as `name`.
fn damaged(folder: &Path, name: &str, damage: impl FnOnce(&mut Vec<u8>)) {
    done(folder, "export zoo base -o whole.onnx");
    let mut bytes = fs::read(folder.join("whole.onnx")).expect("the export is there");
    damage(&mut bytes);
    fs::write(folder.join(name), bytes).expect("the tempdir takes files");
}

/// Puts NaN into the first weight tensor that a `raw_data` field (number 9, tag 0x4a) holds.
fn spoil_a_weight(bytes: &mut [u8]) {
    let start = (0..bytes.len() - 3)
        .find(|&at| {
            // A length of two bytes: 128 to 16383, a whole number of f32.
            let length = usize::from(bytes[at + 1] & 0x7f) | usize::from(bytes[at + 2]) << 7;
            bytes[at] == 0x4a && bytes[at + 1] > 0x7f && bytes[at + 2] < 0x80 && length % 4 == 0
        })
        .expect("a network has weights");
    bytes[start + 3..start + 7].copy_from_slice(&f32::NAN.to_le_bytes());
}

/// Renames the operator of every convolution: `op_type` is field 4 of a node.
fn rename_conv(bytes: &mut [u8]) {
    let mut renamed = 0;
    for at in 0..bytes.len() - 6 {
        if bytes[at..at + 6] == *b"\x22\x04Conv" {
            bytes[at + 3..at + 6].copy_from_slice(b"xnv");
            renamed += 1;
        }
    }
    assert!(renamed > 0, "a convolutional network has convolutions");
}

#[test]
fn broken_networks_are_refused() {
    let folder = zoo_of_one();
    let at = folder.path();
    damaged(at, "short.onnx", |bytes| bytes.truncate(bytes.len() / 2));
    damaged(at, "nan.onnx", |bytes| spoil_a_weight(bytes));
    fs::write(at.join("text.onnx"), "this is not a network\n").expect("files can be written");
    fs::create_dir(at.join("bare")).expect("folders can be made");
    fs::write(at.join("list.jsonl"), "{\"path\": \"text.onnx\"}\n{\"path\": 7}\n{}\n")
        .expect("files can be written");
    assert_refused(
        at,
        2,
        &[
            ("ingest zoo short.onnx", &["short.onnx", "not a readable ONNX file"]),
            ("ingest zoo text.onnx", &["text.onnx", "not a readable ONNX file"]),
            ("ingest zoo nan.onnx", &["nan.onnx", "holds NaN or infinite values (1 of them)"]),
            ("ingest zoo absent.onnx", &["cannot read", "absent.onnx"]),
            ("ingest zoo https://example.org/net.onnx", &["https://example.org", "manifest"]),
            ("ingest zoo bare", &["bare", "expected files of networks"]),
            ("measure zoo any colours --epochs 3", &["--by finetune"]),
            ("ingest zoo small:cnn-w17@32", &["small:cnn-w16"]),
            ("ingest zoo backbone:nope", &["backbone:efficientnet-lite0", "backbone:nope"]),
            ("ingest zoo small:cnn-w18@32 --name base", &["base", "another model", "--name"]),
            ("ingest zoo whole.onnx --task t --accuracy 1.7", &["accuracy", "0..1", "1.7"]),
            ("ingest zoo whole.onnx --accuracy 0.5", &["--task"]),
            ("ingest zoo whole.onnx small:cnn-w18@32 --name x", &["--name", "one network"]),
            ("ingest zoo list.jsonl --name x", &["--name", "one network", "found 3"]),
            ("ingest zoo small:cnn-w18@32 --scale 1", &["scale", "file of a network"]),
            ("ingest zoo small:cnn-w18@32 --accuracy 0.5", &["--task"]),
        ],
    );
    let before = state(&reader(at));
    let line = "ingest zoo list.jsonl --json";
    let answer = tans(at, line);
    assert_answer(line, &answer, 2, &["3 networks refused"]);
    let reports = objects(&answer.out);
    assert_eq!(reports.len(), 3, "{}", answer.out);
    for report in reports {
        assert_eq!(report["status"], "refused");
        assert_eq!(report["model"], Value::Null);
        assert!(report["note"].as_str().is_some_and(|note| !note.is_empty()), "{report}");
    }
    assert_eq!(state(&reader(at)), before);
}

#[test]
fn a_folder_with_one_broken_network_stores_the_others() {
    let folder = zoo_of_one();
    let at = folder.path();
    done(at, "export zoo base -o whole.onnx");
    done(at, "remove zoo base");
    fs::create_dir(at.join("networks")).expect("folders can be made");
    fs::rename(at.join("whole.onnx"), at.join("networks/whole.onnx")).expect("files can be moved");
    fs::write(at.join("networks/text.onnx"), "no network").expect("files can be written");
    let line = "ingest zoo networks --benchmark none --json";
    let answer = tans(at, line);
    assert_answer(line, &answer, 2, &["1 network refused, the others are stored"]);
    let statuses: Vec<Value> =
        objects(&answer.out).iter().map(|report| report["status"].clone()).collect();
    assert_eq!(statuses, ["refused", "stored"]);
    assert!(state(&reader(at)).contains("\"whole\""));
}

#[test]
fn an_unknown_operator_is_stored_marked_found_and_exported() {
    let folder = zoo_of_one();
    let at = folder.path();
    damaged(at, "odd.onnx", |bytes| rename_conv(bytes));
    let answer = done(at, "ingest zoo odd.onnx --json");
    let report = &objects(&answer.out)[0];
    assert_eq!((&report["model"], &report["status"]), (&"odd".into(), &"stored".into()));
    assert!(report["note"].as_str().is_some_and(|note| note.contains("op Cxnv")), "{report}");
    for line in ["list zoo", "show zoo odd"] {
        let answer = done(at, line);
        assert!(answer.out.contains("not runnable: op Cxnv"), "tans {line}: {}", answer.out);
    }
    let answer = done(at, "query zoo colours --json");
    let found: BTreeSet<String> =
        objects(&answer.out).iter().map(|hit| hit["model"].to_string()).collect();
    assert!(found.contains("\"odd\""), "{}", answer.out);
    // The same network comes back from its export, whatever it cannot do here.
    done(at, "export zoo odd -o back.onnx");
    let answer = done(at, "ingest zoo back.onnx");
    assert!(answer.out.contains("already stored as odd"), "{}", answer.out);
    assert_refused(
        at,
        2,
        &[("finetune zoo odd colours --epochs 1", &["odd cannot be fine-tuned", "Cxnv"])],
    );
    done(at, "query zoo colours --rerank 5 --quiet");
}

#[test]
fn a_refused_network_leaves_no_task_behind() {
    let folder = zoo_of_one();
    let at = folder.path();
    damaged(at, "nan.onnx", |bytes| spoil_a_weight(bytes));
    assert_refused(at, 2, &[("ingest zoo nan.onnx --task fresh --accuracy 0.5", &["NaN"])]);
}

#[test]
fn a_refused_measurement_leaves_no_task_behind() {
    let folder = zoo_of_one();
    let at = folder.path();
    damaged(at, "odd.onnx", |bytes| rename_conv(bytes));
    done(at, "ingest zoo odd.onnx");
    assert_refused(at, 2, &[("measure zoo odd colours", &["odd cannot be run", "Cxnv"])]);
}

#[test]
fn unusable_datasets_are_refused() {
    let folder = zoo_of_one();
    let at = folder.path();
    for empty in ["empty", "single/only"] {
        fs::create_dir_all(at.join(empty)).expect("folders can be made");
    }
    fs::create_dir(at.join("loose")).expect("folders can be made");
    for number in 0..4 {
        let from = at.join(format!("colours/red/{number}.png"));
        for to in ["single/only", "loose"] {
            fs::copy(&from, at.join(format!("{to}/{number}.png"))).expect("files can be copied");
        }
    }
    assert_refused(
        at,
        2,
        &[
            ("query zoo empty", &["empty", "expected", "found no subfolder"]),
            ("query zoo single", &["single", "one class"]),
            ("query zoo loose", &["loose", "4 images directly in the folder", "no labels"]),
            ("query zoo absent", &["absent", "nothing at this path"]),
            ("query zoo task:absent", &["absent"]),
            ("task add zoo t empty", &["empty", "expected"]),
            ("task add zoo t task:benchmark/font_style", &["images"]),
            ("finetune zoo base single --epochs 1", &["single", "one class"]),
            ("encode zoo empty -o rows.npz", &["empty", "expected"]),
        ],
    );
    assert!(!at.join("rows.npz").exists(), "a refused encode left a file");
}

#[test]
fn wrong_arguments_are_refused() {
    let folder = zoo_of_one();
    let at = folder.path();
    fs::write(at.join("bad.csv"), "model,dataset,accuracy\nfresh,t,0.5\nbase,t,1.7\n")
        .expect("files can be written");
    for (name, lines) in [
        ("odd", "name,score\na,1\n"),
        ("nameless", "model,dataset,accuracy\nfresh,t,0.5\n\n \n,t,0.5\n"),
        ("params", "model,dataset,accuracy,params\nfresh,t,0.5,5M\nnew,t,0.5,many\n"),
        ("short", "model,dataset,accuracy\nfresh,t,0.5\nnew,t\n"),
        ("open", "model,dataset,accuracy\n\"fresh,t,0.5\nnew,t,0.5\n"),
        ("header", "model,dataset,accuracy\n"),
        ("german", "model;dataset;accuracy\nfresh;t;0.5\n"),
        ("twice", "model,dataset,task,accuracy\nfresh,t,u,0.5\n"),
        ("torn", "model,dataset,accuracy\nfresh,t,0.5\n\nfresh,u,0.5\nfresh,t,0.6\n"),
    ] {
        fs::write(at.join(format!("{name}.csv")), lines).expect("files can be written");
    }
    done(at, "init empty");
    assert_refused(
        at,
        2,
        &[
            ("record zoo base t 1.7", &["accuracy", "0..1", "1.7"]),
            ("record zoo base t -- -0.1", &["accuracy", "0..1"]),
            ("record zoo base t much", &["accuracy", "much"]),
            ("record zoo bad.csv", &["bad.csv:3", "1.7"]),
            ("record zoo odd.csv", &["odd.csv", "model, dataset, accuracy"]),
            ("record zoo nameless.csv", &["nameless.csv:5", "model name", "empty"]),
            ("record zoo params.csv", &["params.csv:3", "5M", "many"]),
            ("record zoo short.csv", &["short.csv:3", "expected 3 fields, found 2"]),
            ("record zoo open.csv", &["open.csv:2", "expected 3 fields, found 1"]),
            ("record zoo header.csv", &["header.csv", "found the header alone"]),
            ("record zoo german.csv", &["model;dataset;accuracy", "expected commas", "csv:1"]),
            ("record zoo twice.csv", &["twice.csv", "dataset or task", "several"]),
            ("record zoo torn.csv", &["torn.csv:5", "fresh on t", "torn.csv:2", "0.5", "0.6"]),
            ("query zoo colours -k 0", &["-k", "whole number from 1", "found \"0\""]),
            ("query zoo colours --max-params apples", &["5M", "apples"]),
            ("query zoo colours --per-class 1", &["whole number from 2", "\"1\""]),
            ("query zoo colours --train-share 1", &["between 0 and 1"]),
            ("query zoo task:benchmark/font_style --train-share 1.5", &["between 0 and 1", "1.5"]),
            (
                "query zoo task:benchmark/font_style --per-class 5",
                &["stored task", "leave them out"],
            ),
            ("train empty", &["results to learn from", "tans measure"]),
            ("finetune zoo base colours --max-params 5", &["--max-params", "--top N"]),
            ("finetune zoo base colours --head-only --from-scratch", &["cannot be used with"]),
            ("measure empty --all colours", &["no network", "tans ingest"]),
            ("show zoo absent", &["absent"]),
            ("remove zoo base absent", &["absent"]),
            ("edit zoo absent --name x", &["absent"]),
            ("edit zoo base", &["expected a new name, license or tag"]),
            ("export zoo base -o x.txt", &["x.txt", ".onnx or .safetensors"]),
            ("export zoo base -o x.tar", &["x.tar", "--starter"]),
            ("export zoo -o x.tar", &["a model", "--starter"]),
            ("export zoo --starter -o x.zip", &["x.zip", ".tar"]),
            ("export zoo base --starter -o x.tar", &["--starter", "no model"]),
            ("encode zoo colours -o x.txt", &["x.txt", ".npz"]),
            ("evaluate zoo --folds 0", &["folds", "whole number from 2", "\"0\""]),
            ("explain zoo colours absent", &["absent"]),
            ("explain zoo absent base", &["absent"]),
            ("record zoo base t 0.5 --wait soon", &["10m", "soon"]),
            ("finetune zoo absent colours", &["absent", "tans list"]),
            ("finetune zoo base colours --name base", &["base", "another model"]),
            ("finetune zoo base colours --epochs 0", &["whole number from 1", "found \"0\""]),
            ("finetune zoo base colours --epochs -1", &["whole number from 1", "-1"]),
            ("finetune zoo base colours --learning-rate -1", &["positive number", "found -1"]),
            (
                "finetune zoo base colours --learning-rate 1e30",
                &["training diverged", "loss is", "lower the learning rate"],
            ),
            ("finetune zoo base colours --budget 0", &["budget", "found 0"]),
            ("finetune zoo base colours -o x.pt", &["x.pt", ".onnx or .safetensors"]),
            ("finetune zoo colours", &["MODEL DATASET", "--top N DATASET"]),
            ("finetune zoo base colours --top 2", &["MODEL DATASET", "--top N DATASET"]),
            ("finetune zoo colours --top 0", &["whole number from 1", "\"0\""]),
            ("finetune zoo colours --top 2 --max-params 1", &["loosen the filter"]),
            ("list zoo --sort colour", &["added, name, params or macs"]),
            ("query zoo", &["DATASET"]),
            ("init zoo", &["zoo", "a new or empty directory", "found a zoo"]),
        ],
    );
    for file in ["x.onnx", "x.txt", "x.tar", "x.zip", "x.pt"] {
        assert!(!at.join(file).exists(), "a refused command left {file}");
    }
}

#[test]
fn only_a_zoo_of_a_known_format_is_opened() {
    let folder = zoo_of_one();
    let at = folder.path();
    fs::write(at.join("file"), "text").expect("files can be written");
    fs::create_dir(at.join("bare")).expect("folders can be made");
    for (line, found) in [
        ("ingest absent small:cnn-w16@32", "found nothing"),
        ("list file", "found a file"),
        ("query bare colours", "found an empty directory"),
        ("check colours", "found a directory with blue, green, red"),
    ] {
        let answer = tans(at, line);
        assert_answer(line, &answer, 2, &["is not a zoo", found, "tans init"]);
        assert_eq!(answer.out, "");
    }
    assert!(!at.join("absent").exists(), "a refused command made a directory");

    let before = state(&reader(at));
    let marker = fs::read_to_string(at.join("zoo/FORMAT")).expect("a zoo has a marker");
    let future = marker.replace("format 1", "format 999");
    assert_ne!(marker, future, "{marker}");
    fs::write(at.join("zoo/FORMAT"), future).expect("files can be written");
    for line in ["check zoo", "remove zoo base"] {
        assert_answer(line, &tans(at, line), 3, &["zoo", "999", "reads up to 1", "update tans"]);
    }
    fs::write(at.join("zoo/FORMAT"), marker).expect("files can be written");
    assert_eq!(state(&reader(at)), before);
}

#[test]
fn init_takes_a_new_place_and_a_whole_starter_only() {
    let folder = zoo_of_one();
    let at = folder.path();
    let listed = || {
        let entries = fs::read_dir(at.join("colours")).expect("a readable folder");
        entries.map(|entry| entry.expect("a readable folder").file_name()).collect::<BTreeSet<_>>()
    };
    let names = listed();
    assert_answer("init colours", &tans(at, "init colours"), 2, &["new or empty directory"]);
    assert_eq!(listed(), names);
    done(at, "export zoo --starter -o starter.tar");
    let mut bytes = fs::read(at.join("starter.tar")).expect("the bundle is there");
    bytes.truncate(bytes.len() * 2 / 3);
    fs::write(at.join("short.tar"), bytes).expect("files can be written");
    fs::write(at.join("text.tar"), "no bundle").expect("files can be written");
    for starter in ["short.tar", "text.tar", "absent.tar"] {
        let line = format!("init fresh --starter {starter}");
        assert_answer(&line, &tans(at, &line), 2, &[starter]);
        assert!(!at.join("fresh").exists(), "tans {line} left a directory");
    }
    fs::create_dir(at.join("bare")).expect("folders can be made");
    done(at, "init bare --starter starter.tar");
    assert!(done(at, "list bare").out.contains("base"));
}

#[test]
fn a_second_writer_is_refused_and_told_who_writes() {
    let folder = zoo_of_one();
    let at = folder.path();
    let before = state(&reader(at));
    let writer = Database::open(&at.join("zoo"), OpenOptions::default()).expect("the first writer");
    let pid = format!("process {}", std::process::id());
    let lines = [
        "record zoo base t 0.5",
        "train zoo",
        "ingest zoo small:cnn-w18@32",
        "measure zoo base colours",
        "finetune zoo base colours",
        "edit zoo base --tag a=b",
        "remove zoo base",
        "task remove zoo benchmark/font_style",
        "reindex zoo",
        "gc zoo",
        "backup zoo copies",
    ];
    for line in lines {
        let answer = tans(at, line);
        assert_answer(line, &answer, 3, &["zoo", "being written by", &pid, "--wait"]);
    }
    for line in ["list zoo", "query zoo colours"] {
        done(at, line);
    }
    assert_eq!(state(&reader(at)), before);
    drop(writer);
    done(at, "record zoo base t 0.5");
}

#[test]
fn an_empty_answer_is_no_failure_and_comes_with_a_hint() {
    let folder = zoo_of_one();
    let at = folder.path();
    for filter in ["--max-params 1", "--max-macs 1", "--license GPL-3.0-only", "--tag a=b"] {
        let line = format!("query zoo colours {filter}");
        let answer = done(at, &line);
        assert_answer(&line, &answer, 0, &["no model matches the filter"]);
        assert_eq!(answer.out, "", "tans {line}");
    }
    let line = "list zoo --max-params 1";
    let answer = done(at, line);
    assert_answer(line, &answer, 0, &["no model matches"]);
    assert_eq!(answer.out, "");
    done(at, "remove zoo base");
    let line = "query zoo colours --json";
    let answer = done(at, line);
    assert_answer(line, &answer, 0, &["no model yet", "tans ingest"]);
    assert_eq!(answer.out, "");
    assert_eq!(done(at, "query zoo colours --quiet").err, "");
}

#[test]
fn images_of_one_pixel_work() {
    let folder = zoo_of_one();
    let at = folder.path();
    images::colours(&at.join("dots"), 1, 4);
    assert_eq!(objects(&done(at, "query zoo dots --json").out).len(), 1);
    done(at, "task add zoo dots dots");
    let answer = done(at, "finetune zoo base dots --epochs 1 --benchmark none --json");
    assert_eq!(objects(&answer.out).last().expect("a report")["task"], "dots");
    state(&reader(at));
}

#[test]
fn unreadable_images_are_skipped_and_named() {
    let folder = zoo_of_one();
    let at = folder.path();
    fs::write(at.join("colours/red/broken.png"), b"\x89PNG\r\n\x1a\nno image")
        .expect("files can be written");
    let answer = done(at, "query zoo colours --json");
    let parts = ["skipped", "broken.png", "unreadable images skipped in all: 1"];
    assert_answer("query zoo colours", &answer, 0, &parts);
    assert_eq!(objects(&answer.out).len(), 1);
}

#[test]
fn train_refuses_what_it_cannot_judge() {
    let folder = zoo_of_one();
    let at = folder.path();
    done(at, "record zoo base benchmark/font_style 0.5");
    assert_refused(at, 1, &[("train zoo --recipe tans2021", &["refused", "tasks", "--force"])]);
    let answer = done(at, "train zoo --json");
    let report = &objects(&answer.out)[0];
    assert_eq!((&report["generation"], &report["recipe"]), (&1.into(), &"default".into()));
    assert_eq!(objects(&done(at, "query zoo colours --json").out).len(), 1);
    state(&reader(at));
}

#[test]
fn check_finds_a_flipped_byte_and_says_where() {
    let folder = zoo_of_one();
    let at = folder.path();
    let packs = fs::read_dir(at.join("zoo/packs")).expect("a zoo has packs");
    let pack = packs.map(|entry| entry.expect("a readable folder").path()).next().expect("a pack");
    let mut bytes = fs::read(&pack).expect("a readable pack");
    // The last tensor belongs to the generation or the network; padding may follow it.
    let last = bytes.iter().rposition(|&byte| byte != 0).expect("a pack holds tensors");
    bytes[last] ^= 1;
    fs::write(&pack, &bytes).expect("files can be written");
    let answer = tans(at, "check zoo --json");
    assert_eq!(answer.code, Some(1), "{}{}", answer.out, answer.err);
    let report = &objects(&answer.out)[0];
    assert_eq!(report["sound"], false);
    let name = pack.file_name().expect("a file").to_string_lossy().into_owned();
    let finding = &report["findings"][0];
    assert!(finding["file"].to_string().contains(&name), "{report}");
    assert_eq!(finding["models"], serde_json::json!(["base"]), "{report}");
    assert!(finding["remedy"].to_string().contains("tans remove ZOO base"), "{report}");
    let answer = tans(at, "check zoo");
    assert_eq!(answer.code, Some(1));
    assert!(answer.out.contains(&name) && answer.out.contains("1 finding:"), "{}", answer.out);
    // The fast check hashes nothing, but sees a file that is too short.
    done(at, "check zoo --fast");
    fs::write(&pack, &bytes[..bytes.len() / 2]).expect("files can be written");
    assert_eq!(tans(at, "check zoo --fast").code, Some(1));
    fs::write(&pack, &bytes).expect("files can be written");
    // What is damaged must not leave the zoo as if it were not.
    for line in ["export zoo base -o x.onnx", "export zoo --starter -o x.tar"] {
        assert_answer(line, &tans(at, line), 3, &["model base", "damaged", "tans check"]);
    }
    assert!(!at.join("x.onnx").exists() && !at.join("x.tar").exists());
}

#[test]
fn a_writer_waits_for_another_if_asked() {
    let folder = zoo_of_one();
    let at = folder.path();
    let open = || Database::open(&at.join("zoo"), OpenOptions::default()).expect("the zoo opens");
    let writer = open();
    let line = "record zoo base t 0.5 --wait 0.2s";
    assert_answer(line, &tans(at, line), 3, &["being written by"]);
    let line = "record zoo base t 0.5 --wait 10m";
    let arguments: Vec<&str> = line.split(' ').collect();
    let mut child = command(at, &arguments).spawn().expect("the binary starts");
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(child.try_wait().expect("a process").is_none(), "it did not wait");
    drop(writer);
    assert!(child.wait().expect("the binary ends").success());
}

#[test]
fn fine_tuning_prints_each_epoch_and_then_the_result() {
    let folder = zoo_of_one();
    let at = folder.path();
    let line = "finetune zoo base colours --epochs 2 --benchmark none";
    let own = "--name one --license Apache-2.0 --tag made=here";
    let printed = objects(&done(at, &format!("{line} {own} -o one.safetensors --json")).out);
    assert_eq!(printed.len(), 3, "{printed:?}");
    for (index, epoch) in printed[..2].iter().enumerate() {
        assert_eq!(epoch["epoch"], index + 1);
        assert!(epoch["train_loss"].is_number() && epoch["seconds"].is_number(), "{epoch}");
        assert!(epoch.get("validation_accuracy").is_some(), "{epoch}");
    }
    for field in RESULT {
        assert!(printed[2].get(field).is_some(), "no {field} in {}", printed[2]);
    }
    assert_eq!(printed[2]["status"], "stored");
    let exported = done(at, "export zoo one -o again.safetensors");
    assert!(exported.out.contains("1 model,"), "{}", exported.out);
    let read = |name: &str| fs::read(at.join(name)).expect("the file is there");
    // The order of a safetensors header's metadata is its writer's own.
    assert_eq!(read("one.safetensors").len(), read("again.safetensors").len());
    // The same start, data and seed give the same network, which keeps its name.
    let answer = done(at, &format!("{line} --name two --license GPL-3.0-only"));
    assert_answer(line, &answer, 0, &["as one", "--license", "tans edit"]);
    assert!(answer.out.contains("validation accuracy"), "{}", answer.out);
    assert_answer("show zoo two", &tans(at, "show zoo two"), 2, &["two"]);
    let shown = done(at, "show zoo one --json").out;
    assert!(shown.contains("\"Apache-2.0\"") && shown.contains("\"made\":\"here\""), "{shown}");
}

#[test]
fn a_race_keeps_the_best_of_the_first_answers() {
    let folder = zoo_of_one();
    let at = folder.path();
    done(at, "ingest zoo small:cnn-w18@32 --benchmark none");
    done(at, "ingest zoo small:cnn-w20@32 --benchmark none");
    done(at, "record zoo elsewhere benchmark/font_style 0.9");
    let line = "finetune zoo colours --top 5 --epochs 4 --patience 0 --benchmark none --name won";
    let printed = objects(&done(at, &format!("{line} --json")).out);
    let report = printed.last().expect("a report");
    // A reference is an answer to the query, but nothing that can be trained.
    let raced = report["candidates"].as_array().expect("a list").clone();
    assert_eq!(raced.len(), 3, "{report}");
    let mut epochs: Vec<u64> =
        raced.iter().map(|it| it["epochs"].as_u64().expect("a count")).collect();
    epochs.sort_unstable();
    assert_eq!(epochs, [1, 2, 4], "half of the field leaves at each rung: {report}");
    let winner = raced.iter().find(|it| it["epochs"] == 4).expect("a winner");
    assert_eq!(report["parent"], winner["model"]);
    assert_eq!(printed.len(), 5);
    // However short the time, somebody wins; who has not begun then is left out.
    let line = "finetune zoo colours --top 3 --epochs 50 --budget 0.01 --benchmark none --json";
    let printed = objects(&done(at, line).out);
    let report = printed.last().expect("a report");
    let raced = report["candidates"].as_array().expect("a list");
    let begun = raced.iter().filter(|it| it["epochs"] != 0).count();
    assert_eq!((begun, printed.len()), (1, 2), "{report}");
    state(&reader(at));
}

#[test]
fn an_explanation_adds_up_and_tells_measured_from_estimated() {
    let folder = zoo_of_one();
    let at = folder.path();
    done(at, "record zoo base benchmark/font_style 0.9");
    let explain = |line: &str| objects(&done(at, line).out).remove(0);
    let why = explain("explain zoo colours base --json");
    let number = |value: &Value| value.as_f64().expect("a number");
    let sum = |field: &str| -> f64 {
        why["terms"].as_array().expect("a list").iter().map(|term| number(&term[field])).sum()
    };
    assert!((sum("cosine") - number(&why["cosine"])).abs() < 1e-5, "{why}");
    assert!((sum("share") - 1.0).abs() < 1e-5, "{why}");
    let predicted = number(&why["expected_accuracy"]) + sum("accuracy");
    assert!((predicted - number(&why["predicted_accuracy"])).abs() < 1e-4, "{why}");
    let hit = &objects(&done(at, "query zoo colours --json").out)[0];
    assert!((number(&hit["cosine"]) - number(&why["cosine"])).abs() < 1e-5, "{hit} {why}");
    let own: f64 = why["terms"].as_array().expect("a list")[1..]
        .iter()
        .map(|term| number(&term["cosine"]))
        .sum();
    assert!(own > 0.0, "the one result is a good one: {why}");
    assert_eq!(why["measured"], serde_json::json!([]));
    let similar = why["similar_tasks"].as_array().expect("a list");
    let font = similar.iter().find(|task| task["task"] == "benchmark/font_style");
    let measured = &font.expect("eight benchmark tasks, eight nearest")["measured"];
    assert_eq!(
        (&measured[0]["kind"], measured.as_array().map(Vec::len)),
        (&"reported".into(), Some(1))
    );
    assert!(why["cost"]["latency"]["median_ms"].is_number(), "{why}");

    done(at, "measure zoo base colours");
    let why = explain("explain zoo colours base --json");
    assert_eq!(why["measured"][0]["kind"], "probe", "{why}");
    assert_eq!(why["results"], 2);
    let answer = done(at, "explain zoo task:benchmark/font_style base");
    for part in ["measured on this dataset: 0.900 (reported)", "estimated accuracy", "similar task"]
    {
        assert!(answer.out.contains(part), "expected {part:?} in {}", answer.out);
    }
}

#[test]
fn measuring_all_counts_what_it_could_not_measure() {
    let folder = zoo_of_one();
    let at = folder.path();
    damaged(at, "odd.onnx", |bytes| rename_conv(bytes));
    done(at, "ingest zoo odd.onnx");
    let answer = done(at, "measure zoo --all colours --json");
    assert_eq!(objects(&answer.out).len(), 1);
    assert_answer("measure --all", &answer, 0, &["1 of 2 models", "odd"]);
    done(at, "remove zoo base");
    assert_refused(
        at,
        2,
        &[("measure zoo --all colours", &["can be measured, found none", "odd"])],
    );
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let folder = zoo_of_one();
    for line in ["list zoo", "query zoo colours --json"] {
        let arguments: Vec<&str> = line.split(' ').collect();
        let mut child = command(folder.path(), &arguments).spawn().expect("the binary starts");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("the binary ends");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "tans {line}: {} {said}", output.status);
        assert!(!said.contains("panicked") && !said.contains("ipe"), "tans {line}: {said}");
    }
}

#[test]
fn a_file_of_results_may_quote_its_fields() {
    let folder = zoo_of_one();
    let at = folder.path();
    let lines = "\u{feff}accuracy, params, task, model, remark\r\n\
                 0.5,,t,base,\"a, b\"\r\n\
                 0.25,1.5M,\"birds, wild\",\"the \"\"far\"\" one\",\r\n\
                 0.25,,\"birds, wild\",\"the \"\"far\"\" one\",\r\n";
    fs::write(at.join("quoted.csv"), lines).expect("files can be written");
    let report = &objects(&done(at, "record zoo quoted.csv --json").out)[0];
    let counts = (&report["pairs"], &report["new_models"], &report["new_tasks"]);
    assert_eq!(counts, (&2.into(), &1.into(), &2.into()), "a result that is repeated is one");
    let models = objects(&done(at, "list zoo --json").out);
    let far = models.iter().find(|model| model["model"] == "the \"far\" one").expect("a reference");
    assert_eq!((&far["params"], &far["macs"]), (&1_500_000.into(), &Value::Null));
    assert!(done(at, "task list zoo").out.contains("birds, wild"));
    let shown = done(at, "query zoo colours").out;
    let row = shown.lines().find(|line| line.contains("far")).expect("a reference is found");
    let ends = row.split_whitespace().rev().take(4).collect::<Vec<_>>();
    assert_eq!(ends, ["reference", "-", "-", "1.50M"], "no license, unknown MACs: {row}");
    state(&reader(at));
}

#[test]
fn a_limit_on_latency_explains_an_empty_answer() {
    let folder = zoo_of_one();
    let at = folder.path();
    done(at, "record zoo far t 0.5");
    done(at, "remove zoo base");
    for line in ["query zoo colours --max-latency 1s", "list zoo --max-latency 1s --json"] {
        let answer = done(at, line);
        assert_answer(line, &answer, 0, &["--max-latency", "measured here", "references"]);
        assert_eq!(answer.out, "");
    }
}

#[test]
fn a_known_dataset_is_named_and_a_name_of_results_takes_its_dataset() {
    let folder = zoo_of_one();
    let at = folder.path();
    done(at, "record zoo base hues 0.5");
    let answer = done(at, "task add zoo hues colours");
    assert_answer("task add", &answer, 0, &["moved to hues", "1 result"]);
    let answer = done(at, "task add zoo shades colours");
    assert!(answer.out.starts_with("already stored as hues\n"), "{}", answer.out);
    let report = &objects(&done(at, "task add zoo shades colours --json").out)[0];
    assert_eq!((&report["status"], &report["task"]), (&"already stored".into(), &"hues".into()));
    assert_eq!(report["pairs"], 1);
    done(at, "task add zoo hues colours --family plain");
    assert_refused(
        at,
        2,
        &[("task add zoo hues colours --family other", &["hues", "plain", "other"])],
    );
}

#[test]
fn bad_input_is_passed_over_and_a_failing_disk_is_not() {
    let folder = zoo_of_one();
    let at = folder.path();
    fs::write(at.join("text.onnx"), "no network").expect("files can be written");
    let line = "ingest zoo text.onnx small:cnn-w18@32 absent.onnx --benchmark none";
    let answer = tans(at, line);
    assert_answer(line, &answer, 2, &["text.onnx", "absent.onnx", "2 networks refused"]);
    assert!(answer.out.contains("stored as cnn-w18"), "{}", answer.out);

    // No file may grow beyond its present size, so the next tensors find no room.
    let packs = fs::read_dir(at.join("zoo/packs")).expect("a zoo has packs");
    let sizes = packs.map(|pack| pack.expect("a pack").metadata().expect("a file").len());
    let limit = sizes.max().expect("a zoo has a pack") / 1024;
    let line = "ingest zoo small:resnet8-w24@32 small:cnn-w16@32 text.onnx --benchmark none";
    let script = format!("trap '' XFSZ; ulimit -f {limit}; exec \"$0\" {line}");
    let output = std::process::Command::new("bash")
        .args(["-c", &script, env!("CARGO_BIN_EXE_tans")])
        .current_dir(at)
        .output()
        .expect("bash runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert_eq!(said.matches("tans: ").count(), 1, "it stops at once: {said}");
    assert!(output.stdout.is_empty(), "{output:?}");
    state(&reader(at));
}

#[test]
fn a_file_that_cannot_be_written_is_no_bad_input() {
    let folder = zoo_of_one();
    let at = folder.path();
    fs::create_dir_all(at.join("taken.onnx/inside")).expect("folders can be made");
    assert_refused(at, 3, &[("export zoo base -o taken.onnx", &["cannot replace", "taken.onnx"])]);
    assert_refused(
        at,
        2,
        &[("record zoo absent.csv", &["MODEL TASK ACCURACY", "no file absent.csv"])],
    );
}

#[test]
fn a_damaged_candidate_is_no_answer_of_a_re_rank() {
    let folder = zoo_of_one();
    let at = folder.path();
    // Its own network, because the features of one that was probed before come from the cache.
    done(at, "ingest zoo small:cnn-w30@32 --benchmark none");
    done(at, "remove zoo base");
    let packs = fs::read_dir(at.join("zoo/packs")).expect("a zoo has packs");
    let pack = packs.map(|pack| pack.expect("a readable folder").path()).max().expect("a pack");
    let bytes = fs::metadata(&pack).expect("a pack").len();
    let file = fs::OpenOptions::new().write(true).open(&pack).expect("a pack can be opened");
    // The last tensors belong to the network that was ingested last.
    file.set_len(bytes - 256).expect("a pack can be cut");
    let line = "query zoo colours --rerank 1";
    assert_answer(line, &tans(at, line), 3, &["damaged"]);
    done(at, "query zoo colours");
}

#[test]
fn what_an_interrupted_init_left_makes_way_for_the_next() {
    let folder = zoo_of_one();
    let at = folder.path();
    // As a kill leaves it: all that a zoo is made of, but not yet what says that it is one.
    fs::remove_file(at.join("zoo/FORMAT")).expect("a zoo has a marker");
    fs::write(at.join("zoo/UNFINISHED"), "tans zoo\n").expect("files can be written");
    let line = "list zoo";
    assert_answer(line, &tans(at, line), 2, &["not a zoo", "interrupted", "tans init"]);
    fs::write(at.join("zoo/mine.txt"), "mine").expect("files can be written");
    let line = "init zoo";
    assert_answer(line, &tans(at, line), 2, &["new or empty directory", "a directory with"]);
    assert_eq!(fs::read_to_string(at.join("zoo/mine.txt")).expect("it is there"), "mine");
    fs::remove_file(at.join("zoo/mine.txt")).expect("files can be removed");
    done(at, "init zoo");
    assert!(!at.join("zoo/UNFINISHED").exists());
    assert!(state(&reader(at)).contains("0 pairs, generation 0"));
}
