//! What users query with: image folders, npz and npy, IDX. Listing first, decoding only what is sampled.

mod error;
mod folder;
mod idx;
mod npz;
mod split;

pub use error::Error;
pub use split::{Split, SplitOptions, split};

use crate::rows::Rows;
use crate::sample::Image;
use std::path::{Path, PathBuf};

/// An opened dataset.
pub enum Dataset {
    /// Labelled images, decoded on demand.
    Images(ImageDataset),
    /// Ready-made feature rows, as `encode` writes them.
    Rows(RowDataset),
}

/// Labelled images. Nothing is decoded until `load`.
pub struct ImageDataset {
    /// By label.
    pub class_names: Vec<String>,
    /// One per image.
    pub labels: Vec<u32>,
    /// Group of each image (images of one group never straddle a split), where the dataset has groups.
    pub groups: Option<Vec<u32>>,
    source: Source,
}

/// Feature rows of a known backbone.
pub struct RowDataset {
    /// By label.
    pub class_names: Vec<String>,
    /// One per row.
    pub labels: Vec<u32>,
    /// `[n, dim]`.
    pub rows: Rows,
    /// Landmark scalars as measured when the rows were made.
    pub scalars: [Option<f32>; 10],
    /// Fingerprint of the backbone that made the rows.
    pub backbone: [u8; 32],
}

/// Images that were decoded, and those that could not be.
#[derive(Default)]
pub struct Loaded {
    /// Decoded images.
    pub images: Vec<Image>,
    /// Their labels.
    pub labels: Vec<u32>,
    /// Their groups, where the dataset has groups.
    pub groups: Option<Vec<u32>>,
    /// (file or index, reason) of the others.
    pub skipped: Vec<(String, String)>,
}

#[expect(dead_code, reason = "skeleton")]
enum Source {
    Files(Vec<PathBuf>),
    Memory { width: usize, height: usize, channels: usize, pixels: Vec<u8> },
}

/// Opens an image folder, .npz, .npy pair or IDX pair.
///
/// # Errors
/// `Error` says what was expected (at least two classes with two images each) and what was found.
pub fn open(_path: &Path) -> Result<Dataset, Error> {
    todo!()
}

impl ImageDataset {
    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }
    /// At most `per_class` indices of each class, seeded, in ascending order.
    pub fn sample(&self, _per_class: usize, _seed: u64) -> Vec<usize> {
        todo!()
    }
    /// Decodes the images at `indices`; unreadable ones are skipped and reported.
    pub fn load(&self, _indices: &[usize]) -> Loaded {
        todo!()
    }
}
