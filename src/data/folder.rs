//! Image folders: one subfolder per class.

use super::decode::{FORMATS, is_image};
use super::{Error, ImageDataset, Source};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// What folders of splits are called.
const SPLITS: [&str; 7] = ["train", "training", "val", "valid", "validation", "test", "testing"];

/// Suffixes of files that are taken for images without a look inside; damage shows at `load`.
const SUFFIXES: [&str; 8] = ["png", "jpg", "jpeg", "jpe", "jfif", "gif", "webp", "bmp"];

/// Lists a folder of class subfolders. Classes and files are sorted by name.
pub(super) fn open(root: &Path) -> Result<ImageDataset, Error> {
    let real_root = fs::canonicalize(root).map_err(|error| Error::io(root, error))?;
    let top = list(root)?;
    let mut ignored = top.hidden;
    let mut loose_images = 0;
    for file in &top.files {
        ignored += 1;
        loose_images += usize::from(looks_like_image(file));
    }
    if top.folders.is_empty() {
        return Err(without_classes(root, loose_images));
    }
    refuse_splits(root, &top.folders)?;
    let mut dataset = ImageDataset {
        class_names: Vec::new(),
        labels: Vec::new(),
        groups: None,
        ignored: 0,
        path: root.to_path_buf(),
        source: Source::Files(Vec::new()),
    };
    let mut paths = Vec::new();
    for (label, folder) in top.folders.iter().enumerate() {
        let class = class_files(folder, &real_root)?;
        ignored += class.ignored;
        dataset.class_names.push(name_of(folder));
        dataset.labels.extend(class.images.iter().map(|_| label as u32));
        paths.extend(class.images);
    }
    dataset.ignored = ignored;
    dataset.source = Source::Files(paths);
    Ok(dataset)
}

fn without_classes(root: &Path, loose_images: usize) -> Error {
    let found = if loose_images > 0 {
        format!("{loose_images} images directly in the folder, so they have no labels")
    } else {
        "no subfolder and no image".into()
    };
    Error::unusable(
        root,
        "one subfolder per class with at least two images each, for at least two classes",
        found,
        "move the images of each class to a subfolder with the name of the class",
    )
}

/// Refuses a folder whose subfolders are splits, each with the classes in it: they would be taken for classes.
fn refuse_splits(root: &Path, folders: &[PathBuf]) -> Result<(), Error> {
    let is_split = |folder: &PathBuf| SPLITS.contains(&name_of(folder).to_lowercase().as_str());
    if folders.len() < 2 || !folders.iter().all(is_split) {
        return Ok(());
    }
    for folder in folders {
        if list(folder)?.folders.is_empty() {
            return Ok(());
        }
    }
    let names: Vec<String> = folders.iter().map(|folder| name_of(folder)).collect();
    Err(Error::unusable(
        root,
        "one subfolder per class",
        format!("splits that hold the classes: {}", names.join(", ")),
        "name one of them: it is split anew",
    ))
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

struct Listing {
    files: Vec<PathBuf>,
    folders: Vec<PathBuf>,
    hidden: usize,
}

/// What a folder holds, sorted, links followed. Sockets, pipes and broken links are files here.
fn list(folder: &Path) -> Result<Listing, Error> {
    let failed = |error| Error::io(folder, error);
    let mut listing = Listing { files: Vec::new(), folders: Vec::new(), hidden: 0 };
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if name_of(&path).starts_with('.') {
            listing.hidden += 1;
        } else if path.is_dir() {
            listing.folders.push(path);
        } else {
            listing.files.push(path);
        }
    }
    listing.files.sort();
    listing.folders.sort();
    Ok(listing)
}

struct ClassFiles {
    images: Vec<PathBuf>,
    ignored: usize,
}

/// All images at any depth under a class folder.
///
/// A real folder is entered once, and never the dataset's own folder or one above it, so that links
/// neither loop nor pull other classes in.
fn class_files(class: &Path, real_root: &Path) -> Result<ClassFiles, Error> {
    let mut seen: BTreeSet<PathBuf> = real_root.ancestors().map(Path::to_path_buf).collect();
    let mut files = ClassFiles { images: Vec::new(), ignored: 0 };
    let mut pending = vec![class.to_path_buf()];
    while let Some(folder) = pending.pop() {
        let real = fs::canonicalize(&folder).map_err(|error| Error::io(&folder, error))?;
        if !seen.insert(real) {
            files.ignored += 1;
            continue;
        }
        let listing = list(&folder)?;
        files.ignored += listing.hidden;
        let (images, others): (Vec<_>, Vec<_>) =
            listing.files.into_iter().partition(|file| looks_like_image(file));
        files.ignored += others.len();
        files.images.extend(images);
        pending.extend(listing.folders);
    }
    files.images.sort();
    Ok(files)
}

/// By suffix or by content. Only regular files: opening a pipe would wait forever.
fn looks_like_image(path: &Path) -> bool {
    let suffix = path.extension().map(|suffix| suffix.to_string_lossy().to_ascii_lowercase());
    let has_suffix = suffix.is_some_and(|suffix| SUFFIXES.contains(&suffix.as_str()));
    let Ok(metadata) = fs::metadata(path) else {
        // A broken link with the name of an image is a lost image: `load` reports it.
        return has_suffix;
    };
    metadata.is_file() && (has_suffix || starts_like_image(path))
}

fn starts_like_image(path: &Path) -> bool {
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(64).read_to_end(&mut start));
    read.is_ok() && is_image(&start)
}

/// The advice for a class that is too small, where files were left out.
pub(super) fn about_ignored(ignored: usize) -> String {
    match ignored {
        0 => String::new(),
        _ => format!(" ({ignored} files or links that are not {FORMATS} were ignored)"),
    }
}
