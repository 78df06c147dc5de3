//! Executes networks on libtorch, with autograd.

mod augment;
mod budget;
pub mod calibrate;
#[cfg(test)]
mod corpus_tests;
pub mod device;
#[cfg(test)]
mod export_tests;
mod fuse;
#[cfg(test)]
mod fuzz_tests;
pub mod network;
mod ops;
mod optim;
mod plan;
mod roles;
mod tensor;
pub mod trainer;
mod unsigned;

pub use calibrate::calibrate;
pub use device::Device;
pub use network::Network;
pub use trainer::{Elastic, Evaluation, Optimizer, Trainer, TrainerOptions};
