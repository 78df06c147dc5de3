//! What an open zoo holds in memory: the store and the current generation.

mod load;

pub use load::{attributes, load};

use crate::encoder::Encoders;
use crate::{OpenOptions, Result};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tans_index::{Delta, Segment};
use tans_storage::{GenerationRecord, Mode, Store};

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
}

impl Generation {
    /// Vectors that a search can find: those of the delta and those of the segment that it does not shadow.
    pub fn vector_count(&self) -> usize {
        let delta = self.delta.read().unwrap_or_else(PoisonError::into_inner);
        let keys = self.segment.as_ref().map_or(&[][..], Segment::keys);
        keys.iter().filter(|&&key| !delta.shadows(key)).count() + delta.len()
    }
}

/// Shared by all clones of a `Database`.
pub struct State {
    /// The durable truth.
    pub store: Store,
    /// How the zoo was opened.
    pub options: OpenOptions,
    current: RwLock<Arc<Generation>>,
    commits: Mutex<()>,
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

/// How often a waiting writer looks whether the other one has ended.
const WAIT_STEP: Duration = Duration::from_millis(50);

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

impl State {
    /// Opens a zoo and loads its current generation.
    pub fn open(path: &Path, options: OpenOptions) -> Result<Self> {
        let mode = if options.read_only { Mode::Read } else { Mode::Write };
        Self::from_store(open_store(path, mode, options.wait)?, options)
    }

    /// Takes over a store whose first generation has been installed.
    pub fn from_store(store: Store, options: OpenOptions) -> Result<Self> {
        #[cfg(feature = "torch")]
        prepare_torch(&options)?;
        let current = load(&store)?;
        Ok(Self {
            store,
            options,
            current: RwLock::new(Arc::new(current)),
            commits: Mutex::new(()),
        })
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
    pub fn lock_commits(&self) -> MutexGuard<'_, ()> {
        self.commits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// In a reader: catches up with the writer and loads what it installed meanwhile.
    pub fn refresh(&self) -> Result<()> {
        if self.store.mode() == Mode::Write {
            return Ok(());
        }
        let _ordered = self.lock_commits();
        let before = self.store.sequence()?;
        self.store.refresh()?;
        if self.store.sequence()? != before {
            self.install(load(&self.store)?);
        }
        Ok(())
    }
}
