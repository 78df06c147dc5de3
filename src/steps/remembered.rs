//! Encoders that a training had learned when it was stopped: they lie in the cache folder until the training ends, so that
//! it goes on where it was. Safe to delete.

use super::feature_cache;
use crate::OpenOptions;
use crate::encoder::Encoders;
use crate::train::{FitOptions, Memory, TrainingSet};
use std::cell::RefCell;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;

/// Those of trainings that nobody went on with go when they take more than this, the oldest first.
const BYTES_MAX: u64 = 256 << 20;
/// Changes with what is learned.
const VERSION: &str = concat!("tans encoders 1, ", env!("CARGO_PKG_VERSION"));

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

    fn place(&self, set: &TrainingSet, options: &FitOptions) -> Option<PathBuf> {
        let file = self.folder.as_ref()?.join(key(set, options));
        self.files.borrow_mut().push(file.clone());
        Some(file)
    }
}

impl Memory for Remembered {
    fn recall(&self, set: &TrainingSet, options: &FitOptions) -> Option<Encoders> {
        let bytes = std::fs::read(self.place(set, options)?).ok()?;
        // Damage only means that they are learned again.
        tans_storage::decode("encoders", &bytes).ok()
    }

    fn keep(&self, set: &TrainingSet, options: &FitOptions, encoders: &Encoders) {
        let (Some(folder), Some(file)) = (&self.folder, self.place(set, options)) else { return };
        let written = tans_storage::encode(encoders).and_then(|bytes| {
            // A folder that cannot be made is told by the file that cannot be written.
            let _ = std::fs::create_dir_all(folder);
            tans_storage::install_file(&file, |out| out.write_all(&bytes))
        });
        match written {
            Ok(()) => feature_cache::trim(folder, BYTES_MAX),
            Err(error) => tracing::warn!("a stopped training would learn anew: {error}"),
        }
    }
}

/// Of all that is learned from. A task's id stands for its rows.
fn key(set: &TrainingSet, options: &FitOptions) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut text = format!("{VERSION}\n{options:?}\n");
    for task in &set.tasks {
        let (id, family, prior) = (&task.id, &task.family, &task.prior);
        // A string takes any text.
        let _ = writeln!(text, "{id:?} {family:?} {prior:?} {}", task.sample.is_some());
    }
    hasher.update(text.as_bytes());
    for model in &set.models {
        hasher.update(format!("{model:?}\n").as_bytes());
    }
    for pair in &set.pairs {
        hasher.update(format!("{pair:?}\n").as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}
