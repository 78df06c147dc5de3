//! Encoders that a training had learned when it was stopped: they lie in the cache folder until the training ends, so that
//! it goes on where it was. Safe to delete.

use super::cache_file;
use crate::OpenOptions;
use crate::encoder::{Encoders, Error};
use crate::train::{FitOptions, Memory, TrainingSet};
use std::cell::RefCell;
use std::io::Write;
use std::path::PathBuf;

/// Those of trainings that nobody went on with go when they take more than this, the oldest first.
const BYTES_MAX: u64 = 256 << 20;
/// Changes with what is learned.
const VERSION: &str = concat!("tans encoders 2, ", env!("CARGO_PKG_VERSION"));

/// The memory of one training.
pub struct Remembered {
    /// `None` without a cache folder.
    folder: Option<PathBuf>,
    /// What this training has found or written there.
    files: RefCell<Vec<PathBuf>>,
}

impl Remembered {
    /// In the cache folder of these options; nowhere without one.
    pub fn of(options: &OpenOptions) -> Self {
        let folder = options.cache_dir.as_ref().map(|folder| folder.join("encoders"));
        Self { folder, files: RefCell::default() }
    }

    /// The training has ended: what it has kept is of no use any more.
    pub fn forget(&self) {
        for file in self.files.take() {
            // One that could not be written is not there.
            let _ = std::fs::remove_file(file);
        }
    }
}

impl Memory for Remembered {
    fn recall_or(
        &self,
        set: &TrainingSet,
        options: &FitOptions,
        learn: &mut dyn FnMut() -> Result<Encoders, Error>,
    ) -> Result<Encoders, Error> {
        let Some(folder) = &self.folder else { return learn() };
        let file = folder.join(key(set, options));
        self.files.borrow_mut().push(file.clone());
        // Damage only means that they are learned again.
        let known = std::fs::read(&file).ok();
        if let Some(known) = known.and_then(|it| tans_storage::decode("encoders", &it).ok()) {
            return Ok(known);
        }
        let encoders = learn()?;
        let bytes = tans_storage::encode(&encoders).map_err(crate::Error::from);
        match bytes.and_then(|bytes| cache_file::put(&file, &[&bytes])) {
            Ok(()) => cache_file::trim(folder, BYTES_MAX),
            Err(error) => tracing::warn!("a stopped training would learn anew: {error}"),
        }
        Ok(encoders)
    }
}

/// Of all that is learned from. A task's id stands for its rows.
fn key(set: &TrainingSet, options: &FitOptions) -> String {
    let mut hasher = blake3::Hasher::new();
    // A hash takes any bytes, so that no write fails.
    let _ = writeln!(hasher, "{VERSION}\n{options:?}");
    for task in &set.tasks {
        let (id, family, prior) = (&task.id, &task.family, &task.prior);
        let _ = writeln!(hasher, "{id:?} {family:?} {prior:?} {}", task.sample.is_some());
    }
    for model in &set.models {
        let _ = writeln!(hasher, "{model:?}");
    }
    for pair in &set.pairs {
        let _ = writeln!(hasher, "{pair:?}");
    }
    hasher.finalize().to_hex().to_string()
}
