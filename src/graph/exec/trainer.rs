//! One fine-tuning run's state: parameters, optimiser, batch-norm statistics. The loop over epochs is `steps/fit.rs`.

use super::Device;
use crate::graph::{Error, Graph, input::InputContract};
use crate::sample::Image;

/// Optimiser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Optimizer {
    /// SGD with Nesterov momentum 0.9.
    Sgd,
    /// AdamW (Loshchilov & Hutter 2019).
    AdamW,
}

/// Options of a trainer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrainerOptions {
    /// Classes of the new head.
    pub classes: usize,
    /// Replace the head (a new task) or keep it.
    pub new_head: bool,
    /// Train the head only.
    pub head_only: bool,
    /// Draw every weight anew (He initialisation, batch-norm at identity): training from random initialisation.
    pub from_scratch: bool,
    /// Optimiser.
    pub optimizer: Optimizer,
    /// Weight decay on weights of two or more dimensions.
    pub weight_decay: f32,
    /// Label smoothing in 0..1.
    pub label_smoothing: f32,
    /// Random flips, shifts and brightness chosen by image size.
    pub augment: bool,
    /// Seed of head, augmentation and dropout.
    pub seed: u64,
    /// Where to run.
    pub device: Device,
}

/// Loss and accuracy over a labelled set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evaluation {
    /// Mean cross-entropy.
    pub loss: f32,
    /// Top-1 accuracy, 0..=1.
    pub accuracy: f32,
}

/// A network in training.
pub struct Trainer {}

impl Trainer {
    /// Prepares a copy of the network with a new head and trainable weights.
    ///
    /// # Errors
    /// `Error::Contract` if no linear head is found, `Error::NotRunnable` as for `Network::new`.
    pub fn new(
        _graph: &Graph,
        _input: &InputContract,
        _options: &TrainerOptions,
    ) -> Result<Self, Error> {
        todo!()
    }
    /// One optimiser step on a batch at the given learning rate; returns the loss.
    pub fn step(
        &mut self,
        _images: &[&Image],
        _labels: &[u32],
        _learning_rate: f32,
    ) -> Result<f32, Error> {
        todo!()
    }
    /// Loss and accuracy with batch-norm in inference mode.
    pub fn evaluate(&self, _images: &[&Image], _labels: &[u32]) -> Result<Evaluation, Error> {
        todo!()
    }
    /// Named tensors of the whole state (weights, optimiser moments, step counter) as a safetensors blob.
    pub fn checkpoint(&self) -> Result<Vec<u8>, Error> {
        todo!()
    }
    /// Restores a checkpoint of the same network and options.
    pub fn restore(&mut self, _checkpoint: &[u8]) -> Result<(), Error> {
        todo!()
    }
    /// The network as it is now, weights f32.
    pub fn graph(&self) -> Result<Graph, Error> {
        todo!()
    }
}
