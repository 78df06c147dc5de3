//! Trainings that are stopped go on where they were, to the same result.

#![cfg(feature = "torch")]

#[path = "common/images.rs"]
mod images;

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use tans::{
    Benchmark, CheckOptions, Choice, Database, DatasetSource, Error, FinetuneOptions, FitOptions,
    IngestOptions, InitOptions, OpenOptions, Progress, Recipe, TrainOptions, TrainReport,
    TuningOptions, unobserved,
};
use tempfile::TempDir;

const EPOCHS: usize = 4;

fn zoo(at: &Path, cache: &Path) -> Database {
    let open = OpenOptions { cache_dir: Some(cache.to_owned()), ..OpenOptions::default() };
    let (zoo, _) = Database::init(at, &InitOptions::default(), open).expect("a zoo can be made");
    let (name, benchmark) = (Some("parent".to_owned()), Benchmark::None);
    let options = IngestOptions { name, benchmark, ..IngestOptions::default() };
    zoo.ingest("small:cnn-w16@32", &options, &mut unobserved).expect("a generated network");
    zoo
}

/// Fine-tunes until `stop` epochs are done; the epochs that were told, the id of the child, and how many of its epochs an
/// earlier training had done.
fn finetune(
    zoo: &Database,
    dataset: &Path,
    stop: usize,
) -> (Vec<usize>, Result<(String, usize), Error>) {
    let tuning = TuningOptions { epochs: Some(EPOCHS), patience: 0, ..TuningOptions::default() };
    let name = Some("child".to_owned());
    let benchmark = Benchmark::None;
    let options = FinetuneOptions { name, benchmark, tuning, ..FinetuneOptions::default() };
    let mut told = Vec::new();
    let mut observer = |progress: Progress| {
        if progress.step != "fine-tuning" {
            return ControlFlow::Continue(());
        }
        told.push(progress.done);
        if progress.done < stop { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    let source = DatasetSource::parse(&dataset.display().to_string());
    let done = zoo.finetune("parent", &source, &options, &mut observer);
    let child = done.map(|report| {
        let id = zoo.show(&report.model).expect("a model").summary.id.to_string();
        (id, report.resumed_epochs)
    });
    (told, child)
}

#[test]
fn a_stopped_finetuning_goes_on_to_the_same_network() {
    let folder = TempDir::new().expect("a temporary folder");
    let dataset = images::colours(&folder.path().join("colours"), 32, 12);
    let cache = folder.path().join("cache");
    let whole = zoo(&folder.path().join("whole"), &folder.path().join("no cache"));
    let (told, expected) = finetune(&whole, &dataset, usize::MAX);
    assert_eq!(told, [1, 2, 3, 4]);
    let (expected, resumed) = expected.expect("a child");
    assert_eq!(resumed, 0);

    let stopped = zoo(&folder.path().join("stopped"), &cache);
    let (told, cancelled) = finetune(&stopped, &dataset, 2);
    assert!(matches!(cancelled, Err(Error::Cancelled)), "{cancelled:?}");
    assert_eq!(told, [1, 2]);
    let (told, child) = finetune(&stopped, &dataset, usize::MAX);
    assert_eq!(told, [3, 4], "it begins where it was");
    assert_eq!(child.expect("a child"), (expected.clone(), 2));
    let left = || fs::read_dir(cache.join("trainings")).expect("a folder").flatten();
    assert_eq!(left().count(), 0, "what has ended leaves nothing");

    // A damaged state only costs time.
    let damaged = zoo(&folder.path().join("damaged"), &cache);
    let (_, cancelled) = finetune(&damaged, &dataset, 3);
    assert!(matches!(cancelled, Err(Error::Cancelled)), "{cancelled:?}");
    let file = left().next().expect("a state").path();
    let mut bytes = fs::read(&file).expect("a readable state");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).expect("a written state");
    let (told, child) = finetune(&damaged, &dataset, usize::MAX);
    assert_eq!((told, child.expect("a child")), (vec![1, 2, 3, 4], (expected, 0)));
    assert!(damaged.check(CheckOptions::default()).expect("the check runs").sound);
}

/// Trains until the fourth fold of the gate; how often it went on in the first fold, and the result.
fn train(zoo: &Database, stop: usize) -> (usize, Result<TrainReport, Error>) {
    let fit = FitOptions { recipe: Recipe::Tans2021, epochs: 8, ..FitOptions::default() };
    let options = TrainOptions { fit, choice: Choice::Named, force: true };
    let mut steps = 0;
    let mut observer = |progress: Progress| {
        steps += usize::from(progress.step == "held-out tasks" && progress.done == 0);
        if progress.done < stop { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    let done = zoo.train(&options, &mut observer);
    (steps, done)
}

#[test]
fn a_stopped_training_of_encoders_does_not_learn_again_what_it_had_learned() {
    let folder = TempDir::new().expect("a temporary folder");
    let cache = folder.path().join("cache");
    let starter = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/starter.tar");
    let made = |name: &str, cache_dir: Option<&Path>| {
        let open =
            OpenOptions { cache_dir: cache_dir.map(Path::to_owned), ..OpenOptions::default() };
        let options = InitOptions { starters: vec![starter.clone()] };
        Database::init(&folder.path().join(name), &options, open).expect("a zoo can be made").0
    };
    let (steps, whole) = train(&made("whole", None), usize::MAX);
    let whole = whole.expect("trained encoders").gate.expect("a judgement");
    let zoo = made("stopped", Some(&cache));
    let (first, cancelled) = train(&zoo, 3);
    assert!(matches!(cancelled, Err(Error::Cancelled)), "{cancelled:?}");
    assert_eq!(first, steps);
    let left = || fs::read_dir(cache.join("encoders")).expect("a folder").count();
    assert!(left() > 0);
    let (again, resumed) = train(&zoo, usize::MAX);
    assert!(again < first, "{again} {first}");
    let resumed = resumed.expect("trained encoders").gate.expect("a judgement");
    assert_eq!((resumed.loss, resumed.running_loss), (whole.loss, whole.running_loss));
    assert_eq!(left(), 0, "what has ended leaves nothing");
}
