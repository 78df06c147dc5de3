//! What a merge of segment and delta starts from.

use crate::{Delta, Embedding, Entry, Error, Result, Segment};

/// Below this many fresh or dead vectors a merge is not worth its build.
const MERGE_MIN: usize = 2_000;
/// Fresh vectors call for a merge when the segment holds at most this many times as many ..
const FRESH_PART: usize = 32;
/// .. and dead ones when it holds at most this many times as many.
const DEAD_PART: usize = 5;

/// Whether a new segment should be built of [`merged_entries`], because too much of the answer
/// comes from the delta: it holds 2,000 vectors and a thirty-second of the segment's number, or it
/// shadows 2,000 vectors and a fifth of the segment's.
///
/// Search works whatever the answer; it merely slows down as the delta grows. Ask after each
/// insertion or removal: it only compares a few numbers.
///
/// # Examples
/// ```
/// use tans_index::{Attributes, Delta, Embedding, needs_merge};
/// let mut delta = Delta::new(2);
/// for key in 0..2_000 {
///     assert!(!needs_merge(None, &delta));
///     delta.insert(key, &Embedding::new(vec![1.0, key as f32], 2)?, Attributes::default())?;
/// }
/// assert!(needs_merge(None, &delta));
/// # Ok::<(), tans_index::Error>(())
/// ```
pub fn needs_merge(segment: Option<&Segment>, delta: &Delta) -> bool {
    let count = segment.map_or(0, Segment::len);
    let reaches = |changed: usize, part: usize| changed >= MERGE_MIN.max(count / part);
    // Without a segment there is nothing to be rid of.
    reaches(delta.len(), FRESH_PART) || (count > 0 && reaches(delta.shadow_count(), DEAD_PART))
}

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
