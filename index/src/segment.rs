//! The immutable, memory-mapped segment file.

use crate::Result;
use std::path::Path;

/// An open segment.
pub struct Segment {}

impl Segment {
    /// Maps a segment file and proves its structure.
    pub fn open(_path: &Path) -> Result<Self> {
        todo!()
    }
    /// Number of vectors.
    pub fn len(&self) -> usize {
        todo!()
    }
    /// Whether it holds no vector.
    pub fn is_empty(&self) -> bool {
        todo!()
    }
    /// Dimensions of its vectors.
    pub fn dim(&self) -> usize {
        todo!()
    }
    /// Fingerprint of the encoders whose vectors it holds.
    pub fn fingerprint(&self) -> [u8; 32] {
        todo!()
    }
    /// All keys, ascending by position.
    pub fn keys(&self) -> &[u64] {
        todo!()
    }
    /// Proves every checksum.
    pub fn verify(&self) -> Result<()> {
        todo!()
    }
}
