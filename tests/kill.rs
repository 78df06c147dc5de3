//! Kill -9 at arbitrary moments: the zoo opens, is sound, and holds everything that was reported as stored.

#![cfg(all(feature = "cli", feature = "torch"))]

#[path = "common/command.rs"]
mod command;

use command::{command, done, objects};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::Child;
use std::thread::sleep;
use std::time::{Duration, Instant};
use tans::{
    CheckOptions, Database, DatasetSource, InitOptions, ListOptions, OpenOptions, QueryOptions,
    unobserved,
};
use tempfile::TempDir;

const NETWORKS: [&str; 8] = [
    "cnn-w16",
    "cnn-w18",
    "cnn-w20",
    "cnn-w22",
    "resnet8-w12",
    "resnet8-w14",
    "mobile-w12",
    "mobile-w14",
];

fn new_zoo() -> TempDir {
    let folder = TempDir::new().expect("a temporary folder");
    Database::init(&folder.path().join("zoo"), &InitOptions::default(), OpenOptions::default())
        .expect("a zoo can be made");
    folder
}

/// Names of the models of the zoo, after it has opened for writing, was found sound, and has shown,
/// exported and found each of them.
fn survivors(folder: &Path) -> BTreeSet<String> {
    let zoo = Database::open(&folder.join("zoo"), OpenOptions::default()).expect("the zoo opens");
    let report = zoo.check(CheckOptions::default()).expect("the check runs");
    assert!(report.sound, "{:?}", report.findings);
    let listed = zoo.list(&ListOptions::default()).expect("models can be read");
    let names: BTreeSet<String> = listed.into_iter().map(|model| model.model).collect();
    for name in &names {
        zoo.show(name).expect("a listed model is shown");
        zoo.export(name, &folder.join("export.onnx")).expect("a listed model has its weights");
    }
    let task = DatasetSource::Task("benchmark/font_style".into());
    let options = QueryOptions { k: 100, ..QueryOptions::default() };
    let answer = zoo.query(&task, &options, &mut unobserved).expect("an answer");
    let found: BTreeSet<String> = answer.hits.into_iter().map(|hit| hit.model).collect();
    assert_eq!(found, names, "every stored model is found");
    names
}

/// Starts a command and waits until it has taken the writer lock.
fn start_writing(folder: &Path, line: &str) -> Child {
    let arguments: Vec<&str> = line.split(' ').collect();
    let mut child = command(folder, &arguments).spawn().expect("the binary starts");
    let introduction = format!("process {}\n", child.id());
    let patience = Instant::now();
    loop {
        let holder = fs::read_to_string(folder.join("zoo/LOCK")).unwrap_or_default();
        if holder.starts_with(&introduction) {
            return child;
        }
        if let Some(status) = child.try_wait().expect("a child can be asked") {
            // Too fast for this machine, which is no failure: it did all of its work.
            assert!(status.success(), "tans {line}: {status}");
            return child;
        }
        assert!(patience.elapsed() < Duration::from_secs(60), "tans {line} never wrote");
        sleep(Duration::from_millis(1));
    }
}

/// Kills a command once it has printed `lines` lines and `delay` has passed, and returns what it
/// printed until then.
fn kill(mut child: Child, lines: usize, delay: Duration) -> Vec<Value> {
    let mut output = BufReader::new(child.stdout.take().expect("standard output is a pipe"));
    let mut text = String::new();
    for _ in 0..lines {
        output.read_line(&mut text).expect("lines of text");
    }
    sleep(delay);
    child.kill().expect("a child can be killed");
    child.wait().expect("a killed child ends");
    output.read_to_string(&mut text).expect("lines of text");
    // A line that was cut short acknowledges nothing.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    objects(whole)
}

#[test]
fn reported_networks_survive_a_kill_during_ingest() {
    let folder = new_zoo();
    let at = folder.path();
    let sources: Vec<String> = NETWORKS.iter().map(|name| format!("small:{name}@32")).collect();
    let line = format!("ingest zoo {} --benchmark none --json", sources.join(" "));
    let probing = line.replace(" --benchmark none", "");
    let (mut stored, mut cut) = (BTreeSet::new(), 0);
    for (lines, delay_ms) in [(0, 0), (0, 200), (1, 0), (2, 15), (4, 40)] {
        let child = start_writing(at, if delay_ms == 0 { &probing } else { &line });
        let reported = kill(child, lines, Duration::from_millis(delay_ms));
        assert!(reported.len() >= lines, "{reported:?}");
        stored.extend(reported.iter().map(|report| {
            report["model"].as_str().expect("a generated network is never refused").to_owned()
        }));
        cut += usize::from(reported.len() < NETWORKS.len());
        let survivors = survivors(at);
        assert!(survivors.is_superset(&stored), "reported {stored:?}, found {survivors:?}");
        stored = survivors;
    }
    assert!(cut > 0, "no kill hit an ingest that was running");
    let reported = objects(&done(at, &line).out);
    for report in &reported {
        let before = stored.contains(report["model"].as_str().expect("a name"));
        assert_eq!(report["status"], if before { "already stored" } else { "stored" });
    }
    assert_eq!(survivors(at), NETWORKS.iter().map(|&name| name.to_owned()).collect());
}

#[test]
fn an_init_that_was_killed_can_be_made_again() {
    let folder = TempDir::new().expect("a temporary folder");
    let at = folder.path();
    for delay_ms in [0, 30, 80, 150, 300, 600] {
        let child = command(at, &["init", "zoo", "--json"]).spawn().expect("the binary starts");
        let reported = kill(child, 0, Duration::from_millis(delay_ms));
        let opened = Database::open(&at.join("zoo"), OpenOptions::default()).map(drop);
        if opened.is_ok() {
            assert_eq!(survivors(at), BTreeSet::new());
            fs::remove_dir_all(at.join("zoo")).expect("a zoo can be removed");
        }
        assert!(opened.is_ok() || reported.is_empty(), "{reported:?} and {opened:?}");
    }
    done(at, "init zoo");
    assert_eq!(survivors(at), BTreeSet::new());
}

#[test]
fn a_manifest_goes_on_where_a_kill_stopped_it() {
    let folder = new_zoo();
    let at = folder.path();
    let other = new_zoo();
    let zoo = Database::open(&other.path().join("zoo"), OpenOptions::default()).expect("it opens");
    let options =
        tans::IngestOptions { benchmark: tans::Benchmark::None, ..tans::IngestOptions::default() };
    let mut manifest = String::new();
    for name in NETWORKS {
        zoo.ingest(&format!("small:{name}@32"), &options, &mut unobserved).expect("a network");
        zoo.export(name, &at.join(format!("{name}.onnx"))).expect("an export");
        manifest += &format!("{{\"path\": \"{name}.onnx\", \"license\": \"MIT\"}}\n");
    }
    fs::write(at.join("all.jsonl"), manifest).expect("files can be written");
    let line = "ingest zoo all.jsonl --benchmark none --json";
    let mut before = BTreeSet::new();
    for delay_ms in [0, 150, 250, 400] {
        kill(start_writing(at, line), 0, Duration::from_millis(delay_ms));
        let now = survivors(at);
        assert!(now.is_superset(&before), "{before:?} became {now:?}");
        // Each network is a commit of its own, in the order of the manifest.
        let expected: BTreeSet<String> =
            NETWORKS.iter().take(now.len()).map(|&name| name.to_owned()).collect();
        assert_eq!(now, expected);
        before = now;
    }
    let reported = objects(&done(at, line).out);
    assert_eq!(reported.len(), NETWORKS.len());
    assert_eq!(survivors(at).len(), NETWORKS.len());
}

#[test]
fn a_kill_during_train_leaves_the_old_generation_or_the_new_one() {
    let folder = new_zoo();
    let at = folder.path();
    let zoo = Database::open(&at.join("zoo"), OpenOptions::default()).expect("the zoo opens");
    let tasks = ["font_style", "clipart_food", "icons_colour", "char_hiragana", "icons_devices"];
    for (number, name) in NETWORKS.iter().take(4).enumerate() {
        let options = tans::IngestOptions {
            benchmark: tans::Benchmark::None,
            ..tans::IngestOptions::default()
        };
        zoo.ingest(&format!("small:{name}@32"), &options, &mut unobserved).expect("a network");
        for (place, task) in tasks.iter().enumerate() {
            let accuracy = 0.3 + 0.1 * ((number + place) % 4) as f32;
            zoo.record(name, &format!("benchmark/{task}"), accuracy).expect("a result");
        }
    }
    drop(zoo);
    let generation = || {
        let options = OpenOptions { read_only: true, ..OpenOptions::default() };
        let zoo = Database::open(&at.join("zoo"), options).expect("the zoo opens");
        zoo.stats().expect("figures can be read").generation
    };
    let names = survivors(at);
    let (mut newest, mut cut) = (0, 0);
    for (recipe, delay_ms) in [
        ("default", 0),
        ("default", 25),
        ("default", 60),
        ("tans2021", 100),
        ("tans2021", 400),
        ("tans2021", 1500),
        ("default", 120),
    ] {
        let line = format!("train zoo --recipe {recipe} --epochs 2000 --force --json");
        let reported = kill(start_writing(at, &line), 0, Duration::from_millis(delay_ms));
        assert_eq!(survivors(at), names);
        let now = generation();
        assert!(now == newest || now == newest + 1, "generation {newest} became {now}");
        match &reported[..] {
            [report] => assert_eq!(report["generation"], now, "a reported generation is installed"),
            _ => cut += 1,
        }
        newest = now;
    }
    assert!(cut >= 3, "{cut} of 7 kills hit a train that was running");
    let report = &objects(&done(at, "train zoo --force --json").out)[0];
    assert_eq!(report["generation"], newest + 1);
    assert_eq!(survivors(at), names);
}
