//! GrowTraining a zoo on real images, through the library and the command line.

#![cfg(all(feature = "cli", feature = "torch"))]

#[path = "common/command.rs"]
mod command;
#[path = "common/images.rs"]
mod images;
#[path = "common/zoo.rs"]
mod zoo;

use command::{command, done, objects, tans};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::ops::ControlFlow;
use std::path::Path;
use tans::{
    Benchmark, CheckOptions, Database, DatasetSource, Error, GrowBudget, GrowOptions, GrowReport,
    GrowTraining, InitOptions, OpenOptions, Progress, SampleOptions, TuningOptions, unobserved,
};
use tempfile::TempDir;
use zoo::zoo_of_one;

/// Two sets of real images that the repository holds.
fn datasets() -> Vec<DatasetSource> {
    let queries = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/queries");
    ["clipart_signs", "char_digits"].map(|name| DatasetSource::Path(queries.join(name))).to_vec()
}

/// A few images of each class, for one epoch.
fn options(trainings: usize) -> GrowOptions {
    GrowOptions {
        space: "small@32".into(),
        budget: GrowBudget::Trainings(trainings),
        tuning: TuningOptions { epochs: Some(1), ..TuningOptions::default() },
        benchmark: Benchmark::None,
        sample: SampleOptions { per_class: 5, ..SampleOptions::default() },
        ..GrowOptions::default()
    }
}

fn empty(folder: &Path) -> Database {
    let cache_dir = Some(Path::new(env!("CARGO_TARGET_TMPDIR")).join("tans/features"));
    let open = OpenOptions { cache_dir, ..OpenOptions::default() };
    Database::init(folder, &InitOptions::default(), open).expect("a zoo can be made").0
}

fn grow(zoo: &Database, options: &GrowOptions) -> GrowReport {
    zoo.grow(&datasets(), options, &mut unobserved).expect("networks can be trained")
}

fn pair(training: &GrowTraining) -> (String, String) {
    (training.dataset.clone(), training.architecture.clone())
}

#[track_caller]
fn assert_sound(zoo: &Database) {
    let report = zoo.check(CheckOptions::default()).expect("the check runs");
    assert!(report.sound, "{:?}", report.findings);
}

#[test]
fn a_growth_goes_on_from_what_is_stored() {
    let folder = TempDir::new().expect("a temporary folder");
    let zoo = empty(&folder.path().join("zoo"));
    let first = grow(&zoo, &options(3));
    assert_eq!((first.candidates, first.trainings.len(), first.left), (23, 3, 43));
    let names: BTreeSet<&str> = first.trainings.iter().map(|it| &*it.dataset).collect();
    assert_eq!(names.len(), 2, "both datasets come first");
    let second = grow(&zoo, &options(2));
    assert_eq!((second.trainings.len(), second.left), (2, 41));
    let all: Vec<&GrowTraining> = first.trainings.iter().chain(&second.trainings).collect();
    assert_eq!(all.iter().map(|it| pair(it)).collect::<BTreeSet<_>>().len(), 5, "{all:?}");
    for training in &all {
        let model = zoo.show(training.model.as_deref().expect("a model")).expect("it is stored");
        assert_eq!(model.architecture.as_deref(), training.architecture.split('@').next());
        assert_eq!((model.parent, model.summary.params), (None, Some(training.params)));
        let [result] = &model.results[..] else { panic!("one result, found {:?}", model.results) };
        assert_eq!((result.kind, Some(result.accuracy)), ("finetune", training.accuracy));
        let expected = training.expected_accuracy.expect("it was expected");
        let [low, high] = training.interval.expect("with an interval");
        assert!(low <= expected && expected <= high && training.gain >= 0.0, "{training:?}");
    }
    for (before, after) in first.datasets.iter().zip(&second.datasets) {
        assert_eq!((before.known, after.known), (0, before.trained));
        assert!((before.area - after.area_before).abs() < 1e-6, "{before:?} {after:?}");
        assert!(after.area >= after.area_before && after.area <= 1.0);
        let sizes: Vec<u64> = after.front.iter().map(|it| it.params).collect();
        assert!(sizes.is_sorted() && !sizes.is_empty(), "{sizes:?}");
    }
    assert_sound(&zoo);
}

#[test]
fn the_seed_decides_and_chance_is_another_choice() {
    let folder = TempDir::new().expect("a temporary folder");
    let run = |name: &str, random: bool| {
        let report = grow(&empty(&folder.path().join(name)), &GrowOptions { random, ..options(3) });
        report.trainings.iter().map(|it| (pair(it), it.accuracy)).collect::<Vec<_>>()
    };
    assert_eq!(run("one", false), run("two", false));
    assert_ne!(run("three", true), run("four", false));
}

#[test]
fn what_was_trained_before_a_stop_stays() {
    let folder = TempDir::new().expect("a temporary folder");
    let zoo = empty(&folder.path().join("zoo"));
    let mut stop = |progress: Progress| match progress.done {
        0 => ControlFlow::Continue(()),
        _ if progress.step == "growing" => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    let stopped = zoo.grow(&datasets(), &options(3), &mut stop);
    assert!(matches!(stopped, Err(Error::Cancelled)), "{stopped:?}");
    assert_eq!(zoo.stats().expect("figures can be read").models, 1);
    let report = grow(&zoo, &options(1));
    assert_eq!(report.datasets.iter().map(|it| it.known).sum::<usize>(), 1);
    assert_eq!(zoo.stats().expect("figures can be read").models, 2);
    let time = GrowBudget::Time(std::time::Duration::from_millis(1));
    assert_eq!(grow(&zoo, &GrowOptions { budget: time, ..options(1) }).trainings.len(), 1);
    assert_sound(&zoo);
}

const LINE: &str = "grow zoo colours --space small@32 --epochs 1 --benchmark none --json";

#[test]
fn a_killed_growth_goes_on() {
    let folder = zoo_of_one();
    let at = folder.path();
    let line: Vec<&str> = LINE.split(' ').collect();
    let mut child = command(at, &line).spawn().expect("the binary starts");
    let out = BufReader::new(child.stdout.take().expect("its output"));
    let first = out.lines().next().expect("a training").expect("text");
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    let printed = objects(&done(at, &format!("{LINE} --budget 2")).out);
    let [.., report] = &printed[..] else { panic!("a report") };
    assert!(report["datasets"][0]["known"].as_u64() >= Some(1), "{report}");
    let again = objects(&first)[0]["architecture"].clone();
    assert!(printed.iter().all(|it| it["architecture"] != again), "{again} {printed:?}");
    done(at, "check zoo");
}

#[test]
fn wrong_input_is_named() {
    let folder = zoo_of_one();
    let at = folder.path();
    done(at, "task add zoo seen colours");
    for (line, expected) in [
        ("grow zoo", &["DATASET"][..]),
        ("grow zoo colours --budget 0", &["at least 1 training", "found 0"]),
        ("grow zoo colours --budget 0s", &["above 0"]),
        ("grow zoo colours --budget -1", &["number of trainings", "-1"]),
        ("grow zoo colours --budget 3d", &["number of trainings", "3d"]),
        ("grow zoo colours --space large", &["small, mobilenetv3", "large"]),
        ("grow zoo colours --space small@48", &["small@64", "small@48"]),
        ("grow zoo task:seen", &["task:seen", "a zoo keeps no images"]),
        ("grow zoo nowhere", &["nowhere"]),
        ("grow zoo colours colours", &["datasets that differ"]),
        ("grow zoo colours --epochs 0", &["whole number from 1"]),
        ("grow zoo colours --budget 2 --learning-rate 1e30", &["loss is"]),
    ] {
        let answer = tans(at, line);
        assert_eq!(answer.code, Some(2), "tans {line}: {}{}", answer.out, answer.err);
        let missing = expected.iter().find(|part| !answer.err.contains(**part));
        assert!(missing.is_none(), "tans {line}: no {missing:?} in {}", answer.err);
    }
    assert_eq!(objects(&done(at, "list zoo --json").out).len(), 1, "nothing was stored");
}

#[test]
#[ignore = "trains 23 networks"]
fn a_space_that_is_spent_is_refused_with_its_name() {
    let folder = zoo_of_one();
    let at = folder.path();
    let table = done(at, &format!("{} --budget 100", LINE.trim_end_matches(" --json")));
    assert!(table.out.contains("0 of 23 networks on 1 dataset left"), "{}", table.out);
    let answer = tans(at, LINE);
    assert_eq!(answer.code, Some(2), "{answer:?}");
    assert!(answer.err.contains("all 23 networks of small@32 on colours"), "{}", answer.err);
}
