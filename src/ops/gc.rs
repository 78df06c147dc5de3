//! Gives the disk back what no record names, while others read and write.

use crate::state::State;
use crate::{Error, Observer, Progress, Result};

pub use tans_storage::GcReport;

pub(crate) fn run(state: &State, observer: Observer<'_>) -> Result<GcReport> {
    let mut cancelled = false;
    let report = state.store.gc(&mut |done, total| {
        let item = String::new();
        let answer = observer(Progress { step: "rewriting packs", item, done, total });
        cancelled |= answer.is_break();
        answer
    })?;
    if cancelled { Err(Error::Cancelled) } else { Ok(report) }
}
