//! IDX, the format of MNIST: images and labels in two files, often gzipped.

use super::decode::SIDE_MAX;
use super::{ARRAY_BYTES_MAX, Error, ImageDataset, Source};
use flate2::read::MultiGzDecoder;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

/// First bytes of unsigned bytes in three dimensions.
pub(super) const IMAGES_MAGIC: [u8; 4] = [0, 0, 8, 3];

/// First bytes of unsigned bytes in one dimension.
const LABELS_MAGIC: [u8; 4] = [0, 0, 8, 1];

/// First bytes of gzip.
pub(super) const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// The images' file of the pair in a folder; the training pair where there are several.
pub(super) fn images_in(folder: &Path) -> Result<Option<PathBuf>, Error> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| Error::io(folder, error))? {
        let path = entry.map_err(|error| Error::io(folder, error))?.path();
        if is_images_name(&file_name(&path)) && path.is_file() {
            found.push(path);
        }
    }
    found.sort_by_key(|path| (!file_name(path).contains("train"), path.clone()));
    Ok(found.into_iter().next())
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn is_images_name(name: &str) -> bool {
    let name = name.strip_suffix(".gz").unwrap_or(name);
    !name.starts_with('.') && name.contains("images") && name.ends_with("idx3-ubyte")
}

/// Opens the pair of an images' file.
pub(super) fn open(images: &Path) -> Result<ImageDataset, Error> {
    let labels_path = labels_beside(images)?;
    let (sides, pixels) = read(images, IMAGES_MAGIC)?;
    let (label_sides, values) = read(&labels_path, LABELS_MAGIC)?;
    let (count, height, width) = (sides[0], sides[1], sides[2]);
    if label_sides[0] != count {
        return Err(Error::unusable(
            &labels_path,
            format!("{count} labels, one per image"),
            label_sides[0].to_string(),
            "put the labels of these images beside them",
        ));
    }
    let range = 1..=SIDE_MAX;
    if count > 0 && (!range.contains(&height) || !range.contains(&width)) {
        let expected = format!("images with sides from 1 to {SIDE_MAX}");
        let found = format!("{width}x{height}");
        return Err(Error::unusable(images, expected, found, "resize them"));
    }
    let mut dense: BTreeMap<u8, u32> = values.iter().map(|&value| (value, 0)).collect();
    dense.values_mut().zip(0..).for_each(|(label, position)| *label = position);
    Ok(ImageDataset {
        class_names: dense.keys().map(u8::to_string).collect(),
        labels: values.iter().map(|value| dense[value]).collect(),
        groups: None,
        ignored: 0,
        path: images.to_path_buf(),
        source: Source::Memory { width, height, channels: 1, pixels },
    })
}

fn labels_beside(images: &Path) -> Result<PathBuf, Error> {
    let name = file_name(images).replace("images", "labels").replace("idx3", "idx1");
    let plain = name.strip_suffix(".gz").unwrap_or(&name).to_string();
    let zipped = format!("{plain}.gz");
    let candidates = [name, plain.clone(), zipped].map(|name| images.with_file_name(name));
    let found = candidates.into_iter().find(|path| path != images && path.is_file());
    found.ok_or_else(|| {
        Error::unusable(
            images,
            format!("IDX images with their labels beside them in {plain} or {plain}.gz"),
            "no labels",
            "put both files of the pair into one folder, or name the images' file",
        )
    })
}

/// Sides and values of one file. Memory grows with the bytes that really come.
fn read(path: &Path, magic: [u8; 4]) -> Result<(Vec<usize>, Vec<u8>), Error> {
    let damaged = |error| Error::reading(path, "IDX file", error);
    let mut file = File::open(path).map_err(|error| Error::io(path, error))?;
    let mut start = Vec::new();
    file.by_ref().take(2).read_to_end(&mut start).map_err(damaged)?;
    let is_gzip = start == GZIP_MAGIC;
    let whole = BufReader::new(std::io::Cursor::new(start).chain(file));
    let mut reader: Box<dyn Read> =
        if is_gzip { Box::new(MultiGzDecoder::new(whole)) } else { Box::new(whole) };
    let mut found = [0; 4];
    reader.read_exact(&mut found).map_err(damaged)?;
    if found != magic {
        let expected = format!("IDX bytes that start with {magic:?}");
        let advice = "an IDX dataset is a pair of idx3-ubyte images and idx1-ubyte labels";
        return Err(Error::unusable(path, expected, format!("{found:?}"), advice));
    }
    let mut sides = Vec::new();
    for _ in 0..magic[3] {
        let mut side = [0; 4];
        reader.read_exact(&mut side).map_err(damaged)?;
        sides.push(u32::from_be_bytes(side) as usize);
    }
    let length = sides.iter().try_fold(1u64, |length, &side| length.checked_mul(side as u64));
    let length = length.filter(|&length| length <= ARRAY_BYTES_MAX).ok_or_else(|| {
        let expected = format!("at most {ARRAY_BYTES_MAX} bytes");
        Error::unusable(path, expected, format!("sides {sides:?}"), "use a part of the dataset")
    })?;
    let mut values = Vec::new();
    // One byte more than announced shows a header that lies.
    reader.take(length + 1).read_to_end(&mut values).map_err(damaged)?;
    if values.len() as u64 != length {
        let expected = format!("{length} bytes for sides {sides:?}");
        let found = if (values.len() as u64) < length { "fewer" } else { "more" };
        return Err(Error::unusable(path, expected, found, "copy the file again"));
    }
    Ok((sides, values))
}
