//! Feature rows of images that a network has seen before: one checksummed file per network and block of images, safe to
//! delete.

use super::cache_file;
use crate::encoder::backbone::{self, Backbone};
use crate::graph::exec::Network;
use crate::rows::Rows;
use crate::sample::Image;
use crate::{Error, Observer, OpenOptions, Progress, Result};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// To be raised with every change of what a network makes of an image: of resizing, of preprocessing, of an operator.
const ROWS_VERSION: u8 = 1;
const BLOCK: usize = 64;
const CACHE_BYTES_MAX: u64 = 1 << 30;

/// Rows `[n, dim]` of the backbone, from the cache where it has them, and the milliseconds that the backbone ran.
pub fn backbone_rows(
    options: &OpenOptions,
    images: &[Image],
    observer: Observer<'_>,
) -> Result<(Rows, f64)> {
    let (key, total) = (backbone::fingerprint(), images.len());
    let load = || Ok(Backbone::load(options.device)?);
    cached(options, &key, images, load, |network, block, done| {
        let rows = network.rows(block, &mut |ready, _| {
            let item = String::new();
            observer(Progress { step: "encoding images", item, done: done + ready, total })
        });
        Ok(rows?)
    })
}

/// Features `[n, dim]` of a stored network, which is loaded only if the cache does not have them all.
pub fn model_rows(
    options: &OpenOptions,
    model: &[u8; 32],
    images: &[Image],
    load: impl Fn() -> Result<Network>,
) -> Result<Rows> {
    let run = |network: &Network, block: &[Image], _| Ok(network.features(block)?);
    cached(options, model, images, load, run).map(|(rows, _)| rows)
}

/// Rows of images under a network that `key` names, and the milliseconds that it ran.
fn cached<N>(
    options: &OpenOptions,
    key: &[u8; 32],
    images: &[Image],
    load: impl Fn() -> Result<N>,
    mut run: impl FnMut(&N, &[Image], usize) -> Result<Rows>,
) -> Result<(Rows, f64)> {
    let (mut dim, mut values) = (0, Vec::new());
    let mut loaded: Option<N> = None;
    let mut elapsed_ms = 0.0;
    for (index, block) in images.chunks(BLOCK).enumerate() {
        let file = options.cache_dir.as_ref().map(|folder| block_path(folder, key, block));
        let known = file.as_deref().and_then(|file| read_block(file, block.len()));
        let block_values = match known {
            Some(values) => values,
            None => {
                let network = match loaded.take() {
                    Some(network) => network,
                    None => load()?,
                };
                let start = Instant::now();
                let rows = run(&network, block, index * BLOCK)?;
                elapsed_ms += start.elapsed().as_secs_f64() * 1e3;
                loaded = Some(network);
                if let Some(file) = &file {
                    write_block(file, rows.values());
                }
                rows.values().to_vec()
            }
        };
        dim = block_values.len() / block.len();
        values.extend(block_values);
    }
    if elapsed_ms > 0.0
        && let Some(folder) = &options.cache_dir
    {
        cache_file::trim(&folder.join("rows"), CACHE_BYTES_MAX);
    }
    let rows = Rows::new(dim, values)
        .ok_or_else(|| Error::input("a network gave rows of different lengths"))?;
    Ok((rows, elapsed_ms))
}

fn block_path(folder: &Path, key: &[u8; 32], images: &[Image]) -> PathBuf {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[ROWS_VERSION]);
    hasher.update(key);
    for image in images {
        hasher.update(&image.hash());
    }
    folder.join("rows").join(hasher.finalize().to_hex().as_str())
}

/// The file's numbers, as many for each of the rows; anything wrong with it only means that the network runs again.
fn read_block(file: &Path, rows: usize) -> Option<Vec<f32>> {
    let bytes = std::fs::read(file).ok()?;
    let (payload, checksum) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
    let stored = u32::from_le_bytes(checksum.try_into().ok()?);
    if payload.is_empty() || payload.len() % (4 * rows) != 0 || crc32c::crc32c(payload) != stored {
        return None;
    }
    let word = |bytes: &[u8]| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    Some(payload.chunks_exact(4).map(word).collect())
}

/// A cache that cannot be written costs time, never an answer.
fn write_block(file: &Path, rows: &[f32]) {
    let mut bytes: Vec<u8> = rows.iter().flat_map(|value| value.to_le_bytes()).collect();
    bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
    if let Err(error) = cache_file::put(file, &[&bytes]) {
        tracing::warn!("feature cache {}: {error}", file.display());
    }
}
