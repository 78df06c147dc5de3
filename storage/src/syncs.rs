//! Lets many threads wait for one sync.

use crate::{Error, Result};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// How far something that grows is durable. One thread syncs for all that wait, and wakes all of them at once.
#[derive(Default)]
pub(crate) struct Syncs {
    progress: Mutex<Progress>,
    ended: Condvar,
}

#[derive(Default)]
struct Progress {
    /// Everything before it is durable.
    synced: u64,
    under_way: bool,
    /// Why a sync failed: a later one may succeed without what was lost then.
    failed: Option<String>,
}

/// A sync that is under way; told to those that wait when it is dropped, also by a panic.
struct Lead<'a> {
    syncs: &'a Syncs,
    outcome: std::result::Result<u64, String>,
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        let mut progress = self.syncs.progress();
        progress.under_way = false;
        match &self.outcome {
            Ok(synced) => progress.synced = *synced,
            Err(reason) => progress.failed = Some(reason.clone()),
        }
        drop(progress);
        self.syncs.ended.notify_all();
    }
}

impl Syncs {
    /// Everything before `synced` is durable already.
    pub(crate) fn new(synced: u64) -> Self {
        let progress = Progress { synced, ..Progress::default() };
        Self { progress: Mutex::new(progress), ended: Condvar::new() }
    }

    /// Everything before this is durable.
    pub(crate) fn synced(&self) -> u64 {
        self.progress().synced
    }

    /// Returns when everything before `target` is durable. `reached` tells how much there is to sync.
    ///
    /// # Errors
    /// That of `sync`; `Error::Poisoned` for all that waited for it, and from then on.
    pub(crate) fn reach(
        &self,
        target: u64,
        reached: impl FnOnce() -> u64,
        sync: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let mut progress = self.progress();
        loop {
            if progress.synced >= target {
                return Ok(());
            }
            if let Some(reason) = &progress.failed {
                return Err(Error::Poisoned { reason: reason.clone() });
            }
            if !progress.under_way {
                break;
            }
            progress = self.ended.wait(progress).unwrap_or_else(PoisonError::into_inner);
        }
        progress.under_way = true;
        drop(progress);
        let mut lead =
            Lead { syncs: self, outcome: Err("a thread panicked while it synced".into()) };
        let covered = reached();
        let synced = sync();
        lead.outcome = synced.as_ref().map(|()| covered).map_err(Error::to_string);
        drop(lead);
        synced
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
