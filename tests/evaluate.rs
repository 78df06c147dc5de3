//! How good is the first pick? The evaluation through the public API, on results that follow a known rule.

use serde_json::Value;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use tans::{
    Database, EvaluateOptions, Evaluation, InitOptions, MethodRow, OpenOptions, unobserved,
};
use tempfile::TempDir;

const MODELS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

/// Models a to h, each a little better than the one before, on every benchmark task; half of the tasks are harder.
fn accuracy(model: usize, task: usize) -> f32 {
    let noise = ((model * 37 + task * 11) % 7) as f32 / 7.0 - 0.5;
    0.6 - 0.1 * (task % 2) as f32 + 0.03 * model as f32 + 0.03 * noise
}

/// A zoo of references with results on the benchmark tasks, whose names come with it.
fn zoo() -> (TempDir, Database, Vec<String>) {
    let folder = TempDir::new().expect("a temporary folder");
    let path = folder.path().join("zoo");
    let (zoo, _) = Database::init(&path, &InitOptions::default(), OpenOptions::default())
        .expect("a zoo can be made");
    let tasks: Vec<String> =
        zoo.tasks().expect("tasks").into_iter().map(|task| task.task).collect();
    for (model, name) in MODELS.iter().enumerate() {
        for (task, task_name) in tasks.iter().enumerate() {
            zoo.record(name, task_name, accuracy(model, task)).expect("a result is recorded");
        }
    }
    (folder, zoo, tasks)
}

fn file(folder: &TempDir, name: &str, text: &str) -> Option<PathBuf> {
    let path = folder.path().join(name);
    fs::write(&path, text).expect("the folder takes files");
    Some(path)
}

fn evaluate(zoo: &Database, options: &EvaluateOptions) -> Evaluation {
    zoo.evaluate(options, &mut unobserved).expect("an evaluation")
}

fn row<'a>(evaluation: &'a Evaluation, method: &str) -> &'a MethodRow {
    let found = evaluation.rows.iter().find(|row| row.method == method);
    found.unwrap_or_else(|| panic!("no row {method}"))
}

fn options() -> EvaluateOptions {
    EvaluateOptions { closed_form_only: true, cold: false, ..EvaluateOptions::default() }
}

#[test]
fn every_method_is_judged_on_tasks_that_were_held_out() {
    let (folder, zoo, tasks) = zoo();
    let mut scores = "task,model,loo,logme,seconds\n".to_owned();
    for (task, task_name) in tasks.iter().enumerate() {
        for (model, name) in MODELS.iter().enumerate() {
            let loo = accuracy(model, task) - 0.02;
            // LogME that is wrong wherever it can be.
            writeln!(scores, "{task_name},{name},{loo},{},0.25", -loo).expect("a line");
        }
    }
    let scores = file(&folder, "scores.csv", &scores);
    let with_scores = EvaluateOptions { scores, ..options() };
    let evaluation = evaluate(&zoo, &with_scores);
    assert_eq!(evaluation.tasks.len(), tasks.len());
    let [fixed, default, logme, probe] =
        ["static", "default", "logme", "probe"].map(|method| row(&evaluation, method));
    assert!(fixed.spearman > 0.9 && default.spearman > 0.9 && logme.spearman < -0.9);
    assert_eq!((probe.loss, probe.spearman), (0.0, 1.0));
    assert_eq!(probe.ms, Some(250.0 * MODELS.len() as f32));
    assert!((probe.mae.expect("an error") - 2.0).abs() < 0.01);
    let five = row(&evaluation, "default+5");
    assert!(five.loss <= default.loss && five.ms.expect("a time") <= 1250.0 + 100.0);
    assert!(five.mae < default.mae, "{:?} {:?}", five.mae, default.mae);
    let compared: Vec<(&str, bool)> =
        evaluation.verdict.iter().map(|one| (one.method.as_str(), one.is_better())).collect();
    assert_eq!(compared, [("static", false), ("logme", true)]);
    let fields = serde_json::to_value(default).expect("a row is an object");
    for field in ["method", "loss", "best5", "spearman", "tau", "mae", "cover", "ms"] {
        assert!(fields.get(field).is_some(), "no {field} in {fields}");
        let interval = &fields[format!("{field}_interval")];
        assert!(field == "method" || interval.as_array().map(Vec::len) == Some(2), "{field}");
    }
    assert!(matches!(fields["losses"], Value::Array(_)));
}

#[test]
fn networks_without_results_rank_by_what_is_left() {
    let (_folder, zoo, _) = zoo();
    let evaluation = evaluate(&zoo, &EvaluateOptions { cold: true, ..options() });
    // Groups of one or two networks are too small to be ranked among themselves.
    assert!(evaluation.rows.iter().all(|row| !row.method.starts_with("cold")));
    let figures = |evaluation: Evaluation| -> Vec<(String, Vec<Option<f32>>, Option<f32>)> {
        evaluation.rows.into_iter().map(|row| (row.method, row.losses, row.mae)).collect()
    };
    assert_eq!(figures(evaluation)[..5], figures(evaluate(&zoo, &options())), "same seed");
}

#[test]
fn results_alone_are_enough() {
    let (folder, zoo, _) = zoo();
    let mut text = "model,dataset,accuracy,params,architecture,logme\n".to_owned();
    for model in 0..8 {
        for dataset in 0..6 {
            let (accuracy, logme) = (accuracy(model, dataset), accuracy(model, dataset));
            let logme = if dataset < 3 { logme.to_string() } else { String::new() };
            writeln!(text, "m{model},d{dataset},{accuracy},1M,cnn,{logme}").expect("a line");
        }
    }
    let records = file(&folder, "records.csv", &text);
    let evaluation = evaluate(&zoo, &EvaluateOptions { records, ..options() });
    assert_eq!((row(&evaluation, "default").tasks, row(&evaluation, "logme scored").tasks), (6, 3));
    assert!(row(&evaluation, "default").tau > 0.8);
    assert!(row(&evaluation, "default@1").tau <= row(&evaluation, "default").tau);
}

#[test]
fn a_model_that_was_trained_on_a_dataset_is_no_answer_for_it() {
    let (folder, zoo, _) = zoo();
    let mut text = "model,dataset,accuracy,source_dataset\n".to_owned();
    for model in 0..8 {
        for dataset in 0..6 {
            // The worst elsewhere is the best where it comes from.
            let accuracy = if model == dataset { 0.99 } else { accuracy(model, dataset) };
            writeln!(text, "m{model},d{dataset},{accuracy},D{model}").expect("a line");
        }
    }
    let records = file(&folder, "records.csv", &text);
    let evaluation = evaluate(&zoo, &EvaluateOptions { records, ..options() });
    assert!(evaluation.best_accuracy < 0.99, "{}", evaluation.best_accuracy);
}

#[test]
fn bad_files_are_refused() {
    let (folder, zoo, tasks) = zoo();
    let task = &tasks[0];
    let lines = [
        (format!("task,model,loo\n{task},a,0.5\n"), "columns task, model, loo, logme"),
        (format!("task,model,loo,logme\n{task},nobody,0.5,1\n"), ":2: no model is named"),
        ("task,model,loo,logme\nnothing,a,0.5,1\n".into(), ":2: no task is named"),
        (format!("task,model,loo,logme\n{task},a,1.7,1\n"), "found 1.7"),
        (format!("task,model,loo,logme\n{task},a,0.5,NaN\n"), "logme: expected a number"),
        (format!("task,model,loo,logme\n{task},a,0.5\n"), ":2: expected 4 fields, found 3"),
    ];
    for (text, expected) in lines {
        let refused = EvaluateOptions { scores: file(&folder, "bad.csv", &text), ..options() };
        let error = zoo.evaluate(&refused, &mut unobserved).expect_err("bad input").to_string();
        assert!(error.contains(expected), "{error}");
    }
    let records = file(&folder, "bad.csv", "model,dataset,accuracy\na,b,7\n");
    let refused = EvaluateOptions { records, ..options() };
    let error = zoo.evaluate(&refused, &mut unobserved).expect_err("bad input").to_string();
    assert!(error.contains(":2: accuracy"), "{error}");
}
