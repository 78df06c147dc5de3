//! One writer and many reader processes: every read is one consistent state, what was acknowledged is
//! seen, and readers may die at any time.

mod common;

use common::{BACKBONE, assert_sound, model, put_blob, task};
use std::io::{BufRead, BufReader, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tans_storage::{Batch, Error, Mode, PairKind, Store, TaskId};

const ZOO: &str = "TANS_TEST_PROCESSES_ZOO";

/// Models alive at a time; each commit adds one and removes the oldest.
const ALIVE: u64 = 10;

/// Weights that follow from the row, larger than what lies in a record.
fn bytes(row: u64) -> Vec<u8> {
    row.to_le_bytes().repeat(1_000)
}

/// The child: catches up and reads everything, for ever; prints the newest row that it saw.
#[test]
fn child_reads_until_killed() {
    let Ok(zoo) = std::env::var(ZOO) else { return };
    let store = Store::open(Path::new(&zoo), Mode::Read).expect("open");
    let mut out = std::io::stdout();
    loop {
        store.refresh().expect("refresh");
        let models = store.models().expect("models");
        let rows: Vec<u64> = models
            .map(|model| {
                let model = model.expect("a record");
                let tensor = store.tensor(model.weights[0].tensor).expect("weights");
                assert_eq!(tensor.as_ref(), bytes(model.row));
                model.row
            })
            .collect();
        // A commit adds one row and removes the one that is ALIVE older: nothing between is seen.
        let newest = rows.last().copied().expect("the zoo is never empty");
        let oldest = (newest + 1).saturating_sub(ALIVE);
        assert_eq!(rows, (oldest..=newest).collect::<Vec<u64>>());
        writeln!(out, "saw {newest}").and_then(|()| out.flush()).expect("print");
    }
}

struct Reader {
    child: Child,
    lines: std::thread::JoinHandle<()>,
}

/// Starts a reader whose newest row goes to `seen`.
fn reader(zoo: &Path, seen: &'static AtomicU64) -> Reader {
    let mut child = Command::new(std::env::current_exe().expect("path of this test"))
        .args(["child_reads_until_killed", "--exact", "--nocapture"])
        .env(ZOO, zoo)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("start the child");
    let out = BufReader::new(child.stdout.take().expect("piped"));
    let lines = std::thread::spawn(move || {
        for line in out.lines().map_while(Result::ok) {
            if let Some(row) = line.split("saw ").nth(1).and_then(|row| row.parse().ok()) {
                seen.store(row, Ordering::SeqCst);
            }
        }
    });
    Reader { child, lines }
}

fn stop(mut reader: Reader) {
    assert!(reader.child.try_wait().expect("asked").is_none(), "a reader died of itself");
    reader.child.kill().expect("kill -9");
    reader.child.wait().expect("reap");
    reader.lines.join().expect("the lines end with the child");
}

/// One writer and `readers` readers for `duration`, a reader killed and replaced now and then.
fn run(readers: usize, duration: Duration) {
    let folder = tempfile::tempdir().expect("temporary folder");
    let zoo = folder.path().join("zoo");
    let store = Store::create(&zoo, BACKBONE).expect("create");
    let written = AtomicU64::new(0);
    let done = AtomicBool::new(false);
    let add = |row: u64| {
        let id = put_blob(&store, &bytes(row));
        let mut batch = Batch::new();
        batch.put_model(&model(row, &format!("m{row}"), &[id]));
        batch.put_task(&task(1, "task"));
        if row >= ALIVE {
            batch.remove_model(row - ALIVE);
        }
        store.commit(batch).expect("commit");
        written.store(row, Ordering::SeqCst);
    };
    add(0);
    let seen: &'static [AtomicU64] =
        (0..readers).map(|_| AtomicU64::new(0)).collect::<Vec<_>>().leak();
    let alive = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut row = 0;
            while !done.load(Ordering::SeqCst) {
                row += 1;
                add(row);
                if row.is_multiple_of(25) {
                    store.gc(&mut |_, _| ControlFlow::Continue(())).expect("gc");
                }
            }
        });
        let start = Instant::now();
        let mut next = 0;
        while start.elapsed() < duration {
            let mut alive = alive.lock().expect("unharmed");
            if alive.len() == readers {
                stop(alive.remove(0));
            } else {
                alive.push(reader(&zoo, &seen[next % readers]));
                next += 1;
            }
            drop(alive);
            std::thread::sleep(duration / (3 * readers as u32));
        }
        done.store(true, Ordering::SeqCst);
    });
    // Whoever is alive sees the last commit, however the machine is loaded.
    let last = written.load(Ordering::SeqCst);
    let mut alive = alive.into_inner().expect("unharmed");
    assert!(last > ALIVE && !alive.is_empty());
    let patience = Instant::now();
    let newest = alive.len().min(readers);
    while seen.iter().filter(|seen| seen.load(Ordering::SeqCst) == last).count() < newest {
        assert!(patience.elapsed() < Duration::from_secs(60), "{seen:?} of {last}");
        std::thread::sleep(Duration::from_millis(5));
    }
    alive.drain(..).for_each(stop);
    assert_sound(&store);
    store.gc(&mut |_, _| ControlFlow::Continue(())).expect("gc");
    let packs = std::fs::read_dir(zoo.join("packs")).expect("list").count();
    assert!(packs <= 3, "killed readers hold nothing back, found {packs} packs");
}

#[test]
fn readers_see_whole_commits_while_packs_are_rewritten() {
    run(3, Duration::from_secs(4));
}

#[test]
#[ignore = "a minute"]
fn eight_readers_for_a_minute() {
    run(8, Duration::from_secs(60));
}

#[test]
fn threads_that_commit_at_once_share_writes_and_lose_nothing() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let zoo = folder.path().join("zoo");
    let store = Store::create(&zoo, BACKBONE).expect("create");
    std::thread::scope(|scope| {
        for thread in 0..8u64 {
            let store = &store;
            scope.spawn(move || {
                for turn in 0..20 {
                    let row = store.next_row().expect("row");
                    let id = put_blob(store, &bytes(thread));
                    let mut batch = Batch::new();
                    // Every second name is wanted by all threads, and one of them gets it.
                    let contested = turn % 2 == 0;
                    let name = if contested {
                        format!("contested{turn}")
                    } else {
                        format!("own{thread}-{turn}")
                    };
                    batch.put_model(&model(row, &name, &[id]));
                    let sequence = store.commit(batch);
                    assert!(sequence.is_ok() || contested, "{name}: {sequence:?}");
                    if let Ok(sequence) = sequence {
                        let stored = store.model_by_name(&name).expect("read").expect("stored");
                        assert_eq!(stored.row, row, "acknowledged and there");
                        assert!(store.sequence().expect("read") >= sequence);
                    }
                }
            });
        }
    });
    assert_sound(&store);
    assert_eq!(store.models().expect("models").count(), 8 * 10 + 10);
    assert_eq!(store.stats().expect("stats").sequence, 8 * 10 + 10);
    drop(store);
    assert_sound(&Store::open(&zoo, Mode::Write).expect("open"));
}

/// A flush replaces the log while a reader is between the writer's manifest and its log.
#[test]
fn a_reader_misses_nothing_that_is_flushed_meanwhile() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let (zoo, backups) = (folder.path().join("zoo"), folder.path().join("backups"));
    let store = Store::create(&zoo, BACKBONE).expect("create");
    let mut batch = Batch::new();
    batch.put_model(&model(0, "model", &[]));
    batch.put_task(&task(1, "task"));
    let acknowledged = AtomicU64::new(store.commit(batch).expect("commit"));
    let done = AtomicBool::new(false);
    let is_over = || done.load(Ordering::SeqCst);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over() {
                let mut batch = Batch::new();
                batch.put_pair(TaskId([1; 32]), 0, PairKind::Probe, 0.5);
                acknowledged.store(store.commit(batch).expect("commit"), Ordering::SeqCst);
            }
        });
        scope.spawn(|| {
            while !is_over() {
                // It flushes before it asks.
                let stopped = store.backup(&backups, &mut |_, _| ControlFlow::Break(()));
                assert!(matches!(stopped, Err(Error::Cancelled)), "{stopped:?}");
                std::thread::sleep(Duration::from_millis(150));
            }
        });
        let read = scope.spawn(|| {
            let reader = Store::open(&zoo, Mode::Read).expect("open");
            let start = Instant::now();
            let mut last = 0;
            while start.elapsed() < Duration::from_secs(3) {
                let expected = acknowledged.load(Ordering::SeqCst);
                reader.refresh().expect("refresh");
                for (sequence, _) in reader.operations_after(last).expect("operations") {
                    assert_eq!(sequence, last + 1, "a hole");
                    last = sequence;
                }
                assert!(last >= expected, "acknowledged {expected}, seen {last}");
            }
        });
        let read = read.join();
        done.store(true, Ordering::SeqCst);
        read.expect("nothing is missed");
    });
}
