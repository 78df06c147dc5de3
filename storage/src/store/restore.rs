//! Restoring a backup.

use super::{Damage, Store};
use crate::backup::{self, Manifest};
use crate::files::{self, io_error, parent};
use crate::lock::WriterLock;
use crate::{Error, Result, failpoint, schema};
use serde::Serialize;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// What a restore did.
#[derive(Clone, Debug, Serialize)]
pub struct RestoreReport {
    /// The backup that was restored.
    pub backup: PathBuf,
    /// Files copied, each with the length and hash that the manifest says.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Newest op-log sequence number.
    pub sequence: u64,
    /// What `check` found in the restored zoo: damage that was in the zoo already when it
    /// was backed up. Empty for a sound one.
    pub damages: Vec<Damage>,
}

impl Store {
    /// Makes a zoo at `zoo` (new or empty) out of a backup: `from` is one, or a folder of them, of
    /// which the newest is taken. Every byte is compared with the manifest and the whole zoo is
    /// checked before it appears; until then nothing is at `zoo`. `observe` is called before
    /// each file with the number of files done and in all; after `Break` nothing is left behind.
    ///
    /// # Errors
    /// `Error::AlreadyExists` when something is at `zoo`; `Error::Invalid` when there is no backup;
    /// `Error::NewerFormat`; `Error::Corrupt` when a file of the backup is not as it was written;
    /// `Error::Cancelled`; `Error::Rocks` or `Error::Io` when a file cannot be read or written.
    pub fn restore(
        from: &Path,
        zoo: &Path,
        observe: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<RestoreReport> {
        schema::require_empty(zoo)?;
        let backup = backup::find(from)?;
        let manifest = Manifest::read(&backup)?;
        let partial = partial_path(zoo)?;
        files::create_folders(&partial)?;
        let lock = WriterLock::take(&partial)?;
        step("restore/start", zoo)?;
        let restored = clear(&partial)
            .and_then(|()| copy_all(&backup, &manifest, &partial, observe))
            .and_then(|()| schema::write_marker(&partial, manifest.format))
            .and_then(|()| step("restore/marked", zoo));
        // The lock goes with the zoo to its place, so that no other restore takes this one's folder for a left-over.
        let installed =
            restored.and_then(|()| prove(&partial, lock)).and_then(|(damages, held)| {
                step("restore/rename", zoo)?;
                files::rename(&partial, zoo)?;
                step("restore/renamed", zoo)?;
                drop(held);
                Ok(damages)
            });
        let damages = installed.inspect_err(|_| {
            // The first error is the one to report; the next restore clears what is left.
            let _ = files::remove_folder(&partial);
        })?;
        Ok(RestoreReport {
            backup,
            files: manifest.entries.len() as u64,
            bytes: manifest.entries.iter().map(|entry| entry.bytes).sum(),
            sequence: manifest.sequence,
            damages,
        })
    }
}

/// Where a zoo is put together: beside its later place, so that one rename makes it appear.
fn partial_path(zoo: &Path) -> Result<PathBuf> {
    let Some(name) = zoo.file_name() else {
        let what = format!("expected the path of a new zoo, found {}", zoo.display());
        return Err(Error::Invalid(what));
    };
    Ok(parent(zoo).join(format!(".{}.restoring", name.to_string_lossy())))
}

/// Removes what an earlier restore left when it was killed.
fn clear(partial: &Path) -> Result<()> {
    for name in files::names(partial)? {
        let path = partial.join(&name);
        if path.is_dir() {
            files::remove_folder(&path)?;
        } else if name != schema::LOCK {
            files::remove_file(&path)?;
        }
    }
    Ok(())
}

fn copy_all(
    backup: &Path,
    manifest: &Manifest,
    partial: &Path,
    observe: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<()> {
    let folders = [schema::DATABASE, schema::PACKS, schema::SEGMENTS, schema::READERS]
        .map(|name| partial.join(name));
    for folder in &folders {
        fs::create_dir(folder).map_err(io_error("cannot create", folder))?;
    }
    step("restore/cleared", partial)?;
    for (done, entry) in manifest.entries.iter().enumerate() {
        if observe(done, manifest.entries.len()).is_break() {
            return Err(Error::Cancelled);
        }
        let source = backup.join(&entry.path);
        let wrong = |what: String| Error::Corrupt {
            file: source.display().to_string(),
            offset: "the file".to_owned(),
            what,
        };
        if !source.exists() {
            return Err(wrong("expected a file that the manifest names, found none".to_owned()));
        }
        let (bytes, hash) = backup::copy(&source, &partial.join(&entry.path))?;
        if (bytes, hash) != (entry.bytes, entry.hash) {
            return Err(wrong(format!(
                "expected {} bytes with hash {}, found {bytes} with hash {hash}",
                entry.bytes, entry.hash
            )));
        }
    }
    step("restore/copied", partial)?;
    folders.iter().try_for_each(|folder| files::sync_folder(folder))
}

/// Opens the restored zoo, checks it, and closes the pack that it would append to: the
/// backup has a pack with the same header, which must not be taken for it later.
fn prove(partial: &Path, lock: WriterLock) -> Result<(Vec<Damage>, Option<WriterLock>)> {
    let mut store = Store::open_locked(partial, lock)?;
    let report = store.check()?;
    step("restore/proven", partial)?;
    store.seal(&mut *store.writer()?)?;
    step("restore/sealed", partial)?;
    Ok((report.damages, store.lock.take()))
}

fn step(name: &'static str, path: &Path) -> Result<()> {
    failpoint::step(name).map_err(io_error("cannot create", path))
}
