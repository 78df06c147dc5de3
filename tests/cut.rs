//! Supernets through the command line: taken in, cut, and what is refused.

#![cfg(all(feature = "cli", feature = "torch"))]

#[path = "common/command.rs"]
mod command;
#[path = "common/images.rs"]
mod images;
#[path = "common/zoo.rs"]
mod zoo;

use command::{done, objects, tans};
use serde_json::Value;
use std::path::Path;
use zoo::zoo_of_one;

/// What the command prints last.
fn report(folder: &Path, line: &str) -> Value {
    objects(&done(folder, &format!("{line} --json")).out).pop().expect("a report")
}

#[test]
fn a_supernet_is_taken_in_and_cut() {
    let folder = zoo_of_one();
    let at = folder.path();
    done(at, "ingest zoo mobilenetv3_tiny:supernet@32 --name whole --benchmark none");
    let cut = "cut zoo whole --benchmark none";
    let line = format!("{cut} --subnet d2-k3-e3 --calibrate colours --name least -o least.onnx");
    let small = report(at, &line);
    assert_eq!(small["model"], "least");
    assert_eq!(small["parent"], "whole");
    assert_eq!(small["architecture"], "mobilenetv3_tiny:d2-k3-e3@32");
    assert_eq!(small["calibrated_images"], 6);
    assert!(small["probe_accuracy"].as_f64() > Some(0.5), "{small}");
    assert!(at.join("least.onnx").is_file());
    let shown = report(at, "show zoo least");
    assert_eq!(shown["parent"], "whole");
    assert_eq!(shown["architecture"], "mobilenetv3_tiny:d2-k3-e3");
    assert_eq!(shown["results"][0]["kind"], "probe");

    // The best within a bound keeps it, and is one of those that were looked at.
    let line = format!("{cut} --max-macs 8M --candidates 4 --calibrate colours");
    let best = report(at, &line);
    assert!(best["macs"].as_u64() <= Some(8_000_000), "{best}");
    let tried = best["candidates"].as_array().expect("a list");
    assert_eq!(tried.len(), 4);
    let accuracy = |it: &Value| it["accuracy"].as_f64().expect("a number");
    let most = tried.iter().map(accuracy).fold(0.0, f64::max);
    let config = best["architecture"].as_str().expect("a text");
    let chosen = tried.iter().find(|it| config.contains(it["subnet"].as_str().expect("a text")));
    assert_eq!(accuracy(chosen.expect("the best")), most);

    // The same cut again is the same model.
    let line = format!("{cut} --subnet d2-k3-e3 --calibrate colours");
    assert_eq!(report(at, &line)["status"], "already stored");
    let told = done(at, &format!("{cut} --max-params 400k --candidates 2 --sort"));
    assert!(told.err.contains("--calibrate"), "{}", told.err);
    done(at, "check zoo");
}

#[test]
fn an_exported_supernet_goes_in_again() {
    let folder = zoo_of_one();
    let at = folder.path();
    done(at, "ingest zoo mobilenetv3_tiny:supernet@32 --name whole --benchmark none");
    done(at, "export zoo whole -o whole.safetensors");
    let again = report(at, "ingest zoo whole.safetensors --benchmark none");
    assert_eq!((&again["status"], &again["model"]), (&"already stored".into(), &"whole".into()));
}

#[test]
fn a_supernet_is_trained_and_its_subnets_answer() {
    let folder = zoo_of_one();
    let at = folder.path();
    images::colours(&at.join("many"), 12, 24);
    let spec = "mobilenetv3_tiny:supernet@32";
    let line = format!(
        "finetune zoo {spec} many --elastic=1 --epochs 10 --batch-size 32 --benchmark none --name whole"
    );
    let whole = report(at, &line);
    assert_eq!((&whole["parent"], &whole["best_epoch"]), (&Value::Null, &10.into()));
    let losses: Vec<f64> = whole["epochs"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|epoch| epoch["train_loss"].as_f64().expect("a number"))
        .collect();
    assert!(losses[9] < 0.7 * losses[0], "{losses:?}");
    let shown = report(at, "show zoo whole");
    assert_eq!(shown["architecture"], "mobilenetv3_tiny:supernet");
    assert_eq!(shown["tags"]["supernet"], "once-for-all");
    let line = "cut zoo whole --subnet d2-k3-e3 --calibrate many --benchmark none --name least";
    let least = report(at, line);
    assert!(least["accuracy"].as_f64().is_some(), "{least}");
    let kinds: Vec<Value> = report(at, "show zoo least")["results"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|result| result["kind"].clone())
        .collect();
    assert!(kinds.contains(&"finetune".into()) && kinds.contains(&"probe".into()), "{kinds:?}");
    done(at, "check zoo");
}

#[test]
fn what_cannot_be_cut_is_refused() {
    let folder = zoo_of_one();
    let at = folder.path();
    done(at, "ingest zoo mobilenetv3_tiny:supernet@32 --name whole --benchmark none");
    for (line, parts) in [
        ("cut zoo base --subnet d2-k3-e3", &["expected a supernet", "small:cnn-w16@32"][..]),
        ("cut zoo absent --subnet d2-k3-e3", &["absent", "tans list"]),
        ("cut zoo whole --subnet d9-k3-e3", &["depths of 2, 3, 4", "d9-k3-e3"]),
        ("finetune zoo base colours --elastic", &["base", "expected a supernet"]),
        ("finetune zoo whole colours --elastic --head-only", &["cannot be used with"]),
        ("cut zoo whole", &["--subnet"]),
        ("cut zoo whole --subnet d2-k3-e3 --max-params 1M", &["cannot be used with"]),
        ("cut zoo whole --max-params 10", &["the smallest, d2-k3-e3"]),
        ("cut zoo whole --subnet d2-k3-e3 --name base", &["base", "another model"]),
        ("cut zoo whole --subnet d2-k3-e3 --images 1", &["whole number from 2"]),
        ("cut zoo whole --subnet d2-k3-e3 -o x.pt", &["x.pt", ".onnx or .safetensors"]),
        ("cut zoo whole --subnet d2-k3-e3 --calibrate nowhere", &["nowhere"]),
    ] {
        let answer = tans(at, line);
        assert_eq!(answer.code, Some(2), "tans {line}: {}{}", answer.out, answer.err);
        for part in parts {
            assert!(answer.err.contains(part), "tans {line}: expected {part:?} in {}", answer.err);
        }
    }
}
