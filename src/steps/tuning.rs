//! Fine-tunes one network on one dataset and scores it on the test part.

use super::dataset::Samples;
use super::fit::{self, EpochReport, FitOptions, Fitted};
use crate::graph::Graph;
use crate::graph::exec::{Device, Optimizer, Trainer, TrainerOptions};
use crate::graph::input::InputContract;
use crate::{Error, Observer, Progress, Result};

/// How a network is fine-tuned.
#[derive(Clone, Debug)]
pub struct TuningOptions {
    /// Passes over the training part. Default 10.
    pub epochs: usize,
    /// Images a step. Default 32.
    pub batch_size: usize,
    /// Peak learning rate of the cosine schedule; `None` chooses by optimiser (AdamW 1e-3, SGD 0.05).
    pub learning_rate: Option<f32>,
    /// Optimiser. Default AdamW.
    pub optimizer: Optimizer,
    /// Draw every weight anew first: training from random initialisation.
    pub from_scratch: bool,
    /// Train the new head only.
    pub head_only: bool,
    /// Label smoothing in 0..1. Default 0.05.
    pub label_smoothing: f32,
    /// Stop after this many epochs without a better validation result. Default 0: never.
    pub patience: usize,
    /// Seed of head, order, augmentation and validation split. Default 0.
    pub seed: u64,
}

impl Default for TuningOptions {
    fn default() -> Self {
        Self {
            epochs: 10,
            batch_size: 32,
            learning_rate: None,
            optimizer: Optimizer::AdamW,
            from_scratch: false,
            head_only: false,
            label_smoothing: 0.05,
            patience: 0,
            seed: 0,
        }
    }
}

/// A fine-tuned network and how it fared.
pub struct Tuned {
    /// The network with its new head.
    pub graph: Graph,
    /// One report per epoch.
    pub epochs: Vec<EpochReport>,
    /// The epoch whose weights were kept, from 1.
    pub best_epoch: usize,
    /// Top-1 accuracy on the test part.
    pub test_accuracy: f32,
}

/// Trains on the training part (of which some is held back for validation), scores the test part once, at the end.
pub fn tune(
    graph: &Graph,
    input: &InputContract,
    samples: &Samples,
    options: &TuningOptions,
    device: Device,
    observer: Observer<'_>,
) -> Result<Tuned> {
    check(options)?;
    let trainer_options = TrainerOptions {
        classes: samples.class_names.len(),
        new_head: true,
        head_only: options.head_only,
        from_scratch: options.from_scratch,
        optimizer: options.optimizer,
        weight_decay: 0.01,
        label_smoothing: options.label_smoothing,
        augment: true,
        seed: options.seed,
        device,
    };
    let trainer = Trainer::new(graph, input, &trainer_options)?;
    let fit_options = FitOptions {
        epochs: options.epochs,
        batch_size: options.batch_size,
        learning_rate: options.learning_rate.unwrap_or(match options.optimizer {
            Optimizer::AdamW => 1e-3,
            Optimizer::Sgd => 0.05,
        }),
        patience: options.patience,
        seed: options.seed,
        ..FitOptions::default()
    };
    let (train, total) = (&samples.train, options.epochs);
    let mut progress = |epoch: &EpochReport| {
        let item = format!(
            "loss {:.3}, validation accuracy {:.3}",
            epoch.train_loss,
            epoch.validation_accuracy.unwrap_or(f32::NAN)
        );
        observer(Progress { step: "fine-tuning", item, done: epoch.epoch, total })
    };
    let fitted = fit::fit(trainer, &train.images, &train.labels, &fit_options, &mut progress)?;
    let Fitted { graph, epochs, best_epoch, stopped } = fitted;
    if stopped {
        return Err(Error::Cancelled);
    }
    let score_options = TrainerOptions { new_head: false, from_scratch: false, ..trainer_options };
    let scorer = Trainer::new(&graph, input, &score_options)?;
    let test: Vec<&crate::sample::Image> = samples.test.images.iter().collect();
    let test_accuracy = scorer.evaluate(&test, &samples.test.labels)?.accuracy;
    Ok(Tuned { graph, epochs, best_epoch, test_accuracy })
}

fn check(options: &TuningOptions) -> Result<()> {
    if options.epochs == 0 || options.batch_size == 0 {
        return Err(Error::input(format!(
            "expected at least 1 epoch and batches of at least 1, found {} and {}",
            options.epochs, options.batch_size
        )));
    }
    match options.learning_rate {
        Some(rate) if !(rate.is_finite() && rate >= 0.0) => {
            Err(Error::input(format!("learning rate: expected a positive number, found {rate}")))
        }
        Some(_) | None => Ok(()),
    }
}
