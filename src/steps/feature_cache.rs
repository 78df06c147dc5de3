//! Backbone rows of images that were encoded before: one checksummed file per block of images, safe to delete.

use crate::encoder::backbone::{self, Backbone};
use crate::rows::Rows;
use crate::sample::Image;
use crate::{Error, Observer, OpenOptions, Progress, Result};
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

const BLOCK: usize = 64;
const CACHE_BYTES_MAX: u64 = 1 << 30;

/// Rows `[n, dim]` of the backbone, from the cache where it has them, and the milliseconds that the backbone ran.
pub fn backbone_rows(
    options: &OpenOptions,
    images: &[Image],
    observer: Observer<'_>,
) -> Result<(Rows, f64)> {
    let dim = backbone::FEATURE_DIM;
    let mut values = Vec::with_capacity(images.len() * dim);
    let mut loaded: Option<Backbone> = None;
    let mut elapsed_ms = 0.0;
    for (block_index, block) in images.chunks(BLOCK).enumerate() {
        let done = block_index * BLOCK;
        let file = options.cache_dir.as_ref().map(|folder| block_path(folder, block));
        if let Some(rows) = file.as_deref().and_then(|file| read_block(file, block.len() * dim)) {
            values.extend(rows);
            continue;
        }
        if loaded.is_none() {
            loaded = Some(Backbone::load(options.device)?);
        }
        let Some(network) = &loaded else { continue };
        let start = Instant::now();
        let rows = network.rows(block, &mut |ready, _| {
            let item = String::new();
            let total = images.len();
            observer(Progress { step: "encoding images", item, done: done + ready, total })
        });
        elapsed_ms += start.elapsed().as_secs_f64() * 1e3;
        let rows = rows?;
        if let Some(file) = &file {
            write_block(file, rows.values());
        }
        values.extend_from_slice(rows.values());
    }
    if elapsed_ms > 0.0
        && let Some(folder) = &options.cache_dir
    {
        trim(&folder.join("rows"), CACHE_BYTES_MAX);
    }
    let rows = Rows::new(dim, values)
        .ok_or_else(|| Error::input("the backbone gave rows of another dimension"))?;
    Ok((rows, elapsed_ms))
}

fn block_path(folder: &Path, images: &[Image]) -> PathBuf {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&backbone::fingerprint());
    for image in images {
        hasher.update(&image.hash());
    }
    folder.join("rows").join(hasher.finalize().to_hex().as_str())
}

/// The file's rows; anything wrong with it only means that the backbone runs again.
fn read_block(file: &Path, length: usize) -> Option<Vec<f32>> {
    let bytes = std::fs::read(file).ok()?;
    let (payload, checksum) = bytes.split_at_checked(length * 4)?;
    let stored = u32::from_le_bytes(checksum.try_into().ok()?);
    if crc32c::crc32c(payload) != stored {
        return None;
    }
    let word = |bytes: &[u8]| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    Some(payload.chunks_exact(4).map(word).collect())
}

/// A cache that cannot be written costs time, never an answer.
fn write_block(file: &Path, rows: &[f32]) {
    let mut bytes: Vec<u8> = rows.iter().flat_map(|value| value.to_le_bytes()).collect();
    bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
    let written = file
        .parent()
        .map_or(Ok(()), std::fs::create_dir_all)
        .map_err(|error| error.to_string())
        .and_then(|()| {
            tans_storage::install_file(file, |out| std::io::Write::write_all(out, &bytes))
                .map_err(|error| error.to_string())
        });
    if let Err(error) = written {
        tracing::warn!("feature cache {}: {error}", file.display());
    }
}

/// Deletes the oldest files until the folder is under the cap.
fn trim(folder: &Path, bytes_max: u64) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let mut files: Vec<(SystemTime, u64, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| {
            let metadata = entry.metadata().ok()?;
            Some((metadata.modified().ok()?, metadata.len(), entry.path()))
        })
        .collect();
    files.sort();
    let mut total: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
    for (_, bytes, path) in files {
        if total <= bytes_max {
            return;
        }
        if std::fs::remove_file(path).is_ok() {
            total -= bytes;
        }
    }
}
