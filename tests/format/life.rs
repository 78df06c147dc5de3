//! A zoo with something of everything, what the public API says of it, and then only files.

use super::bytes::{Id, hash};
use super::{images, library};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use tans::{
    Benchmark, Database, DatasetSource, EditOptions, FinetuneOptions, InitOptions, ListOptions,
    MeasureOptions, OpenOptions, SampleOptions, StarterOptions, TaskOptions, TrainOptions,
    TuningOptions, unobserved,
};
use tempfile::TempDir;

/// As many as make points above level 0 all but certain.
const REFERENCES: usize = 2_000;
const SIDE: u32 = 12;
const PER_CLASS: u32 = 8;

/// A zoo and all that was made of it; nobody has it open.
pub struct Written {
    pub zoo: PathBuf,
    pub backups: PathBuf,
    pub bundle: PathBuf,
    pub cache: PathBuf,
    pub rows: PathBuf,
    /// Hash and label of each image of the dataset `colours`.
    pub images: Vec<(Id, u32)>,
    pub said: Said,
    /// Name and text of the reader's file, then the text of the lock, while both were held.
    pub while_open: [String; 3],
    _folder: TempDir,
}

/// What the public API says.
pub struct Said {
    /// By name of the model.
    pub shows: BTreeMap<String, Value>,
    /// By name of the task.
    pub tasks: BTreeMap<String, Value>,
    pub stats: Value,
    /// By name of the model, references left out.
    pub weights: BTreeMap<String, Vec<Weight>>,
}

pub struct Weight {
    pub name: String,
    pub dtype: String,
    pub shape: Vec<u64>,
    pub bytes: Vec<u8>,
}

pub fn live() -> Written {
    let folder = TempDir::new().expect("a temporary folder");
    let at = folder.path().canonicalize().expect("the folder is there");
    let dataset = images::colours(&at.join("colours"), SIDE, PER_CLASS);
    let images = hashes(&dataset);
    let [path, backups, bundle, cache, rows] =
        ["zoo", "backups", "starter.tar", "cache", "colours.npz"].map(|name| at.join(name));
    let options = OpenOptions { cache_dir: Some(cache.clone()), ..OpenOptions::default() };
    let (zoo, _) =
        Database::init(&path, &InitOptions::default(), options).expect("a zoo can be made");
    networks(&zoo, &DatasetSource::Path(dataset.clone()));
    references(&zoo, &at);
    zoo.backup(&backups, &mut unobserved).expect("a backup");
    zoo.record("late", library::BENCHMARK_TASK, 0.25).expect("a result is recorded");
    zoo.backup(&backups, &mut unobserved).expect("a second backup");
    zoo.export_starter(&bundle, StarterOptions::default()).expect("a bundle");
    let source = DatasetSource::Path(dataset);
    zoo.encode(&source, &rows, &SampleOptions::default(), &mut unobserved).expect("rows");
    library::assert_sound(&zoo);
    let said = Said::of(&zoo);
    let while_open = while_open(&path);
    drop(zoo);
    Written { zoo: path, backups, bundle, cache, rows, images, said, while_open, _folder: folder }
}

fn while_open(zoo: &Path) -> [String; 3] {
    let options = OpenOptions { read_only: true, ..OpenOptions::default() };
    let _reader = Database::open(zoo, options).expect("a reader beside the writer");
    let readers = super::entries(&zoo.join("readers"));
    let [name] = &readers[..] else { panic!("one reader, and yet {readers:?}") };
    let [text, lock] = [zoo.join("readers").join(name), zoo.join("LOCK")]
        .map(|file| fs::read_to_string(file).expect("a text"));
    [name.clone(), text, lock]
}

/// Networks of all fates: edited, measured, fine-tuned, removed.
fn networks(zoo: &Database, colours: &DatasetSource) {
    library::ingest(zoo, "small:cnn-w16@32", &library::named("narrow", "MIT", "hands"));
    library::ingest(zoo, "small:cnn-w20@32", &library::named("middle", "Apache-2.0", "feet"));
    library::ingest(zoo, "small:cnn-w24@32", &library::named("wide", "MIT", "feet"));
    let tags = vec![("size".to_owned(), "s".to_owned())];
    let edit = EditOptions { name: Some("slim".into()), tags, ..EditOptions::default() };
    zoo.edit("narrow", &edit).expect("an edit");
    let paint = TaskOptions { family: Some("paint".into()), ..TaskOptions::default() };
    zoo.add_task("colours", colours, &paint, &mut unobserved).expect("a task");
    for accuracy in [0.5, 0.75] {
        zoo.record("slim", "colours", accuracy).expect("a result is recorded");
    }
    zoo.record("wide", "colours", 0.125).expect("a result is recorded");
    zoo.record("far", "their task", 0.7).expect("a result is recorded");
    zoo.record("far", "forgotten", 0.6).expect("a result is recorded");
    zoo.remove_task("forgotten").expect("a removal");
    let slim = ["slim".to_owned()];
    zoo.measure(&slim, colours, &MeasureOptions::default(), &mut unobserved).expect("a probe");
    let child = FinetuneOptions {
        tuning: TuningOptions { epochs: Some(1), ..TuningOptions::default() },
        name: Some("child".into()),
        benchmark: Benchmark::None,
        ..FinetuneOptions::default()
    };
    zoo.finetune("middle", colours, &child, &mut unobserved).expect("a child");
    zoo.remove(&["wide".to_owned()]).expect("a removal");
    zoo.train(&TrainOptions::default(), &mut unobserved).expect("new encoders");
}

/// Many results of models that lie elsewhere, of some of which the size is known; then a merge.
fn references(zoo: &Database, folder: &Path) {
    let mut csv = "model,dataset,accuracy,params\n".to_owned();
    for number in 0..REFERENCES {
        let params = if number % 3 == 0 { String::new() } else { (1 + number / 2).to_string() };
        let accuracy = number as f32 / REFERENCES as f32;
        writeln!(csv, "m{number},{},{accuracy},{params}", library::BENCHMARK_TASK).expect("text");
    }
    let file = folder.join("results.csv");
    fs::write(&file, csv).expect("the tempdir takes files");
    zoo.record_file(&file, &mut unobserved).expect("sound results");
    // The write has started a merge in the background, or else this call makes it.
    zoo.merge(&mut unobserved).expect("a merge");
    assert_eq!(zoo.stats().expect("figures").fresh_vectors, 0);
}

/// Labels are the positions of the class folders in order.
fn hashes(dataset: &Path) -> Vec<(Id, u32)> {
    let mut images = Vec::new();
    for (label, class) in (0..).zip(super::entries(dataset)) {
        let class = dataset.join(class);
        for name in super::entries(&class) {
            let image = image::open(class.join(name)).expect("an image").to_rgb8();
            let [width, height] =
                [image.width(), image.height()].map(|side| u64::from(side).to_le_bytes());
            images.push((hash(&[&width, &height, &3u64.to_le_bytes(), image.as_raw()]), label));
        }
    }
    images
}

impl Said {
    fn of(zoo: &Database) -> Self {
        let models = zoo.list(&ListOptions::default()).expect("models");
        let (mut shows, mut weights) = (BTreeMap::new(), BTreeMap::new());
        for model in models {
            let show = zoo.show(&model.model).expect("a listed model");
            let mut value = serde_json::to_value(&show).expect("an object");
            let mut results: Vec<(&str, &str, u32)> = show
                .results
                .iter()
                .map(|result| (&*result.task, result.kind, result.accuracy.to_bits()))
                .collect();
            results.sort_unstable();
            value["results"] = serde_json::json!(results);
            if show.uri.is_none() {
                let list = zoo.weights(&model.model).expect("weights of a stored network");
                let list = list.into_iter().map(|(name, tensor)| Weight {
                    name,
                    dtype: format!("{:?}", tensor.dtype()),
                    shape: tensor.shape().iter().map(|side| *side as u64).collect(),
                    bytes: tensor.bytes().to_vec(),
                });
                weights.insert(model.model.clone(), list.collect());
            }
            shows.insert(model.model, value);
        }
        let tasks = zoo.tasks().expect("tasks").into_iter();
        let tasks = tasks
            .map(|task| (task.task.clone(), serde_json::to_value(&task).expect("an object")))
            .collect();
        let stats = serde_json::to_value(zoo.stats().expect("figures")).expect("an object");
        Self { shows, tasks, stats, weights }
    }
}

/// Copies a folder with all that is in it.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a copy");
        }
    }
}
