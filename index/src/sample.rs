//! A few vectors that stand for all.

use crate::{Delta, Embedding, Result, Segment};

/// Up to `count` live vectors of segment and delta, evenly spaced by position and then by key; all where there are no more.
///
/// # Errors
/// `Error::Corrupt` if a vector of the segment is damaged.
///
/// # Examples
/// ```
/// use tans_index::{Attributes, Delta, Embedding, sample};
/// let mut delta = Delta::new(2);
/// for key in 0..9 {
///     delta.insert(key, &Embedding::new(vec![1.0, key as f32], 2)?, Attributes::default())?;
/// }
/// let every_third = sample(None, &delta, 3)?;
/// let slopes: Vec<f32> = every_third.iter().map(|it| it.as_slice()[1] / it.as_slice()[0]).collect();
/// assert!(slopes.iter().zip([0.0, 3.0, 6.0]).all(|(found, expected)| (found - expected).abs() < 1e-5));
/// # Ok::<(), tans_index::Error>(())
/// ```
pub fn sample(segment: Option<&Segment>, delta: &Delta, count: usize) -> Result<Vec<Embedding>> {
    let mut fresh = delta.keys().to_vec();
    fresh.sort_unstable();
    let old = segment.map_or(&[][..], Segment::keys);
    let step = (old.len() + fresh.len()).div_ceil(count.max(1)).max(1);
    let mut vectors = Vec::with_capacity(count);
    for at in (0..old.len() + fresh.len()).step_by(step) {
        if let Some(key) = at.checked_sub(old.len()).map(|place| fresh[place]) {
            let vector = delta.vector(key).map(|values| Embedding::from_unit(values.to_vec()));
            vectors.extend(vector.transpose()?);
        } else if let Some(segment) = segment.filter(|_| !delta.shadows(old[at])) {
            vectors.push(segment.vector(at)?);
        }
    }
    Ok(vectors)
}
