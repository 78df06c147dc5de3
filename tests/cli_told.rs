//! What the command line says of what it did, left as it was, or left out.

#![cfg(all(feature = "cli", feature = "torch"))]

#[path = "common/command.rs"]
mod command;
#[path = "common/images.rs"]
mod images;
#[expect(dead_code, reason = "networks for other tests")]
#[path = "common/onnx.rs"]
mod onnx;
#[path = "common/zoo.rs"]
mod zoo;

use command::{done, objects, tans};
use serde_json::Value;
use std::fs;
use std::path::Path;
use zoo::zoo_of_one;

/// Runs `tans LINE`, which must be refused as bad input with these words.
#[track_caller]
fn refused(folder: &Path, line: &str, parts: &[&str]) {
    let answer = tans(folder, line);
    assert_eq!(answer.code, Some(2), "tans {line}: {}{}", answer.out, answer.err);
    for part in parts {
        assert!(answer.err.contains(part), "tans {line}: expected {part:?} in {:?}", answer.err);
    }
}

/// Writes a file of results of so many references, all of them good.
fn references(folder: &Path, count: usize) {
    let mut lines = "model,dataset,accuracy\n".to_owned();
    (0..count).for_each(|number| lines += &format!("far-{number},benchmark/font_style,0.99\n"));
    fs::write(folder.join("references.csv"), lines).expect("files can be written");
}

fn models(objects: &[Value]) -> Vec<&str> {
    objects.iter().filter_map(|object| object["model"].as_str()).collect()
}

#[test]
fn references_do_not_crowd_out_what_can_be_run() {
    let folder = zoo_of_one();
    let at = folder.path();
    references(at, 40);
    done(at, "record zoo references.csv");
    let hits = objects(&done(at, "query zoo colours -k 40 --json").out);
    assert!(!models(&hits).contains(&"base"), "forty references come before the network");
    for line in ["query zoo colours --runnable --json", "list zoo --runnable --json"] {
        assert_eq!(models(&objects(&done(at, line).out)), ["base"], "{line}");
    }
    let line = "finetune zoo --top 1 colours --epochs 1 --benchmark none --json";
    let printed = objects(&done(at, line).out);
    assert_eq!(printed.last().expect("a report")["parent"], "base");
}

#[test]
fn a_network_without_a_head_is_told_and_left_out() {
    let folder = zoo_of_one();
    let at = folder.path();
    fs::write(at.join("bare.onnx"), onnx::headless()).expect("files can be written");
    let stored = done(at, "ingest zoo bare.onnx --benchmark none");
    assert!(stored.out.contains("but not fine-tuned"), "{}", stored.out);
    // The best that is known here, so that it comes first.
    done(at, "measure zoo bare colours");
    done(at, "record zoo bare colours 0.99");
    refused(at, "finetune zoo bare colours --epochs 1", &["last linear layer"]);
    let line = "finetune zoo --top 1 colours --epochs 1 --benchmark none --json";
    let printed = objects(&done(at, line).out);
    let report = printed.last().expect("a report");
    assert_eq!(report["parent"], "base");
    assert_eq!(models(report["candidates"].as_array().expect("a list")), ["base", "bare"]);
    assert!(report["candidates"][1]["failure"].to_string().contains("left out"), "{report}");
    done(at, "remove zoo base base-on-colours");
    refused(at, "finetune zoo --top 1 colours --epochs 1", &["can be fine-tuned", "found none"]);
}

#[test]
fn a_wrong_starter_is_named_without_its_bytes() {
    let folder = zoo_of_one();
    let at = folder.path();
    done(at, "export zoo --starter -o starter.tar");
    let whole = fs::read(at.join("starter.tar")).expect("the bundle is there");
    let noise: Vec<u8> = (0..2048_u32).map(|at| (at % 251) as u8).collect();
    let half = &whole[..whole.len() / 2];
    // The blocks of zeros at the end are no member.
    let members = &whole[..whole.len() - 1024];
    for (name, bytes, part) in [
        ("noise.tar", &noise[..], "found no tar archive"),
        ("text.tar", b"no bundle", "found no tar archive"),
        ("none.tar", b"", "found an empty archive"),
        ("half.tar", half, "truncated"),
        ("first.tar", &whole[..512], "truncated"),
    ] {
        fs::write(at.join(name), bytes).expect("files can be written");
        let line = format!("init fresh --starter {name}");
        let answer = tans(at, &line);
        assert_eq!(answer.code, Some(2), "{}", answer.err);
        let said = answer.err.trim_end();
        assert!(said.contains(name) && said.contains(part), "{line}: {said:?}");
        assert!(!said.chars().any(char::is_control), "{line}: {said:?}");
        assert!(!at.join("fresh").exists(), "{line} left a directory");
    }
    fs::write(at.join("members.tar"), members).expect("files can be written");
    done(at, "init fresh --starter members.tar");
}

#[test]
fn no_control_character_of_a_name_reaches_the_terminal() {
    let folder = zoo_of_one();
    let odd = "\u{1b}[31mred.onnx";
    for arguments in [vec!["ingest", "zoo", odd], vec!["query", "zoo", "colours", "-k", odd]] {
        let output = command::command(folder.path(), &arguments).output().expect("a process");
        let said = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("u{1b}[31mred.onnx"), "{said:?}");
        assert!(!said.chars().any(|it| it.is_control() && it != '\n'), "{said:?}");
    }
}

#[test]
fn what_went_is_told() {
    let folder = zoo_of_one();
    let at = folder.path();
    done(at, "finetune zoo base colours --epochs 1 --benchmark none --name child");
    done(at, "ingest zoo small:cnn-w18@32 --name other --benchmark none");
    done(at, "record zoo other colours 0.5");
    assert_eq!(done(at, "edit zoo other --tag a=b").out, "edited other\n");
    assert_eq!(done(at, "task remove zoo colours").out, "removed colours and 2 results on it\n");
    let answer = done(at, "remove zoo base other");
    assert_eq!(answer.out, "removed base\nremoved other\n");
    assert!(answer.err.contains("parent of 1 model") && answer.err.contains("child"), "{answer:?}");
    let shown = objects(&done(at, "show zoo child --json").out);
    assert_eq!(shown[0]["parent"], Value::Null);
    // One that goes with its parent loses nothing.
    done(at, "ingest zoo small:cnn-w16@32 --name base --benchmark none");
    assert_eq!(done(at, "remove zoo base child").err, "");
}

#[test]
fn results_on_other_images_of_the_same_name_are_told() {
    let folder = zoo_of_one();
    let at = folder.path();
    done(at, "measure zoo base colours");
    let (same, other) = ("query zoo colours", "query zoo colours --per-class 3");
    assert!(!done(at, same).err.contains("other images"));
    assert!(done(at, other).err.contains("task colours has results on other images"));
    assert!(done(at, "query zoo colours --rerank 1").err.contains("1 probe "));
    done(at, "finetune zoo base colours --epochs 1 --benchmark none --name child");
    done(at, "task remove zoo colours");
    assert!(done(at, "list zoo").out.contains("removed task "));
}

#[test]
fn names_are_looked_at_before_anything_else() {
    let folder = zoo_of_one();
    let at = folder.path();
    // The first network is stored already, so that no name is needed.
    for (arguments, part) in [
        (["ingest", "zoo", "small:cnn-w16@32", "--name", "  "], "nothing but blanks"),
        (["ingest", "zoo", "small:cnn-w18@32", "--name", " a"], "blanks at an end"),
        (["edit", "zoo", "base", "--name", "a "], "blanks at an end"),
        (["record", "zoo", "base", "  ", "0.5"], "a task name"),
        (["task", "add", "zoo", " a", "colours"], "a task name"),
    ] {
        let output = command::command(at, &arguments).output().expect("a process");
        let said = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(part), "{arguments:?}: {said}");
    }
    let listed = objects(&done(at, "list zoo --json").out);
    assert_eq!(models(&listed), ["base"]);
    for (model, folder) in [("small:cnn-w20@32", "a"), ("small:cnn-w22@32", "b")] {
        done(at, &format!("ingest zoo {model} --name made --benchmark none"));
        fs::create_dir_all(at.join("networks").join(folder)).expect("folders can be made");
        done(at, &format!("export zoo made -o networks/{folder}/net.onnx"));
        done(at, "remove zoo made");
    }
    let line = "ingest zoo networks/a/net.onnx networks/b/net.onnx --benchmark none";
    refused(at, line, &["belongs to another model", "manifest", "folder above them"]);
    done(at, "remove zoo net");
    done(at, "ingest zoo networks --benchmark none");
    assert_eq!(objects(&done(at, "list zoo --json").out).len(), 3);
}

#[test]
fn rows_are_their_dataset_to_a_query() {
    let folder = zoo_of_one();
    let at = folder.path();
    done(at, "ingest zoo small:cnn-w18@32 --name other --benchmark none");
    done(at, "encode zoo colours -o rows.npz");
    done(at, "measure zoo base colours");
    let answer = |dataset: &str| objects(&done(at, &format!("query zoo {dataset} --json")).out);
    let (rows, images) = (answer("rows.npz"), answer("colours"));
    assert!(rows.iter().any(|hit| hit["measured"][0]["kind"] == "probe"), "{rows:?}");
    assert_eq!(rows, images);
    let why = objects(&done(at, "explain zoo rows.npz base --json").out).remove(0);
    assert_eq!(why["measured"][0]["task"], "colours");
}

#[test]
fn wrong_arguments_and_files_are_named() {
    let folder = zoo_of_one();
    let at = folder.path();
    fs::create_dir(at.join("arrays")).expect("folders can be made");
    let empty = b"\x93NUMPY\x01\x00";
    fs::write(at.join("arrays/x.npy"), empty).expect("files can be written");
    fs::write(at.join("arrays/mine.npy"), empty).expect("files can be written");
    for (line, parts) in [
        ("query zoo arrays", &["arrays/x.npy", "labels in arrays/y.npy", "no such file"][..]),
        ("query zoo arrays/x.npy", &["labels in arrays/y.npy"]),
        (
            "query zoo arrays/mine.npy",
            &["mine.npy", "x.npy and y.npy", "images.npy and labels.npy"],
        ),
        ("query zoo colours --license ,MIT", &["license", "such as MIT", "found \"\""]),
        ("query zoo colours -k -1", &["whole number from 1", "-1"]),
        ("ingest zoo colours --jobs 0", &["whole number from 1"]),
        ("list zoo --threads 0", &["whole number from 1"]),
    ] {
        refused(at, line, parts);
    }
    // The backbone would be asked in vain, and so would a device that is not there.
    let answer = done(at, "query zoo colours --max-params 1");
    assert!(answer.err.contains("backbone 0.0 ms"), "{}", answer.err);
    for dataset in ["colours", "task:benchmark/font_style"] {
        refused(at, &format!("query zoo {dataset} --device cuda:99"), &["cuda:99"]);
    }
    let answer = tans(at, "finetune zoo base colours --learning-rate 1e9 --epochs 3");
    assert_eq!(answer.code, Some(2), "{}", answer.out);
    assert!(!answer.err.contains("\"\""), "{}", answer.err);
}

#[test]
fn what_bundles_share_is_counted_once() {
    let folder = zoo_of_one();
    let at = folder.path();
    done(at, "record zoo base benchmark/font_style 0.5");
    done(at, "export zoo --starter -o one.tar");
    let line = "init again --starter one.tar --starter one.tar";
    assert!(done(at, line).out.contains(": 1 model, 8 tasks, 1 result\n"), "models are shared");
}

#[test]
fn what_a_file_of_results_says_in_vain_is_named() {
    let folder = zoo_of_one();
    let at = folder.path();
    let text = "model,dataset,accuracy,knd\nbase,there,0.5,finetune\n";
    fs::write(at.join("typo.csv"), text).expect("files can be written");
    let answer = done(at, "record zoo typo.csv");
    assert!(answer.err.contains("columns that were not read: knd"), "{answer:?}");
    fs::write(at.join("one.csv"), "model,dataset,accuracy\na,x,0.5\nb,x,0.6\nc,x,0.7\n")
        .expect("files can be written");
    refused(at, "evaluate zoo --records one.csv", &["at least two datasets", "found one"]);
}

#[test]
fn weights_of_removed_models_are_no_longer_counted() {
    let folder = zoo_of_one();
    let at = folder.path();
    let stats = || {
        let printed = objects(&done(at, "stats zoo --json").out).remove(0);
        ["tensors", "distinct_bytes", "logical_bytes"].map(|name| printed[name].as_u64())
    };
    let before = stats();
    done(at, "ingest zoo small:cnn-w20@32 --name gone --benchmark none");
    assert!(stats()[0] > before[0] && stats()[1] > before[1]);
    done(at, "remove zoo gone");
    assert_eq!(stats(), before, "before gc");
}

#[test]
fn nobody_is_told_that_others_are_stored_where_none_is() {
    let folder = zoo_of_one();
    let at = folder.path();
    for name in ["a.onnx", "b.onnx"] {
        fs::write(at.join(name), "text").expect("files can be written");
    }
    refused(at, "ingest zoo a.onnx b.onnx", &["2 networks refused, nothing was stored"]);
    refused(
        at,
        "ingest zoo a.onnx small:cnn-w16@32",
        &["1 network refused, the others are stored"],
    );
}
