//! Fresh vectors move into the index's segment by themselves, and answers stay as they were.

use std::fmt::Write;
use std::path::Path;
use tans::{
    CheckOptions, Database, DatasetSource, Filter, InitOptions, OpenOptions, QueryOptions,
    unobserved,
};
use tempfile::TempDir;

const TASK: &str = "benchmark/font_style";
/// As many as the index wants before it merges.
const MODELS: usize = 2_000;

fn record(zoo: &Database, folder: &Path, first: usize) {
    let mut csv = "model,dataset,accuracy,params\n".to_owned();
    for model in first..first + MODELS {
        let params = 1 + model % MODELS;
        let accuracy = params as f64 / MODELS as f64;
        writeln!(csv, "m{model},{TASK},{accuracy},{params}").expect("a string takes text");
    }
    let path = folder.join("results.csv");
    std::fs::write(&path, csv).expect("the tempdir takes files");
    zoo.record_file(&path, &mut unobserved).expect("sound results");
}

fn answer(zoo: &Database) -> Vec<(String, f32)> {
    let task = DatasetSource::Task(TASK.into());
    // So few match that every one of them is looked at.
    let filter = Filter { params_max: Some(900), ..Filter::default() };
    let options = QueryOptions { filter, ..QueryOptions::default() };
    let report = zoo.query(&task, &options, &mut unobserved).expect("an answer");
    report.hits.into_iter().map(|hit| (hit.model, hit.cosine)).collect()
}

#[test]
fn many_fresh_vectors_move_into_the_segment_and_answers_stay() {
    let folder = TempDir::new().expect("a temporary folder");
    let at = folder.path().join("zoo");
    let (zoo, _) = Database::init(&at, &InitOptions::default(), OpenOptions::default())
        .expect("a zoo can be made");
    record(&zoo, folder.path(), 0);
    // What the write has started in the background, or else this call, does it.
    let before = answer(&zoo);
    zoo.merge(&mut unobserved).expect("the segment can be written");
    let merged = zoo.stats().expect("a readable zoo");
    assert_eq!((merged.segment_vectors, merged.fresh_vectors), (MODELS, 0));
    assert_eq!(answer(&zoo), before);
    assert!(zoo.merge(&mut unobserved).expect("nothing to do").is_none());

    let best = before[0].0.clone();
    zoo.remove(std::slice::from_ref(&best)).expect("a stored model");
    record(&zoo, folder.path(), MODELS);
    // The last handle stops a merge that has been started and lets go of the zoo.
    drop(zoo);
    let zoo = Database::open(&at, OpenOptions::default()).expect("the zoo opens at once");
    let before = answer(&zoo);
    assert!(before.iter().all(|hit| hit.0 != best));
    let reader = OpenOptions { read_only: true, ..OpenOptions::default() };
    let reader = Database::open(&at, reader).expect("the zoo opens for reading");
    assert!(reader.merge(&mut unobserved).is_err(), "a reader writes no segment");
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let merge = || zoo.merge(&mut unobserved).expect("the segment can be written");
            scope.spawn(merge);
        }
    });
    let merged = zoo.stats().expect("a readable zoo");
    assert_eq!((merged.segment_vectors, merged.fresh_vectors), (2 * MODELS - 1, 0));
    assert_eq!(answer(&zoo), before);
    let report = zoo.check(CheckOptions::default()).expect("the check runs");
    assert!(report.sound, "{:?}", report.findings);
}
