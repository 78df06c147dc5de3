//! Flipped bits in every kind of file: an error that says where, or the right answer; never a wrong
//! one and never a panic.

#![cfg(feature = "failpoints")]

#[path = "common/folders.rs"]
mod folders;
#[path = "common/records.rs"]
mod records;
#[path = "common/script.rs"]
mod script;

use folders::copy;
use records::{BACKBONE, task};
use script::{Life, Place, Random, State, apply, folder, survive, try_observe};
use std::fs;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use tans_storage::{Batch, Error, Mode, Store};

/// A closed zoo that has been through everything, and what it holds.
fn lived(place: &Place) -> State {
    // This life ends with a generation, accuracies, removed models and a rewritten pack.
    let life = Life::new(8);
    let mut store = None;
    for (at, operation) in life.operations.iter().enumerate() {
        apply(place, &mut store, &life.states[at], operation).expect("nothing fails here");
    }
    drop(store);
    let state = life.states[life.operations.len()].clone();
    assert!(state.generation.is_some() && state.models.len() > 5, "{state:?}");
    let copied = tempfile::tempdir().expect("temporary folder");
    copy(&place.0, copied.path());
    survive(&Place(copied.path().to_owned()), &[&state], &life.states.iter().collect::<Vec<_>>());
    state
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("list") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            files(&path, found);
        } else if path.metadata().expect("inspect").len() > 0 {
            found.push(path);
        }
    }
    found.sort();
}

/// Flips one bit of a copy and reads all of it; returns whether that was noticed.
fn flip(zoo: &Path, state: &State, file: &Path, bit: u64) -> bool {
    let folder = folder();
    let copied = folder.path().join("zoo");
    copy(zoo, &copied);
    let damaged = copied.join(file.strip_prefix(zoo).expect("a file of the zoo"));
    let mut bytes = fs::read(&damaged).expect("read");
    bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
    fs::write(&damaged, bytes).expect("write");
    let mut noticed = false;
    for mode in [Mode::Read, Mode::Write] {
        let read = Store::open(&copied, mode).and_then(|store| {
            let read = std::panic::catch_unwind(AssertUnwindSafe(|| try_observe(&store)));
            let found = read.unwrap_or_else(|_| panic!("{file:?}, bit {bit}, {mode:?}"))?;
            noticed |= !store.check()?.damages.is_empty();
            Ok(found)
        });
        match read {
            Ok(found) => assert_eq!(found, *state, "{file:?}, bit {bit}, {mode:?}"),
            Err(Error::Invalid(what)) => panic!("{file:?}, bit {bit}, {mode:?}: {what}"),
            Err(_) => noticed = true,
        }
    }
    noticed
}

/// Flips `count` random bits of the files that `chosen` picks; returns how many were noticed.
fn flips(count: usize, chosen: impl Fn(&str) -> bool) -> usize {
    let folder = folder();
    let place = Place(folder.path().to_owned());
    let state = lived(&place);
    let mut all = Vec::new();
    files(&place.zoo(), &mut all);
    all.retain(|path| chosen(&path.strip_prefix(place.zoo()).expect("inside").to_string_lossy()));
    assert!(!all.is_empty());
    let mut random = Random(1);
    let noticed = (0..count).filter(|_| {
        let file = &all[random.below(all.len())];
        let bits = file.metadata().expect("inspect").len() * 8;
        flip(&place.zoo(), &state, file, random.next() % bits)
    });
    noticed.count()
}

fn is_table(path: &str) -> bool {
    path.ends_with(".sst")
}

fn is_pack(path: &str) -> bool {
    path.starts_with("packs/")
}

/// Commits of the killed zoo, each of one task.
const COMMITS: u8 = 40;

/// A copy of a zoo that was never closed: its commits are in the log.
fn killed(zoo: &Path) {
    let folder = folder();
    let living = folder.path().join("zoo");
    let store = Store::create(&living, BACKBONE).expect("create");
    for number in 0..COMMITS {
        let mut task = task(number, &format!("task {number}"));
        task.class_names = vec!["class".repeat(40 * usize::from(number))];
        let mut batch = Batch::new();
        batch.put_task(&task);
        store.commit(batch).expect("commit");
    }
    copy(&living, zoo);
}

/// Flips `count` random bits of the log that a crash left; returns how many were noticed. The last commit alone may be
/// taken for a torn end, because nothing was written after it.
fn flips_after_a_crash(count: usize) -> usize {
    let folder = folder();
    let zoo = folder.path().join("zoo");
    killed(&zoo);
    let mut all = Vec::new();
    files(&zoo.join("db"), &mut all);
    all.retain(|path| path.extension().is_some_and(|kind| kind == "log"));
    let log = fs::read(&all[0]).expect("read");
    assert!(all.len() == 1 && log.len() > 64 << 10, "several blocks: {all:?}, {}", log.len());
    let mut random = Random(2);
    let noticed = (0..count).filter(|_| {
        let bit = random.below(log.len() * 8);
        let mut flipped = log.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let copied = folder.path().join("copied");
        copy(&zoo, &copied);
        fs::write(copied.join("db").join(all[0].file_name().expect("a name")), flipped)
            .expect("write");
        let found = [Mode::Read, Mode::Write]
            .map(|mode| Store::open(&copied, mode).and_then(|store| Ok(store.tasks()?.len())));
        fs::remove_dir_all(&copied).expect("remove");
        match found {
            [Err(Error::Corrupt { .. }), Err(Error::Corrupt { .. })] => true,
            // RocksDB's readers do not open what is torn; a writer mends it.
            [Err(Error::Corrupt { what, .. }), Ok(written)] => {
                assert!(what.contains("once for writing"), "bit {bit}: {what}");
                assert!(written + 1 == usize::from(COMMITS), "bit {bit}: {written} commits");
                false
            }
            [Ok(read), Ok(written)] if read.min(written) + 1 >= COMMITS.into() => false,
            found => panic!("bit {bit}: {found:?}"),
        }
    });
    noticed.count()
}

#[test]
fn flipped_bits_in_the_log_of_a_crash_are_noticed() {
    assert!(flips_after_a_crash(60) >= 40);
}

/// Neither data nor the engine's: small files that say where everything is.
fn is_manifest(path: &str) -> bool {
    !is_table(path) && !is_pack(path) && !path.starts_with("segments/")
}

#[test]
fn flipped_bits_in_packs_tables_and_manifests_are_noticed_or_harmless() {
    let noticed = [flips(12, is_pack), flips(12, is_table), flips(12, is_manifest)];
    // Most bytes of packs are weights in use, and every block of a table has a checksum.
    assert!(noticed[0] >= 6 && noticed[1] >= 6, "{noticed:?}");
}

#[test]
#[ignore = "minutes; run by make torture"]
fn ten_thousand_flipped_bits() {
    flips(4_000, is_pack);
    flips(4_000, is_table);
    flips(2_000, is_manifest);
    assert!(flips_after_a_crash(2_000) >= 1_500);
}

#[test]
#[ignore = "minutes; run by make torture"]
fn each_byte_of_the_small_files() {
    let folder = folder();
    let place = Place(folder.path().to_owned());
    let state = lived(&place);
    let mut all = Vec::new();
    files(&place.zoo(), &mut all);
    for file in all {
        let name = file.strip_prefix(place.zoo()).expect("inside").to_string_lossy().into_owned();
        let bytes = file.metadata().expect("inspect").len();
        for byte in 0..if is_manifest(&name) { bytes } else { 0 } {
            flip(&place.zoo(), &state, &file, byte * 8 + byte % 8);
        }
    }
}
