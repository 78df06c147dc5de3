//! Copies a zoo as it is now into a folder of backups, while others read and write.

use crate::state::State;
use crate::steps::stored_files;
use crate::{Observer, Result};
use std::path::Path;

pub use tans_storage::BackupReport;

pub(crate) fn run(state: &State, folder: &Path, observer: Observer<'_>) -> Result<BackupReport> {
    let mut observe = stored_files(observer, "backing up files");
    Ok(state.store.backup(folder, &mut observe)?)
}
