//! Many threads write to one `Database`: each has its own answer, and they share the waits for the disk.

#![cfg(feature = "torch")]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use tans::{
    Benchmark, CheckOptions, Database, DatasetSource, EditOptions, IngestOptions, InitOptions,
    ListOptions, OpenOptions, QueryOptions, unobserved,
};
use tans_storage::{Mode, Store};
use tempfile::TempDir;

const THREADS: usize = 8;
const ROUNDS: usize = 6;
const ZOO: &str = "TANS_TEST_THREADS_ZOO";

fn init(at: &Path) -> Database {
    Database::init(at, &InitOptions::default(), OpenOptions::default()).expect("a new zoo").0
}

fn assert_sound(zoo: &Database) {
    let report = zoo.check(CheckOptions::default()).expect("the check runs");
    assert!(report.sound, "{:?}", report.findings);
}

/// One of sixteen networks.
fn spec(number: usize) -> String {
    let side = if number.is_multiple_of(2) { 32 } else { 64 };
    format!("small:cnn-w{}@{side}", 16 + 2 * (number / 2 % 8))
}

fn network(zoo: &Database, number: usize) -> String {
    let options = IngestOptions {
        name: Some(spec(number)),
        benchmark: Benchmark::None,
        // Side by side, so that no latency is measured.
        jobs: THREADS,
        ..IngestOptions::default()
    };
    let stored = zoo.ingest(&spec(number), &options, &mut unobserved).expect("a usable network");
    stored[0].model.clone().expect("a generated network is never refused")
}

fn names(zoo: &Database) -> BTreeSet<String> {
    let listed = zoo.list(&ListOptions::default()).expect("models can be read");
    listed.into_iter().map(|model| model.model).collect()
}

/// Names of the models that a query finds.
fn found(zoo: &Database) -> BTreeSet<String> {
    let task = DatasetSource::Task("benchmark/font_style".into());
    let options = QueryOptions { k: 1000, ..QueryOptions::default() };
    let answer = zoo.query(&task, &options, &mut unobserved).expect("an answer");
    answer.hits.into_iter().map(|hit| hit.model).collect()
}

fn assert_result(zoo: &Database, model: &str, task: &str, accuracy: f32) {
    let known = zoo.show(model).expect("the model is there").results;
    let known: Vec<f32> =
        known.iter().filter(|result| result.task == task).map(|result| result.accuracy).collect();
    assert_eq!(known, [accuracy], "{model} on {task}");
}

/// Rows of the models of a zoo that nobody has open.
fn rows(zoo: &Path) -> Vec<u64> {
    let store = Store::open(zoo, Mode::Read).expect("the zoo opens");
    let models = store.models().expect("models can be read");
    models.map(|model| model.expect("a sound record").row).collect()
}

/// What one thread does, each step on names that the others know too or on its own.
fn write(zoo: &Database, thread: usize) {
    for round in 0..ROUNDS {
        let accuracy = (round + 1) as f32 / 10.0;
        zoo.record(&format!("own-{thread}"), &format!("task-{round}"), accuracy).expect("a result");
        let task = format!("task-of-{thread}");
        zoo.record(&format!("shared-{round}"), &task, accuracy).expect("a result");
        // Two threads bring the very same network at the same time.
        network(zoo, thread / 2 + THREADS / 2 * (round % 2));
    }
    zoo.record(&format!("gone-{thread}"), "task-0", 0.5).expect("a result");
    zoo.remove(&[format!("gone-{thread}")]).expect("a stored model");
    let license = Some(format!("license-{thread}"));
    let edit = EditOptions { license, ..EditOptions::default() };
    zoo.edit(&format!("own-{thread}"), &edit).expect("a stored model");
}

#[test]
fn threads_that_record_and_ingest_at_once_lose_nothing() {
    let folder = TempDir::new().expect("a temporary folder");
    let at = folder.path().join("zoo");
    let zoo = init(&at);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let zoo = zoo.clone();
                scope.spawn(move || write(&zoo, thread))
            })
            .collect();
        while writers.iter().any(|writer| !writer.is_finished()) {
            zoo.gc(&mut unobserved).expect("a collection");
            zoo.reindex(&mut unobserved).expect("a new generation");
        }
    });
    let before = found(&zoo);
    drop(zoo);
    let zoo = Database::open(&at, OpenOptions::default()).expect("the zoo opens");
    assert_sound(&zoo);
    assert_eq!(found(&zoo), before, "what is found does not change with the opening");
    assert_eq!(names(&zoo), before);
    let networks = THREADS;
    assert_eq!(before.len(), THREADS + ROUNDS + networks, "{before:?}");
    for thread in 0..THREADS {
        for round in 0..ROUNDS {
            let accuracy = (round + 1) as f32 / 10.0;
            assert_result(&zoo, &format!("own-{thread}"), &format!("task-{round}"), accuracy);
            let (shared, task) = (format!("shared-{round}"), format!("task-of-{thread}"));
            assert_result(&zoo, &shared, &task, accuracy);
        }
        let shown = zoo.show(&format!("own-{thread}")).expect("it is there").summary;
        assert_eq!(shown.license, Some(format!("license-{thread}")));
    }
    drop(zoo);
    let (gone, rows) = (THREADS, rows(&at));
    let next = Store::open(&at, Mode::Write).and_then(|store| store.next_row()).expect("a row");
    assert_eq!(rows.len() + gone, next as usize, "no row is left out: {rows:?}");
}

/// The child: eight threads write for ever; each prints the model that it has an answer for.
#[test]
fn child_writes_until_killed() {
    let Ok(zoo) = std::env::var(ZOO) else { return };
    let zoo = Database::open(zoo.as_ref(), OpenOptions::default()).expect("the zoo opens");
    let round = names(&zoo).len();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let zoo = &zoo;
            scope.spawn(move || {
                for number in 0.. {
                    let name = format!("m-{round}-{thread}-{number}");
                    match number % 8 {
                        0 => say(&network(zoo, round + thread + number)),
                        _ => {
                            zoo.record(&name, "task", 0.5).expect("a result");
                            say(&name);
                        }
                    }
                }
            });
        }
    });
}

fn say(name: &str) {
    // One write, so that a kill cuts no line in two that another thread goes on with.
    let line = format!("\nacknowledged {name}\n");
    std::io::Write::write_all(&mut std::io::stdout().lock(), line.as_bytes()).expect("print");
}

/// Lets a child acknowledge so many models, kills it, and returns what it acknowledged.
fn run_and_kill(zoo: &Path, models: usize) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().expect("path of this test"))
        .args(["child_writes_until_killed", "--exact", "--nocapture"])
        .env(ZOO, zoo)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the child starts");
    let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let (mut names, mut is_killed) = (Vec::new(), false);
    for line in lines {
        let line = line.expect("a line of text");
        // What it acknowledges between our look and its death counts too.
        names.extend(line.strip_prefix("acknowledged ").map(str::to_owned));
        if names.len() >= models && !is_killed {
            is_killed = true;
            child.kill().expect("a child can be killed");
        }
    }
    child.wait().expect("a killed child ends");
    names
}

#[test]
fn what_eight_threads_were_told_survives_a_kill() {
    let folder = TempDir::new().expect("a temporary folder");
    let at = folder.path().join("zoo");
    drop(init(&at));
    let mut acknowledged = BTreeSet::new();
    for models in [1, 60, 200] {
        acknowledged.extend(run_and_kill(&at, models));
        let zoo = Database::open(&at, OpenOptions::default()).expect("the zoo opens");
        assert_sound(&zoo);
        let survivors = names(&zoo);
        let lost: Vec<_> = acknowledged.difference(&survivors).collect();
        assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
        drop(zoo);
        let rows = rows(&at);
        assert_eq!(rows, (0..rows.len() as u64).collect::<Vec<_>>());
        assert_eq!(rows.len(), survivors.len());
    }
}
