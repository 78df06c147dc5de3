//! Named numpy arrays: npz archives and folders of npy files.

use super::npy::{self, Array, Place};
use super::{ARRAY_BYTES_MAX, Dataset, Error, ImageDataset, arrays};
use std::fs::{self, File};
use std::io::{BufReader, Read, Seek};
use std::path::Path;
use zip::ZipArchive;

/// Reads one named array of at most so many bytes.
pub(super) type ReadArray<'a> = dyn FnMut(&str, u64) -> Result<Array, Error> + 'a;

/// An npz archive, from a file or from memory. `path` is for messages.
pub(super) fn open(path: &Path, reader: impl Read + Seek) -> Result<Dataset, Error> {
    let mut archive = ZipArchive::new(reader).map_err(|error| damaged(path, "archive", error))?;
    let names: Vec<String> =
        archive.file_names().filter_map(|name| name.strip_suffix(".npy")).map(Into::into).collect();
    arrays::dataset(path, &names, &mut |name, bytes_max| {
        read_member(path, &mut archive, name, bytes_max)
    })
}

/// The unlabelled images of an npz archive in memory: its array `x`, whatever else there is.
pub(super) fn open_images(path: &Path, reader: impl Read + Seek) -> Result<ImageDataset, Error> {
    let mut archive = ZipArchive::new(reader).map_err(|error| damaged(path, "archive", error))?;
    let place = Place { path, name: arrays::PAIRS[0].0, bytes_max: ARRAY_BYTES_MAX };
    let array = read_member(path, &mut archive, place.name, place.bytes_max)?;
    arrays::images(array, &place)
}

fn read_member(
    path: &Path,
    archive: &mut ZipArchive<impl Read + Seek>,
    name: &str,
    bytes_max: u64,
) -> Result<Array, Error> {
    let mut entry =
        archive.by_name(&format!("{name}.npy")).map_err(|error| damaged(path, name, error))?;
    npy::read(&mut entry, &Place { path, name, bytes_max })
}

fn damaged(path: &Path, part: &str, error: zip::result::ZipError) -> Error {
    if let zip::result::ZipError::Io(source) = error {
        return Error::reading(path, part, source);
    }
    Error::unusable(
        path,
        format!("a readable npz {part:?}"),
        error.to_string(),
        "write it again with numpy.savez or numpy.savez_compressed",
    )
}

/// Whether a folder holds a pair of npy files with usual names.
pub(super) fn is_pair_folder(folder: &Path) -> bool {
    arrays::PAIRS.iter().any(|(images, labels)| {
        npy_file(folder, images).is_file() && npy_file(folder, labels).is_file()
    })
}

/// A folder that holds a pair.
pub(super) fn open_folder(folder: &Path) -> Result<Dataset, Error> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| Error::io(folder, error))? {
        let name = entry.map_err(|error| Error::io(folder, error))?.file_name();
        names.extend(name.to_string_lossy().strip_suffix(".npy").map(String::from));
    }
    arrays::dataset(folder, &names, &mut |name, bytes_max| read_npy(folder, name, bytes_max))
}

/// The images' file of a pair: its labels lie beside it.
pub(super) fn open_pair(images: &Path) -> Result<Dataset, Error> {
    let folder = images.parent().unwrap_or(Path::new(""));
    let stem = images.file_stem().unwrap_or_default().to_string_lossy();
    let pair = arrays::PAIRS.iter().find(|(name, _)| *name == stem);
    let Some((_, labels)) = pair.filter(|(_, labels)| npy_file(folder, labels).is_file()) else {
        return Err(no_labels(images, pair.map(|(_, labels)| npy_file(folder, labels))));
    };
    let mut names = vec![stem.to_string(), (*labels).to_string()];
    let optional = [arrays::CLASS_NAMES, arrays::GROUP];
    names
        .extend(optional.iter().filter(|name| npy_file(folder, name).is_file()).map(|&n| n.into()));
    arrays::dataset(images, &names, &mut |name, bytes_max| read_npy(folder, name, bytes_max))
}

/// Why there is no pair; `wanted` is the file of labels that was looked for.
fn no_labels(images: &Path, wanted: Option<std::path::PathBuf>) -> Error {
    if let Some(wanted) = wanted {
        let (expected, found) = (format!("its labels in {}", wanted.display()), "no such file");
        let advice = "save the labels there, or both arrays in one npz";
        return Error::unusable(images, expected, found, advice);
    }
    let pairs: Vec<String> = arrays::PAIRS
        .iter()
        .map(|(images, labels)| format!("{images}.npy and {labels}.npy"))
        .collect();
    let expected = format!("the images' file of a pair: {}", pairs.join(", "));
    let advice = "name that file, rename yours, or save both arrays in one npz";
    Error::unusable(images, expected, "a file of another name", advice)
}

/// Images in a folder that lack their labels.
pub(super) fn images_in(folder: &Path) -> Option<std::path::PathBuf> {
    arrays::PAIRS.iter().map(|(images, _)| npy_file(folder, images)).find(|path| path.is_file())
}

fn npy_file(folder: &Path, name: &str) -> std::path::PathBuf {
    folder.join(format!("{name}.npy"))
}

fn read_npy(folder: &Path, name: &str, bytes_max: u64) -> Result<Array, Error> {
    let path = npy_file(folder, name);
    let file = File::open(&path).map_err(|error| Error::io(&path, error))?;
    npy::read(&mut BufReader::new(file), &Place { path: &path, name, bytes_max })
}
