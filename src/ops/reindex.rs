//! Embeds every model again with the running encoders and builds the segment anew.

use crate::Result;
use crate::state::State;
use crate::steps::generation;
use serde::Serialize;

/// What `reindex` did.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ReindexReport {
    /// Number of the installed generation.
    pub generation: u64,
    /// Vectors in it.
    pub models: usize,
}

pub(crate) fn run(state: &State) -> Result<ReindexReport> {
    let _ordered = state.lock_commits();
    let encoders = state.generation().encoders.clone();
    let notes = "reindex".to_owned();
    let installed = generation::install(&state.store, generation::Candidate { encoders, notes })?;
    let report =
        ReindexReport { generation: installed.record.number, models: installed.vector_count() };
    state.install(installed);
    Ok(report)
}
