//! Power cuts between writes of several threads. The durable image of a file is as long as the file was when its last
//! completed sync began: a cut leaves that of the log and of the packs, and nothing more. What was acknowledged before
//! the cut is in it, each commit as a whole, and no record names bytes that were lost.
#![cfg(feature = "failpoints")]

mod common;

use common::{BACKBONE, assert_sound, model, put_blob, task};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tans_storage::{Batch, Mode, PairKind, Store, TaskId};

const THREADS: u64 = 8;
const COMMITS: u64 = 25;

/// Lengths of the files with this suffix in a folder.
fn lengths(folder: &Path, suffix: &str) -> BTreeMap<PathBuf, u64> {
    let entries = fs::read_dir(folder).expect("list").map(|entry| entry.expect("entry").path());
    let of_kind = entries.filter(|path| path.extension().is_some_and(|found| found == suffix));
    of_kind.map(|path| (path.clone(), path.metadata().map_or(0, |found| found.len()))).collect()
}

/// Keeps the durable lengths of the files of a folder by the steps before and after their sync.
fn follow(
    zoo: &Path,
    (folder, suffix): (&str, &'static str),
    [before, after]: [&str; 2],
) -> Arc<Mutex<BTreeMap<PathBuf, u64>>> {
    let folder = zoo.join(folder);
    let durable = Arc::new(Mutex::new(lengths(&folder, suffix)));
    let begun = Arc::new(Mutex::new(BTreeMap::new()));
    let (noted, promoted) = (begun.clone(), durable.clone());
    fail::cfg_callback(before, move || {
        *noted.lock().expect("unharmed") = lengths(&folder, suffix);
    })
    .expect("a step");
    fail::cfg_callback(after, move || {
        promoted.lock().expect("unharmed").extend(begun.lock().expect("unharmed").clone());
    })
    .expect("a step");
    durable
}

/// Copies a zoo as a power cut would leave it.
fn cut(zoo: &Path, to: &Path, durable: &BTreeMap<PathBuf, u64>) {
    for folder in ["", "db", "packs", "segments", "readers"] {
        fs::create_dir_all(to.join(folder)).expect("a folder");
        for entry in fs::read_dir(zoo.join(folder)).expect("list") {
            let path = entry.expect("entry").path();
            if path.is_file() && path.file_name().is_some_and(|name| name != "LOCK") {
                let copy = to.join(folder).join(path.file_name().expect("a name"));
                fs::copy(&path, &copy).expect("copy");
                let is_truth = path.extension().is_some_and(|kind| kind == "log" || kind == "pack");
                if is_truth {
                    let file = fs::OpenOptions::new().write(true).open(&copy).expect("open");
                    file.set_len(durable.get(&path).copied().unwrap_or(0)).expect("cut");
                }
            }
        }
    }
}

#[test]
fn a_power_cut_takes_nothing_that_was_acknowledged() {
    let _scenario = fail::FailScenario::setup();
    let folder = tempfile::tempdir().expect("temporary folder");
    let zoo = folder.path().join("zoo");
    let store = Store::create(&zoo, BACKBONE).expect("create");
    let mut batch = Batch::new();
    batch.put_task(&task(1, "task"));
    store.commit(batch).expect("commit");
    store.sync_tensors().expect("sync");
    let log = follow(&zoo, ("db", "log"), ["commit/sync", "commit/synced"]);
    let packs = follow(&zoo, ("packs", "pack"), ["pack/sync", "pack/synced"]);
    let acknowledged = Mutex::new(BTreeSet::new());
    let (cuts, next_row) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let cut_now = || {
        // First what was acknowledged, then the image: what comes between may be in it.
        let promised = acknowledged.lock().expect("unharmed").clone();
        let mut durable = log.lock().expect("unharmed").clone();
        durable.extend(packs.lock().expect("unharmed").clone());
        let at = folder.path().join(format!("cut-{}", cuts.fetch_add(1, Ordering::SeqCst)));
        cut(&zoo, &at, &durable);
        (at, promised)
    };
    let images = std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..COMMITS {
                    let row = next_row.fetch_add(1, Ordering::SeqCst) as u64;
                    let blob = put_blob(&store, &row.to_le_bytes().repeat(700));
                    let mut batch = Batch::new();
                    batch.put_model(&model(row, &format!("m{row}"), &[blob]));
                    batch.put_pair(TaskId([1; 32]), row, PairKind::Probe, 0.5);
                    store.commit(batch).expect("commit");
                    acknowledged.lock().expect("unharmed").insert(row);
                }
            });
        }
        let mut images = Vec::new();
        while acknowledged.lock().expect("unharmed").len() < (THREADS * COMMITS) as usize {
            images.push(cut_now());
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        images
    });
    assert!(images.iter().any(|(_, promised)| promised.len() > 8), "{} cuts", images.len());
    for (at, promised) in images {
        let store = Store::open(&at, Mode::Write).expect("the zoo opens");
        assert_sound(&store);
        let found: BTreeSet<u64> =
            store.models().expect("models").map(|model| model.expect("a record").row).collect();
        assert!(found.is_superset(&promised), "{promised:?} became {found:?}");
        for &row in &found {
            assert_eq!(store.pairs_of_model(row).expect("pairs").len(), 1, "half of a commit");
        }
    }
}
