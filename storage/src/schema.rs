//! The layout of a zoo directory and the marker file that is read before anything else is touched.

use crate::files::{install_file, io_error};
use crate::{Error, Result};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

/// Version of the whole directory's format that this build writes, and the newest it reads.
pub const FORMAT_VERSION: u32 = 1;

/// The oldest version that this build reads.
const FORMAT_VERSION_OLDEST: u32 = 1;

/// Marker file: two lines of text.
pub(crate) const MARKER: &str = "FORMAT";
/// Folder of the RocksDB database.
pub(crate) const DATABASE: &str = "db";
/// Folder of the pack files.
pub(crate) const PACKS: &str = "packs";
/// Folder of the engine's derived files.
pub(crate) const SEGMENTS: &str = "segments";
/// Folder in which readers say how far they have read.
pub(crate) const READERS: &str = "readers";
/// Lock file of the writer.
pub(crate) const LOCK: &str = "LOCK";
/// Marker of a zoo that is being made; it goes when `MARKER` is there.
pub(crate) const UNFINISHED: &str = "UNFINISHED";

/// What a zoo that is being made can hold beside its marker and its lock.
const PARTS: [&str; 4] = [DATABASE, PACKS, SEGMENTS, READERS];

const MARKER_TITLE: &str = "tans zoo";

/// No marker is longer; what is longer is some other file.
const MARKER_BYTES_MAX: u64 = 256;

/// Makes a directory a zoo; the last step of its making.
pub(crate) fn write_marker(zoo: &Path, version: u32) -> Result<()> {
    install_file(&zoo.join(MARKER), |file| {
        file.write_all(format!("{MARKER_TITLE}\nformat {version}\n").as_bytes())
    })?;
    // Beside `MARKER` it means nothing any more.
    let _ = fs::remove_file(zoo.join(UNFINISHED));
    Ok(())
}

/// Says that what is about to be made in this directory is ours.
pub(crate) fn mark_unfinished(zoo: &Path) -> Result<()> {
    let path = zoo.join(UNFINISHED);
    File::create(&path)
        .and_then(|mut file| {
            file.write_all(format!("{MARKER_TITLE}\n").as_bytes())?;
            file.sync_all()
        })
        .map_err(io_error("cannot write", &path))
}

/// Whether everything in a directory was left by a zoo whose making was interrupted.
fn is_unfinished(zoo: &Path) -> bool {
    let Ok(text) = fs::read_to_string(zoo.join(UNFINISHED)) else { return false };
    let Ok(mut entries) = fs::read_dir(zoo) else { return false };
    // The title is missing if the process died before it was written: nothing else is there then.
    let has_title = text.lines().next() == Some(MARKER_TITLE);
    let is_ours = |name: &str| {
        let part = name == LOCK || PARTS.contains(&name) || is_temporary_marker(name);
        name == UNFINISHED || (has_title && part)
    };
    (has_title || text.is_empty())
        && entries
            .all(|entry| entry.is_ok_and(|entry| entry.file_name().to_str().is_some_and(is_ours)))
}

/// Removes all that a making left, under its lock; what cannot be removed makes way for the next one.
pub(crate) fn remove_unfinished(zoo: &Path) {
    let _ = clear_unfinished(zoo);
    // Last of all, because it says that the rest is ours.
    for part in [MARKER, LOCK, UNFINISHED] {
        let _ = fs::remove_file(zoo.join(part));
    }
}

/// Removes what an interrupted making left, apart from `UNFINISHED` and the lock that is held.
pub(crate) fn clear_unfinished(zoo: &Path) -> Result<()> {
    for part in PARTS {
        let path = zoo.join(part);
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_error("cannot remove", &path)(error));
            }
            Ok(()) | Err(_) => {}
        }
    }
    for entry in fs::read_dir(zoo).map_err(io_error("cannot list", zoo))?.flatten() {
        if entry.file_name().to_str().is_some_and(is_temporary_marker) {
            fs::remove_file(entry.path()).map_err(io_error("cannot remove", &entry.path()))?;
        }
    }
    Ok(())
}

/// Whether a file was to become `MARKER`, as `install_file` names them.
fn is_temporary_marker(name: &str) -> bool {
    name.strip_prefix('.').is_some_and(|rest| rest.starts_with(MARKER) && rest.ends_with(".tmp"))
}

/// Reads the marker and returns the format version. Writes nothing.
///
/// # Errors
/// `Error::NotAZoo` or `Error::NewerFormat`, or `Error::Io` when the marker cannot be read.
pub(crate) fn read_marker(zoo: &Path) -> Result<u32> {
    let path = zoo.join(MARKER);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if absent(&error) => return Err(not_a_zoo(zoo, describe(zoo))),
        Err(error) => return Err(io_error("cannot open", &path)(error)),
    };
    let mut bytes = Vec::new();
    match file.take(MARKER_BYTES_MAX + 1).read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
            return Err(not_a_zoo(zoo, format!("a folder named {MARKER}")));
        }
        Err(error) => return Err(io_error("cannot read", &path)(error)),
    }
    let version = parse(&bytes)
        .ok_or_else(|| not_a_zoo(zoo, format!("a file {MARKER} with other content")))?;
    if version > FORMAT_VERSION {
        return Err(Error::NewerFormat {
            path: zoo.to_owned(),
            found: version,
            supported: FORMAT_VERSION,
        });
    }
    if version < FORMAT_VERSION_OLDEST {
        return Err(not_a_zoo(zoo, format!("format version {version}, which never existed")));
    }
    Ok(version)
}

/// Refuses a path that exists, unless it is a directory that is empty or holds an unfinished zoo.
pub(crate) fn require_vacant(zoo: &Path) -> Result<()> {
    if is_unfinished(zoo) { Ok(()) } else { require_empty(zoo) }
}

/// Refuses a path that exists, unless it is an empty directory.
pub(crate) fn require_empty(zoo: &Path) -> Result<()> {
    let occupied = |found: String| Error::AlreadyExists { path: zoo.to_owned(), found };
    let entries = match fs::read_dir(zoo) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(occupied("a file".to_owned()));
        }
        Err(error) => return Err(io_error("cannot list", zoo)(error)),
    };
    if entries.take(1).count() == 0 {
        return Ok(());
    }
    Err(occupied(match read_marker(zoo) {
        Ok(_) | Err(Error::NewerFormat { .. }) => "a zoo".to_owned(),
        Err(_) => describe(zoo),
    }))
}

fn parse(bytes: &[u8]) -> Option<u32> {
    let mut lines = std::str::from_utf8(bytes).ok()?.lines();
    if lines.next()? != MARKER_TITLE {
        return None;
    }
    // A newer format may add lines; its version still tells.
    lines.next()?.strip_prefix("format ")?.parse().ok()
}

fn absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn not_a_zoo(zoo: &Path, found: String) -> Error {
    let expected = format!("a directory with a file {MARKER}");
    Error::NotAZoo { path: zoo.to_owned(), expected, found }
}

fn describe(path: &Path) -> String {
    if is_unfinished(path) {
        return "one whose making was interrupted".to_owned();
    }
    let Ok(entries) = fs::read_dir(path) else {
        return if path.exists() { "a file" } else { "nothing" }.to_owned();
    };
    let mut names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    match names.len() {
        0 => "an empty directory".to_owned(),
        1..=3 => format!("a directory with {}", names.join(", ")),
        more => format!("a directory with {} and {} more", names[..3].join(", "), more - 3),
    }
}
