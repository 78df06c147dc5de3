//! Fresh vectors in memory: they shadow the segment.

use crate::{Attributes, Embedding, Result};

/// Fresh, changed and removed vectors since the segment was built. Exact scan while small, HNSW when larger.
pub struct Delta {}

impl Delta {
    /// An empty delta of vectors of `dim` dimensions.
    pub fn new(_dim: usize) -> Self {
        todo!()
    }
    /// Adds or replaces a vector.
    pub fn insert(
        &mut self,
        _key: u64,
        _vector: &Embedding,
        _attributes: Attributes,
    ) -> Result<()> {
        todo!()
    }
    /// Marks a key as removed, here and in the segment below.
    pub fn remove(&mut self, _key: u64) {
        todo!()
    }
    /// Live vectors held here.
    pub fn len(&self) -> usize {
        todo!()
    }
    /// Whether no live vector is held here.
    pub fn is_empty(&self) -> bool {
        todo!()
    }
}
