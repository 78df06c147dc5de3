//! Opens a zoo. A generation is derived: one that cannot be read is made again from the records.

use crate::state::{self, Generation, State};
use crate::steps::{generation, training_set};
use crate::train::{self, FitOptions};
use crate::{Error, OpenOptions, Result};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tans_index::Segment;
use tans_storage::{Mode, Store};

/// How often a waiting writer looks whether the other one has ended.
const WAIT_STEP: Duration = Duration::from_millis(50);

pub(crate) fn run(path: &Path, options: OpenOptions) -> Result<State> {
    let mode = if options.read_only { Mode::Read } else { Mode::Write };
    let store = open_store(path, mode, options.wait)?;
    let current = match state::load(&store) {
        Err(Error::Storage(damage @ tans_storage::Error::Corrupt { .. })) => {
            tracing::error!("{damage}; the encoders are learned again with the default recipe");
            // What cannot be made again either is reported as it was found first.
            rebuild(&store).map_err(|_| Error::Storage(damage))?
        }
        loaded => loaded?,
    };
    State::new(store, current, options)
}

/// Proves a large segment while queries are answered from it already; one that is damaged is left aside.
pub(crate) fn prove(state: &Arc<State>) {
    let generation = state.generation();
    let is_large = |segment: &Segment| !state::is_proven_at_open(segment);
    if !generation.segment.as_ref().is_some_and(is_large) {
        return;
    }
    let state = Arc::downgrade(state);
    let work = move || {
        let Some(Err(damage)) = generation.segment.as_ref().map(Segment::verify) else { return };
        let Some(state) = state.upgrade() else { return };
        tracing::error!("{damage}; left aside, run reindex");
        let _ordered = state.lock_commits();
        if state.generation().record.number != generation.record.number {
            return;
        }
        match state::load_without_segment(&state.store) {
            Ok(sound) => state.install(sound),
            Err(error) => tracing::error!("the vectors cannot be read either: {error}"),
        }
    };
    // Without a thread it stays unproven until the next open.
    if let Err(error) = std::thread::Builder::new().name("tans-prove".into()).spawn(work) {
        tracing::warn!("the index is not proven: no thread: {error}");
    }
}

/// Opens the store as soon as no other process writes to it, or gives up after `wait`.
fn open_store(path: &Path, mode: Mode, wait: Duration) -> tans_storage::Result<Store> {
    let start = Instant::now();
    loop {
        match Store::open(path, mode) {
            Err(tans_storage::Error::Locked { .. }) if start.elapsed() < wait => {
                std::thread::sleep(WAIT_STEP.min(wait.saturating_sub(start.elapsed())));
            }
            opened => return opened,
        }
    }
}

/// Learns the closed form from the records. A writer installs it; a reader keeps it in memory.
fn rebuild(store: &Store) -> Result<Generation> {
    let (set, lost_tasks) = training_set::load_readable(store)?;
    let mut go_on = |_, _, _| ControlFlow::Continue(());
    let encoders = train::fit(&set, &FitOptions::default(), &mut go_on)?;
    let notes = "made again, because the generation before could not be read".to_owned();
    let candidate = generation::Candidate { encoders, notes };
    match store.mode() {
        Mode::Write => generation::install(
            store,
            generation::prepare(store, candidate, &mut crate::unobserved)?,
        ),
        Mode::Read => generation::in_memory(store, candidate.encoders, lost_tasks),
    }
}
