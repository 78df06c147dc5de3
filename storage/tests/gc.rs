//! Collecting: what no record names goes, everything else stays readable, also for readers that are
//! behind.

mod common;

use common::{BACKBONE, assert_sound, model, put_blob, task};
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use tans_storage::{
    Batch, Dtype, GcReport, GenerationRecord, HashedTensor, Mode, NewTensor, Store, TensorId,
};

fn gc(store: &Store) -> GcReport {
    store.gc(&mut |_, _| ControlFlow::Continue(())).expect("gc")
}

/// The bytes of blob `n`: every one too large for a record.
fn bytes(n: u8) -> Vec<u8> {
    (0..20_000u32).map(|at| (at % 251) as u8 ^ n).collect()
}

/// A zoo with the models m0, m1, ... of one blob each.
fn zoo_of(zoo: &Path, models: u8) -> (Store, Vec<TensorId>) {
    let store = Store::create(zoo, BACKBONE).expect("create");
    let mut ids = Vec::new();
    for n in 0..models {
        ids.push(put_blob(&store, &bytes(n)));
        let mut batch = Batch::new();
        batch.put_model(&model(u64::from(n), &format!("m{n}"), &[ids[usize::from(n)]]));
        batch.put_task(&task(n, &format!("t{n}")));
        store.commit(batch).expect("commit");
    }
    (store, ids)
}

fn remove(store: &Store, rows: impl Iterator<Item = u64>) {
    let mut batch = Batch::new();
    rows.for_each(|row| batch.remove_model(row));
    store.commit(batch).expect("commit");
}

fn packs(zoo: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(zoo.join("packs"))
        .expect("list")
        .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn packs_that_are_mostly_dead_are_rewritten_and_others_left() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let zoo = folder.path().join("zoo");
    let (store, ids) = zoo_of(&zoo, 10);
    assert_eq!(store.stats().expect("stats").dead_bytes, 0);
    remove(&store, 0..4);
    assert_eq!(store.stats().expect("stats").dead_bytes, 4 * 20_032 - 32, "the end is not padded");
    let report = gc(&store);
    assert_eq!((report.tensors_dropped, report.packs_deleted), (4, 0), "{report:?}");
    assert_eq!(packs(&zoo), ["000001.pack"]);
    remove(&store, 4..8);
    let before = store.tensor(ids[8]).expect("mapped before");
    let report = gc(&store);
    assert_eq!((report.tensors_dropped, report.tensors_moved), (4, 2), "{report:?}");
    assert_eq!((report.bytes_moved, report.packs_deleted), (40_000, 1), "{report:?}");
    assert_eq!(packs(&zoo), ["000002.pack"]);
    for (store, n) in [(&store, 8u8), (&store, 9)] {
        assert_eq!(store.tensor(ids[usize::from(n)]).expect("tensor").as_ref(), bytes(n));
    }
    assert_eq!(before.as_ref(), bytes(8), "what was mapped before stays");
    assert!(store.tensor(ids[0]).is_err());
    assert_eq!(gc(&store), GcReport::default(), "a second collection finds nothing");
    assert_sound(&store);
    drop(store);
    let store = Store::open(&zoo, Mode::Write).expect("open");
    assert_eq!(store.tensor(ids[9]).expect("tensor").as_ref(), bytes(9));
    assert_sound(&store);
}

#[test]
fn a_pack_number_is_never_used_again() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let zoo = folder.path().join("zoo");
    let (store, _) = zoo_of(&zoo, 2);
    remove(&store, 0..2);
    assert_eq!(gc(&store).packs_deleted, 1);
    drop(store);
    let store = Store::open(&zoo, Mode::Write).expect("open");
    let id = put_blob(&store, &bytes(5));
    assert_eq!(packs(&zoo), ["000002.pack"]);
    assert_eq!(store.tensor(id).expect("tensor").as_ref(), bytes(5));
}

#[test]
fn what_is_put_but_not_yet_committed_is_left_alone() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let (store, ids) = zoo_of(&folder.path().join("zoo"), 3);
    remove(&store, 0..3);
    // Dead in the store, and put again: its record is there, and its new user comes later.
    let again = put_blob(&store, &bytes(0));
    let fresh = put_blob(&store, &bytes(7));
    let report = gc(&store);
    assert_eq!(report.tensors_dropped, 2, "{report:?}");
    let mut batch = Batch::new();
    batch.put_model(&model(5, "late", &[again, fresh]));
    store.commit(batch).expect("commit");
    gc(&store);
    assert_eq!(again, ids[0]);
    assert_eq!(store.tensor(again).expect("tensor").as_ref(), bytes(0));
    assert_eq!(store.tensor(fresh).expect("tensor").as_ref(), bytes(7));
    assert_sound(&store);
}

#[test]
fn what_one_operation_holds_outlives_the_models_of_another() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = Store::create(&folder.path().join("zoo"), BACKBONE).expect("create");
    let blob = bytes(3);
    let shape = [blob.len()];
    let hashed = HashedTensor::new(NewTensor { dtype: Dtype::U8, shape: &shape, bytes: &blob });
    let commit = |row: u64| {
        let mut batch = Batch::new();
        batch.put_model(&model(row, &format!("m{row}"), &[hashed.id()]));
        store.commit(batch).expect("commit");
    };
    let mut slow = store.staging();
    slow.put(std::slice::from_ref(&hashed)).expect("put");
    let mut fast = store.staging();
    fast.put(std::slice::from_ref(&hashed)).expect("put");
    commit(0);
    drop(fast);
    remove(&store, 0..1);
    assert_eq!(gc(&store).tensors_dropped, 0);
    commit(1);
    drop(slow);
    assert_eq!(gc(&store), GcReport::default());
    assert_eq!(store.tensor(hashed.id()).expect("tensor").as_ref(), bytes(3));
    remove(&store, 1..2);
    let report = gc(&store);
    assert_eq!((report.tensors_dropped, report.packs_deleted), (1, 1), "{report:?}");
    assert_sound(&store);
}

#[test]
fn a_pack_is_kept_until_every_reader_has_passed() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let zoo = folder.path().join("zoo");
    let (store, ids) = zoo_of(&zoo, 4);
    let reader = Store::open(&zoo, Mode::Read).expect("open");
    remove(&store, 0..3);
    let report = gc(&store);
    assert_eq!((report.packs_deleted, report.files_kept_for_readers), (0, 1), "{report:?}");
    // It has not caught up, so it still reads the old place.
    assert_eq!(reader.tensor(ids[0]).expect("removed since").as_ref(), bytes(0));
    reader.refresh().expect("refresh");
    assert_eq!(gc(&store).packs_deleted, 1);
    assert_eq!(reader.tensor(ids[3]).expect("moved").as_ref(), bytes(3));
    drop(reader);
    // A reader that was killed leaves a file that nobody holds.
    fs::write(zoo.join("readers/1-0"), "00000000000000000000\n").expect("write");
    remove(&store, 3..4);
    assert_eq!(gc(&store).packs_deleted, 1);
    assert_eq!(fs::read_dir(zoo.join("readers")).expect("list").count(), 0);
}

#[test]
fn a_reader_that_could_not_register_finds_moved_tensors() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let zoo = folder.path().join("zoo");
    let (store, ids) = zoo_of(&zoo, 4);
    fs::remove_dir(zoo.join("readers")).expect("remove");
    fs::write(zoo.join("readers"), "no folder").expect("write");
    let reader = Store::open(&zoo, Mode::Read).expect("open");
    fs::remove_file(zoo.join("readers")).expect("remove");
    remove(&store, 0..3);
    assert_eq!(gc(&store).packs_deleted, 1);
    assert_eq!(reader.tensor(ids[3]).expect("moved").as_ref(), bytes(3));
}

#[test]
fn a_damaged_tensor_is_not_copied_over() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let zoo = folder.path().join("zoo");
    let (store, ids) = zoo_of(&zoo, 5);
    remove(&store, 0..3);
    drop(store);
    let pack = zoo.join("packs/000001.pack");
    let mut content = fs::read(&pack).expect("read");
    let last = content.len() - 1;
    content[last] ^= 1;
    fs::write(&pack, content).expect("write");
    let store = Store::open(&zoo, Mode::Write).expect("open");
    let report = gc(&store);
    assert_eq!((report.tensors_moved, report.tensors_damaged), (1, 1), "{report:?}");
    assert!(pack.exists());
    assert_eq!(store.tensor(ids[3]).expect("moved").as_ref(), bytes(3));
    assert_eq!(store.check().expect("check").damages.len(), 1);
}

#[test]
fn collecting_beside_writers_and_readers_loses_nothing() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let zoo = folder.path().join("zoo");
    let (store, ids) = zoo_of(&zoo, 8);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for n in 8..60u8 {
                let id = put_blob(&store, &bytes(n));
                let mut batch = Batch::new();
                batch.put_model(&model(u64::from(n), &format!("m{n}"), &[id]));
                batch.remove_model(u64::from(n) - 7);
                store.commit(batch).expect("commit");
                let kept = store.tensor(ids[0]).expect("the first model stays");
                assert_eq!(kept.as_ref(), bytes(0));
            }
        });
        while !writer.is_finished() {
            gc(&store);
        }
    });
    assert_sound(&store);
    assert_eq!(store.models().expect("models").count(), 8);
    gc(&store);
    let living = 8 * 20_032;
    let size: u64 = packs(&zoo)
        .iter()
        .map(|name| fs::metadata(zoo.join("packs").join(name)).expect("pack").len())
        .sum();
    assert!(size <= 3 * living, "{size} bytes for {living} living ones");
}

#[test]
fn old_segments_and_left_over_files_go() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let zoo = folder.path().join("zoo");
    let (store, _) = zoo_of(&zoo, 1);
    let mut batch = Batch::new();
    batch.put_encoder(&tans_storage::EncoderRecord {
        number: 0,
        fingerprint: [0; 32],
        blob: put_blob(&store, b"encoders"),
        recipe: String::new(),
        notes: String::new(),
        created: 0,
    });
    let segment = Some("0000000003.segment".to_owned());
    batch.install_generation(&GenerationRecord { number: 3, encoder: 0, segment, sequence: 0 });
    store.commit(batch).expect("commit");
    let names = ["0000000002.segment", "0000000003.segment", "0000000004.segment"];
    for name in names.iter().chain(&[".0000000002.segment.1-0.tmp"]) {
        fs::write(store.segment_path(name), "segment").expect("write");
    }
    let report = gc(&store);
    assert_eq!(report.bytes_freed, 14, "{report:?}");
    let left = names.map(|name| store.segment_path(name).exists());
    assert_eq!(left, [false, true, true], "the next one may be about to be installed");
}
