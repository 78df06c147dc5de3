//! A training that was stopped: its state lies in the cache folder until it has ended, so that the same training goes on
//! where it was. Safe to delete.

use super::feature_cache;
use super::fit::{EpochReport, FitState};
use super::tuning::{Candidate, Course, TuningOptions};
use crate::graph::formats::onnx;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A state is written no more often than this while the training goes on.
const INTERVAL: Duration = Duration::from_secs(20);
/// States of trainings that nobody went on with go when they take more than this, the oldest first.
const BYTES_MAX: u64 = 4 << 30;
/// Changes with the meaning of a state.
const VERSION: &str = "tans training 1";

/// Where the state of one training lies.
pub struct Paused {
    /// `None` without a cache folder.
    file: Option<PathBuf>,
    written: Instant,
}

impl Paused {
    /// Of the training of this candidate: the same weights, images, labels and options have the same place. The budget
    /// is none of these, for it may well be another when the training goes on.
    ///
    /// # Errors
    /// `Error::Graph` for a graph that contradicts itself.
    pub fn of(course: &Course<'_>, candidate: &Candidate) -> Result<Self> {
        let file = match course.cache_dir {
            Some(folder) => Some(folder.join("trainings").join(key(course, candidate)?)),
            None => None,
        };
        Ok(Self { file, written: Instant::now() })
    }

    /// The state that was left behind; anything wrong with it only means that the training begins anew.
    pub fn load(&self) -> Option<FitState> {
        let bytes = std::fs::read(self.file.as_ref()?).ok()?;
        decode(&bytes)
    }

    /// Writes the state if that is due, or `at_once`. One that cannot be written costs time, never the training.
    pub fn keep(&mut self, state: &FitState, at_once: bool) {
        let Some(file) = &self.file else { return };
        if !at_once && self.written.elapsed() < INTERVAL {
            return;
        }
        if let Err(error) = write(file, state) {
            tracing::warn!("a stopped training would begin anew: {error}");
        }
        self.written = Instant::now();
    }

    /// The training has ended.
    pub fn forget(self) {
        if let Some(file) = self.file {
            // One that was never written is not there.
            let _ = std::fs::remove_file(file);
        }
    }
}

/// What stands before the checkpoints in a file.
#[derive(Serialize, Deserialize)]
struct Head {
    best_epoch: usize,
    epochs: Vec<EpochReport>,
    /// Bytes of the checkpoint now, and of the best one; 0 where that is the one now.
    lengths: [usize; 2],
}

/// Length of the head, head, checkpoints, crc32c of all.
fn write(file: &Path, state: &FitState) -> Result<()> {
    let is_best_now = state.best_epoch == state.epochs.len();
    let best = if is_best_now { &[] } else { &state.best[..] };
    let head = Head {
        best_epoch: state.best_epoch,
        epochs: state.epochs.clone(),
        lengths: [state.current.len(), best.len()],
    };
    let head = serde_json::to_vec(&head)
        .map_err(|error| Error::input(format!("an epoch that cannot be written: {error}")))?;
    let length = (head.len() as u64).to_le_bytes();
    let parts = [&length[..], &head, &state.current, best];
    let checksum = parts.iter().fold(0, |sum, part| crc32c::crc32c_append(sum, part));
    let folder = file.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(|error| Error::file("cannot create", folder, error))?;
    tans_storage::install_file(file, |out| {
        parts.iter().try_for_each(|part| out.write_all(part))?;
        out.write_all(&checksum.to_le_bytes())
    })?;
    feature_cache::trim(folder, BYTES_MAX);
    Ok(())
}

fn decode(bytes: &[u8]) -> Option<FitState> {
    let (body, checksum) = bytes.split_last_chunk::<4>()?;
    let (length, rest) = body.split_first_chunk::<8>()?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*checksum) {
        return None;
    }
    let (head, rest) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    let Head { best_epoch, epochs, lengths } = serde_json::from_slice(head).ok()?;
    let (current, best) = rest.split_at_checked(lengths[0])?;
    let best = match lengths[1] {
        0 => current,
        length if length == best.len() => best,
        _ => return None,
    };
    Some(FitState { current: current.to_vec(), best: best.to_vec(), best_epoch, epochs })
}

fn key(course: &Course<'_>, candidate: &Candidate) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    let options = TuningOptions { budget: None, ..course.options.clone() };
    hasher.update(format!("{VERSION}\n{options:?}\n{:?}\n", candidate.input).as_bytes());
    let canonical = onnx::canonical(&candidate.graph)?;
    hasher.update(&canonical.graph);
    for (_, weight) in &canonical.weights {
        hasher.update(weight.data());
    }
    let train = &course.samples.train;
    for (image, label) in train.images.iter().zip(&train.labels) {
        hasher.update(&image.hash());
        hasher.update(&label.to_le_bytes());
    }
    Ok(hasher.finalize().to_hex().to_string())
}
