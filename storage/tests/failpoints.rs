//! Writes that fail at a named step. Needs the feature `failpoints`.
#![cfg(feature = "failpoints")]

mod common;

use common::{BACKBONE, assert_sound, model, put_blob, task};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tans_storage::{Batch, Dtype, Error, Mode, NewTensor, Store};

#[test]
fn after_a_failed_write_the_store_refuses_until_it_is_reopened() {
    let _scenario = fail::FailScenario::setup();
    let folder = tempfile::tempdir().expect("temporary folder");
    let zoo = folder.path().join("zoo");
    drop(Store::create(&zoo, BACKBONE).expect("create"));
    // From the write on the model is there, though nobody was told.
    let steps = [
        ("pack/sync", false),
        ("pack/synced", false),
        ("commit/write", false),
        ("commit/written", true),
        ("commit/sync", true),
        ("commit/synced", true),
    ];
    for (at, (step, is_there)) in steps.into_iter().enumerate() {
        let store = Store::open(&zoo, Mode::Write).expect("open");
        let row = store.next_row().expect("row");
        fail::cfg(step, "return(the disk is gone)").expect("configure");
        let bytes = [at as u8; 9000];
        let blob = NewTensor { dtype: Dtype::U8, shape: &[9000], bytes: &bytes };
        let failed = store.put_tensors(&[blob]).and_then(|ids| {
            let mut batch = Batch::new();
            batch.put_task(&task(1, "t"));
            batch.put_model(&model(row, &format!("m{at}"), &ids));
            store.commit(batch)
        });
        assert!(matches!(failed, Err(Error::Io { .. })), "{step}: {failed:?}");
        fail::remove(step);
        let refused = store.commit(Batch::new());
        assert!(matches!(refused, Err(Error::Poisoned { .. })), "{step}: {refused:?}");
        drop(store);
        let store = Store::open(&zoo, Mode::Write).expect("reopen");
        assert_eq!(store.model(row).expect("read").is_some(), is_there, "{step}");
        put_blob(&store, b"goes on");
        assert_sound(&store);
    }
}

/// A model with weights that lie in a pack.
fn put_model(store: &Store, thread: u8) -> Batch {
    let row = u64::from(thread);
    let blob = put_blob(store, &[thread; 9000]);
    let mut batch = Batch::new();
    batch.put_model(&model(row, &format!("m{thread}"), &[blob]));
    batch
}

/// Counts the passes of a step; the first waits until `coming` threads are about to commit, and gives
/// them the time to do it: a slow disk.
fn count_slowly(step: &str, coming: &Arc<AtomicUsize>, threads: usize) -> Arc<AtomicUsize> {
    let (passes, coming) = (Arc::new(AtomicUsize::new(0)), coming.clone());
    let counted = passes.clone();
    fail::cfg_callback(step, move || {
        if counted.fetch_add(1, Ordering::SeqCst) == 0 {
            while coming.load(Ordering::SeqCst) < threads {
                std::thread::yield_now();
            }
            std::thread::sleep(std::time::Duration::from_millis(300));
        }
    })
    .expect("configure");
    passes
}

#[test]
fn commits_that_wait_for_each_other_share_the_syncs() {
    let _scenario = fail::FailScenario::setup();
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = Store::create(&folder.path().join("zoo"), BACKBONE).expect("create");
    let coming = Arc::new(AtomicUsize::new(0));
    let syncs = ["pack/sync", "commit/sync"].map(|step| count_slowly(step, &coming, 8));
    std::thread::scope(|scope| {
        for thread in 0..8u8 {
            let (store, coming) = (&store, &coming);
            scope.spawn(move || {
                let batch = put_model(store, thread);
                coming.fetch_add(1, Ordering::SeqCst);
                store.commit(batch).expect("commit");
            });
        }
    });
    fail::remove("pack/sync");
    fail::remove("commit/sync");
    let syncs = syncs.map(|passes| passes.load(Ordering::SeqCst));
    assert!(syncs.iter().all(|&passes| passes < 6), "8 commits of 8 threads took {syncs:?} syncs");
    assert_eq!(store.models().expect("models").count(), 8);
    assert_sound(&store);
}

#[test]
fn a_failed_sync_is_told_to_all_that_wait_for_it() {
    for step in ["pack/sync", "commit/sync"] {
        let _scenario = fail::FailScenario::setup();
        let folder = tempfile::tempdir().expect("temporary folder");
        let zoo = folder.path().join("zoo");
        let store = Store::create(&zoo, BACKBONE).expect("create");
        // Those that come while the first sync takes its time wait for the second, which fails.
        fail::cfg(step, "1*sleep(500)->return(the disk is gone)->off").expect("configure");
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let commit = |thread: u8| {
                let store = &store;
                scope.spawn(move || (thread, store.commit(put_model(store, thread))))
            };
            let threads: Vec<_> = (0..8).map(commit).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        fail::remove(step);
        let told = outcomes.iter().filter(|(_, outcome)| matches!(outcome, Err(Error::Io { .. })));
        assert_eq!(told.count(), 1, "{step}: {outcomes:?}");
        let poisoned =
            |outcome: &tans_storage::Result<u64>| matches!(outcome, Err(Error::Poisoned { .. }));
        let waited = outcomes.iter().filter(|(_, outcome)| poisoned(outcome)).count();
        assert!(waited > 0, "{step}: {outcomes:?}");
        assert!(poisoned(&store.commit(Batch::new())), "{step}");
        drop(store);
        let store = Store::open(&zoo, Mode::Write).expect("reopen");
        for (thread, outcome) in outcomes {
            let is_there = store.model(u64::from(thread)).expect("read").is_some();
            assert!(is_there || outcome.is_err(), "{step}: {thread} was acknowledged");
        }
        assert_sound(&store);
    }
}
