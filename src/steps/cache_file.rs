//! Files of the cache folder: there whole or not at all, and safe to delete.

use crate::{Error, Result};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Writes a file of these parts, and the folder that it lies in where there is none yet.
///
/// # Errors
/// If the folder or the file cannot be written.
pub fn put(file: &Path, parts: &[&[u8]]) -> Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)
            .map_err(|error| Error::file("cannot create", folder, error))?;
    }
    tans_storage::install_file(file, |out| parts.iter().try_for_each(|part| out.write_all(part)))?;
    Ok(())
}

/// Deletes the oldest files until the folder is under the cap.
pub fn trim(folder: &Path, bytes_max: u64) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let mut files: Vec<(SystemTime, u64, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| {
            let metadata = entry.metadata().ok()?;
            Some((metadata.modified().ok()?, metadata.len(), entry.path()))
        })
        .collect();
    files.sort();
    let mut total: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
    for (_, bytes, path) in files {
        if total <= bytes_max {
            return;
        }
        if std::fs::remove_file(path).is_ok() {
            total -= bytes;
        }
    }
}
