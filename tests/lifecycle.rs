//! The life of models in a zoo, through the public API: each answer follows from what was stored before it.

#![cfg(feature = "torch")]

#[path = "common/images.rs"]
mod images;
#[path = "common/library.rs"]
mod library;
#[expect(dead_code, reason = "networks for other tests")]
#[path = "common/onnx.rs"]
mod onnx;

use library::{
    BENCHMARK_TASK, all, all_names, assert_sound, hits, ingest, init, knowledge, named, results,
    zoo_of_three,
};
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use tans::{
    Benchmark, Database, DatasetSource, EditOptions, Error, ExplainOptions, Filter,
    FinetuneOptions, Hit, IngestOptions, InitOptions, Limits, ListOptions, MeasureOptions,
    OpenOptions, QueryOptions, StarterOptions, TaskOptions, TopOptions, TrainOptions,
    TuningOptions, unobserved,
};
use tempfile::TempDir;

fn open(at: &Path, read_only: bool) -> Database {
    Database::open(at, OpenOptions { read_only, ..OpenOptions::default() }).expect("the zoo opens")
}

fn names(hits: &[Hit]) -> Vec<&str> {
    hits.iter().map(|hit| hit.model.as_str()).collect()
}

fn cosine(zoo: &Database, model: &str) -> f32 {
    all(zoo).iter().find(|hit| hit.model == model).expect("every model is found").cosine
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
    let mut params: Vec<u64> = everything.iter().filter_map(|hit| hit.params).collect();
    params.sort_unstable();
    let mut macs: Vec<u64> = everything.iter().filter_map(|hit| hit.macs).collect();
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
    assert_eq!((report.pairs, report.replaced, report.new_models, report.new_tasks), (1, 1, 0, 0));
    assert!(cosine(&zoo, "narrow") > before, "{} after {before}", cosine(&zoo, "narrow"));
    assert_eq!(names(&all(&zoo))[0], "narrow", "the best on the task itself comes first");
    let known = zoo.show("narrow").expect("the model is there").results;
    assert!(known.iter().any(|result| result.kind == "reported" && result.accuracy == 0.95));

    let report = zoo.record("elsewhere", "their task", 0.7).expect("a result is recorded");
    assert_eq!((report.pairs, report.replaced, report.new_models, report.new_tasks), (1, 0, 1, 1));
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
fn a_writer_learns_again_after_as_many_results_as_it_was_told() {
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let open = OpenOptions { retrain_after: Some(3), ..OpenOptions::default() };
    let (zoo, _) = Database::init(&folder.path().join("zoo"), &InitOptions::default(), open)
        .expect("a zoo can be made");
    for (name, width) in [("narrow", 16), ("middle", 20), ("wide", 24)] {
        ingest(&zoo, &format!("small:cnn-w{width}@32"), &named(name, "MIT", "hands"));
    }
    let generation = || zoo.stats().expect("figures").generation;
    let before = generation();
    let record = |model: &str, accuracy: f32| {
        zoo.record(model, BENCHMARK_TASK, accuracy).expect("a result");
    };
    record("narrow", 0.5);
    record("narrow", 0.5);
    record("middle", 0.6);
    assert_eq!(generation(), before, "a repeated result is no new one");
    record("wide", 0.7);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(120);
    while generation() == before {
        assert!(std::time::Instant::now() < deadline, "nothing was learned");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_sound(&zoo);
}

#[test]
fn a_fine_tuned_child_is_stored_and_found_by_the_next_query() {
    let (folder, zoo) = zoo_of_three();
    let path = images::colours(&folder.path().join("colours"), 12, 8);
    let source = DatasetSource::Path(path);
    let onnx = folder.path().join("child.onnx");
    let options = FinetuneOptions {
        tuning: TuningOptions { epochs: Some(8), batch_size: 4, ..TuningOptions::default() },
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
    assert!(ask(3, Filter::default()).iter().all(|hit| hit.measured.is_empty()));
    zoo.add_task("colours", &source, &TaskOptions::default(), &mut unobserved).expect("a task");
    for (model, accuracy) in [("narrow", 0.1), ("wide", 0.99)] {
        zoo.record(model, "colours", accuracy).expect("a result is recorded");
    }
    let hits = ask(3, Filter::default());
    assert_eq!(names(&hits), ["wide", "middle", "narrow"]);
    let known = &hits[0].measured;
    assert_eq!((known.len(), known[0].accuracy, known[0].kind), (1, 0.99, "reported"));
    assert!(hits[1].measured.is_empty());
    assert!(hits.iter().all(|hit| {
        let [low, high] = hit.interval;
        (low..=high).contains(&hit.predicted_accuracy)
    }));
    assert_eq!(names(&ask(1, Filter::default())), ["wide"]);
    let narrow = Filter { params_max: hits[2].params, ..Filter::default() };
    assert_eq!(names(&ask(3, narrow)), ["narrow"], "a known result passes no filter");
}

#[test]
fn what_is_predicted_does_not_depend_on_what_else_was_asked_for() {
    let (folder, zoo) = zoo_of_three();
    let source = DatasetSource::Path(images::colours(&folder.path().join("colours"), 12, 8));
    zoo.add_task("colours", &source, &TaskOptions::default(), &mut unobserved).expect("a task");
    let ask = |k: usize, filter: Filter| {
        let options = QueryOptions { k, filter, ..QueryOptions::default() };
        zoo.query(&source, &options, &mut unobserved).expect("an answer").hits
    };
    let all = ask(3, Filter::default());
    let params = all.iter().filter(|hit| hit.model != "wide").map(|hit| hit.params).max().flatten();
    let small = Filter { params_max: params, ..Filter::default() };
    let expected = |model: &str| all.iter().find(|hit| hit.model == model).expect("one of three");
    let models = ["wide".to_owned()];
    zoo.measure(&models, &source, &MeasureOptions::default(), &mut unobserved).expect("measured");
    zoo.record("narrow", "colours", 0.2).expect("a result is recorded");
    let after = ask(3, Filter::default());
    let of = |hits: &[tans::Hit], model: &str| {
        let hit = hits.iter().find(|hit| hit.model == model);
        hit.map(|hit| (hit.predicted_accuracy, hit.interval))
    };
    assert_ne!(of(&after, "middle").expect("found").0, expected("middle").predicted_accuracy);
    for hits in [ask(1, Filter::default()), ask(2, Filter::default()), ask(3, small.clone())] {
        for hit in &hits {
            assert_eq!(of(&hits, &hit.model), of(&after, &hit.model), "{}", hit.model);
        }
    }
    assert_eq!(ask(3, small).len(), 2, "the widest informs the others and is left out");
    for hit in &after {
        let explained = zoo
            .explain(&source, &hit.model, &ExplainOptions::default(), &mut unobserved)
            .expect("an explanation");
        let prediction = (explained.predicted_accuracy, explained.interval);
        assert_eq!(Some(prediction), of(&after, &hit.model), "{}", hit.model);
    }
    let wide = after.iter().find(|hit| hit.model == "wide").expect("it is measured");
    let probe = wide.measured[0].accuracy;
    assert!(wide.interval[0] <= probe && probe <= wide.interval[1], "{probe}: {wide:?}");
}

#[test]
fn a_race_starts_from_the_first_answers_of_the_query() {
    let (folder, zoo) = zoo_of_three();
    let source = DatasetSource::Path(images::colours(&folder.path().join("colours"), 12, 8));
    zoo.add_task("colours", &source, &TaskOptions::default(), &mut unobserved).expect("a task");
    for task in zoo.tasks().expect("tasks").iter().filter(|task| task.task != "colours") {
        zoo.record("narrow", &task.task, 1.0).expect("a result is recorded");
    }
    zoo.record("wide", "colours", 0.97).expect("a result is recorded");
    zoo.record("narrow", "colours", 0.8).expect("a result is recorded");
    let hits =
        zoo.query(&source, &QueryOptions::default(), &mut unobserved).expect("an answer").hits;
    let cosine = |name: &str| hits.iter().find(|hit| hit.model == name).expect("found").cosine;
    assert!(hits[0].model == "wide" && cosine("narrow") > cosine("wide"), "{hits:?}");
    let options = FinetuneOptions {
        tuning: TuningOptions { epochs: Some(1), ..TuningOptions::default() },
        benchmark: Benchmark::None,
        ..FinetuneOptions::default()
    };
    let top = TopOptions { count: 1, ..TopOptions::default() };
    let report = zoo.finetune_top(&source, &top, &options, &mut unobserved).expect("a winner");
    assert_eq!(report.parent.as_deref(), Some("wide"));
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
    let refused = [
        zoo.record("middle", BENCHMARK_TASK, 0.1).map(|_| ()),
        zoo.train(&TrainOptions::default(), &mut unobserved).map(|_| ()),
        zoo.reindex(&mut unobserved).map(|_| ()),
    ];
    for refused in refused {
        let is_read_only = matches!(refused, Err(Error::Storage(tans::StorageError::ReadOnly)));
        assert!(is_read_only, "{refused:?}");
    }
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
    let said = |summary: &tans::ModelSummary| (summary.license.clone(), summary.tags.clone());
    assert_eq!(said(&here.summary), said(&there.summary));

    // What the user says is worth more than what the file says.
    let third = init(&folder.path().join("third"), Vec::new());
    ingest(&third, &file.display().to_string(), &named("middle", "MIT", "ears"));
    let summary = third.show("middle").expect("it is there").summary;
    assert_eq!((summary.license.as_deref(), &*summary.tags["for"]), (Some("MIT"), "ears"));
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
    assert_eq!(zoo.export_starter(&bundle, StarterOptions::default()).expect("a bundle").models, 4);
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

#[test]
fn a_bundle_without_weights_keeps_what_was_measured() {
    let (folder, zoo) = zoo_of_three();
    for (model, accuracy) in [("narrow", 0.3), ("middle", 0.6), ("wide", 0.9)] {
        zoo.record(model, BENCHMARK_TASK, accuracy).expect("a result is recorded");
    }
    zoo.train(&TrainOptions::default(), &mut unobserved).expect("new encoders");
    let export = |name: &str, without_weights| {
        let bundle = folder.path().join(name);
        let report = zoo.export_starter(&bundle, StarterOptions { without_weights });
        (bundle, report.expect("a bundle").bytes)
    };
    let (_, whole) = export("whole.tar", false);
    let (bundle, bare) = export("bare.tar", true);
    assert!(bare + 100_000 < whole, "{bare} and {whole} bytes");
    let copy = init(&folder.path().join("copy"), vec![bundle]);
    // The vectors need signature, topology and results, and all of these are there.
    assert_eq!(all(&copy).iter().map(|hit| hit.cosine).collect::<Vec<_>>(), {
        all(&zoo).iter().map(|hit| hit.cosine).collect::<Vec<_>>()
    });
    let listed = copy.list(&ListOptions::default()).expect("a list");
    assert!(listed.iter().all(|model| model.status == "reference" && model.macs.is_some()));
    let refused = copy.export("wide", &folder.path().join("wide.onnx")).expect_err("no network");
    assert!(refused.to_string().contains("reference"), "{refused}");
    // Their operations are known, and yet they cannot be run.
    let runnable = || hits(&copy, Filter { runnable: true, ..Filter::default() }, 2);
    assert!(runnable().is_empty(), "{:?}", runnable());
    ingest(&copy, "small:cnn-w28@32", &named("here", "MIT", "hands"));
    assert_eq!(names(&runnable()), ["here"]);
    assert_sound(&copy);
}

#[test]
fn nothing_speaks_for_a_network_without_training_or_results() {
    let (_folder, zoo) = zoo_of_three();
    for (model, accuracy) in [("good", 0.9), ("fair", 0.7), ("poor", 0.5)] {
        zoo.record(model, BENCHMARK_TASK, accuracy).expect("a result is recorded");
    }
    zoo.train(&TrainOptions::default(), &mut unobserved).expect("new encoders");
    let hits = all(&zoo);
    assert_eq!(names(&hits)[..3], ["good", "fair", "poor"], "{hits:?}");
    // Three networks on one task tell little of what others do on it.
    let wide = |hit: &Hit| hit.interval[1] - hit.interval[0] > 0.4;
    assert!(hits[3..].iter().all(wide), "{hits:?}");
}

fn reported(task: &str, accuracy: f32) -> IngestOptions {
    IngestOptions {
        task: Some(task.into()),
        accuracy: Some(accuracy),
        benchmark: Benchmark::None,
        ..IngestOptions::default()
    }
}

#[test]
fn a_network_that_is_stored_already_gains_the_result_it_comes_with() {
    let (_folder, zoo) = zoo_of_three();
    let before = cosine(&zoo, "narrow");
    let again = ingest(&zoo, "small:cnn-w16@32", &reported(BENCHMARK_TASK, 0.99));
    assert_eq!((again.status, again.note), ("already stored", None));
    assert_eq!(results(&zoo, "narrow", BENCHMARK_TASK), [("reported", 0.99)]);
    assert!(cosine(&zoo, "narrow") > before, "the result moves the model");
    let shown = zoo.show("narrow").expect("the model is there").summary;
    assert_eq!(shown.source_tasks, [BENCHMARK_TASK], "it was trained on that task");
    assert_eq!(shown.license.as_deref(), Some("MIT"));

    let again = ingest(&zoo, "small:cnn-w16@32", &reported(BENCHMARK_TASK, 0.5));
    let note = again.note.expect("another result than before");
    assert_eq!(note, format!("accuracy on {BENCHMARK_TASK}: 0.990 before, 0.500 now"));
    let again = ingest(&zoo, "small:cnn-w16@32", &reported(BENCHMARK_TASK, 0.99));
    assert!(again.note.is_some_and(|note| note.contains("stays 0.500")), "it was replaced before");
    assert_eq!(results(&zoo, "narrow", BENCHMARK_TASK), [("reported", 0.5)]);

    let options = IngestOptions { name: Some("other".into()), ..reported("elsewhere", 0.5) };
    let again = ingest(&zoo, "small:cnn-w16@32", &options);
    assert!(again.note.is_some_and(|note| note.contains("name")), "the name is not given");
    assert_eq!(results(&zoo, "narrow", "elsewhere"), [("reported", 0.5)]);
    let before = knowledge(&zoo);
    ingest(&zoo, "small:cnn-w16@32", &named("narrow", "MIT", "hands"));
    assert_eq!(knowledge(&zoo), before, "nothing new is said");
    assert_sound(&zoo);
}

#[test]
fn a_reference_task_becomes_the_dataset_of_its_name() {
    let (folder, zoo) = zoo_of_three();
    let source = DatasetSource::Path(images::colours(&folder.path().join("colours"), 12, 4));
    zoo.record("narrow", "hues", 0.9).expect("a result is recorded");
    zoo.record("narrow", "hues", 0.8).expect("a result is recorded");
    zoo.record("far", "hues", 0.3).expect("a result is recorded");
    ingest(&zoo, "small:cnn-w28@32", &reported("hues", 0.7));
    let task = DatasetSource::Task("hues".into());
    assert!(zoo.query(&task, &QueryOptions::default(), &mut unobserved).is_err(), "no rows yet");

    let options = TaskOptions::default();
    let added = zoo.add_task("hues", &source, &options, &mut unobserved).expect("a task");
    assert_eq!((added.status, added.moved_pairs), ("stored", 3));
    let hues: Vec<_> =
        zoo.tasks().expect("tasks").into_iter().filter(|t| t.task == "hues").collect();
    assert_eq!((hues.len(), hues[0].reference, hues[0].pairs), (1, false, 3));
    for (model, accuracy) in [("narrow", 0.8), ("far", 0.3), ("cnn-w28", 0.7)] {
        assert_eq!(results(&zoo, model, "hues"), [("reported", accuracy)], "{model}");
    }
    assert_eq!(zoo.show("cnn-w28").expect("it is there").summary.source_tasks, ["hues"]);
    let ranked = |zoo: &Database| {
        let answer = zoo.query(&task, &QueryOptions::default(), &mut unobserved);
        format!("{:?}", answer.expect("the task can be asked about").hits)
    };
    let before = ranked(&zoo);
    assert!(before.find("narrow") < before.find("far"), "{before}");
    assert_sound(&zoo);
    drop(zoo);
    assert_eq!(ranked(&open(&folder.path().join("zoo"), true)), before);
}

#[test]
fn a_dataset_that_is_known_keeps_its_name_and_loses_nothing() {
    let (folder, zoo) = zoo_of_three();
    let source = DatasetSource::Path(images::colours(&folder.path().join("colours"), 12, 4));
    let add = |name: &str, family: Option<&str>| {
        let family = family.map(str::to_owned);
        let options = TaskOptions { family, ..TaskOptions::default() };
        zoo.add_task(name, &source, &options, &mut unobserved)
    };
    assert_eq!(add("hues", None).expect("a task").status, "stored");
    let again = add("shades", Some("plain")).expect("the same task");
    assert_eq!((again.status, &*again.summary.task), ("already stored", "hues"));
    assert_eq!(again.summary.family, "plain", "it had none");
    let refused = add("hues", Some("other")).expect_err("it has a family").to_string();
    assert!(refused.contains("plain") && refused.contains("other"), "{refused}");
    let refused = add(BENCHMARK_TASK, None).expect_err("that is another dataset").to_string();
    assert!(refused.contains(BENCHMARK_TASK), "{refused}");

    // A result on a reference counts for the dataset that is named like it, unless that knows better.
    zoo.record("narrow", "tints", 0.1).expect("a result is recorded");
    zoo.record("wide", "tints", 0.2).expect("a result is recorded");
    zoo.record("narrow", "hues", 0.9).expect("a result is recorded");
    let added = add("tints", None).expect("the same task");
    assert_eq!((&*added.summary.task, added.moved_pairs), ("hues", 1));
    assert_eq!(results(&zoo, "narrow", "hues"), [("reported", 0.9)]);
    assert_eq!(results(&zoo, "wide", "hues"), [("reported", 0.2)]);
    assert!(!zoo.tasks().expect("tasks").iter().any(|task| task.task == "tints"));
    assert_sound(&zoo);
}

#[test]
fn an_edit_during_a_measurement_stays() {
    let (folder, zoo) = zoo_of_three();
    let source = DatasetSource::Path(images::colours(&folder.path().join("colours"), 12, 4));
    let edit = EditOptions { license: Some("ISC".into()), ..EditOptions::default() };
    let mut edited = false;
    let mut observer = |progress: tans::Progress| {
        if progress.step == "measuring" && !std::mem::replace(&mut edited, true) {
            zoo.edit("narrow", &edit).expect("an edit");
        }
        ControlFlow::Continue(())
    };
    let models = ["narrow".to_owned()];
    zoo.measure(&models, &source, &MeasureOptions::default(), &mut observer).expect("a result");
    let by_license = Filter { licenses: vec!["ISC".into()], ..Filter::default() };
    assert_eq!(names(&hits(&zoo, by_license, 5)), ["narrow"]);
}

#[test]
fn an_edit_leaves_the_vector_as_it_is() {
    let (folder, zoo) = zoo_of_three();
    let source = DatasetSource::Path(images::colours(&folder.path().join("colours"), 12, 4));
    zoo.add_task("hues", &source, &TaskOptions::default(), &mut unobserved).expect("a task");
    zoo.record("narrow", "hues", 0.95).expect("a result is recorded");
    // What was learned from the task stays in the vector until the next training.
    zoo.remove_task("hues").expect("a removal");
    let before = cosine(&zoo, "narrow");
    let edit = EditOptions { license: Some("ISC".into()), ..EditOptions::default() };
    zoo.edit("narrow", &edit).expect("an edit");
    assert_eq!(cosine(&zoo, "narrow"), before);
    drop(zoo);
    assert_eq!(cosine(&open(&folder.path().join("zoo"), true), "narrow"), before);
}

/// A file with a network that gives NaN for nearly black images.
fn dark_network(folder: &Path) -> String {
    let path = folder.join("dark.onnx");
    fs::write(&path, onnx::afraid_of_the_dark()).expect("the tempdir takes files");
    path.display().to_string()
}

#[test]
fn nan_on_a_benchmark_image_is_stored_and_marked_like_nan_on_a_probe_image() {
    let (folder, zoo) = zoo_of_three();
    let stored = ingest(&zoo, &dark_network(folder.path()), &IngestOptions::default());
    assert_eq!((stored.status, stored.macs), ("stored", None));
    assert!(stored.note.is_some_and(|note| note.contains("NaN")), "it is said why");
    assert!(all_names(&zoo).contains(&"dark".to_owned()), "it is found all the same");
    assert_sound(&zoo);
}

#[test]
fn a_candidate_that_gives_nan_is_named_and_ranked_by_its_prediction() {
    let (folder, zoo) = zoo_of_three();
    let options = IngestOptions { benchmark: Benchmark::None, ..IngestOptions::default() };
    let dark = ingest(&zoo, &dark_network(folder.path()), &options);
    assert_eq!(dark.note, None, "it takes every probe image");
    zoo.record("far", "their task", 0.7).expect("a result is recorded");
    let path = images::colours(&folder.path().join("colours"), 12, 4);
    fs::create_dir(path.join("black")).expect("the tempdir takes folders");
    for number in 0..4 {
        let image = image::RgbImage::from_pixel(12, 12, image::Rgb([number, 0, 1]));
        image.save(path.join(format!("black/{number}.png"))).expect("the tempdir takes images");
    }
    let options = QueryOptions { rerank: 5, ..QueryOptions::default() };
    let answer = zoo.query(&DatasetSource::Path(path), &options, &mut unobserved);
    let answer = answer.expect("an answer");
    // A reference is known not to run, so that no probe is tried.
    let [(dark, why)] = &answer.unprobed[..] else { panic!("{:?}", answer.unprobed) };
    assert!(dark == "dark" && why.contains("NaN"), "{why}");
    assert_eq!(answer.hits.len(), 5);
    for hit in &answer.hits {
        let is_probed = hit.model != "dark" && hit.model != "far";
        assert_eq!(hit.probed_accuracy.is_some(), is_probed, "{hit:?}");
    }
}

#[test]
fn what_a_reference_costs_is_unknown_and_meets_no_limit() {
    let (folder, zoo) = zoo_of_three();
    zoo.record("far", BENCHMARK_TASK, 0.7).expect("a result is recorded");
    let csv = folder.path().join("results.csv");
    fs::write(&csv, "model,dataset,accuracy,params\nnear,their task,0.5,2k\n").expect("a file");
    zoo.record_file(&csv, &mut unobserved).expect("a sound file");
    let found = all(&zoo);
    let cost = |model: &str| {
        let hit = found.iter().find(|hit| hit.model == model).expect("a reference is found");
        (hit.params, hit.macs)
    };
    assert_eq!((cost("far"), cost("near")), ((None, None), (Some(2000), None)));
    let limit = |params_max, macs_max| Filter { params_max, macs_max, ..Filter::default() };
    assert!(names(&hits(&zoo, limit(Some(u64::MAX), None), 9)).contains(&"near"));
    assert!(!names(&hits(&zoo, limit(Some(u64::MAX), None), 9)).contains(&"far"));
    assert_eq!(hits(&zoo, limit(None, Some(u64::MAX)), 9).len(), 3);
}

#[test]
fn a_new_zoo_lies_in_table_files() {
    let folder = TempDir::new().expect("a temporary folder");
    let zoo = init(&folder.path().join("zoo"), Vec::new());
    let log_bytes: u64 = fs::read_dir(folder.path().join("zoo/db"))
        .expect("a zoo has a database")
        .map(|entry| entry.expect("a readable folder"))
        .filter(|entry| entry.path().extension().is_some_and(|suffix| suffix == "log"))
        .map(|entry| entry.metadata().expect("a file").len())
        .sum();
    assert_eq!(log_bytes, 0, "the log holds what a table file does not");
    assert_sound(&zoo);
}

#[test]
fn a_network_with_many_constants_has_children_once_it_was_let_in() {
    let folder = TempDir::new().expect("a temporary folder");
    let zoo = init(&folder.path().join("zoo"), Vec::new());
    let file = folder.path().join("maker.onnx");
    fs::write(&file, onnx::maker_of_constants()).expect("a file");
    let file = file.display().to_string();
    let limits = Limits { constant_bytes_max: 128 << 20, ..Limits::default() };
    let stored = ingest(&zoo, &file, &IngestOptions { limits, ..named("maker", "MIT", "all") });
    assert_eq!((stored.status, &stored.note), ("stored", &None));
    let colours = DatasetSource::Path(images::colours(&folder.path().join("colours"), 12, 4));
    let child = |name: &str| FinetuneOptions {
        tuning: TuningOptions { epochs: Some(1), ..TuningOptions::default() },
        name: Some(name.to_owned()),
        benchmark: Benchmark::None,
        ..FinetuneOptions::default()
    };
    zoo.finetune("maker", &colours, &child("child"), &mut unobserved).expect("a child");
    // A child that could not be run would have none.
    zoo.finetune("child", &colours, &child("grandchild"), &mut unobserved).expect("a grandchild");
    // In another zoo its file is held to the limit like any other.
    let export = folder.path().join("export.onnx");
    zoo.export("child", &export).expect("an export");
    let other = init(&folder.path().join("other"), Vec::new());
    let again = ingest(&other, &export.display().to_string(), &named("child", "MIT", "all"));
    assert!(again.note.is_some_and(|note| note.contains("limit of")));
}
