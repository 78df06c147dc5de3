//! The layout of a folder of backups.
//!
//! `BACKUP` marks the folder; `NNNNNN/` is one backup: the files of a zoo at one moment and
//! `MANIFEST`, which names each with its length and hash. No file of a backup is ever written to
//! again, so a later backup takes what is unchanged by a hard link.

use crate::files::{self, install_file, io_error, parent};
use crate::{Damage, Error, Result, failpoint, schema};
use serde::Serialize;
use std::fs::{self, File, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// File that makes a folder one of backups.
pub(crate) const MARKER: &str = "BACKUP";
/// File that names all others of a backup.
pub(crate) const MANIFEST: &str = "MANIFEST";
/// End of the name of a backup that is not complete.
const PARTIAL: &str = ".partial";

const MARKER_TEXT: &str = "tans backup\nformat 1\n";
const MANIFEST_TITLE: &str = "tans backup 1";

/// No manifest is longer; a line has about a hundred bytes.
const MANIFEST_BYTES_MAX: u64 = 1 << 30;
const COPY_BYTES: usize = 1 << 20;

/// What a backup did.
#[derive(Clone, Debug, Serialize)]
pub struct BackupReport {
    /// Number of the backup, from 1.
    pub number: u32,
    /// Its folder.
    pub path: PathBuf,
    /// Files in it.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that were copied; the rest are hard links to the backup before.
    pub bytes_copied: u64,
    /// Newest op-log sequence number in it.
    pub sequence: u64,
    /// Damaged tensors in the packs that were copied: the backup has them as the zoo has. Empty for a sound one.
    pub damages: Vec<Damage>,
}

/// A file of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Relative to the backup, such as `packs/000001.pack`.
    pub(crate) path: String,
    pub(crate) bytes: u64,
    pub(crate) hash: blake3::Hash,
}

/// What a manifest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// Format version of the zoo.
    pub(crate) format: u32,
    /// Newest op-log sequence number.
    pub(crate) sequence: u64,
    /// Where the zoo lay, with what is not printable escaped. Files are only ever taken over from a backup of the same zoo.
    pub(crate) zoo: String,
    pub(crate) entries: Vec<Entry>,
}

impl Manifest {
    pub(crate) fn to_text(&self) -> String {
        let Self { format, sequence, zoo, entries } = self;
        let mut text =
            format!("{MANIFEST_TITLE}\nformat {format}\nsequence {sequence}\nzoo {zoo}\n");
        for Entry { path, bytes, hash } in entries {
            text += &format!("{bytes} {hash} {path}\n");
        }
        let hash = blake3::hash(text.as_bytes());
        text + &format!("end {hash}\n")
    }

    /// Reads the manifest of a backup.
    ///
    /// # Errors
    /// `Error::Corrupt` when it is missing or not as it was written; `Error::NewerFormat` when a
    /// newer version wrote it.
    pub(crate) fn read(backup: &Path) -> Result<Self> {
        let path = backup.join(MANIFEST);
        let wrong = |what: &str| Error::Corrupt {
            file: path.display().to_string(),
            offset: "the file".to_owned(),
            what: what.to_owned(),
        };
        let file = match files::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(wrong("expected the manifest of a backup, found no such file"));
            }
            Err(error) => return Err(io_error("cannot open", &path)(error)),
        };
        let mut text = Vec::new();
        file.take(MANIFEST_BYTES_MAX)
            .read_to_end(&mut text)
            .map_err(io_error("cannot read", &path))?;
        let manifest = std::str::from_utf8(&text).ok().and_then(Self::parse).ok_or_else(|| {
            wrong("expected the manifest of a backup with a right hash at its end")
        })?;
        if manifest.format > schema::FORMAT_VERSION {
            let (found, supported) = (manifest.format, schema::FORMAT_VERSION);
            return Err(Error::NewerFormat { path: backup.to_owned(), found, supported });
        }
        Ok(manifest)
    }

    fn parse(text: &str) -> Option<Self> {
        let end = text.strip_suffix('\n')?.rfind('\n')? + 1;
        let hash = text[end..].strip_prefix("end ")?.trim_end();
        if blake3::Hash::from_hex(hash).ok()? != blake3::hash(&text.as_bytes()[..end]) {
            return None;
        }
        let mut lines = text[..end].lines();
        if lines.next()? != MANIFEST_TITLE {
            return None;
        }
        let format = lines.next()?.strip_prefix("format ")?.parse().ok()?;
        let sequence = lines.next()?.strip_prefix("sequence ")?.parse().ok()?;
        let zoo = lines.next()?.strip_prefix("zoo ")?.to_owned();
        let entries = lines.map(parse_entry).collect::<Option<Vec<Entry>>>()?;
        Some(Self { format, sequence, zoo, entries })
    }
}

fn parse_entry(line: &str) -> Option<Entry> {
    let mut words = line.splitn(3, ' ');
    let bytes = words.next()?.parse().ok()?;
    let hash = blake3::Hash::from_hex(words.next()?).ok()?;
    let path = words.next()?.to_owned();
    // It becomes a path below the restored zoo, whoever wrote the manifest.
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    path.split('/').all(plain).then_some(Entry { path, bytes, hash })
}

/// Makes a folder one of backups, unless it is one.
///
/// # Errors
/// `Error::AlreadyExists` when something else is there.
pub(crate) fn prepare(folder: &Path) -> Result<()> {
    if is_marked(folder) {
        return Ok(());
    }
    schema::require_empty(folder)?;
    files::create_folders(folder)?;
    install_file(&folder.join(MARKER), |file| file.write_all(MARKER_TEXT.as_bytes()))?;
    files::sync_folder(parent(folder))
}

/// Keeps others from backing up into the folder as long as the file is open.
///
/// # Errors
/// `Error::Locked` while another backup is made there; `Error::Io`.
pub(crate) fn lock(folder: &Path) -> Result<File> {
    let marker = folder.join(MARKER);
    let file = File::open(&marker).map_err(io_error("cannot open", &marker))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let holder = "another backup into this folder".to_owned();
            Err(Error::Locked { path: folder.to_owned(), holder })
        }
        Err(TryLockError::Error(error)) => Err(io_error("cannot lock", &marker)(error)),
    }
}

/// Numbers of the complete backups in a folder, ascending.
pub(crate) fn numbers(folder: &Path) -> Result<Vec<u32>> {
    let mut numbers: Vec<u32> =
        files::names(folder)?.iter().filter_map(|name| name.parse().ok()).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Folder of a complete backup.
pub(crate) fn complete_path(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("{number:06}"))
}

/// Folder of a backup that is being made; removes what earlier ones left when they were killed.
pub(crate) fn start_partial(folder: &Path, number: u32) -> Result<PathBuf> {
    for name in files::names(folder)? {
        if name.ends_with(PARTIAL) {
            files::remove_folder(&folder.join(name))?;
        }
    }
    let partial = folder.join(format!("{number:06}{PARTIAL}"));
    fs::create_dir(&partial).map_err(io_error("cannot create", &partial))?;
    Ok(partial)
}

/// The backup that a path means: itself, or the newest one in it.
///
/// # Errors
/// `Error::Invalid` when there is none.
pub(crate) fn find(path: &Path) -> Result<PathBuf> {
    if path.join(MANIFEST).exists() {
        return Ok(path.to_owned());
    }
    let newest = if is_marked(path) { numbers(path)?.pop() } else { None };
    newest.map(|number| complete_path(path, number)).ok_or_else(|| {
        Error::Invalid(format!(
            "{}: expected a backup or a folder of backups, found none; `tans backup` makes one",
            path.display()
        ))
    })
}

/// Copies a file and makes the copy durable; returns its length and hash.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<(u64, blake3::Hash)> {
    failpoint::step("copy/start").map_err(io_error("cannot create", to))?;
    let source = files::open(from).map_err(io_error("cannot open", from))?;
    let copy = files::create_new(to)?;
    let mut offset = 0;
    let hash = each_chunk(from, &source, |chunk| {
        files::write_at(to, &copy, chunk, offset)?;
        offset += chunk.len() as u64;
        Ok(())
    })?;
    files::sync(to, &copy)?;
    failpoint::step("copy/synced").map_err(io_error("cannot sync", to))?;
    Ok((offset, hash))
}

/// Hashes a file.
pub(crate) fn hash(path: &Path) -> Result<blake3::Hash> {
    let file = files::open(path).map_err(io_error("cannot open", path))?;
    each_chunk(path, &file, |_| Ok(()))
}

fn each_chunk(
    path: &Path,
    mut file: &File,
    mut take: impl FnMut(&[u8]) -> Result<()>,
) -> Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        let count = file.read(&mut buffer).map_err(io_error("cannot read", path))?;
        if count == 0 {
            return Ok(hasher.finalize());
        }
        hasher.update(&buffer[..count]);
        take(&buffer[..count])?;
    }
}

fn is_marked(folder: &Path) -> bool {
    fs::read(folder.join(MARKER)).is_ok_and(|text| text == MARKER_TEXT.as_bytes())
}
