//! Executes networks on libtorch, with autograd.


pub mod device;
mod fuse;
pub mod network;
mod ops;

mod plan;
mod tensor;
pub mod trainer;


pub use device::Device;
pub use network::Network;
pub use trainer::{Optimizer, Trainer, TrainerOptions};

