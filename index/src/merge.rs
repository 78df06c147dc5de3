//! What a merge of segment and delta starts from.

use crate::{Delta, Embedding, Entry, Error, Result, Segment};

/// All live entries of segment and delta, ascending by key: the input of the next build.
///
/// Vectors keep their bits, so that merges do not drift.
///
/// # Errors
/// `Error::Corrupt` if a vector of the segment is damaged, `Error::Dimension` if the dimensions
/// of the two differ.
pub fn merged_entries(segment: Option<&Segment>, delta: &Delta) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    if let Some(segment) = segment.filter(|segment| !segment.is_empty()) {
        if segment.dim() != delta.dim() {
            return Err(Error::Dimension { expected: segment.dim(), found: delta.dim() });
        }
        let keys = segment.keys().iter().enumerate();
        for (position, _) in keys.filter(|&(_, &key)| !delta.shadows(key)) {
            entries.extend(segment.entry(position)?);
        }
    }
    let fresh = delta.rows().chunks_exact(delta.stride().max(1));
    for ((row, &key), attributes) in fresh.zip(delta.keys()).zip(delta.attributes()) {
        let vector = Embedding::from_unit(row[..delta.dim()].to_vec())?;
        entries.push(Entry { key, vector, attributes: attributes.clone() });
    }
    entries.sort_unstable_by_key(|entry| entry.key);
    Ok(entries)
}
