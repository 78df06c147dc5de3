//! The zip archive that PyTorch has written since 1.6.

use super::{ADVICE, Raw, malformed, pickle, shown, state};
use crate::graph::Error;
use crate::graph::formats::{Limits, StateDict};
use std::collections::HashMap;
use std::io::Cursor;
use std::ops::Range;
use zip::{CompressionMethod, ZipArchive};

/// Entries of an archive at most: one for each storage, and a few more.
const ENTRIES_A_NODE: u64 = 4;

pub(super) fn is_archive(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK\x03\x04")
}

pub(super) fn read(bytes: &[u8], limits: &Limits) -> Result<StateDict, Error> {
    let entries = entries(bytes, limits)?;
    let pickles = entries.keys().filter_map(|name| name.strip_suffix("data.pkl"));
    // The folder's name is the file's; it is the shortest where more than one pickle has that name.
    let Some(folder) = pickles.min_by_key(|folder| (folder.len(), *folder)) else {
        let found = entries.keys().min().map_or("none".to_owned(), |name| shown(name));
        return Err(Error::Contract(format!(
            "expected an archive of torch.save with an entry data.pkl, found {found}; {ADVICE}"
        )));
    };
    let is_script =
        |name: &String| name.strip_prefix(folder).is_some_and(|rest| rest.starts_with("code/"));
    if entries.keys().any(is_script) {
        return Err(Error::Contract(format!(
            "expected a state dict, found a TorchScript archive, which holds code; {ADVICE}"
        )));
    }
    let content = |name: &str| match entries.get(&format!("{folder}{name}")) {
        Some(Entry { range, is_stored: true }) => Ok(Some(&bytes[range.clone()])),
        Some(Entry { is_stored: false, .. }) => Err(malformed(format!(
            "entry {}: expected plain bytes, as torch.save writes them, found compressed ones",
            shown(name)
        ))),
        None => Ok(None),
    };
    if content("byteorder")? == Some(b"big") {
        return Err(Error::Contract("expected little-endian values, found big-endian ones".into()));
    }
    let loaded = pickle::load(content("data.pkl")?.unwrap_or_default(), limits)?;
    let kinds = state::storage_kinds(&loaded.heap)?;
    let raw = |key: &str| {
        let found = content(&format!("data/{key}"))?.zip(kinds.get(key));
        let missing = || malformed(format!("expected an entry data/{}, found none", shown(key)));
        let (bytes, &dtype) = found.ok_or_else(missing)?;
        Ok(Raw { dtype, bytes })
    };
    state::weights(&loaded, &raw, bytes.len(), limits)
}

/// Where an entry's bytes lie in the file, and whether they are neither compressed nor encrypted.
struct Entry {
    range: Range<usize>,
    is_stored: bool,
}

fn entries(bytes: &[u8], limits: &Limits) -> Result<HashMap<String, Entry>, Error> {
    let damaged = |error: zip::result::ZipError| malformed(error.to_string());
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(damaged)?;
    let (found, limit) = (archive.len() as u64, limits.nodes_max.saturating_mul(ENTRIES_A_NODE));
    if found > limit {
        let what = "the number of entries of the archive".into();
        return Err(Error::Limit { what, found, limit });
    }
    let mut entries = HashMap::new();
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index).map_err(damaged)?;
        let start = usize::try_from(entry.data_start()).ok();
        let end = start.zip(usize::try_from(entry.compressed_size()).ok());
        let end = end.and_then(|(start, size)| start.checked_add(size));
        let range = start.zip(end).map(|(start, end)| start..end);
        let Some(range) = range.filter(|range| range.end <= bytes.len()) else {
            return Err(malformed(format!(
                "entry {}: expected {} bytes within the file of {}",
                shown(entry.name()),
                entry.compressed_size(),
                bytes.len()
            )));
        };
        let is_stored = entry.compression() == CompressionMethod::Stored && !entry.encrypted();
        entries.insert(entry.name().to_owned(), Entry { range, is_stored });
    }
    Ok(entries)
}
