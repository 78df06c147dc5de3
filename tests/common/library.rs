//! Zoos and answers through the library.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tans::{
    Benchmark, CheckOptions, Database, DatasetSource, Filter, Hit, IngestOptions, Ingested,
    InitOptions, KnownResult, ListOptions, OpenOptions, QueryOptions, unobserved,
};
use tempfile::TempDir;

pub const BENCHMARK_TASK: &str = "benchmark/font_style";

pub fn init(at: &Path, starters: Vec<PathBuf>) -> Database {
    Database::init(at, &InitOptions { starters }, OpenOptions::default())
        .expect("a zoo can be made")
        .0
}

/// Options of a network that is stored at once, for it is measured on nothing.
pub fn named(name: &str, license: &str, tag: &str) -> IngestOptions {
    IngestOptions {
        name: Some(name.into()),
        license: Some(license.into()),
        tags: BTreeMap::from([("for".to_owned(), tag.to_owned())]),
        benchmark: Benchmark::None,
        ..IngestOptions::default()
    }
}

pub fn ingest(zoo: &Database, source: &str, options: &IngestOptions) -> Ingested {
    zoo.ingest(source, options, &mut unobserved).expect("a usable network").remove(0)
}

/// Three small networks of different sizes, licenses and tags.
pub fn zoo_of_three() -> (TempDir, Database) {
    let folder = TempDir::new().expect("a temporary folder");
    let zoo = init(&folder.path().join("zoo"), Vec::new());
    ingest(&zoo, "small:cnn-w16@32", &named("narrow", "MIT", "hands"));
    ingest(&zoo, "small:cnn-w20@32", &named("middle", "Apache-2.0", "feet"));
    ingest(&zoo, "small:cnn-w24@32", &named("wide", "MIT", "feet"));
    (folder, zoo)
}

pub fn hits(zoo: &Database, filter: Filter, k: usize) -> Vec<Hit> {
    let task = DatasetSource::Task(BENCHMARK_TASK.into());
    let options = QueryOptions { k, filter, ..QueryOptions::default() };
    zoo.query(&task, &options, &mut unobserved).expect("an answer").hits
}

pub fn all(zoo: &Database) -> Vec<Hit> {
    hits(zoo, Filter::default(), 100)
}

pub fn all_names(zoo: &Database) -> Vec<String> {
    let mut names: Vec<String> = all(zoo).into_iter().map(|hit| hit.model).collect();
    names.sort();
    names
}

#[track_caller]
pub fn assert_sound(zoo: &Database) {
    let report = zoo.check(CheckOptions::default()).expect("the check runs");
    assert!(report.sound, "{:?}", report.findings);
}

/// Answers, tasks and results in a form that can be compared.
pub fn knowledge(zoo: &Database) -> String {
    let found: Vec<String> =
        all(zoo).iter().map(|hit| format!("{} {:?}", hit.model, hit.source_tasks)).collect();
    let tasks: Vec<String> = zoo
        .tasks()
        .expect("tasks can be read")
        .iter()
        .map(|task| format!("{} {} {} {}", task.task, task.classes, task.rows, task.pairs))
        .collect();
    let results: Vec<String> = zoo
        .list(&ListOptions::default())
        .expect("models can be read")
        .iter()
        .map(|model| {
            let report = zoo.show(&model.model).expect("a listed model is shown");
            format!("{} {:?} {:?}", model.model, report.parent, report.results)
        })
        .collect();
    format!("{found:#?}\n{tasks:#?}\n{results:#?}")
}

/// What is known of a model on a task, as (kind, accuracy).
pub fn results(zoo: &Database, model: &str, task: &str) -> Vec<(&'static str, f32)> {
    let results = zoo.show(model).expect("the model is there").results;
    let of_task = |result: &&KnownResult| result.task == task;
    results.iter().filter(of_task).map(|result| (result.kind, result.accuracy)).collect()
}
