//! Fresh vectors in memory: they shadow the segment.

use crate::embedding::padded_dim;
use crate::{Attributes, Embedding, Error, Result};
use std::collections::HashMap;

/// Fresh, changed and removed vectors since the segment was built.
///
/// It is scanned exactly: it stays small, because a merge turns it into a segment.
#[derive(Clone, Debug)]
pub struct Delta {
    dim: usize,
    /// What is known about each key that the delta shadows; `None`: it was removed.
    slots: HashMap<u64, Option<usize>>,
    keys: Vec<u64>,
    attributes: Vec<Attributes>,
    /// Padded unit vectors, one row a slot.
    vectors: Vec<f32>,
}

impl Delta {
    /// An empty delta of vectors of `dim` dimensions.
    pub fn new(dim: usize) -> Self {
        Self {
            dim,
            slots: HashMap::new(),
            keys: Vec::new(),
            attributes: Vec::new(),
            vectors: Vec::new(),
        }
    }

    /// Adds or replaces a vector.
    ///
    /// # Errors
    /// `Error::Dimension` if its dimension is not the delta's; the delta stays as it was.
    pub fn insert(&mut self, key: u64, vector: &Embedding, attributes: Attributes) -> Result<()> {
        if vector.dim() != self.dim {
            return Err(Error::Dimension { expected: self.dim, found: vector.dim() });
        }
        let stride = self.stride();
        if let Some(Some(slot)) = self.slots.get(&key) {
            self.vectors[slot * stride..][..self.dim].copy_from_slice(vector.as_slice());
            self.attributes[*slot] = attributes;
            return Ok(());
        }
        self.slots.insert(key, Some(self.keys.len()));
        self.keys.push(key);
        self.attributes.push(attributes);
        self.vectors.extend(vector.padded());
        Ok(())
    }

    /// Marks a key as removed, here and in the segment below.
    pub fn remove(&mut self, key: u64) {
        let Some(slot) = self.slots.insert(key, None).flatten() else { return };
        let (last, stride) = (self.keys.len() - 1, self.stride());
        self.keys.swap_remove(slot);
        self.attributes.swap_remove(slot);
        self.vectors.copy_within(last * stride.., slot * stride);
        self.vectors.truncate(last * stride);
        if let Some(&moved) = self.keys.get(slot) {
            self.slots.insert(moved, Some(slot));
        }
    }

    /// Live vectors held here.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether no live vector is held here.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Dimensions of its vectors.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Keys that it shadows in the segment below, live and removed ones. It grows until a merge.
    pub fn shadow_count(&self) -> usize {
        self.slots.len()
    }

    /// Whether the segment's vector of this key no longer counts.
    pub fn shadows(&self, key: u64) -> bool {
        !self.slots.is_empty() && self.slots.contains_key(&key)
    }

    /// The unit vector of a live key.
    pub fn vector(&self, key: u64) -> Option<&[f32]> {
        let slot = (*self.slots.get(&key)?)?;
        Some(&self.vectors[slot * self.stride()..][..self.dim])
    }

    /// Live keys, in the order of `rows` and `attributes`.
    pub(crate) fn keys(&self) -> &[u64] {
        &self.keys
    }

    pub(crate) fn attributes(&self) -> &[Attributes] {
        &self.attributes
    }

    /// Padded vectors, one after the other.
    pub(crate) fn rows(&self) -> &[f32] {
        &self.vectors
    }

    pub(crate) fn stride(&self) -> usize {
        padded_dim(self.dim)
    }
}
