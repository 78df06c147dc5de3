//! Executes networks on libtorch, with autograd.


pub mod device;
mod fuse;
pub mod network;
mod ops;

mod plan;
mod tensor;


pub use device::Device;
pub use network::{Head, Network};

