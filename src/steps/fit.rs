//! The fine-tuning loop: epochs, schedule, validation, early stop.

use crate::graph::exec::{Evaluation, Trainer};
use crate::graph::{Error, Graph};
use crate::sample::Image;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Instant;

/// How a network is fitted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FitOptions {
    /// Passes over the training images. Default 10.
    pub epochs: usize,
    /// Images a step. Default 32.
    pub batch_size: usize,
    /// Peak of the schedule. Default 1e-3.
    pub learning_rate: f32,
    /// Epochs of linear rise before the cosine descends to zero. Default 0.5.
    pub warmup_epochs: f32,
    /// Stop after so many epochs without a better validation result. Default 0: never.
    pub patience: usize,
    /// Share of each class held back for validation; a class with too few images gives none.
    /// Default 0.1.
    pub validation_share: f32,
    /// Keep the last epoch, not the best: where validation sees only a part of what is trained. Default false.
    pub keep_last: bool,
    /// The weights that it starts with may be the best: where the head has been fitted before. Default false.
    pub start_counts: bool,
    /// Seed of the split and the order of images. Default 0.
    pub seed: u64,
}

impl Default for FitOptions {
    fn default() -> Self {
        Self {
            epochs: 10,
            batch_size: 32,
            learning_rate: 1e-3,
            warmup_epochs: 0.5,
            patience: 0,
            validation_share: 0.1,
            keep_last: false,
            start_counts: false,
            seed: 0,
        }
    }
}

/// What is fitted on.
#[derive(Clone, Copy, Debug)]
pub struct Data<'a> {
    /// Images.
    pub images: &'a [Image],
    /// One per image.
    pub labels: &'a [u32],
    /// Group of each image, where images come in groups: validation then sees none that is trained on.
    pub groups: Option<&'a [u32]>,
}

/// What one epoch did.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochReport {
    /// Counted from 1.
    pub epoch: usize,
    /// Mean over its steps.
    pub train_loss: f32,
    /// `None` where there were too few images to hold some back.
    pub validation_loss: Option<f32>,
    /// 0..=1.
    pub validation_accuracy: Option<f32>,
    /// Of the last step.
    pub learning_rate: f32,
    /// Wall clock.
    pub seconds: f64,
}

impl EpochReport {
    fn validation(&self) -> Option<Evaluation> {
        let (loss, accuracy) = (self.validation_loss?, self.validation_accuracy?);
        Some(Evaluation { loss, accuracy })
    }
}

/// A fitted network.
#[derive(Debug)]
pub struct Fitted {
    /// With the weights of the best epoch.
    pub graph: Graph,
    /// One report per epoch run.
    pub epochs: Vec<EpochReport>,
    /// The epoch whose weights were kept, from 1; 0 for those that it started with.
    pub best_epoch: usize,
    /// How the start did in validation, if it counts.
    pub start: Option<Evaluation>,
    /// How its weights did in validation; `None` where there were too few images to hold some back.
    pub validation: Option<Evaluation>,
    /// Why the run ended early, when a loss or gradient was not finite after its first epoch.
    pub diverged: Option<Error>,
}

/// Where a run stands after an epoch: all that is needed to go on as if it had never stopped.
#[derive(Clone, Debug, PartialEq)]
pub struct FitState {
    /// The trainer's checkpoint now.
    pub current: Vec<u8>,
    /// The trainer's checkpoint at the best epoch.
    pub best: Vec<u8>,
    /// The best epoch, from 1; 0 is the start.
    pub best_epoch: usize,
    /// How the start did in validation, if it counts.
    pub start: Option<Evaluation>,
    /// Reports of the epochs run.
    pub epochs: Vec<EpochReport>,
}

impl FitState {
    /// How the best epoch did in validation.
    fn validation(&self) -> Option<Evaluation> {
        match self.best_epoch {
            0 => self.start,
            epoch => self.epochs.get(epoch - 1).and_then(EpochReport::validation),
        }
    }

    /// The latest weights are kept that are as good as the best within one standard error of its accuracy (Breiman et al.
    /// 1984): the schedule makes weights better to its end, and `images` for validation, often few, tell less than that.
    /// Without validation the latest are kept.
    fn is_followed_by(&self, found: Option<Evaluation>, images: usize) -> bool {
        let known =
            self.start.into_iter().chain(self.epochs.iter().filter_map(|it| it.validation()));
        let best = known.map(|known| known.accuracy).reduce(f32::max);
        let (Some(found), Some(best)) = (found, best) else { return true };
        let images = images as f32;
        let error = (best * (1.0 - best) / images).sqrt().max(1.0 / images);
        found.accuracy >= best - error
    }
}

/// Fits on images with labels, from the start or from a state that `after_epoch` was given by an earlier run with the
/// same arguments; `Break` from `after_epoch` ends the run after that epoch.
///
/// Deterministic for a seed on one machine's CPU. A run that meets a loss or gradient that is not
/// finite after its first epoch ends there and says so in `Fitted::diverged`.
///
/// # Errors
/// `Error::Contract` for images, labels or options that do not fit; `Error::Execution` if libtorch
/// fails; `Error::Malformed` if the state is of another network.
pub fn resume(
    mut trainer: Trainer,
    data: Data<'_>,
    options: &FitOptions,
    state: Option<FitState>,
    after_epoch: &mut dyn FnMut(&FitState) -> ControlFlow<()>,
) -> Result<Fitted, Error> {
    let Data { images, labels, groups } = data;
    check(images, labels, options)?;
    let split = Split::new(labels, groups, options);
    let validation_images: Vec<&Image> = split.validation.iter().map(|&at| &images[at]).collect();
    let validation_labels: Vec<u32> = split.validation.iter().map(|&at| labels[at]).collect();
    let validate = |trainer: &Trainer| match validation_images.is_empty() {
        true => Ok(None),
        false => trainer.evaluate(&validation_images, &validation_labels).map(Some),
    };
    let mut state = match state {
        Some(state) => {
            trainer.restore(&state.current)?;
            state
        }
        None => {
            let current = trainer.checkpoint()?;
            let start = if options.start_counts { validate(&trainer)? } else { None };
            FitState { best: current.clone(), current, best_epoch: 0, start, epochs: Vec::new() }
        }
    };
    let mut diverged = None;
    while state.epochs.len() < options.epochs && !is_stale(&state, options) {
        let epoch = state.epochs.len() + 1;
        let clock = Instant::now();
        let run = Epoch { images, labels, order: &split.order(epoch, options), number: epoch };
        let (train_loss, learning_rate) = match run.train(&mut trainer, options) {
            Err(error @ Error::Execution { .. }) if !state.epochs.is_empty() => {
                diverged = Some(error);
                break;
            }
            other => other?,
        };
        let validation = validate(&trainer)?;
        state.current = trainer.checkpoint()?;
        if options.keep_last || state.is_followed_by(validation, validation_images.len()) {
            state.best.clone_from(&state.current);
            state.best_epoch = epoch;
        }
        state.epochs.push(EpochReport {
            epoch,
            train_loss,
            validation_loss: validation.map(|found| found.loss),
            validation_accuracy: validation.map(|found| found.accuracy),
            learning_rate,
            seconds: clock.elapsed().as_secs_f64(),
        });
        if after_epoch(&state).is_break() {
            break;
        }
    }
    trainer.restore(&state.best)?;
    Ok(Fitted {
        graph: trainer.graph()?,
        best_epoch: state.best_epoch,
        start: state.start,
        validation: state.validation(),
        epochs: state.epochs,
        diverged,
    })
}

fn is_stale(state: &FitState, options: &FitOptions) -> bool {
    options.patience > 0 && state.epochs.len() >= state.best_epoch + options.patience
}

fn check(images: &[Image], labels: &[u32], options: &FitOptions) -> Result<(), Error> {
    let wrong = |what: String| Err(Error::Contract(what));
    if images.is_empty() || images.len() != labels.len() {
        let (images, labels) = (images.len(), labels.len());
        return wrong(format!("expected one label an image, found {images} and {labels}"));
    }
    if options.batch_size == 0 || options.epochs == 0 {
        return wrong("expected at least one epoch and one image a batch, found 0".to_string());
    }
    let rate = options.learning_rate;
    let warmup = options.warmup_epochs;
    if !(rate.is_finite() && rate >= 0.0 && warmup.is_finite() && warmup >= 0.0) {
        return wrong(format!("expected rate and warm-up from 0, found {rate} and {warmup}"));
    }
    if !(0.0..1.0).contains(&options.validation_share) {
        return wrong(format!("expected a share in 0..1, found {}", options.validation_share));
    }
    Ok(())
}

/// Indices of the images that are trained on: the others judge.
pub fn trained_on(labels: &[u32], groups: Option<&[u32]>, options: &FitOptions) -> Vec<usize> {
    Split::new(labels, groups, options).train
}

/// Indices of the images that train and of those that judge.
struct Split {
    train: Vec<usize>,
    validation: Vec<usize>,
}

impl Split {
    /// Whole groups where there are such that are small enough, else stratified: each class gives its share, rounded, and
    /// keeps at least one image to train on.
    fn new(labels: &[u32], groups: Option<&[u32]>, options: &FitOptions) -> Self {
        if let Some(split) = groups.and_then(|groups| Self::by_group(labels, groups, options)) {
            return split;
        }
        let mut classes: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (index, &label) in labels.iter().enumerate() {
            classes.entry(label).or_default().push(index);
        }
        let mut generator = generator(options.seed, 0);
        let mut split = Self { train: Vec::new(), validation: Vec::new() };
        for mut members in classes.into_values() {
            members.shuffle(&mut generator);
            let share = (members.len() as f32 * options.validation_share).round() as usize;
            let rest = members.split_off(share.min(members.len() - 1));
            split.validation.extend(members);
            split.train.extend(rest);
        }
        split.train.sort_unstable();
        split.validation.sort_unstable();
        split
    }

    /// Groups at random until they are about the share; `None` if none can be held back without taking all of a class.
    fn by_group(labels: &[u32], groups: &[u32], options: &FitOptions) -> Option<Self> {
        let mut members: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (index, &group) in groups.iter().enumerate() {
            members.entry(group).or_default().push(index);
        }
        let mut left: BTreeMap<u32, usize> = BTreeMap::new();
        labels.iter().for_each(|&label| *left.entry(label).or_default() += 1);
        let mut order: Vec<Vec<usize>> = members.into_values().collect();
        order.shuffle(&mut generator(options.seed, 0));
        let share = labels.len() as f32 * options.validation_share;
        let mut split = Self { train: Vec::new(), validation: Vec::new() };
        for group in order {
            let mut without = left.clone();
            for &index in &group {
                without.entry(labels[index]).and_modify(|count| *count -= 1);
            }
            let is_small = (split.validation.len() + group.len()) as f32 <= share * GROUPED_ROOM;
            let is_wanted = (split.validation.len() as f32) < share;
            if is_wanted && is_small && without.values().all(|&count| count > 0) {
                left = without;
                split.validation.extend(group);
            } else {
                split.train.extend(group);
            }
        }
        split.train.sort_unstable();
        split.validation.sort_unstable();
        (!split.validation.is_empty()).then_some(split)
    }

    /// The training images in the order of an epoch, which depends on nothing but seed and number.
    fn order(&self, epoch: usize, options: &FitOptions) -> Vec<usize> {
        let mut order = self.train.clone();
        order.shuffle(&mut generator(options.seed, epoch as u64));
        order
    }
}

/// By how much groups for validation may go beyond their share.
const GROUPED_ROOM: f32 = 1.5;

fn generator(seed: u64, stream: u64) -> impl Rng {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    generator.set_stream(stream);
    generator
}

struct Epoch<'a> {
    images: &'a [Image],
    labels: &'a [u32],
    order: &'a [usize],
    number: usize,
}

impl Epoch<'_> {
    /// Mean loss over the images and the learning rate of the last step.
    fn train(&self, trainer: &mut Trainer, options: &FitOptions) -> Result<(f32, f32), Error> {
        let batches = self.order.chunks(options.batch_size);
        let steps = batches.len();
        let (mut total, mut rate) = (0.0, 0.0);
        for (index, batch) in batches.enumerate() {
            let images: Vec<&Image> = batch.iter().map(|&at| &self.images[at]).collect();
            let labels: Vec<u32> = batch.iter().map(|&at| self.labels[at]).collect();
            let step = (self.number - 1) * steps + index;
            rate = schedule(step, steps, options);
            trainer.begin(step, steps * options.epochs)?;
            total += f64::from(trainer.step(&images, &labels, rate)?) * batch.len() as f64;
        }
        Ok(((total / self.order.len() as f64) as f32, rate))
    }
}

/// Linear rise over the warm-up, then half a cosine down to zero.
fn schedule(step: usize, steps_per_epoch: usize, options: &FitOptions) -> f32 {
    let total = (steps_per_epoch * options.epochs) as f32;
    let warmup = (options.warmup_epochs * steps_per_epoch as f32).min(total);
    let step = step as f32;
    if step + 1.0 < warmup {
        return options.learning_rate * (step + 1.0) / warmup;
    }
    let share = ((step - warmup) / (total - warmup).max(1.0)).clamp(0.0, 1.0);
    options.learning_rate * 0.5 * (1.0 + (std::f32::consts::PI * share).cos())
}

#[cfg(test)]
mod tests;
