//! Executes networks on libtorch, with autograd.

mod augment;
mod budget;
#[cfg(test)]
mod corpus_tests;
pub mod device;
mod fuse;
pub mod network;
mod ops;
mod optim;
mod plan;
mod roles;
mod tensor;
pub mod trainer;

pub use device::Device;
pub use network::Network;
pub use trainer::{Evaluation, Optimizer, Trainer, TrainerOptions};
