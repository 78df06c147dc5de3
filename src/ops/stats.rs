//! Figures of a zoo.

use crate::Result;
use crate::state::State;
use serde::Serialize;
use std::sync::PoisonError;

/// Answer of `stats`.
#[derive(Clone, Debug, Serialize)]
pub struct StatsReport {
    /// Models.
    pub models: u64,
    /// Tasks.
    pub tasks: u64,
    /// Latest accuracies of a model on a task, by kind.
    pub pairs: u64,
    /// Distinct tensors.
    pub tensors: u64,
    /// Bytes that all records point to.
    pub logical_bytes: u64,
    /// Bytes of the distinct tensors.
    pub distinct_bytes: u64,
    /// Bytes that storing every tensor once has saved.
    pub saved_bytes: u64,
    /// Bytes of the directory.
    pub disk_bytes: u64,
    /// Current generation.
    pub generation: u64,
    /// Recipe of its encoders.
    pub recipe: String,
    /// Dimension of its vectors.
    pub dim: usize,
    /// Vectors that a search can find.
    pub vectors: usize,
    /// Vectors in its segment, outdated ones included.
    pub segment_vectors: usize,
    /// Vectors that came after the segment and wait for a merge.
    pub fresh_vectors: usize,
}

pub(crate) fn run(state: &State) -> Result<StatsReport> {
    state.refresh()?;
    let stats = state.store.stats()?;
    let generation = state.generation();
    let fresh_vectors = generation.delta.read().unwrap_or_else(PoisonError::into_inner).len();
    let segment_vectors = generation.segment.as_ref().map_or(0, tans_index::Segment::len);
    Ok(StatsReport {
        models: stats.models,
        tasks: stats.tasks,
        pairs: stats.pairs,
        tensors: stats.tensors,
        logical_bytes: stats.logical_bytes,
        distinct_bytes: stats.distinct_bytes,
        saved_bytes: stats.logical_bytes.saturating_sub(stats.distinct_bytes),
        disk_bytes: stats.disk_bytes,
        generation: generation.record.number,
        recipe: generation.encoders.recipe().to_owned(),
        dim: generation.encoders.dim(),
        segment_vectors,
        fresh_vectors,
        vectors: generation.vector_count(),
    })
}
