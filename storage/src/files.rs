//! Files and folders: making them durable, replacing them, and errors that name them.

use crate::{Error, Result};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Makes an `Error::Io` out of a failed `action` on `path`; for `map_err`.
pub(crate) fn io_error<'a>(
    action: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> Error + use<'a> {
    move |source| Error::Io { action, path: path.to_owned(), source }
}

/// Makes the entries of a folder durable.
pub(crate) fn sync_folder(path: &Path) -> Result<()> {
    let folder = File::open(path).map_err(io_error("cannot open", path))?;
    folder.sync_all().map_err(io_error("cannot sync", path))
}

/// Replaces `path` by what `write` writes: temporary sibling, sync, rename, sync of the folder. The
/// only rename in the project.
///
/// # Errors
/// `Error::Io` when a step fails; `path` is then as it was, unless only the last sync failed.
pub fn install_file(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<()> {
    let temporary = temporary_sibling(path)?;
    let written = write_synced(&temporary, write)
        .and_then(|()| fs::rename(&temporary, path).map_err(io_error("cannot replace", path)));
    if written.is_err() {
        // The first error is the one to report; a temporary file left behind is harmless.
        let _ = fs::remove_file(&temporary);
        return written;
    }
    sync_folder(parent(path))
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
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(io_error("cannot create", path))?;
    write(&mut file).map_err(io_error("cannot write", path))?;
    file.sync_all().map_err(io_error("cannot sync", path))
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
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    temporary.push(format!(".{}-{count}.tmp", std::process::id()));
    Ok(parent(path).join(temporary))
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    }
}
