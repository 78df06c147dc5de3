//! A writer is killed in the middle of its commits: what it had acknowledged is there.

mod common;

use common::{BACKBONE, assert_sound, model, put_blob, task};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use tans_storage::{Batch, Mode, PairKind, Store, TaskId};

const ZOO: &str = "TANS_TEST_CRASH_ZOO";

/// The child: commits for ever, and prints each model after its commit is acknowledged.
#[test]
fn child_commits_until_killed() {
    let Ok(zoo) = std::env::var(ZOO) else {
        return;
    };
    let store = Store::open(Path::new(&zoo), Mode::Write).expect("open");
    let mut out = std::io::stdout();
    loop {
        let row = store.next_row().expect("row");
        let own = put_blob(&store, &row.to_le_bytes().repeat(1 + row as usize % 500));
        let shared = put_blob(&store, b"shared");
        let mut batch = Batch::new();
        batch.put_model(&model(row, &format!("m{row}"), &[own, shared]));
        batch.put_signature(row, &[1; 512]);
        batch.put_task(&task(1, "t"));
        batch.put_pair(TaskId([1; 32]), row, PairKind::Probe, 0.5);
        if row > 20 && row.is_multiple_of(7) {
            batch.remove_model(row - 20);
        }
        store.commit(batch).expect("commit");
        writeln!(out, "acknowledged {row}").expect("print");
        out.flush().expect("flush");
    }
}

#[test]
fn a_killed_writer_loses_nothing_that_was_acknowledged() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let zoo = folder.path().join("zoo");
    drop(Store::create(&zoo, BACKBONE).expect("create"));
    let mut last = None;
    for commits in [1, 40, 90] {
        let acknowledged = run_and_kill(&zoo, commits);
        last = acknowledged.or(last);
        // The lock died with its holder.
        let store = Store::open(&zoo, Mode::Write).expect("open after the kill");
        assert_sound(&store);
        let last = last.expect("at least one commit was acknowledged");
        let record = store.model(last).expect("read").expect("the acknowledged model is there");
        let tensor = store.tensor(record.weights[0].tensor).expect("its weights are there");
        assert_eq!(tensor.as_ref()[..8], last.to_le_bytes());
        assert!(store.next_row().expect("row") > last);
    }
}

/// Lets a child acknowledge `commits` commits, kills it, and returns the last row it acknowledged.
fn run_and_kill(zoo: &Path, commits: usize) -> Option<u64> {
    let mut child = Command::new(std::env::current_exe().expect("path of this test"))
        .args(["child_commits_until_killed", "--exact", "--nocapture"])
        .env(ZOO, zoo)
        .stdout(Stdio::piped())
        .spawn()
        .expect("start the child");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let row_of = |line: std::io::Result<String>| {
        line.ok()?.split_once("acknowledged ")?.1.parse::<u64>().ok()
    };
    let mut last = None;
    let mut count = 0;
    while count < commits {
        let row = row_of(lines.next().expect("the child goes on"));
        count += usize::from(row.is_some());
        last = row.or(last);
    }
    child.kill().expect("kill -9");
    child.wait().expect("reap");
    // What it acknowledged between our last look and its death counts too.
    lines.filter_map(row_of).last().or(last)
}
