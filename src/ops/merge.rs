//! Builds a new segment of the running one and of what came since; vectors stay as they are.

use crate::state::{self, State};
use crate::steps::generation;
use crate::{Observer, Result};
use serde::Serialize;
use std::sync::PoisonError;
use tans_index::Entry;
use tans_storage::{Batch, GenerationRecord};

/// What `merge` did.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct MergeReport {
    /// Number of the generation that answers now.
    pub generation: u64,
    /// Vectors in its segment.
    pub vectors: usize,
}

/// What a merge starts from; the zoo may change while the segment is built.
struct Snapshot {
    record: GenerationRecord,
    fingerprint: [u8; 32],
    /// The last commit whose vectors are among the entries.
    sequence: u64,
    entries: Vec<Entry>,
}

/// Whether so many vectors lie outside the segment that they should move into a new one.
pub(crate) fn is_due(state: &State) -> bool {
    let generation = state.generation();
    let delta = generation.delta.read().unwrap_or_else(PoisonError::into_inner);
    tans_index::needs_merge(generation.segment.as_ref(), &delta)
}

/// Vectors outside the segment.
pub(crate) fn fresh(state: &State) -> usize {
    let generation = state.generation();
    generation.delta.read().unwrap_or_else(PoisonError::into_inner).len()
}

/// Merges if that is due, after the merge that is under way; `None` if it is not due, or if a generation that was
/// installed meanwhile holds these vectors too.
pub(crate) fn run(state: &State, observer: Observer<'_>) -> Result<Option<MergeReport>> {
    state.require_writer()?;
    // Two merges of one generation would write one file.
    let _alone = state.lock_merges();
    if !is_due(state) {
        return Ok(None);
    }
    // A new checksum must not be put over old damage; a small segment was proven when it was opened.
    let running = state.generation();
    if let Some(segment) = running.segment.as_ref().filter(|it| !state::is_proven_at_open(it)) {
        segment.verify()?;
    }
    let Snapshot { record, fingerprint, sequence, entries } = snapshot(state)?;
    let number = record.number + 1;
    // Of its own name: encoders that are installed meanwhile take the same number.
    let name = format!("{number:010}-merged.segment");
    generation::write_segment(&state.store, &name, &entries, fingerprint, observer)?;

    let _ordered = state.lock_commits();
    if state.generation().record.number != record.number {
        // Named by no record; one that cannot be deleted now goes with the next generation.
        let _ = std::fs::remove_file(state.store.segment_path(&name));
        return Ok(None);
    }
    let record = GenerationRecord { number, segment: Some(name), sequence, ..record };
    // Loaded first: nothing may fail between the commit and what queries see.
    let merged = state::load_as(&state.store, record.clone())?;
    let mut batch = Batch::new();
    batch.install_generation(&record);
    state.store.commit(batch)?;
    // What a reader may still look for stays until `gc`; a segment that cannot be deleted now, too.
    let _ = state.store.delete_old_segments();
    state.install(merged);
    Ok(Some(MergeReport { generation: number, vectors: entries.len() }))
}

fn snapshot(state: &State) -> Result<Snapshot> {
    let _ordered = state.lock_commits();
    let generation = state.generation();
    let delta = generation.delta.read().unwrap_or_else(PoisonError::into_inner);
    Ok(Snapshot {
        record: generation.record.clone(),
        fingerprint: generation.fingerprint,
        sequence: state.store.sequence()?,
        entries: tans_index::merged_entries(generation.segment.as_ref(), &delta)?,
    })
}
