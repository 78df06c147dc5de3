//! Backing up and restoring: what comes back is what was there, later backups copy only what is new,
//! and a damaged backup is never taken for a sound one.

mod common;
#[path = "common/folders.rs"]
mod folders;

use common::{BACKBONE, assert_sound, model, put_blob, task};
use folders::copy;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use tans_storage::{BackupReport, Batch, Error, Mode, RestoreReport, Store};

fn go_on(_: usize, _: usize) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn backup(store: &Store, folder: &Path) -> BackupReport {
    store.backup(folder, &mut go_on).expect("backup")
}

fn restore(from: &Path, zoo: &Path) -> Result<RestoreReport, Error> {
    Store::restore(from, zoo, &mut go_on)
}

fn bytes(n: u64) -> Vec<u8> {
    (0..50_000u64).map(|at| (at * (n + 3) % 251) as u8).collect()
}

/// Adds model `n`, whose weights follow from it.
fn add(store: &Store, n: u64) {
    let id = put_blob(store, &bytes(n));
    let mut batch = Batch::new();
    batch.put_model(&model(n, &format!("m{n}"), &[id]));
    batch.put_task(&task(n as u8, &format!("t{n}")));
    store.commit(batch).expect("commit");
}

/// The rows of a zoo, each of whose weights are read.
fn rows(zoo: &Path) -> Vec<u64> {
    let store = Store::open(zoo, Mode::Write).expect("open");
    assert_sound(&store);
    let models = store.models().expect("models");
    let rows = models.map(|model| {
        let model = model.expect("a record");
        let tensor = store.tensor(model.weights[0].tensor).expect("weights");
        assert_eq!(tensor.as_ref(), bytes(model.row));
        model.row
    });
    rows.collect()
}

#[test]
fn every_backup_restores_to_its_moment_and_later_ones_copy_only_what_is_new() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let (zoo, backups) = (folder.path().join("zoo"), folder.path().join("backups"));
    let store = Store::create(&zoo, BACKBONE).expect("create");
    (0..20).for_each(|n| add(&store, n));
    let first = backup(&store, &backups);
    assert_eq!((first.number, first.bytes_copied), (1, first.bytes));
    assert!(first.bytes > 1_000_000);
    add(&store, 20);
    let second = backup(&store, &backups);
    assert_eq!(second.number, 2);
    assert!(second.bytes_copied < 200_000, "{second:?}");
    // What happens to the zoo later does not reach its backups.
    let mut batch = Batch::new();
    (0..15).for_each(|row| batch.remove_model(row));
    store.commit(batch).expect("commit");
    assert_eq!(store.gc(&mut go_on).expect("gc").packs_deleted, 1);
    add(&store, 21);
    let third = backup(&store, &backups);
    drop(store);

    let restored = |from: &Path, name: &str| {
        let zoo = folder.path().join(name);
        let report = restore(from, &zoo).expect("restore");
        assert!(report.damages.is_empty(), "{:?}", report.damages);
        rows(&zoo)
    };
    assert_eq!(restored(&first.path, "one"), (0..20).collect::<Vec<u64>>());
    assert_eq!(restored(&second.path, "two"), (0..21).collect::<Vec<u64>>());
    assert_eq!(restored(&backups, "three"), (15..22).collect::<Vec<u64>>());
    // A backup may go without the others.
    fs::remove_dir_all(&first.path).expect("remove");
    fs::remove_dir_all(&third.path).expect("remove");
    assert_eq!(restored(&backups, "four"), (0..21).collect::<Vec<u64>>());
    assert_eq!(rows(&zoo), (15..22).collect::<Vec<u64>>());
    let hidden = fs::read_dir(&zoo).expect("list").flatten();
    assert!(hidden.into_iter().all(|entry| !entry.file_name().to_string_lossy().starts_with('.')));
}

#[test]
fn a_backup_beside_a_writer_is_one_moment() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let (zoo, backups) = (folder.path().join("zoo"), folder.path().join("backups"));
    let store = Store::create(&zoo, BACKBONE).expect("create");
    add(&store, 0);
    let reports: Vec<BackupReport> = std::thread::scope(|scope| {
        let writer = scope.spawn(|| (1..20).for_each(|n| add(&store, n)));
        let mut reports = Vec::new();
        while !writer.is_finished() {
            reports.push(backup(&store, &backups));
        }
        reports
    });
    for report in reports {
        let zoo = folder.path().join(format!("restored{}", report.number));
        restore(&report.path, &zoo).expect("restore");
        // Two lines of the op log a model.
        assert_eq!(rows(&zoo), (0..report.sequence / 2).collect::<Vec<u64>>());
    }
}

#[test]
fn a_restored_zoo_is_not_mistaken_for_the_old_one() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let (zoo, backups) = (folder.path().join("zoo"), folder.path().join("backups"));
    let other = folder.path().join("other");
    let store = Store::create(&zoo, BACKBONE).expect("create");
    add(&store, 0);
    backup(&store, &backups);
    restore(&backups, &other).expect("restore");
    drop(store);
    for (zoo, n) in [(&zoo, 1), (&other, 2), (&zoo, 3)] {
        let store = Store::open(zoo, Mode::Write).expect("open");
        add(&store, n);
        let path = backup(&store, &backups).path;
        let again = folder.path().join(format!("again{n}"));
        restore(&path, &again).expect("restore");
        assert!(rows(&again).contains(&n));
    }
}

#[test]
fn a_damaged_backup_is_refused_and_leaves_nothing() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let (zoo, backups) = (folder.path().join("zoo"), folder.path().join("backups"));
    let store = Store::create(&zoo, BACKBONE).expect("create");
    (0..3).for_each(|n| add(&store, n));
    let path = backup(&store, &backups).path;
    let target = folder.path().join("restored");
    let mut files = Vec::new();
    list(&path, &mut files);
    assert!(files.len() > 5);
    for file in files {
        let sound = fs::read(&file).expect("read");
        let mut flipped = sound.clone();
        let middle = flipped.len() / 2;
        if let Some(byte) = flipped.get_mut(middle) {
            *byte ^= 1;
        }
        let short = sound[..sound.len().saturating_sub(1)].to_vec();
        for damaged in [Some(flipped), Some(short), None] {
            // An empty file can be neither flipped nor shortened.
            if damaged.as_ref() == Some(&sound) {
                continue;
            }
            match damaged {
                Some(bytes) => fs::write(&file, bytes).expect("write"),
                None => fs::remove_file(&file).expect("remove"),
            }
            let refused = restore(&path, &target);
            let missing_manifest = file.ends_with("MANIFEST") && !file.exists();
            match refused {
                Err(Error::Corrupt { .. }) => {}
                Err(Error::Invalid(_)) if missing_manifest => {}
                other => panic!("{file:?}: {other:?}"),
            }
            assert!(!target.exists());
        }
        fs::write(&file, sound).expect("write");
    }
    restore(&path, &target).expect("restore");
    assert_eq!(names(folder.path()), ["backups", "restored", "zoo"]);
}

#[test]
fn rot_in_the_zoo_is_told_by_its_backup_and_its_restoration() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let (zoo, backups) = (folder.path().join("zoo"), folder.path().join("backups"));
    let store = Store::create(&zoo, BACKBONE).expect("create");
    add(&store, 0);
    assert_eq!(backup(&store, &backups).damages.len(), 0);
    let pack = zoo.join("packs/000001.pack");
    let mut bytes = std::fs::read(&pack).expect("read");
    *bytes.last_mut().expect("a pack that holds something") ^= 1;
    std::fs::write(&pack, bytes).expect("write");
    assert_eq!(backup(&store, &backups).damages.len(), 1);
    let elsewhere = folder.path().join("elsewhere");
    assert_eq!(backup(&store, &elsewhere).damages.len(), 1);
    let restored = restore(&elsewhere, &folder.path().join("restored")).expect("restore");
    assert_eq!(restored.damages.len(), 1);
    // The backup before holds it as it was.
    let first = restore(&backups.join("000001"), &folder.path().join("sound")).expect("restore");
    assert_eq!(first.damages.len(), 0);
}

#[test]
fn what_is_in_the_way_is_left_alone() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let (zoo, backups) = (folder.path().join("zoo"), folder.path().join("backups"));
    let store = Store::create(&zoo, BACKBONE).expect("create");
    add(&store, 0);
    for place in
        [&zoo, &zoo.join("backups"), &zoo.join("packs/../a/b"), &zoo.join("../new/../zoo/b")]
    {
        let refused = store.backup(place, &mut go_on);
        assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    }
    let other = folder.path().join("other");
    std::fs::create_dir_all(other.join("thing")).expect("create");
    let refused = store.backup(&other, &mut go_on);
    assert!(matches!(refused, Err(Error::AlreadyExists { .. })), "{refused:?}");
    std::fs::remove_dir_all(&other).expect("remove");
    assert!(matches!(restore(&backups, &zoo), Err(Error::AlreadyExists { .. })));
    assert!(matches!(restore(&backups, &folder.path().join("new")), Err(Error::Invalid(_))));
    let cancelled = store.backup(&backups, &mut |_, _| ControlFlow::Break(()));
    assert!(matches!(cancelled, Err(Error::Cancelled)), "{cancelled:?}");
    assert_eq!(names(&backups), ["BACKUP"]);
    backup(&store, &backups);
    let new = folder.path().join("new");
    let cancelled = Store::restore(&backups, &new, &mut |_, _| ControlFlow::Break(()));
    assert!(matches!(cancelled, Err(Error::Cancelled)), "{cancelled:?}");
    assert_eq!(names(folder.path()), ["backups", "zoo"]);
    let reader = Store::open(&zoo, Mode::Read).expect("open");
    assert!(matches!(reader.backup(&backups, &mut go_on), Err(Error::ReadOnly)));
}

#[test]
fn a_copy_of_a_quiet_zoo_opens() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let (zoo, copy) = (folder.path().join("zoo"), folder.path().join("copy"));
    let store = Store::create(&zoo, BACKBONE).expect("create");
    (0..3).for_each(|n| add(&store, n));
    // Quiet means that nobody writes: the writer may be open, and so may a reader.
    let _reader = Store::open(&zoo, Mode::Read).expect("open");
    let status = std::process::Command::new("cp").arg("-r").args([&zoo, &copy]).status();
    assert!(status.expect("cp runs").success());
    assert_eq!(rows(&copy), [0, 1, 2]);
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("list") {
        let path = entry.expect("entry").path();
        if path.is_dir() { list(&path, files) } else { files.push(path) }
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .expect("list")
        .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn two_backups_into_one_folder_do_not_meet() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let backups = folder.path().join("backups");
    let made = |name: &str, n: u64| {
        let store = Store::create(&folder.path().join(name), BACKBONE).expect("create");
        add(&store, n);
        store
    };
    let (one, other) = (made("one", 1), made("other", 2));
    let mut refused = 0;
    let mut meanwhile = |_: usize, _: usize| {
        let error = other.backup(&backups, &mut go_on).expect_err("the folder is in use");
        assert!(matches!(error, Error::Locked { .. }), "{error}");
        refused += 1;
        ControlFlow::Continue(())
    };
    one.backup(&backups, &mut meanwhile).expect("backup");
    assert!(refused > 0);
    assert_eq!(backup(&other, &backups).number, 2);
    restore(&backups.join("000001"), &folder.path().join("restored")).expect("restore");
    assert_eq!(rows(&folder.path().join("restored")), [1]);
}

/// A zoo is copied, goes on, and the copy takes its place: packs of the same name, header and length differ.
#[test]
fn a_copy_that_went_another_way_is_no_older_backup() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let [zoo, copied, backups] = ["zoo", "copy", "backups"].map(|name| folder.path().join(name));
    let store = Store::create(&zoo, BACKBONE).expect("create");
    add(&store, 1);
    drop(store);
    copy(&zoo, &copied);
    let store = Store::open(&zoo, Mode::Write).expect("open");
    add(&store, 2);
    backup(&store, &backups);
    drop(store);
    fs::remove_dir_all(&zoo).expect("remove");
    fs::rename(&copied, &zoo).expect("rename");
    let store = Store::open(&zoo, Mode::Write).expect("open");
    add(&store, 3);
    backup(&store, &backups);
    let restored = folder.path().join("restored");
    let report = restore(&backups, &restored).expect("restore");
    assert!(report.damages.is_empty(), "{:?}", report.damages);
    assert_eq!(rows(&restored), [1, 3]);
}
