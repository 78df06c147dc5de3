//! Failing disks: whatever call fails, and how, the error is typed and names the file, the zoo stays
//! readable, and after reopening it holds what was acknowledged.
#![cfg(feature = "failpoints")]

#[path = "common/records.rs"]
mod records;
#[path = "common/script.rs"]
mod script;

use script::{Life, Place, State, apply, folder, observe, survive};
use tans_storage::{Error, Store};

/// EIO, EMFILE, ENOSPC.
const ERRORS: [i32; 3] = [5, 24, 28];

/// Lives the life of `seed` until the `nth` call of this kind fails with `error`.
fn run(seed: u64, call: &str, nth: usize, error: i32) {
    let folder = folder();
    let place = Place(folder.path().to_owned());
    let life = Life::new(seed);
    let mut store = None;
    fail::cfg(call, &format!("{nth}*off->1*return({error})->off")).expect("a step");
    let mut failed = None;
    for (at, operation) in life.operations.iter().enumerate() {
        if let Err(found) = apply(&place, &mut store, &life.states[at], operation) {
            failed = Some((at, found));
            break;
        }
    }
    fail::remove(call);
    let context = format!("seed {seed}, {call} {nth} with {error}: {failed:?}");
    let Some((at, found)) = failed else {
        drop(store);
        // A failure may have hit something that need not succeed, such as the flush at the end.
        let last = &life.states[life.operations.len()];
        survive(&place, &[last], &life.states.iter().collect::<Vec<_>>());
        return;
    };
    let Error::Io { source, .. } = &found else { panic!("{context}") };
    assert_eq!(source.raw_os_error(), Some(error), "{context}");
    let allowed: Vec<&State> = life.states[at..=at + 1].iter().collect();
    if let Some(store) = &store {
        // What is in memory may be behind what is on disk, but it is whole.
        assert!(allowed.contains(&&observe(store)), "{context}");
        go_on_or_refuse(store, &context);
    }
    drop(store);
    survive(&place, &allowed, &life.states[..=at + 1].iter().collect::<Vec<_>>());
}

/// A store either goes on after a failure or says that it must be opened again.
fn go_on_or_refuse(store: &Store, context: &str) {
    match store.commit(tans_storage::Batch::new()) {
        Ok(_) | Err(Error::Poisoned { .. }) => {}
        other => panic!("{context}: {other:?}"),
    }
}

/// How many calls of this kind a life makes.
fn calls(seed: u64, call: &str) -> usize {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    fail::cfg_callback(call, move || {
        counted.fetch_add(1, Ordering::SeqCst);
    })
    .expect("a step");
    let folder = folder();
    let place = Place(folder.path().to_owned());
    let life = Life::new(seed);
    let mut store = None;
    for (at, operation) in life.operations.iter().enumerate() {
        apply(&place, &mut store, &life.states[at], operation).expect("nothing fails here");
    }
    drop(store);
    fail::remove(call);
    count.load(Ordering::SeqCst)
}

/// Every `step`-th call of each kind fails once, with one error after the other.
fn all_calls(seed: u64, step: usize) {
    let _scenario = fail::FailScenario::setup();
    for call in ["disk/open", "disk/write", "disk/torn", "disk/sync", "disk/rename"] {
        let total = calls(seed, call);
        assert!(total > 3, "{call}: {total} calls");
        for nth in (0..total).step_by(step) {
            run(seed, call, nth, ERRORS[nth / step % ERRORS.len()]);
        }
    }
}

#[test]
fn a_failing_call_is_an_error_that_leaves_the_zoo_whole() {
    all_calls(7, 31);
}

#[test]
#[ignore = "minutes; run by make torture"]
fn every_single_call_may_fail() {
    for seed in [7, 8] {
        all_calls(seed, 1);
    }
}
