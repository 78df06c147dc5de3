//! Executes networks on libtorch, with autograd.

pub mod device;
pub mod network;
pub mod trainer;

pub use device::Device;
pub use network::{Head, Network};
pub use trainer::{Optimizer, Trainer, TrainerOptions};
