//! The kill matrix: a child lives a random life and is killed with SIGKILL at a named step of a write,
//! a delete, a bulk ingest, a training, a collection, a backup or a restore. Whatever it had
//! acknowledged is there, the operation it was at has happened or not, and everything is sound.
#![cfg(feature = "failpoints")]

#[path = "common/records.rs"]
mod records;
#[path = "common/script.rs"]
mod script;

use script::{Life, Operation, Place, Random, State, apply, folder, survive};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use tans_storage::Mode;

const PLACE: &str = "TANS_TORTURE_PLACE";
const SEED: &str = "TANS_TORTURE_SEED";
const STEP: &str = "TANS_TORTURE_STEP";
const COUNT: &str = "TANS_TORTURE_COUNT";

/// The child: lives the life of its seed and prints what it acknowledges.
#[test]
fn child_lives_until_killed() {
    let Ok(place) = std::env::var(PLACE) else { return };
    let number = |name: &str| std::env::var(name).expect("set").parse::<u64>().expect("a number");
    let step = std::env::var(STEP).expect("set");
    let count = number(COUNT);
    let passes = AtomicUsize::new(0);
    fail::cfg_callback(step, move || {
        if passes.fetch_add(1, Ordering::SeqCst) as u64 + 1 == count {
            let _ = Command::new("kill").args(["-9", &std::process::id().to_string()]).status();
            loop {
                std::thread::park();
            }
        }
    })
    .expect("a step");
    let (life, place) = (Life::new(number(SEED)), Place(place.into()));
    let mut store = None;
    let mut out = std::io::stdout();
    let mut say = |text: String| {
        writeln!(out, "{text}").and_then(|()| out.flush()).expect("print");
    };
    for (at, operation) in life.operations.iter().enumerate() {
        say(format!("begin {at}"));
        apply(&place, &mut store, &life.states[at], operation).expect("nothing fails here");
        say(format!("end {at}"));
    }
    drop(store);
    say("finished".to_owned());
}

/// Every step that the sources name.
fn steps() -> BTreeSet<String> {
    let mut steps = BTreeSet::new();
    for folder in ["src", "src/store"] {
        for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).expect("list")
        {
            let path = entry.expect("entry").path();
            let Ok(text) = fs::read_to_string(&path) else { continue };
            let named = text.split("step(\"").skip(1).filter_map(|rest| rest.split('"').next());
            steps.extend(named.map(str::to_owned));
        }
    }
    steps
}

/// Lives one life that ends at the `count`-th pass of `step`; returns whether it got there, and in
/// the middle of which operation.
fn run(seed: u64, step: &str, count: usize) -> Option<String> {
    let folder = folder();
    let place = Place(folder.path().to_owned());
    let output = Command::new(std::env::current_exe().expect("path of this test"))
        .args(["child_lives_until_killed", "--exact", "--nocapture"])
        .env(PLACE, &place.0)
        .env(SEED, seed.to_string())
        .env(STEP, step)
        .env(COUNT, count.to_string())
        .stderr(Stdio::piped())
        .output()
        .expect("start the child");
    let text = String::from_utf8_lossy(&output.stdout);
    let last = |word: &str| {
        let numbers =
            text.lines().filter_map(|line| line.strip_prefix(word)?.parse::<usize>().ok());
        numbers.last()
    };
    let killed = !text.contains("finished");
    let died_otherwise = output.status.code().is_some_and(|code| code != 0);
    assert!(
        !died_otherwise,
        "seed {seed}, {step}:\n{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let life = Life::new(seed);
    let acknowledged = last("end ").map_or(0, |at| at + 1);
    let begun = last("begin ").map_or(0, |at| at + 1);
    let allowed: Vec<&State> = life.states[acknowledged..=begun].iter().collect();
    let backed_up: Vec<&State> = life.states[..=begun].iter().collect();
    let survived = std::panic::catch_unwind(|| survive(&place, &allowed, &backed_up));
    if survived.is_err() {
        panic!("seed {seed}, killed at pass {count} of {step}, in operation {acknowledged}");
    }
    let operation = life.operations.get(acknowledged.min(life.operations.len() - 1));
    killed.then(|| kind(operation.unwrap_or(&Operation::Reopen)).to_owned())
}

fn kind(operation: &Operation) -> &'static str {
    match operation {
        Operation::Create => "create",
        Operation::Put { .. } => "put",
        Operation::Bulk { .. } => "bulk ingest",
        Operation::Remove { .. } => "delete",
        Operation::Record { .. } => "record",
        Operation::Train { .. } => "train install",
        Operation::Gc => "gc",
        Operation::Backup => "backup",
        Operation::Restore => "restore",
        Operation::Reopen => "reopen",
    }
}

/// Runs the lives of `seeds` on all cores; returns how often each step killed, and in what.
fn matrix(seeds: std::ops::Range<u64>) -> BTreeMap<String, BTreeMap<String, usize>> {
    let steps: Vec<String> = steps().into_iter().collect();
    assert!(steps.len() >= 40, "expected at least 40 steps, found {steps:?}");
    let next = std::sync::Mutex::new(seeds);
    let kills = std::sync::Mutex::new(BTreeMap::new());
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let Some(seed) = next.lock().expect("unharmed").next() else { return };
                    let step = &steps[seed as usize % steps.len()];
                    let round = seed as usize / steps.len();
                    // The first round takes the first pass of each step, later ones a random one: rather an
                    // early one, for some steps are passed once a life.
                    let mut random = Random(seed);
                    let latest = 1 + random.below(12);
                    let count = if round == 0 { 1 } else { 1 + random.below(latest) };
                    if let Some(operation) = run(seed, step, count) {
                        let mut kills = kills.lock().expect("unharmed");
                        let by_step: &mut BTreeMap<String, usize> =
                            kills.entry(step.clone()).or_default();
                        *by_step.entry(operation).or_insert(0) += 1;
                    }
                }
            });
        }
    });
    kills.into_inner().expect("unharmed")
}

#[test]
fn nothing_acknowledged_is_lost_in_a_life_for_each_step() {
    let lives = steps().len();
    let kills = matrix(0..lives as u64);
    let killed: usize = kills.values().flat_map(BTreeMap::values).sum();
    assert!(
        killed * 10 >= lives * 7,
        "expected most of {lives} lives to end early, found {killed}: {kills:#?}"
    );
}

#[test]
#[ignore = "minutes; run by make torture"]
fn nothing_acknowledged_is_lost_in_a_thousand_lives() {
    let kills = matrix(0..1_000);
    let mut out = std::io::stderr();
    let killed: usize = kills.values().flat_map(BTreeMap::values).sum();
    writeln!(out, "{killed} of 1000 lives were killed:\n{kills:#?}").expect("print");
    let never: Vec<String> = steps().into_iter().filter(|step| !kills.contains_key(step)).collect();
    assert!(never.is_empty(), "steps that killed nobody: {never:?}");
}

#[test]
fn a_life_that_nobody_ends_holds_what_it_must() {
    let folder = folder();
    let place = Place(folder.path().to_owned());
    let life = Life::new(7);
    let mut store = None;
    for (at, operation) in life.operations.iter().enumerate() {
        apply(&place, &mut store, &life.states[at], operation).expect("nothing fails here");
        let store = store.as_ref().expect("the zoo is made first");
        assert_eq!(script::observe(store), life.states[at + 1], "after {operation:?}");
        assert_eq!(store.mode(), Mode::Write);
    }
}
