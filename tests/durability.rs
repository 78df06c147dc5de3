//! Readers beside a writer, damaged derived files, and the commands that keep a zoo in shape.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use tans::{
    CheckOptions, Database, DatasetSource, EditOptions, InitOptions, ListOptions, OpenOptions,
    QueryOptions, unobserved,
};
use tempfile::TempDir;

const TASK: &str = "benchmark/font_style";

fn new_zoo() -> (TempDir, PathBuf, Database) {
    let folder = TempDir::new().expect("a temporary folder");
    let path = folder.path().join("zoo");
    let (zoo, _) = Database::init(&path, &InitOptions::default(), OpenOptions::default())
        .expect("a zoo can be made");
    (folder, path, zoo)
}

fn read(path: &Path) -> Database {
    let options = OpenOptions { read_only: true, ..OpenOptions::default() };
    Database::open(path, options).expect("the zoo opens for reading")
}

/// Names and cosines of the first hits.
fn hits(zoo: &Database, k: usize) -> Vec<(String, f32)> {
    let options = QueryOptions { k, ..QueryOptions::default() };
    let answer =
        zoo.query(&DatasetSource::Task(TASK.into()), &options, &mut unobserved).expect("an answer");
    answer.hits.into_iter().map(|hit| (hit.model, hit.predicted_accuracy)).collect()
}

fn names(zoo: &Database) -> Vec<String> {
    let mut names: Vec<String> = hits(zoo, 100).into_iter().map(|(name, _)| name).collect();
    names.sort();
    names
}

fn assert_sound(zoo: &Database) {
    let report = zoo.check(CheckOptions::default()).expect("the check runs");
    assert!(report.sound, "{:?}", report.findings);
}

/// References with results on three tasks, so that their vectors differ.
fn record_references(folder: &Path, zoo: &Database, count: usize) {
    let mut csv = String::from("model,dataset,accuracy\n");
    for model in 0..count {
        for (at, task) in ["font_style", "clipart_food", "icons_colour"].iter().enumerate() {
            let accuracy = ((model * 7919 + at * 104_729) % 9973) as f32 / 9973.0;
            csv += &format!("reference-{model},benchmark/{task},{accuracy}\n");
        }
    }
    let path = folder.join("results.csv");
    fs::write(&path, csv).expect("a file can be written");
    zoo.record_file(&path, &mut unobserved).expect("results can be recorded");
}

#[test]
fn a_reader_follows_the_writer_through_every_kind_of_change() {
    let (_folder, path, zoo) = new_zoo();
    let reader = read(&path);
    assert_eq!(names(&reader), Vec::<String>::new());
    zoo.record("a", TASK, 0.5).expect("a result");
    zoo.record("b", TASK, 0.6).expect("a result");
    assert_eq!(names(&reader), ["a", "b"]);
    let rename = EditOptions { name: Some("c".into()), ..EditOptions::default() };
    zoo.edit("a", &rename).expect("an edit");
    assert_eq!(names(&reader), ["b", "c"]);
    zoo.record("c", TASK, 0.9).expect("a better result");
    assert_eq!(hits(&reader, 2), hits(&zoo, 2));
    let generation = zoo.reindex(&mut unobserved).expect("a new generation").generation;
    assert_eq!(names(&reader), ["b", "c"]);
    assert_eq!(reader.stats().expect("figures").generation, generation);
    zoo.remove(&["b".into()]).expect("a removal");
    zoo.record("d", TASK, 0.1).expect("a result");
    assert_eq!(names(&reader), ["c", "d"]);
    assert_eq!(hits(&reader, 2), hits(&zoo, 2));
    assert_sound(&reader);
}

#[test]
fn damaged_encoders_are_made_again() {
    let (folder, path, zoo) = new_zoo();
    record_references(folder.path(), &zoo, 20);
    // The encoders are the last large tensor, so they end the pack.
    zoo.reindex(&mut unobserved).expect("a new generation");
    let before = hits(&zoo, 5);
    drop(zoo);
    let pack = path.join("packs/000001.pack");
    let mut bytes = fs::read(&pack).expect("the pack");
    let at = bytes.len() - 300;
    bytes[at] ^= 1;
    fs::write(&pack, bytes).expect("a file can be written");

    let reader = read(&path);
    assert_eq!(hits(&reader, 5).len(), before.len(), "a reader answers without writing");
    assert!(!reader.check(CheckOptions::default()).expect("the check runs").sound);
    drop(reader);
    let zoo = Database::open(&path, OpenOptions::default()).expect("the zoo opens");
    assert_eq!(names(&zoo).len(), 20);
    zoo.gc(&mut unobserved).expect("the damaged encoders go");
    assert_sound(&zoo);
    let found = hits(&zoo, 5);
    drop(zoo);
    assert_eq!(hits(&read(&path), 5), found, "what was made again is stored");
}

/// Records do not depend on packs: what they say can be read, changed and asked for.
#[test]
fn a_zoo_opens_without_its_packs() {
    let (folder, path, zoo) = new_zoo();
    record_references(folder.path(), &zoo, 5);
    let known = names(&zoo);
    drop(zoo);
    for pack in fs::read_dir(path.join("packs")).expect("packs are there").flatten() {
        fs::OpenOptions::new()
            .write(true)
            .open(pack.path())
            .and_then(|pack| pack.set_len(100))
            .expect("a file can be cut");
    }
    let reader = read(&path);
    let list = |zoo: &Database| -> Vec<String> {
        let mut models: Vec<String> = zoo
            .list(&ListOptions::default())
            .expect("models can be read")
            .into_iter()
            .map(|model| model.model)
            .collect();
        models.sort();
        models
    };
    assert_eq!(list(&reader), known);
    drop(reader);
    let zoo = Database::open(&path, OpenOptions::default()).expect("the zoo opens");
    zoo.remove(&["reference-0".into()]).expect("a model can be removed");
    assert_eq!(list(&zoo), known[1..]);
    assert!(!zoo.check(CheckOptions::default()).expect("the check runs").sound);
}

/// The encoders stay the same, and so must every answer, whichever generation gives it.
#[test]
fn a_query_beside_an_install_keeps_the_vectors_of_its_generation() {
    let (folder, _path, zoo) = new_zoo();
    record_references(folder.path(), &zoo, 60);
    let answer = hits(&zoo, 100);
    std::thread::scope(|threads| {
        let installing = threads.spawn(|| {
            for _ in 0..20 {
                zoo.reindex(&mut unobserved).expect("new encoders are installed");
            }
        });
        while !installing.is_finished() {
            assert_eq!(hits(&zoo, 100), answer);
        }
        installing.join().expect("no panic");
    });
}

#[test]
fn a_segment_that_is_damaged_or_gone_costs_no_answer() {
    let (folder, path, zoo) = new_zoo();
    record_references(folder.path(), &zoo, 2_100);
    zoo.reindex(&mut unobserved).expect("a segment");
    zoo.record("late", TASK, 0.77).expect("a result after the segment");
    let before = hits(&zoo, 10);
    drop(zoo);
    let segments: Vec<PathBuf> = fs::read_dir(path.join("segments"))
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    let [segment] = &segments[..] else { panic!("expected one segment, found {segments:?}") };
    let sound = fs::read(segment).expect("the segment");
    assert_eq!(hits(&read(&path), 10), before);
    let flipped = |at: usize| {
        let mut bytes = sound.clone();
        bytes[at] ^= 1;
        Some(bytes)
    };
    // In the header, and in vectors, codes and links.
    let flips = (0..12).map(|part| flipped(40 + part * (sound.len() / 12)));
    let cut = [Some(sound[..sound.len() / 2].to_vec()), Some(vec![]), None];
    for damaged in flips.chain(cut) {
        match damaged {
            Some(bytes) => fs::write(segment, bytes).expect("a file can be written"),
            None => fs::remove_file(segment).expect("a file can be removed"),
        }
        assert_eq!(hits(&read(&path), 10), before);
    }
    let zoo = Database::open(&path, OpenOptions::default()).expect("the zoo opens");
    assert_eq!(hits(&zoo, 10), before);
    zoo.reindex(&mut unobserved).expect("a new segment");
    assert_sound(&zoo);
}

#[test]
fn what_is_recorded_while_a_generation_is_made_is_part_of_it() {
    let (folder, path, zoo) = new_zoo();
    record_references(folder.path(), &zoo, 300);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..2)
            .map(|writer| {
                let zoo = zoo.clone();
                scope.spawn(move || {
                    for round in 0..40 {
                        // Both record on names that the other may be making at that moment.
                        zoo.record(&format!("both-{round}"), TASK, 0.5).expect("a result");
                        zoo.record(&format!("own-{writer}-{round}"), TASK, 0.25).expect("a result");
                    }
                })
            })
            .collect();
        while writers.iter().any(|writer| !writer.is_finished()) {
            zoo.reindex(&mut unobserved).expect("a new generation");
            assert_sound(&zoo);
        }
    });
    let before = hits(&zoo, 1000);
    assert_eq!(before.len(), 300 + 40 + 80);
    drop(zoo);
    let again = Database::open(&path, OpenOptions::default()).expect("the zoo opens");
    assert_eq!(hits(&again, 1000), before);
}

#[test]
fn collecting_backing_up_and_restoring_keep_every_answer() {
    let (folder, path, zoo) = new_zoo();
    record_references(folder.path(), &zoo, 30);
    let removed: Vec<String> = (0..10).map(|model| format!("reference-{model}")).collect();
    zoo.remove(&removed).expect("a removal");
    zoo.reindex(&mut unobserved).expect("a new generation");
    let before = hits(&zoo, 30);
    assert_eq!(before.len(), 20);
    zoo.gc(&mut unobserved).expect("a collection");
    assert_eq!(hits(&zoo, 30), before);
    let backups = folder.path().join("backups");
    zoo.backup(&backups, &mut unobserved).expect("a backup");
    zoo.remove(&["reference-11".into()]).expect("a removal");
    let second = zoo.backup(&backups, &mut unobserved).expect("a second backup");
    assert!(second.bytes_copied < second.bytes, "{second:?}");
    let restored = folder.path().join("restored");
    let report = Database::restore(&backups.join("000001"), &restored, &mut unobserved);
    assert!(report.expect("a restore").damages.is_empty());
    let zoo = Database::open(&restored, OpenOptions::default()).expect("the zoo opens");
    assert_eq!(hits(&zoo, 30), before);
    assert_sound(&zoo);
    let stopped = zoo.backup(&backups, &mut |_| ControlFlow::Break(()));
    assert!(matches!(stopped, Err(tans::Error::Cancelled)), "{stopped:?}");
    drop(path);
}
