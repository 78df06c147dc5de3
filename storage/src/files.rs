//! Files and folders: making them durable, replacing them, and errors that name them. Every file of
//! a zoo that is not RocksDB's is written here.

use crate::{Error, Result, failpoint};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// End of the name of a file that is about to replace another one.
const TEMPORARY: &str = ".tmp";

/// Makes an `Error::Io` out of a failed `action` on `path`; for `map_err`.
pub(crate) fn io_error<'a>(
    action: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> Error + use<'a> {
    move |source| Error::Io { action, path: path.to_owned(), source }
}

/// Opens a file for reading.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    failpoint::step("disk/open")?;
    File::open(path)
}

/// Makes a file that must not exist.
pub(crate) fn create_new(path: &Path) -> Result<File> {
    failpoint::step("disk/open")
        .and_then(|()| OpenOptions::new().read(true).write(true).create_new(true).open(path))
        .map_err(io_error("cannot create", path))
}

/// Writes all of `bytes` at `offset`.
pub(crate) fn write_at(path: &Path, file: &File, bytes: &[u8], offset: u64) -> Result<()> {
    let (first, second) =
        bytes.split_at(if cfg!(feature = "failpoints") { bytes.len() / 2 } else { 0 });
    // With failpoints a write is cut in two, so that a test sees what a torn one leaves.
    failpoint::step("disk/write")
        .and_then(|()| file.write_all_at(first, offset))
        .and_then(|()| failpoint::step("disk/torn"))
        .and_then(|()| file.write_all_at(second, offset + first.len() as u64))
        .map_err(io_error("cannot write", path))
}

/// Makes a file durable.
pub(crate) fn sync(path: &Path, file: &File) -> Result<()> {
    failpoint::step("disk/sync")
        .and_then(|()| file.sync_all())
        .map_err(io_error("cannot sync", path))
}

/// Makes the entries of a folder durable.
pub(crate) fn sync_folder(path: &Path) -> Result<()> {
    let folder = open(path).map_err(io_error("cannot open", path))?;
    sync(path, &folder)
}

/// Makes a folder and those above it that are missing, all durable.
pub(crate) fn create_folders(path: &Path) -> Result<()> {
    let missing: Vec<&Path> = path.ancestors().take_while(|folder| !folder.exists()).collect();
    fs::create_dir_all(path).map_err(io_error("cannot create", path))?;
    missing.into_iter().try_for_each(|folder| sync_folder(parent(folder)))
}

/// Renames a file or folder and makes that durable.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<()> {
    failpoint::step("disk/rename")
        .and_then(|()| fs::rename(from, to))
        .map_err(io_error("cannot replace", to))?;
    sync_folder(parent(to))
}

/// Removes a file; that it is not there is fine.
pub(crate) fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io_error("cannot remove", path)(error)),
    }
}

/// Removes a folder with all that is in it; that it is not there is fine.
pub(crate) fn remove_folder(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io_error("cannot remove", path)(error)),
    }
}

/// Replaces `path` by what `write` writes: temporary sibling, sync, rename, sync of the folder.
///
/// # Errors
/// `Error::Io` when a step fails; `path` is then as it was, unless only the last sync failed.
pub fn install_file(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<()> {
    let step = |name| failpoint::step(name).map_err(io_error("cannot replace", path));
    let temporary = temporary_sibling(path)?;
    let written = write_synced(&temporary, write)
        .and_then(|()| step("install/synced"))
        .and_then(|()| rename(&temporary, path));
    if written.is_err() {
        // The first error is the one to report; a temporary file left behind is harmless.
        let _ = fs::remove_file(&temporary);
        return written;
    }
    step("install/renamed")
}

/// Whether a file of that name was to replace another one, as `install_file` names them.
pub(crate) fn is_temporary(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(TEMPORARY)
}

/// Names of the entries of a folder, sorted; a folder that is not there has none.
pub(crate) fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_error("cannot list", folder)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(io_error("cannot list", folder))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Sum of the sizes of all files below `path`; files that vanish meanwhile count as nothing.
pub(crate) fn folder_bytes(path: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(path).map_err(io_error("cannot list", path))? {
        let entry = entry.map_err(io_error("cannot list", path))?;
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes += folder_bytes(&entry.path())?,
            Ok(metadata) => bytes += metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io_error("cannot inspect", &entry.path())(error)),
        }
    }
    Ok(bytes)
}

fn write_synced(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<()> {
    let mut file = create_new(path)?;
    failpoint::step("disk/write")
        .and_then(|()| write(&mut file))
        .map_err(io_error("cannot write", path))?;
    sync(path, &file)
}

fn temporary_sibling(path: &Path) -> Result<PathBuf> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let Some(name) = path.file_name() else {
        return Err(Error::Invalid(format!(
            "expected the path of a file, found {}",
            path.display()
        )));
    };
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    loop {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let mut numbered = temporary.clone();
        numbered.push(format!(".{}-{count}{TEMPORARY}", std::process::id()));
        let sibling = parent(path).join(numbered);
        // One that is there was left by a process with our number, which was killed, or works in another container.
        if !sibling.exists() {
            return Ok(sibling);
        }
    }
}

/// The folder in which a path lies.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    }
}
