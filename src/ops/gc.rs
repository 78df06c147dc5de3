//! Gives the disk back what no record names, while others read and write.

use crate::state::State;
use crate::steps::stored_files;
use crate::{Observer, Result};

pub use tans_storage::GcReport;

pub(crate) fn run(state: &State, observer: Observer<'_>) -> Result<GcReport> {
    let mut observe = stored_files(observer, "rewriting packs");
    Ok(state.store.gc(&mut observe)?)
}
