//! The fine-tuning loop: epochs, schedule, validation, early stop, best weights.

use crate::Result;
use crate::graph::Graph;
use crate::graph::exec::Trainer;
use crate::sample::Image;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use serde::Serialize;
use std::ops::ControlFlow;
use std::time::Instant;

/// Options of `fit`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FitOptions {
    /// Passes over the training images. Default 10.
    pub epochs: usize,
    /// Images a step. Default 32.
    pub batch_size: usize,
    /// Peak learning rate. Default 1e-3.
    pub learning_rate: f32,
    /// Epochs over which the rate rises linearly from zero before the cosine falls. Default 1.
    pub warmup_epochs: f32,
    /// Stop after this many epochs without a better validation loss; 0 never. Default 0.
    pub patience: usize,
    /// Share of the images that is held back for validation. Default 0.1.
    pub validation_share: f32,
    /// Seed of validation split and order. Default 0.
    pub seed: u64,
}

impl Default for FitOptions {
    fn default() -> Self {
        Self {
            epochs: 10,
            batch_size: 32,
            learning_rate: 1e-3,
            warmup_epochs: 1.0,
            patience: 0,
            validation_share: 0.1,
            seed: 0,
        }
    }
}

/// What one epoch did.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct EpochReport {
    /// From 1.
    pub epoch: usize,
    /// Mean loss of its steps.
    pub train_loss: f32,
    /// Mean cross-entropy of the validation images; `None` where there were too few to hold any back.
    pub validation_loss: Option<f32>,
    /// Top-1 accuracy on the validation images.
    pub validation_accuracy: Option<f32>,
    /// Learning rate of its last step.
    pub learning_rate: f32,
    /// Wall-clock seconds.
    pub seconds: f64,
}

/// A trained network and how it got there.
pub struct Fitted {
    /// Weights of the best epoch by validation loss; of the last where nothing was held back.
    pub graph: Graph,
    /// One report per epoch.
    pub epochs: Vec<EpochReport>,
    /// From 1.
    pub best_epoch: usize,
    /// Whether the caller asked to stop before the end.
    pub stopped: bool,
}

/// Fewer images of a class than this are all trained on.
const VALIDATION_CLASS_MIN: usize = 5;

/// Trains for `epochs` passes or until validation stops improving. The same seed gives the same weights on one CPU.
///
/// # Errors
/// If libtorch fails; `epochs` and `batch_size` are at least 1.
pub fn fit(
    mut trainer: Trainer,
    images: &[Image],
    labels: &[u32],
    options: &FitOptions,
    progress: &mut dyn FnMut(&EpochReport) -> ControlFlow<()>,
) -> Result<Fitted> {
    let mut random = ChaCha8Rng::seed_from_u64(options.seed);
    let (mut train, validation) = hold_back(labels, options.validation_share, &mut random);
    let schedule = Schedule::new(options, train.len());
    let mut epochs: Vec<EpochReport> = Vec::new();
    let mut best: Option<(f32, usize, Graph)> = None;
    let mut stopped = false;
    for epoch in 1..=options.epochs {
        let start = Instant::now();
        shuffle(&mut train, &mut random);
        let mut losses = 0.0;
        for (step, batch) in train.chunks(options.batch_size).enumerate() {
            let (batch_images, batch_labels) = select(images, labels, batch);
            let rate = schedule.rate(epoch - 1, step);
            losses += trainer.step(&batch_images, &batch_labels, rate)? * batch.len() as f32;
        }
        let (held_images, held_labels) = select(images, labels, &validation);
        let scored = match held_images.is_empty() {
            true => None,
            false => Some(trainer.evaluate(&held_images, &held_labels)?),
        };
        let report = EpochReport {
            epoch,
            train_loss: losses / train.len() as f32,
            validation_loss: scored.map(|scored| scored.loss),
            validation_accuracy: scored.map(|scored| scored.accuracy),
            learning_rate: schedule.rate(epoch - 1, schedule.steps_per_epoch - 1),
            seconds: start.elapsed().as_secs_f64(),
        };
        epochs.push(report);
        // Without validation images the last epoch counts as the best.
        let loss = report.validation_loss.unwrap_or(f32::NEG_INFINITY);
        if best.as_ref().is_none_or(|(least, _, _)| loss <= *least) {
            best = Some((loss, epoch, trainer.graph()?));
        }
        let best_epoch = best.as_ref().map_or(epoch, |(_, best_epoch, _)| *best_epoch);
        stopped = progress(&report).is_break();
        if stopped || (options.patience > 0 && epoch - best_epoch >= options.patience) {
            break;
        }
    }
    let (best_epoch, graph) = match best {
        Some((_, epoch, graph)) => (epoch, graph),
        None => (0, trainer.graph()?),
    };
    Ok(Fitted { graph, epochs, best_epoch, stopped })
}

fn select<'a>(images: &'a [Image], labels: &[u32], indices: &[usize]) -> (Vec<&'a Image>, Vec<u32>) {
    indices.iter().map(|&index| (&images[index], labels[index])).unzip()
}

/// Splits indices into training and validation parts, stratified by label.
fn hold_back(labels: &[u32], share: f32, random: &mut ChaCha8Rng) -> (Vec<usize>, Vec<usize>) {
    let classes = labels.iter().max().map_or(0, |&label| label as usize + 1);
    let mut by_class: Vec<Vec<usize>> = vec![Vec::new(); classes];
    for (index, &label) in labels.iter().enumerate() {
        by_class[label as usize].push(index);
    }
    let (mut train, mut validation) = (Vec::new(), Vec::new());
    for mut indices in by_class {
        shuffle(&mut indices, random);
        let held = if indices.len() < VALIDATION_CLASS_MIN {
            0
        } else {
            (indices.len() as f32 * share).round() as usize
        };
        validation.extend(indices.drain(..held.min(indices.len().saturating_sub(1))));
        train.extend(indices);
    }
    (train, validation)
}

/// Fisher-Yates.
fn shuffle(indices: &mut [usize], random: &mut ChaCha8Rng) {
    for last in (1..indices.len()).rev() {
        // The bias of the remainder is below 2^-32 for any set that fits in memory.
        let other = (random.next_u64() % (last as u64 + 1)) as usize;
        indices.swap(last, other);
    }
}

/// Linear warm-up, then a cosine to zero (Loshchilov & Hutter, SGDR, 2017).
struct Schedule {
    peak: f32,
    warmup_steps: f32,
    total_steps: f32,
    steps_per_epoch: usize,
}

impl Schedule {
    fn new(options: &FitOptions, images: usize) -> Self {
        let steps_per_epoch = images.div_ceil(options.batch_size).max(1);
        let total_steps = (steps_per_epoch * options.epochs) as f32;
        let warmup_steps = (options.warmup_epochs * steps_per_epoch as f32).min(total_steps / 2.0);
        Self { peak: options.learning_rate, warmup_steps, total_steps, steps_per_epoch }
    }

    fn rate(&self, epoch: usize, step: usize) -> f32 {
        let done = (epoch * self.steps_per_epoch + step) as f32 + 1.0;
        if done <= self.warmup_steps {
            return self.peak * done / self.warmup_steps;
        }
        let share = (done - self.warmup_steps) / (self.total_steps - self.warmup_steps).max(1.0);
        self.peak * 0.5 * (1.0 + (std::f32::consts::PI * share.min(1.0)).cos())
    }
}

#[cfg(test)]
mod tests {
    use super::{FitOptions, Schedule, hold_back};
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    #[test]
    fn the_rate_rises_then_falls_to_zero_and_never_exceeds_its_peak() {
        let options = FitOptions { epochs: 4, batch_size: 10, ..FitOptions::default() };
        let schedule = Schedule::new(&options, 100);
        let rates: Vec<f32> =
            (0..4).flat_map(|epoch| (0..10).map(move |step| (epoch, step))).map(|(epoch, step)| schedule.rate(epoch, step)).collect();
        assert!(rates[..10].is_sorted(), "the warm-up falls: {rates:?}");
        assert!(rates[9..].is_sorted_by(|a, b| a >= b), "the cosine rises: {rates:?}");
        assert!((rates[9] - options.learning_rate).abs() < 1e-9);
        assert!(rates[39].abs() < 1e-9);
    }

    #[test]
    fn validation_takes_its_share_of_every_class_that_can_spare_it() {
        let labels: Vec<u32> = (0..50).map(|index| u32::from(index >= 46)).collect();
        let (train, validation) =
            hold_back(&labels, 0.1, &mut ChaCha8Rng::seed_from_u64(0));
        assert_eq!(validation.iter().filter(|&&index| labels[index] == 0).count(), 5);
        assert_eq!(validation.iter().filter(|&&index| labels[index] == 1).count(), 0);
        let mut all: Vec<usize> = train.into_iter().chain(validation).collect();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..50));
    }
}
