//! What users query with: image folders, npz and npy, IDX. Listing first, decoding only what is
//! sampled.

mod arrays;
mod decode;
mod error;
mod folder;
mod idx;
mod npy;
mod npz;
mod rowfile;
mod split;
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]
mod tests;

pub use error::Error;
pub use rowfile::write_rows;
pub use split::{Split, SplitOptions, split};

use crate::rows::Rows;
use crate::sample::Image;
use rayon::prelude::*;
use std::fs::{self, File};
use std::io::{BufReader, Cursor, ErrorKind, Read};
use std::path::{Path, PathBuf};

/// Most bytes of one array in memory.
const ARRAY_BYTES_MAX: u64 = 2 << 30;

/// Fewest images of a class: one to learn from, one to test.
const CLASS_IMAGES_MIN: usize = 2;

/// An opened dataset.
#[derive(Debug)]
pub enum Dataset {
    /// Labelled images, decoded on demand.
    Images(ImageDataset),
    /// Ready-made feature rows, as `encode` writes them.
    Rows(RowDataset),
}

/// Labelled images. Nothing is decoded until `load`.
#[derive(Debug)]
pub struct ImageDataset {
    /// By label.
    pub class_names: Vec<String>,
    /// One per image.
    pub labels: Vec<u32>,
    /// Group of each image (`split` keeps groups whole where it can), where the dataset has groups.
    pub groups: Option<Vec<u32>>,
    /// Hidden files, files that are no images and links that loop: left out of the listing.
    pub ignored: usize,
    path: PathBuf,
    source: Source,
}

/// Feature rows of a known backbone.
#[derive(Clone, Debug, PartialEq)]
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
    /// Identity of the dataset whose training part the rows are; `None` in files of before it was written.
    pub task: Option<[u8; 32]>,
}

/// Images that were decoded, and those that could not be.
#[derive(Debug, Default)]
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

#[derive(Debug)]
enum Source {
    Files(Vec<PathBuf>),
    Images(Vec<Image>),
    /// `[n, height, width, channels]`; four channels are red, green, blue, alpha.
    Memory {
        width: usize,
        height: usize,
        channels: usize,
        pixels: Vec<u8>,
    },
}

/// Opens an image folder, .npz, .npy pair or IDX pair.
///
/// # Errors
/// `Error` says what was expected (at least two classes with two images each) and what was found.
pub fn open(path: &Path) -> Result<Dataset, Error> {
    let metadata = fs::metadata(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => {
            Error::unusable(path, "a dataset", "nothing at this path", "check the path")
        }
        _ => Error::io(path, error),
    })?;
    let dataset = if metadata.is_dir() {
        open_folder(path)?
    } else if metadata.is_file() {
        open_file(path)?
    } else {
        return Err(not_a_dataset(path, "neither a file nor a folder"));
    };
    check(path, &dataset)?;
    Ok(dataset)
}

/// Opens an .npz that is already in memory; `name` stands for the path in messages.
///
/// # Errors
/// As `open`.
pub fn open_npz_bytes(name: &str, bytes: &[u8]) -> Result<Dataset, Error> {
    let path = Path::new(name);
    let dataset = npz::open(path, Cursor::new(bytes))?;
    check(path, &dataset)?;
    Ok(dataset)
}

/// The images of an .npz in memory that has no labels (array `x`).
///
/// # Errors
/// `Error::Unusable` if there is no such array, or an image of it cannot be used.
pub fn open_npz_images(name: &str, bytes: &[u8]) -> Result<Vec<Image>, Error> {
    all_images(&npz::open_images(Path::new(name), Cursor::new(bytes))?)
}

/// The images of an .npy in memory, of all types and shapes that an .npz may have; `name` stands for its path.
///
/// # Errors
/// As `open_npz_images`.
pub fn open_npy_images(name: &str, bytes: &[u8]) -> Result<Vec<Image>, Error> {
    // What is in memory already needs no limit.
    let place = npy::Place { path: Path::new(name), name, bytes_max: bytes.len() as u64 };
    let array = npy::read(&mut Cursor::new(bytes), &place)?;
    all_images(&arrays::images(array, &place)?)
}

fn all_images(dataset: &ImageDataset) -> Result<Vec<Image>, Error> {
    let loaded = dataset.load(&(0..dataset.len()).collect::<Vec<_>>());
    match loaded.skipped.first() {
        None => Ok(loaded.images),
        Some((index, reason)) => {
            let found = format!("image {index}: {reason}");
            let advice = "save uint8 [n, height, width, 3]";
            Err(Error::unusable(&dataset.path, "images", found, advice))
        }
    }
}

fn open_folder(path: &Path) -> Result<Dataset, Error> {
    if npz::is_pair_folder(path) {
        return npz::open_folder(path);
    }
    match idx::images_in(path)? {
        Some(images) => idx::open(&images).map(Dataset::Images),
        None => match (folder::open(path), npz::images_in(path)) {
            // It is no image folder, so that the array is what was meant.
            (Err(_), Some(images)) => npz::open_pair(&images),
            (opened, _) => opened.map(Dataset::Images),
        },
    }
}

/// By content: suffixes lie.
fn open_file(path: &Path) -> Result<Dataset, Error> {
    let file = File::open(path).map_err(|error| Error::io(path, error))?;
    let mut start = Vec::new();
    file.take(64).read_to_end(&mut start).map_err(|error| Error::io(path, error))?;
    if start.starts_with(b"PK") {
        let file = File::open(path).map_err(|error| Error::io(path, error))?;
        npz::open(path, BufReader::new(file))
    } else if start.starts_with(b"\x93NUMPY") {
        npz::open_pair(path)
    } else if start.starts_with(&idx::IMAGES_MAGIC) || start.starts_with(&idx::GZIP_MAGIC) {
        idx::open(path).map(Dataset::Images)
    } else if start.is_empty() {
        Err(not_a_dataset(path, "an empty file"))
    } else if decode::is_image(&start) {
        Err(not_a_dataset(path, "a single image"))
    } else {
        Err(not_a_dataset(path, "a file of another kind"))
    }
}

fn not_a_dataset(path: &Path, found: &str) -> Error {
    Error::unusable(
        path,
        "a folder with one subfolder per class, an .npz, an .npy pair or an IDX pair",
        found,
        "name the folder or file of a labelled dataset",
    )
}

fn check(path: &Path, dataset: &Dataset) -> Result<(), Error> {
    match dataset {
        Dataset::Images(images) => {
            let about = folder::about_ignored(images.ignored);
            check_classes(path, &images.class_names, &images.labels, &about)
        }
        Dataset::Rows(rows) => check_classes(path, &rows.class_names, &rows.labels, ""),
    }
}

/// 1 sample, 2 samples.
fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// At least two classes with two samples each.
fn check_classes(path: &Path, names: &[String], labels: &[u32], about: &str) -> Result<(), Error> {
    let mut counts = vec![0; names.len()];
    for &label in labels {
        counts[label as usize] += 1;
    }
    let small = counts.iter().position(|&count| count < CLASS_IMAGES_MIN);
    let (found, advice) = match (labels.len(), names.len(), small) {
        (0, _, _) => ("no sample".to_string(), "add samples"),
        (_, 1, _) => (format!("one class, {:?}", names[0]), "add samples of other classes"),
        (_, _, Some(label)) => {
            let found =
                format!("class {:?} with {}", names[label], counted(counts[label], "sample"));
            (found, "add samples to the class or remove it")
        }
        (_, _, None) => return Ok(()),
    };
    let expected = "at least two classes with two samples each";
    Err(Error::unusable(path, expected, found + about, advice))
}

impl ImageDataset {
    /// A dataset of images in memory; labels may be any numbers and become 0, 1, ... in their order.
    ///
    /// # Errors
    /// `Error::Unusable` unless there is one label per image and two classes with two images each.
    pub fn from_images(name: &str, images: Vec<Image>, labels: &[u32]) -> Result<Self, Error> {
        let path = PathBuf::from(name);
        if images.len() != labels.len() {
            let expected = format!("a label for each of {}", counted(images.len(), "image"));
            let found = counted(labels.len(), "label");
            return Err(Error::unusable(&path, &expected, &found, "pass as many labels as images"));
        }
        let mut values = labels.to_vec();
        values.sort_unstable();
        values.dedup();
        let dense = |label| values.partition_point(|value| value < label) as u32;
        let dataset = Self {
            class_names: values.iter().map(u32::to_string).collect(),
            labels: labels.iter().map(dense).collect(),
            groups: None,
            ignored: 0,
            path,
            source: Source::Images(images),
        };
        check_classes(&dataset.path, &dataset.class_names, &dataset.labels, "")?;
        Ok(dataset)
    }
    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }
    /// At most `per_class` indices of each class, seeded, in ascending order.
    pub fn sample(&self, per_class: usize, seed: u64) -> Vec<usize> {
        split::sample(&self.labels, per_class, seed)
    }
    /// Decodes the images at `indices`, in that order; unreadable ones are skipped and reported.
    pub fn load(&self, indices: &[usize]) -> Loaded {
        let decoded: Vec<_> = indices.par_iter().map(|&index| self.image(index)).collect();
        let mut loaded =
            Loaded { groups: self.groups.as_ref().map(|_| Vec::new()), ..Loaded::default() };
        for (&index, result) in indices.iter().zip(decoded) {
            match result {
                Ok(image) => {
                    loaded.images.push(image);
                    loaded.labels.push(self.labels[index]);
                    if let (Some(to), Some(from)) = (&mut loaded.groups, &self.groups) {
                        to.push(from[index]);
                    }
                }
                Err(reason) => loaded.skipped.push((self.name_of(index), reason)),
            }
        }
        loaded
    }
    /// Whether what was decoded is still a dataset.
    ///
    /// # Errors
    /// `Error::Unusable` if a class of this dataset has fewer than two decoded images; it names the
    /// first skipped file.
    pub fn check_loaded(&self, loaded: &Loaded) -> Result<(), Error> {
        let about = match loaded.skipped.first() {
            Some((name, reason)) => {
                let skipped = counted(loaded.skipped.len(), "image");
                format!(" (skipped: {skipped}, first {name}: {reason})")
            }
            None => String::new(),
        };
        check_classes(&self.path, &self.class_names, &loaded.labels, &about)
    }

    fn image(&self, index: usize) -> Result<Image, String> {
        match &self.source {
            Source::Images(images) => {
                images.get(index).cloned().ok_or_else(|| "no image has this index".into())
            }
            Source::Files(paths) => {
                let path = paths.get(index).ok_or("no image has this index")?;
                decode::decode_file(path)
            }
            Source::Memory { width, height, channels, pixels } => {
                let length = width * height * channels;
                let start = index.checked_mul(length).ok_or("no image has this index")?;
                let image = pixels.get(start..).and_then(|rest| rest.get(..length));
                let image = image.ok_or("no image has this index")?;
                let image = match channels {
                    4 => decode::on_white(*width, *height, *channels, image),
                    _ => Image::new(*width, *height, *channels, image.to_vec()),
                };
                image.ok_or_else(|| "expected at least 1x1 pixels".into())
            }
        }
    }

    fn name_of(&self, index: usize) -> String {
        match &self.source {
            Source::Files(paths) => {
                paths.get(index).map_or(index.to_string(), |path| path.display().to_string())
            }
            Source::Memory { .. } | Source::Images(_) => index.to_string(),
        }
    }
}
