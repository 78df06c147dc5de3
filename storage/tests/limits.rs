//! A disk that is really full, files that may not grow, and no file descriptors left, for RocksDB's
//! files as for ours: a typed error, a zoo that stays readable, and all of it after there is room.
#![cfg(feature = "failpoints")]

#[path = "common/records.rs"]
mod records;
#[path = "common/script.rs"]
mod script;

use script::{Life, Place, State, apply, folder, observe, survive};
use std::fs;
use std::io::Write;
use std::process::Command;
use tans_storage::{Error, Mode, Store};

const PLACE: &str = "TANS_LIMITS_PLACE";
const SEED: &str = "TANS_LIMITS_SEED";
const BALLAST: &str = "ballast";

/// The child: lives under a limit, and proves that what was acknowledged stays readable under it.
#[test]
fn child_lives_under_a_limit() {
    let Ok(place) = std::env::var(PLACE) else { return };
    let seed = std::env::var(SEED).expect("set").parse().expect("a number");
    let (place, life) = (Place(place.into()), Life::new(seed));
    let ballast = place.0.join(BALLAST);
    fs::write(&ballast, vec![1; 1 << 20]).ok();
    let mut store = None;
    for (at, operation) in life.operations.iter().enumerate() {
        let Err(error) = apply(&place, &mut store, &life.states[at], operation) else { continue };
        assert!(matches!(error, Error::Io { .. }), "{operation:?}: {error:?}");
        let allowed: Vec<&State> = life.states[at..=at + 1].iter().collect();
        // Without descriptors there is no opening a file to look at.
        let readable = !error.to_string().contains("Too many open files");
        if let Some(store) = store.as_ref().filter(|_| readable) {
            assert!(allowed.contains(&&observe(store)), "while it is open: {error}");
        }
        drop(store);
        fs::remove_file(&ballast).ok();
        if readable && let Ok(reader) = Store::open(&place.zoo(), Mode::Read) {
            assert!(allowed.contains(&&observe(&reader)), "for a reader: {error}");
        }
        writeln!(std::io::stdout(), "failed {at}: {error}").expect("print");
        return;
    }
    writeln!(std::io::stdout(), "finished").expect("print");
}

/// Runs the child under a limit that `preparation` sets before it executes its arguments; returns
/// what it printed, `None` if this machine does not allow the limit.
fn run(place: &Place, seed: u64, preparation: &str) -> Option<String> {
    let test = std::env::current_exe().expect("path of this test");
    let output = Command::new("sh")
        .args(["-c", preparation, "sh"])
        .arg(test)
        .args(["child_lives_under_a_limit", "--exact", "--nocapture"])
        .env(PLACE, &place.0)
        .env(SEED, seed.to_string())
        .output()
        .expect("a shell");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    let started = text.contains("running 1 test");
    assert!(output.status.success() || !started, "{preparation}:\n{text}\n{complaint}");
    started.then_some(text)
}

#[test]
fn files_that_may_not_grow_and_descriptors_that_run_out() {
    // How many descriptors RocksDB needs at a time depends on when its threads run, so a life with a
    // few to spare may end well.
    for (seed, limit, fails) in [
        (7, "trap '' XFSZ; ulimit -f 120", true),
        (8, "trap '' XFSZ; ulimit -f 300", true),
        (7, "ulimit -n 20", true),
        (8, "ulimit -n 25", false),
    ] {
        let folder = folder();
        let place = Place(folder.path().to_owned());
        let text = run(&place, seed, &format!("{limit}; exec \"$@\"")).expect("every shell can");
        let failed = text.lines().find_map(|line| line.split("failed ").nth(1)?.split(':').next());
        assert!(failed.is_some() || !fails, "{limit}: nothing failed:\n{text}");
        let life = Life::new(seed);
        let end = life.operations.len() - 1;
        let at = failed.map_or(end, |at| at.parse::<usize>().expect("a number"));
        let allowed: Vec<&State> = life.states[at..=at + 1].iter().collect();
        survive(&place, &allowed, &life.states[..=at + 1].iter().collect::<Vec<_>>());
    }
}

#[test]
fn a_disk_that_is_really_full() {
    let folder = folder();
    let place = Place(folder.path().to_owned());
    for (seed, bytes) in [(7, "1100k"), (8, "1200k"), (9, "1300k")] {
        // A file system of our own, in a mount namespace of our own, needs no root. It is gone with
        // the child, so the child does the looking.
        let mount = format!(
            "exec unshare --user --map-root-user --mount sh -c \
             'mount -t tmpfs -o size={bytes} tmpfs {} && exec \"$@\"' sh \"$@\"",
            place.0.display()
        );
        // Where user namespaces are switched off there is nothing to see.
        let Some(text) = run(&place, seed, &mount) else { return };
        assert!(text.contains("No space left"), "{bytes}: nothing failed:\n{text}");
    }
}
