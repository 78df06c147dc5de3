//! An embedded model-zoo database: which stored network should I fine-tune on my dataset?
//!
//! This crate is the engine: it stores networks, embeds networks and datasets in one space, answers queries,
//! fine-tunes and retrains its encoders. It is a library inside the caller's process: it never prints, exits or reads
//! the environment, and it is not a server.

pub mod data;
pub mod encoder;
pub mod graph;
mod ops;
pub mod rows;
pub mod sample;
mod steps;
pub mod train;
