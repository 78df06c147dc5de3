//! Makes a zoo out of a backup, every byte of which is compared with what was written.

use crate::steps::stored_files;
use crate::{Observer, Result};
use std::path::Path;
use tans_storage::Store;

pub use tans_storage::RestoreReport;

pub(crate) fn run(from: &Path, zoo: &Path, observer: Observer<'_>) -> Result<RestoreReport> {
    let mut observe = stored_files(observer, "restoring files");
    Ok(Store::restore(from, zoo, &mut observe)?)
}
