//! Builds a segment with hnsw_rs; the one file that speaks that crate.

use crate::{Attributes, Embedding, Result};
use std::io::Write;
use std::ops::ControlFlow;

/// One vector to be indexed.
pub struct Entry {
    /// Key, unique.
    pub key: u64,
    /// Unit vector.
    pub vector: Embedding,
    /// Columns for filters.
    pub attributes: Attributes,
}

/// Options of a build.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BuildOptions {
    /// Neighbours per point and layer (level 0 has twice as many). Default 16.
    pub m: usize,
    /// Candidates kept during construction. Default 200.
    pub ef_construction: usize,
    /// Threads; 1 makes the build deterministic. Default: all cores.
    pub threads: usize,
    /// Seed of the level generator.
    pub seed: u64,
}

/// What a build did.
#[derive(Clone, Debug, Default)]
pub struct BuildReport {
    /// Vectors in the segment.
    pub points: usize,
    /// Points that could not be reached from the entry point and were linked again.
    pub repaired: usize,
}

/// Builds a segment of `entries` and writes it to `out`.
///
/// `progress(done, total)` is called now and then; `Break` cancels.
///
/// # Errors
/// `Error::Option` for options out of range, `Error::Dimension` for mixed dimensions, `Error::Cancelled`.
pub fn build_segment(
    _entries: &[Entry],
    _fingerprint: [u8; 32],
    _options: &BuildOptions,
    _out: &mut dyn Write,
    _progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<BuildReport> {
    todo!()
}
