//! What an open zoo holds in memory: the store and the current generation.

mod load;

pub use load::{
    attributes, changes, insert_model, is_proven_at_open, load, load_as, load_unproven,
    load_without_segment,
};

use crate::encoder::{Encoders, TaskEncoding};
use crate::{OpenOptions, Result};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use tans_index::{Delta, Segment};
use tans_storage::{GenerationRecord, Mode, Store, TensorId};

/// Encodings under one generation's encoders of tasks that they were not learned from, by rows and class means.
pub type Encoded = Mutex<HashMap<(TensorId, TensorId), Arc<TaskEncoding>>>;

/// Encoders, index and delta that belong together: what one query sees from start to end.
pub struct Generation {
    /// As named on disk.
    pub record: GenerationRecord,
    /// The encoders.
    pub encoders: Encoders,
    /// blake3 of the stored encoder bytes.
    pub fingerprint: [u8; 32],
    /// Vectors up to `record.sequence`.
    pub segment: Option<Segment>,
    /// Vectors since then.
    pub delta: RwLock<Delta>,
    /// Tasks encoded so far.
    pub encoded: Encoded,
    /// Tasks whose rows were lost when a reader had to learn these encoders again: with any, answers are not the zoo's.
    pub lost_tasks: usize,
}

impl Generation {
    /// Refuses to answer by encoders that lack what the zoo had learned from.
    pub fn require_whole(&self) -> Result<()> {
        if self.lost_tasks == 0 {
            return Ok(());
        }
        Err(crate::Error::Storage(tans_storage::Error::Corrupt {
            file: "packs".to_owned(),
            offset: format!("the rows of {} tasks", self.lost_tasks),
            what: "expected the encoders or what they were learned from, found damage in both: `tans check` names the \
                   files, `tans restore` brings a backup back"
                .to_owned(),
        }))
    }

    /// Whether a search can find anything.
    pub fn has_vectors(&self) -> bool {
        let delta = self.delta.read().unwrap_or_else(PoisonError::into_inner);
        // What the delta shadows may lie outside the segment, so that only counting tells then.
        let some = self.segment.as_ref().is_some_and(|it| it.len() > delta.shadow_count());
        let is_sure = some || !delta.is_empty();
        drop(delta);
        is_sure || self.vector_count() > 0
    }

    /// Vectors that a search can find: those of the delta and those of the segment that it does not shadow.
    pub fn vector_count(&self) -> usize {
        let delta = self.delta.read().unwrap_or_else(PoisonError::into_inner);
        let keys = self.segment.as_ref().map_or(&[][..], Segment::keys);
        keys.iter().filter(|&&key| !delta.shadows(key)).count() + delta.len()
    }
}

/// The number of encoders that a reader has made in memory: the store holds no vectors of theirs.
pub const UNSTORED_ENCODER: u32 = u32::MAX;

/// The turn of one operation among those that write.
pub struct Ordered<'a>(#[expect(dead_code, reason = "it is held, not read")] MutexGuard<'a, ()>);

/// Shared by all clones of a `Database`.
pub struct State {
    /// The durable truth.
    pub store: Store,
    /// How the zoo was opened.
    pub options: OpenOptions,
    current: RwLock<Arc<Generation>>,
    /// In a reader: the last operation that the current generation has followed. The store may be further: it also catches
    /// up when a tensor has moved.
    followed: AtomicU64,
    commits: Mutex<()>,
    merges: Mutex<()>,
    /// Results since the zoo was opened, and how many of them trainings have looked at.
    recorded: AtomicUsize,
    learned: AtomicUsize,
}

/// What holds for the whole process is set before the first network runs.
#[cfg(feature = "torch")]
fn prepare_torch(options: &OpenOptions) -> Result<()> {
    use crate::graph::exec::device;
    if let Some(folder) = &options.torch_lib {
        device::load_cuda(folder)?;
    }
    if let Some(threads) = options.threads {
        device::set_threads(threads)?;
    }
    Ok(())
}

impl State {
    /// Takes over a store and the generation that it holds.
    pub fn new(store: Store, current: Generation, options: OpenOptions) -> Result<Self> {
        #[cfg(feature = "torch")]
        prepare_torch(&options)?;
        let followed = AtomicU64::new(store.sequence()?);
        Ok(Self {
            store,
            options,
            current: RwLock::new(Arc::new(current)),
            followed,
            commits: Mutex::new(()),
            merges: Mutex::new(()),
            recorded: AtomicUsize::new(0),
            learned: AtomicUsize::new(0),
        })
    }

    /// Refuses what writes before any work is done for it.
    pub fn require_writer(&self) -> Result<()> {
        match self.store.mode() {
            tans_storage::Mode::Write => Ok(()),
            tans_storage::Mode::Read => Err(tans_storage::Error::ReadOnly.into()),
        }
    }

    /// The current generation; an operation asks once, at its top.
    pub fn generation(&self) -> Arc<Generation> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the current generation; running queries keep theirs.
    pub fn install(&self, generation: Generation) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(generation);
    }

    /// Orders commits, so that the delta follows the store.
    pub fn lock_commits(&self) -> Ordered<'_> {
        Ordered(self.commits.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Does what an operation writes (`Store::apply`) in the order of commits, and returns when it is durable. The wait
    /// for the disk comes after the turn of the operation, so that operations of several threads wait for one sync.
    ///
    /// # Errors
    /// Those of `write`; `Error::Storage` when the sync fails.
    pub fn commit<T>(&self, write: impl FnOnce(&Ordered<'_>) -> Result<T>) -> Result<T> {
        let written = write(&self.lock_commits())?;
        // Also if nothing was written: what made it unnecessary may wait for its sync still.
        self.store.sync()?;
        Ok(written)
    }

    /// Results since the zoo was opened.
    pub fn results(&self) -> usize {
        self.recorded.load(Ordering::Relaxed)
    }

    /// Those of them that no training has looked at.
    pub fn unlearned(&self) -> usize {
        self.results().saturating_sub(self.learned.load(Ordering::Relaxed))
    }

    /// Counts results that were recorded.
    pub fn recorded(&self, results: usize) {
        self.recorded.fetch_add(results, Ordering::Relaxed);
    }

    /// Says that a training has looked at the first so many; others may have looked at more.
    pub fn learned(&self, results: usize) {
        self.learned.fetch_max(results, Ordering::Relaxed);
    }

    /// Lets one merge of the index run at a time. Taken before the commit lock, never under it.
    pub fn lock_merges(&self) -> MutexGuard<'_, ()> {
        self.merges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// In a reader: catches up with the writer. What changed since the last time goes into the delta; only another
    /// generation is loaded. One that cannot be read leaves the one before in service as it was, and is tried again the
    /// next time.
    pub fn refresh(&self) -> Result<()> {
        if self.store.mode() == Mode::Write {
            return Ok(());
        }
        let _ordered = self.lock_commits();
        self.store.refresh()?;
        let (before, now) = (self.followed.load(Ordering::Acquire), self.store.sequence()?);
        if now == before {
            return Ok(());
        }
        let changes = load::changes(&self.store, before)?;
        if changes.installed {
            match load(&self.store) {
                Ok(generation) => {
                    self.install(generation);
                    self.followed.store(changes.until, Ordering::Release);
                }
                Err(error) => tracing::warn!("{error}; the generation before stays in service"),
            }
            return Ok(());
        }
        let generation = self.generation();
        if generation.record.encoder == UNSTORED_ENCODER {
            tracing::warn!(
                "made again in memory, the generation does not follow the writer; open the zoo again"
            );
            return Ok(());
        }
        let mut delta = generation.delta.write().unwrap_or_else(PoisonError::into_inner);
        load::follow(&self.store, generation.record.encoder, &mut delta, changes.rows)?;
        self.followed.store(changes.until, Ordering::Release);
        Ok(())
    }
}
