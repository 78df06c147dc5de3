//! Builds a new segment of the running one and of what came since; vectors stay as they are.

use crate::state::{self, State};
use crate::steps::generation;
use crate::{Observer, Result};
use serde::Serialize;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use tans_index::Entry;
use tans_storage::{Batch, GenerationRecord, Mode};

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

/// Merges if that is due, after the merge that is under way; `None` if it is not due, or if a generation that was
/// installed meanwhile holds these vectors too.
pub(crate) fn run(state: &State, observer: Observer<'_>) -> Result<Option<MergeReport>> {
    if state.store.mode() == Mode::Read {
        return Err(tans_storage::Error::ReadOnly.into());
    }
    // Two merges of one generation would write one file.
    let _alone = state.lock_merges();
    if !is_due(state) {
        return Ok(None);
    }
    let Snapshot { record, fingerprint, sequence, entries } = snapshot(state)?;
    let number = record.number + 1;
    // Of its own name: encoders that are installed meanwhile take the same number.
    let name = format!("{number:010}-merged.segment");
    let mut progress = |done, total| {
        crate::progress::report(&mut *observer, "building the index", "", done, total)
            .map_or(ControlFlow::Break(()), ControlFlow::Continue)
    };
    generation::write_segment(&state.store, &name, &entries, fingerprint, &mut progress)?;

    let _ordered = state.lock_commits();
    if state.generation().record.number != record.number {
        // Named by no record; one that cannot be deleted now goes with the next generation.
        let _ = std::fs::remove_file(state.store.segment_path(&name));
        return Ok(None);
    }
    let record = GenerationRecord { number, segment: Some(name), sequence, ..record };
    let mut batch = Batch::new();
    batch.install_generation(&record);
    state.store.commit(batch)?;
    // What a reader may still look for stays until `gc`; a segment that cannot be deleted now, too.
    let _ = state.store.delete_old_segments();
    state.install(state::load(&state.store)?);
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

/// Moves fresh vectors into a new segment when there are many; one merge at a time.
///
/// Dropping it stops a merge that is under way: nothing is lost by that, the vectors stay in the delta.
#[derive(Default)]
pub(crate) struct Merger {
    worker: Mutex<Option<JoinHandle<()>>>,
    closing: Arc<AtomicBool>,
}

impl Merger {
    /// Starts a merge if one is due and none is under way. Cheap; called after every write.
    pub(crate) fn start_if_due(&self, state: &Arc<State>) {
        let mut worker = self.worker();
        let is_busy = worker.as_ref().is_some_and(|worker| !worker.is_finished());
        if is_busy || state.store.mode() == Mode::Read || !is_due(state) {
            return;
        }
        let (state, closing) = (state.clone(), self.closing.clone());
        let work = move || {
            let mut go_on = |_| match closing.load(Ordering::Relaxed) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            };
            match run(&state, &mut go_on) {
                Ok(_) | Err(crate::Error::Cancelled) => {}
                Err(error) => tracing::warn!("the index could not be merged: {error}"),
            }
        };
        match std::thread::Builder::new().name("tans-merge".into()).spawn(work) {
            Ok(started) => *worker = Some(started),
            Err(error) => tracing::warn!("the index could not be merged: no thread: {error}"),
        }
    }

    fn worker(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.worker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Merger {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Relaxed);
        if let Some(worker) = self.worker().take() {
            // A thread that panicked has said so; the vectors stay in the delta.
            let _ = worker.join();
        }
    }
}
