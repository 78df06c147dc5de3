//! A training that was stopped: its state lies in the cache folder until its result is stored, so that the same training
//! goes on where it was. Safe to delete.

use super::cache_file;
use super::fit::{EpochReport, FitState};
use super::tuning::{Candidate, Course, TuningOptions};

use crate::graph::exec::Evaluation;
use crate::graph::formats::onnx;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A shorter training is not worth a state.
const INTERVAL: Duration = Duration::from_secs(20);
/// Writing states may take one part in so many of a training's time.
const SHARE: u32 = 20;
/// States of trainings that nobody went on with go when they take more than this, the oldest first.
const BYTES_MAX: u64 = 4 << 30;
/// Changes with the meaning of a state.
const VERSION: &str = concat!("tans training 2, ", env!("CARGO_PKG_VERSION"));

/// What a training does after an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Another epoch.
    GoesOn,
    /// It is scored.
    Ends,
    /// Nothing, by request.
    Stops,
}

/// Where the state of one training lies.
#[derive(Debug)]
pub struct Paused {
    /// `None` without a cache folder.
    file: Option<PathBuf>,
    started: Instant,
    written: Instant,
    interval: Duration,
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
        Ok(Self { file, ..Self::nowhere() })
    }

    /// Of a training that leaves no state.
    pub fn nowhere() -> Self {
        let now = Instant::now();
        Self { file: None, started: now, written: now, interval: INTERVAL }
    }

    /// The state that was left behind; anything wrong with it only means that the training begins anew.
    pub fn load(&self) -> Option<FitState> {
        let bytes = std::fs::read(self.file.as_ref()?).ok()?;
        decode(&bytes)
    }

    /// Writes the state if that is due. One that cannot be written costs time, never the training.
    pub fn keep(&mut self, state: &FitState, next: Next) {
        let Some(file) = &self.file else { return };
        let is_due = match next {
            Next::GoesOn => self.written.elapsed() >= self.interval,
            Next::Ends => self.started.elapsed() >= INTERVAL,
            Next::Stops => true,
        };
        if !is_due {
            return;
        }
        let clock = Instant::now();
        if let Err(error) = write(file, state) {
            tracing::warn!("a stopped training would begin anew: {error}");
        }
        self.written = Instant::now();
        self.interval = INTERVAL.max(clock.elapsed() * SHARE);
    }

    /// The result of the training is stored, or its state is of no use.
    pub fn forget(&self) {
        if let Some(file) = &self.file {
            // One that was never written is not there.
            let _ = std::fs::remove_file(file);
        }
    }
}

/// What stands before the checkpoints in a file.
#[derive(Serialize, Deserialize)]
struct Head {
    best_epoch: usize,
    start: Option<Evaluation>,
    epochs: Vec<EpochReport>,
    /// Bytes of the checkpoint now, and of the best one; 0 where that is the one now.
    lengths: [usize; 2],
}

/// Length of the head, head, checkpoints, crc32c of all.
fn write(file: &Path, state: &FitState) -> Result<()> {
    let finite = |it: &EpochReport| {
        it.train_loss.is_finite() && it.validation_loss.is_none_or(f32::is_finite)
    };
    let starts_finite = state.start.is_none_or(|it| it.loss.is_finite());
    if !starts_finite || !state.epochs.iter().all(finite) {
        // JSON has no such numbers, and such a training nothing to go on with.
        return Ok(());
    }
    let is_best_now = state.best_epoch == state.epochs.len();
    let best = if is_best_now { &[] } else { &state.best[..] };
    let head = Head {
        best_epoch: state.best_epoch,
        start: state.start,
        epochs: state.epochs.clone(),
        lengths: [state.current.len(), best.len()],
    };
    let head = serde_json::to_vec(&head)
        .map_err(|error| Error::input(format!("an epoch that cannot be written: {error}")))?;
    let length = (head.len() as u64).to_le_bytes();
    let parts = [&length[..], &head, &state.current, best];
    let checksum = parts.iter().fold(0, |sum, part| crc32c::crc32c_append(sum, part));
    cache_file::put(file, &[&parts[..], &[&checksum.to_le_bytes()]].concat())?;
    // Never the one that was just written.
    let bytes: usize = parts.iter().map(|part| part.len()).sum();
    let folder = file.parent().unwrap_or(Path::new("."));
    cache_file::trim(folder, BYTES_MAX.max(2 * bytes as u64));
    Ok(())
}

fn decode(bytes: &[u8]) -> Option<FitState> {
    let (body, checksum) = bytes.split_last_chunk::<4>()?;
    let (length, rest) = body.split_first_chunk::<8>()?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*checksum) {
        return None;
    }
    let (head, rest) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    let Head { best_epoch, start, epochs, lengths } = serde_json::from_slice(head).ok()?;
    let (current, best) = rest.split_at_checked(lengths[0])?;
    let best = match lengths[1] {
        0 => current,
        length if length == best.len() => best,
        _ => return None,
    };
    Some(FitState { current: current.to_vec(), best: best.to_vec(), best_epoch, start, epochs })
}

fn key(course: &Course<'_>, candidate: &Candidate) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    let options = TuningOptions { budget: None, ..course.options.clone() };
    let classes = course.samples.class_names.len();
    let text =
        format!("{VERSION}\n{options:?}\n{:?}\n{classes}\n{:?}", candidate.input, course.device);
    hasher.update(text.as_bytes());
    let canonical = onnx::canonical(&candidate.graph)?;
    hasher.update(&canonical.graph);
    for (name, weight) in &canonical.weights {
        // The checkpoints name them.
        hasher.update(&(name.len() as u64).to_le_bytes());
        hasher.update(name.as_bytes());
        hasher.update(weight.data());
    }
    // The training part comes first.
    for (image, label) in course.samples.image_hashes.iter().zip(&course.samples.train.labels) {
        hasher.update(image);
        hasher.update(&label.to_le_bytes());
    }
    Ok(hasher.finalize().to_hex().to_string())
}
