//! The life of models in a zoo, through the public API: each answer follows from what was stored before it.

#![cfg(feature = "torch")]

#[path = "common/images.rs"]
mod images;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tans::{
    Benchmark, Database, DatasetSource, EditOptions, Error, Filter, FinetuneOptions, Hit,
    IngestOptions, Ingested, InitOptions, ListOptions, MeasureOptions, OpenOptions, QueryOptions,
    TaskOptions, TrainOptions, TuningOptions, unobserved,
};
use tempfile::TempDir;

const BENCHMARK_TASK: &str = "benchmark/font_style";

fn init(at: &Path, starters: Vec<PathBuf>) -> Database {
    Database::init(at, &InitOptions { starters }, OpenOptions::default())
        .expect("a zoo can be made")
        .0
}

fn open(at: &Path, read_only: bool) -> Database {
    Database::open(at, OpenOptions { read_only, ..OpenOptions::default() }).expect("the zoo opens")
}

/// Options of a network that is stored at once, for it is measured on nothing.
fn named(name: &str, license: &str, tag: &str) -> IngestOptions {
    IngestOptions {
        name: Some(name.into()),
        license: Some(license.into()),
        tags: BTreeMap::from([("for".to_owned(), tag.to_owned())]),
        benchmark: Benchmark::None,
        ..IngestOptions::default()
    }
}

fn ingest(zoo: &Database, source: &str, options: &IngestOptions) -> Ingested {
    zoo.ingest(source, options, &mut unobserved).expect("a usable network").remove(0)
}

/// Three small networks of different sizes, licenses and tags.
fn zoo_of_three() -> (TempDir, Database) {
    let folder = TempDir::new().expect("a temporary folder");
    let zoo = init(&folder.path().join("zoo"), Vec::new());
    ingest(&zoo, "small:cnn-w16@32", &named("narrow", "MIT", "hands"));
    ingest(&zoo, "small:cnn-w20@32", &named("middle", "Apache-2.0", "feet"));
    ingest(&zoo, "small:cnn-w24@32", &named("wide", "MIT", "feet"));
    (folder, zoo)
}

fn hits(zoo: &Database, filter: Filter, k: usize) -> Vec<Hit> {
    let task = DatasetSource::Task(BENCHMARK_TASK.into());
    let options = QueryOptions { k, filter, ..QueryOptions::default() };
    zoo.query(&task, &options, &mut unobserved).expect("an answer").hits
}

fn all(zoo: &Database) -> Vec<Hit> {
    hits(zoo, Filter::default(), 100)
}

fn names(hits: &[Hit]) -> Vec<&str> {
    hits.iter().map(|hit| hit.model.as_str()).collect()
}

fn cosine(zoo: &Database, model: &str) -> f32 {
    all(zoo).iter().find(|hit| hit.model == model).expect("every model is found").cosine
}

#[track_caller]
fn assert_sound(zoo: &Database) {
    let report = zoo.check().expect("the check runs");
    assert!(report.sound, "{:?}", report.findings);
}

/// Answers, tasks and results in a form that can be compared.
fn knowledge(zoo: &Database) -> String {
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

#[test]
fn the_same_network_is_stored_once() {
    let (_folder, zoo) = zoo_of_three();
    let before = zoo.stats().expect("figures can be read");
    let again = ingest(&zoo, "small:cnn-w16@32", &named("other name", "GPL-3.0-only", "x"));
    assert_eq!((again.status, again.model.as_deref()), ("already stored", Some("narrow")));
    let after = zoo.stats().expect("figures can be read");
    assert_eq!((after.models, after.tensors), (before.models, before.tensors));
    let report = zoo.show("narrow").expect("the model is there");
    assert_eq!(report.summary.license.as_deref(), Some("MIT"), "re-ingest changes nothing");
    assert!(zoo.show("other name").is_err());
    assert_sound(&zoo);
}

#[test]
fn filters_return_the_least_of_k_and_the_matches_best_first() {
    let (_folder, zoo) = zoo_of_three();
    let everything = all(&zoo);
    assert_eq!(everything.len(), 3);
    let mut params: Vec<u64> = everything.iter().map(|hit| hit.params).collect();
    params.sort_unstable();
    let mut macs: Vec<u64> = everything.iter().map(|hit| hit.macs).collect();
    macs.sort_unstable();
    let unlimited = Filter::default;
    let by_license = |ids: &[&str]| ids.iter().map(|&id| id.to_owned()).collect::<Vec<_>>();
    let rows = [
        (unlimited(), 3),
        (Filter { params_max: Some(params[0] - 1), ..unlimited() }, 0),
        (Filter { params_max: Some(params[0]), ..unlimited() }, 1),
        (Filter { params_max: Some(params[1]), ..unlimited() }, 2),
        (Filter { macs_max: Some(macs[1]), ..unlimited() }, 2),
        (Filter { licenses: by_license(&["MIT"]), ..unlimited() }, 2),
        (Filter { licenses: by_license(&["MIT", "Apache-2.0"]), ..unlimited() }, 3),
        (Filter { licenses: by_license(&["GPL-3.0-only"]), ..unlimited() }, 0),
        (Filter { tags: vec!["for=feet".into()], ..unlimited() }, 2),
        (
            Filter { tags: vec!["for=feet".into()], licenses: by_license(&["MIT"]), ..unlimited() },
            1,
        ),
        // Each was measured at ingest, on this machine.
        (Filter { latency_ms_max: Some(1e6), ..unlimited() }, 3),
        (Filter { latency_ms_max: Some(1e-6), ..unlimited() }, 0),
    ];
    for (filter, matches) in rows {
        for k in 1..=4 {
            let found = hits(&zoo, filter.clone(), k);
            assert_eq!(found.len(), matches.min(k), "k = {k}, {filter:?}");
            assert!(found.iter().enumerate().all(|(at, hit)| hit.rank == at + 1), "{found:?}");
            // A filter takes models away and changes nothing else.
            let listed = ListOptions { filter: filter.clone(), ..ListOptions::default() };
            let allowed = zoo.list(&listed).expect("models can be read");
            assert_eq!(allowed.len(), matches, "{filter:?}");
            let expected: Vec<&str> = names(&everything)
                .into_iter()
                .filter(|name| allowed.iter().any(|model| model.model == *name))
                .take(k)
                .collect();
            assert_eq!(names(&found), expected, "k = {k}, {filter:?}");
        }
    }
}

#[test]
fn a_recorded_result_moves_its_model_at_once() {
    let (folder, zoo) = zoo_of_three();
    for (model, accuracy) in [("narrow", 0.2), ("middle", 0.5), ("wide", 0.8)] {
        zoo.record(model, BENCHMARK_TASK, accuracy).expect("a result is recorded");
    }
    assert_eq!(names(&all(&zoo)), ["wide", "middle", "narrow"]);
    let before = cosine(&zoo, "narrow");
    let report = zoo.record("narrow", BENCHMARK_TASK, 0.95).expect("a result is recorded");
    assert_eq!((report.pairs, report.new_models, report.new_tasks), (1, 0, 0));
    assert!(cosine(&zoo, "narrow") > before, "{} after {before}", cosine(&zoo, "narrow"));
    assert_eq!(names(&all(&zoo))[0], "narrow", "the best on the task itself comes first");
    let known = zoo.show("narrow").expect("the model is there").results;
    assert!(known.iter().any(|result| result.kind == "reported" && result.accuracy == 0.95));

    let report = zoo.record("elsewhere", "their task", 0.7).expect("a result is recorded");
    assert_eq!((report.pairs, report.new_models, report.new_tasks), (1, 1, 1));
    assert!(names(&all(&zoo)).contains(&"elsewhere"), "references are found as well");
    assert!(zoo.export("elsewhere", &folder.path().join("x.onnx")).is_err());
    let before = knowledge(&zoo);
    for wrong in [1.7, -0.1, f32::NAN, f32::INFINITY] {
        assert!(matches!(zoo.record("narrow", BENCHMARK_TASK, wrong), Err(Error::Input(_))));
    }
    assert_eq!(knowledge(&zoo), before);
    assert_sound(&zoo);
}

#[test]
fn a_fine_tuned_child_is_stored_and_found_by_the_next_query() {
    let (folder, zoo) = zoo_of_three();
    let path = images::colours(&folder.path().join("colours"), 12, 8);
    let source = DatasetSource::Path(path);
    let onnx = folder.path().join("child.onnx");
    let options = FinetuneOptions {
        tuning: TuningOptions { epochs: 8, batch_size: 4, ..TuningOptions::default() },
        name: Some("child".into()),
        benchmark: Benchmark::None,
        output: Some(onnx.clone()),
        ..FinetuneOptions::default()
    };
    let report =
        zoo.finetune("middle", &source, &options, &mut unobserved).expect("a fine-tuned network");
    assert_eq!((report.parent.as_deref(), report.kind), (Some("middle"), "finetune"));
    assert!(report.accuracy > 0.6, "three plain colours, and yet {}", report.accuracy);

    let shown = zoo.show("child").expect("the child is there");
    assert_eq!(shown.parent.as_deref(), Some("middle"));
    assert_eq!(shown.summary.license.as_deref(), Some("Apache-2.0"), "its parent's");
    assert_eq!(shown.summary.source_tasks, ["colours"]);
    assert_eq!(shown.class_names, ["blue", "green", "red"]);
    assert!(shown.results.iter().any(|result| {
        (&*result.task, result.kind, result.accuracy) == ("colours", "finetune", report.accuracy)
    }));
    let task = DatasetSource::Task("colours".into());
    let answer = zoo.query(&task, &QueryOptions::default(), &mut unobserved).expect("an answer");
    assert!(names(&answer.hits).contains(&"child"), "{:?}", answer.hits);
    let written = ingest(&zoo, &onnx.display().to_string(), &IngestOptions::default());
    assert_eq!((written.status, written.model.as_deref()), ("already stored", Some("child")));
    assert_sound(&zoo);
}

#[test]
fn what_was_measured_on_a_dataset_decides_its_next_query() {
    let (folder, zoo) = zoo_of_three();
    let path = images::colours(&folder.path().join("colours"), 12, 8);
    let source = DatasetSource::Path(path);
    let ask = |k: usize, filter: Filter| {
        let options = QueryOptions { k, filter, ..QueryOptions::default() };
        zoo.query(&source, &options, &mut unobserved).expect("an answer").hits
    };
    assert!(ask(3, Filter::default()).iter().all(|hit| hit.measured.is_none()));
    zoo.add_task("colours", &source, &TaskOptions::default(), &mut unobserved).expect("a task");
    for (model, accuracy) in [("narrow", 0.1), ("wide", 0.99)] {
        zoo.record(model, "colours", accuracy).expect("a result is recorded");
    }
    let hits = ask(3, Filter::default());
    assert_eq!(names(&hits), ["wide", "middle", "narrow"]);
    let known = hits[0].measured.expect("it is known");
    assert_eq!((known.accuracy, known.kind), (0.99, "reported"));
    assert!(hits[1].measured.is_none());
    assert!(hits.iter().all(|hit| {
        let [low, high] = hit.interval;
        (low..=high).contains(&hit.predicted_accuracy)
    }));
    assert_eq!(names(&ask(1, Filter::default())), ["wide"]);
    let narrow = Filter { params_max: Some(hits[2].params), ..Filter::default() };
    assert_eq!(names(&ask(3, narrow)), ["narrow"], "a known result passes no filter");
}

#[test]
fn an_interrupted_measurement_goes_on_with_what_is_missing() {
    let (folder, zoo) = zoo_of_three();
    let path = images::colours(&folder.path().join("colours"), 12, 6);
    let source = DatasetSource::Path(path);
    let missing = MeasureOptions { missing: true, ..MeasureOptions::default() };
    let measure = |models: &[String], options: &MeasureOptions| {
        let report = zoo.measure(models, &source, options, &mut unobserved).expect("measured");
        let mut models: Vec<String> =
            report.measurements.into_iter().map(|measured| measured.model).collect();
        models.sort();
        models
    };
    assert_eq!(measure(&["middle".into()], &MeasureOptions::default()), ["middle"]);
    assert_eq!(measure(&[], &missing), ["narrow", "wide"]);
    assert_eq!(measure(&[], &missing), [""; 0]);
    assert_eq!(measure(&[], &MeasureOptions::default()), ["middle", "narrow", "wide"]);
}

#[test]
fn edit_and_remove_change_what_is_found() {
    let (folder, zoo) = zoo_of_three();
    let edit = EditOptions {
        name: Some("slim".into()),
        license: Some("ISC".into()),
        tags: vec![("for".into(), String::new()), ("size".into(), "s".into())],
    };
    zoo.edit("narrow", &edit).expect("an edit");
    assert!(zoo.show("narrow").is_err());
    let tagged = Filter { tags: vec!["size=s".into()], ..Filter::default() };
    assert_eq!(names(&hits(&zoo, tagged, 5)), ["slim"]);
    let by_license = Filter { licenses: vec!["MIT".into()], ..Filter::default() };
    assert_eq!(names(&hits(&zoo, by_license, 5)), ["wide"]);
    let taken = EditOptions { name: Some("wide".into()), ..EditOptions::default() };
    assert!(matches!(zoo.edit("slim", &taken), Err(Error::Input(_))));

    let absent = ["wide".to_owned(), "absent".to_owned()];
    assert!(zoo.remove(&absent).is_err());
    assert_eq!(all(&zoo).len(), 3, "all of the named models are removed, or none");
    zoo.remove(&["wide".to_owned()]).expect("a removal");
    let mut found: Vec<String> = all(&zoo).into_iter().map(|hit| hit.model).collect();
    found.sort();
    assert_eq!(found, ["middle", "slim"]);
    // The name is free again, and so is the network.
    let back = ingest(&zoo, "small:cnn-w24@32", &named("wide", "MIT", "feet"));
    assert_eq!(back.status, "stored");
    assert_sound(&zoo);
    let before = knowledge(&zoo);
    drop(zoo);
    let zoo = open(&folder.path().join("zoo"), false);
    assert_eq!(knowledge(&zoo), before);
    assert_sound(&zoo);
}

#[test]
fn a_zoo_answers_the_same_after_it_was_opened_again() {
    let (folder, zoo) = zoo_of_three();
    let at = folder.path().join("zoo");
    zoo.record("middle", BENCHMARK_TASK, 0.9).expect("a result is recorded");
    let exact = |zoo: &Database| format!("{:?}", all(zoo));
    let before = exact(&zoo);
    drop(zoo);
    for read_only in [true, false] {
        assert_eq!(exact(&open(&at, read_only)), before, "read_only: {read_only}");
    }
    let zoo = open(&at, false);
    let report = zoo.train(&TrainOptions::default(), &mut unobserved).expect("new encoders");
    assert_eq!((report.generation, report.models), (1, 3));
    let before = exact(&zoo);
    drop(zoo);
    let zoo = open(&at, true);
    assert_eq!(exact(&zoo), before);
    assert_sound(&zoo);
    let refused = zoo.record("middle", BENCHMARK_TASK, 0.1);
    assert!(matches!(refused, Err(Error::Storage(tans::StorageError::ReadOnly))), "{refused:?}");
    assert_eq!(exact(&zoo), before);
}

#[test]
fn a_reader_beside_a_writer_sees_fresh_models_in_its_next_operation() {
    let (folder, writer) = zoo_of_three();
    let at = folder.path().join("zoo");
    let reader = open(&at, true);
    assert_eq!(all(&reader).len(), 3);
    ingest(&writer, "small:cnn-w28@32", &named("fresh", "MIT", "hands"));
    assert_eq!(all(&reader).len(), 4);
    writer.record("fresh", BENCHMARK_TASK, 0.9).expect("a result is recorded");
    assert_eq!(knowledge(&reader), knowledge(&writer));
    writer.train(&TrainOptions::default(), &mut unobserved).expect("new encoders");
    assert_eq!(reader.stats().expect("figures can be read").generation, 1);
    assert_eq!(knowledge(&reader), knowledge(&writer));
    writer.remove(&["fresh".to_owned()]).expect("a removal");
    assert!(!names(&all(&reader)).contains(&"fresh"));
    assert!(matches!(
        Database::open(&at, OpenOptions::default()),
        Err(Error::Storage(tans::StorageError::Locked { .. }))
    ));
    assert_sound(&reader);
}

#[test]
fn an_exported_model_is_the_same_network_elsewhere() {
    let (folder, zoo) = zoo_of_three();
    let file = folder.path().join("middle.onnx");
    let report = zoo.export("middle", &file).expect("an export");
    assert_eq!(report.bytes, std::fs::metadata(&file).expect("the file is there").len());
    let other = init(&folder.path().join("other"), Vec::new());
    let options = IngestOptions { benchmark: Benchmark::None, ..IngestOptions::default() };
    let stored = ingest(&other, &file.display().to_string(), &options);
    assert_eq!((stored.status, stored.note), ("stored", None));
    let (here, there) = (zoo.show("middle"), other.show("middle"));
    let (here, there) = (here.expect("it is here"), there.expect("it is there"));
    assert_eq!(here.summary.id, there.summary.id);
    assert_eq!((here.summary.params, here.summary.macs), (there.summary.params, stored.macs));
    assert_eq!(here.input, there.input);
    assert_sound(&other);
}

#[test]
fn a_starter_bundle_carries_the_whole_zoo() {
    let (folder, zoo) = zoo_of_three();
    let path = images::colours(&folder.path().join("colours"), 12, 4);
    let source = DatasetSource::Path(path);
    zoo.add_task("seen", &source, &TaskOptions::default(), &mut unobserved).expect("a task");
    for (task, accuracies) in [("seen", [0.3, 0.6, 0.9]), (BENCHMARK_TASK, [0.8, 0.6, 0.4])] {
        for (model, accuracy) in ["narrow", "middle", "wide"].into_iter().zip(accuracies) {
            zoo.record(model, task, accuracy).expect("a result is recorded");
        }
    }
    zoo.record("elsewhere", "their task", 0.7).expect("a result is recorded");
    // A new zoo learns its encoders from everything in the bundle, so this one does the same first.
    zoo.train(&TrainOptions::default(), &mut unobserved).expect("new encoders");
    let bundle = folder.path().join("starter.tar");
    assert_eq!(zoo.export_starter(&bundle).expect("a bundle").models, 4);
    let copy = init(&folder.path().join("copy"), vec![bundle]);
    assert_eq!(knowledge(&copy), knowledge(&zoo));
    for task in ["seen", BENCHMARK_TASK] {
        let query = |zoo: &Database| {
            let task = DatasetSource::Task(task.into());
            let answer = zoo.query(&task, &QueryOptions::default(), &mut unobserved);
            answer.expect("an answer").hits
        };
        assert_eq!(names(&query(&copy)), names(&query(&zoo)), "{task}");
    }
    assert_sound(&copy);
}
