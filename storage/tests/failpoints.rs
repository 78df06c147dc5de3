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
    let steps = ["pack/sync", "pack/synced", "commit/write", "commit/written"];
    for (at, step) in steps.into_iter().enumerate() {
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
        // Only after the write itself is the model there, though nobody was told.
        assert_eq!(store.model(row).expect("read").is_some(), step == "commit/written");
        put_blob(&store, b"goes on");
        assert_sound(&store);
    }
}

#[test]
fn commits_that_wait_for_each_other_share_one_write() {
    let _scenario = fail::FailScenario::setup();
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = Store::create(&folder.path().join("zoo"), BACKBONE).expect("create");
    let (writes, coming) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counted, awaited) = (writes.clone(), coming.clone());
    fail::cfg_callback("commit/write", move || {
        if counted.fetch_add(1, Ordering::SeqCst) == 0 {
            // A slow disk: all others are about to join the queue, and get the time to do it.
            while awaited.load(Ordering::SeqCst) < 8 {
                std::thread::yield_now();
            }
            std::thread::sleep(std::time::Duration::from_millis(300));
        }
    })
    .expect("configure");
    std::thread::scope(|scope| {
        for thread in 0..8u8 {
            let (store, coming) = (&store, &coming);
            scope.spawn(move || {
                let mut batch = Batch::new();
                batch.put_task(&task(thread, &thread.to_string()));
                coming.fetch_add(1, Ordering::SeqCst);
                store.commit(batch).expect("commit");
            });
        }
    });
    fail::remove("commit/write");
    let writes = writes.load(Ordering::SeqCst);
    assert!(writes < 8, "8 commits of 8 threads took {writes} writes");
    assert_eq!(store.tasks().expect("tasks").len(), 8);
    assert_sound(&store);
}
