//! What a writer does by itself in a thread of its own: it merges the index, and learns again if it was asked to.

use crate::ops::{merge, train};
use crate::state::State;
use crate::{Error, Result};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use tans_storage::Mode;

/// One thread at a time.
///
/// Dropping it stops what is under way: nothing is lost by that, vectors stay in the delta and encoders as they are.
#[derive(Default)]
pub(crate) struct Upkeep {
    worker: Mutex<Option<JoinHandle<()>>>,
    closing: Arc<AtomicBool>,
    /// Fresh vectors from which on a merge is tried again after one that failed.
    retry_from: Arc<AtomicUsize>,
}

/// Part of the fresh vectors by which they have to grow until a merge that failed is tried again.
const RETRY_PART: usize = 8;

impl Upkeep {
    /// Starts what is due if nothing is under way. Cheap; called after every write.
    pub(crate) fn start_if_due(&self, state: &Arc<State>) {
        let mut worker = self.worker();
        let is_busy = worker.as_ref().is_some_and(|worker| !worker.is_finished());
        let is_due = || train::is_due(state) || self.merges(state);
        if is_busy || state.store.mode() == Mode::Read || !is_due() {
            return;
        }
        let (state, closing) = (state.clone(), self.closing.clone());
        let retry_from = self.retry_from.clone();
        let work = move || keep_up(&state, &closing, &retry_from);
        match std::thread::Builder::new().name("tans-upkeep".into()).spawn(work) {
            Ok(started) => *worker = Some(started),
            Err(error) => tracing::warn!("the index is not merged now: no thread: {error}"),
        }
    }

    fn merges(&self, state: &State) -> bool {
        merge::is_due(state) && merge::fresh(state) >= self.retry_from.load(Ordering::Relaxed)
    }

    fn worker(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.worker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Relaxed);
        if let Some(worker) = self.worker().take() {
            // A thread that panicked has said so; what it worked on is as it was.
            let _ = worker.join();
        }
    }
}

/// Encoders first, because new ones come with a new segment.
fn keep_up(state: &State, closing: &AtomicBool, retry_from: &AtomicUsize) {
    let mut go_on = |_| match closing.load(Ordering::Relaxed) {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    };
    if train::is_due(state) {
        tell("no new encoders", train::again(state, &mut go_on).map(|_| ()));
    }
    let merged = merge::run(state, &mut go_on).map(|_| ());
    let fresh = merge::fresh(state);
    let next = if merged.is_ok() { 0 } else { fresh + fresh.div_ceil(RETRY_PART) };
    retry_from.store(next, Ordering::Relaxed);
    tell("the index could not be merged", merged);
}

fn tell(what: &str, outcome: Result<()>) {
    match outcome {
        Ok(()) | Err(Error::Cancelled) => {}
        Err(Error::Refused(reason)) => tracing::info!("{what}: {reason}"),
        Err(error) => tracing::warn!("{what}: {error}"),
    }
}
