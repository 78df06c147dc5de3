//! Zoos that earlier versions wrote, kept under `tests/data/vN`: this version must read and go on with
//! them, twice in a row, because the first opening must not damage them.

#[path = "common/folders.rs"]
mod folders;
#[path = "common/records.rs"]
mod records;
#[path = "common/script.rs"]
#[expect(dead_code, reason = "a golden zoo has a fixed life, not a random one")]
mod script;

use folders::copy;
use script::{Operation, Place, State, apply, survive};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tans_storage::FORMAT_VERSION;

/// What happened to every golden zoo. The blobs are small: 300, 5,000 and 20,000 bytes.
fn operations() -> Vec<Operation> {
    vec![
        Operation::Create,
        Operation::Put { name: 0, blobs: vec![0, 1] },
        Operation::Bulk { models: vec![(1, vec![1, 4]), (2, vec![5]), (3, vec![2])] },
        Operation::Train { number: 1 },
        Operation::Put { name: 4, blobs: vec![4, 8] },
        Operation::Remove { names: vec![3] },
        Operation::Record { name: 1, accuracy: 0.75 },
    ]
}

fn expected() -> State {
    State {
        models: BTreeMap::from([(0, vec![0, 1]), (1, vec![1, 4]), (2, vec![5]), (4, vec![4, 8])]),
        accuracies: BTreeMap::from([(1, 0.75)]),
        generation: Some((1, vec![0, 1, 2, 3])),
    }
}

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

fn version_of(number: u32) -> PathBuf {
    data().join(format!("v{number}"))
}

/// Writes the golden zoo of a new format version, which is then to be committed.
#[test]
#[ignore = "writes into the sources; run it once for each new format version"]
fn make_the_golden_zoo_of_this_version() {
    let folder = version_of(FORMAT_VERSION);
    if folder.exists() {
        return;
    }
    let temporary = tempfile::tempdir().expect("temporary folder");
    let place = Place(temporary.path().to_owned());
    let mut store = None;
    let mut before = State::default();
    for operation in operations() {
        apply(&place, &mut store, &before, &operation).expect("nothing fails here");
        before = script::observe(store.as_ref().expect("made first"));
    }
    drop(store);
    copy(&place.zoo(), &folder.join("zoo"));
}

#[test]
fn every_version_opens_twice_and_goes_on() {
    for number in 1..=FORMAT_VERSION {
        let temporary = tempfile::tempdir().expect("temporary folder");
        let place = Place(temporary.path().to_owned());
        copy(&version_of(number), &place.0);
        let first = tans_storage::Store::open(&place.zoo(), tans_storage::Mode::Write);
        assert_eq!(script::observe(&first.expect("opens")), expected(), "version {number}");
        survive(&place, &[&expected()], &[]);
    }
}
