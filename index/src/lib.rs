//! Nearest neighbours by cosine over `f32` vectors with `u64` keys: an HNSW builder, an immutable
//! memory-mapped segment, an exact scan, and a delta for fresh vectors.
//!
//! This crate knows vectors, keys and attribute columns. It knows no records, no RocksDB and no
//! torch; whoever wants models back uses the `tans` crate on top.

mod builder;
mod codes;
mod columns;
mod copies;
mod delta;
mod embedding;
mod error;
mod filter;
mod flat;
mod format;
mod map;
mod merge;
mod refine;
mod repair;
mod sample;
mod search;
mod segment;
mod simd;
mod walk;

pub use builder::{BuildOptions, BuildReport, Entry, build_segment};
pub use delta::Delta;
pub use embedding::{DIM_MAX, Embedding};
pub use error::{Error, Result};
pub use filter::{Attributes, Filter, is_license_expression};
pub use merge::{merged_entries, needs_merge};
pub use sample::sample;
pub use search::{BatchOptions, Neighbour, SearchOptions, search, search_batch};
pub use segment::Segment;
