//! Vectors in 8 bits: what walks compare. The vectors themselves only decide among the last few.

use crate::simd::row;

/// Most that a code is away from 0, with room for a damaged -128.
const CODE_MAX: f64 = 128.0;

/// Each component in 8 bits between the smallest and the largest of its dimension: the codes in
/// -127..=127, and for each dimension first the component that code 0 stands for, then, for all
/// dimensions, what a code of 1 adds to it.
///
/// A range per dimension suits encoders better than one per vector: their leading dimensions are
/// many times wider than the last ones.
pub(crate) fn quantise(vectors: &[f32], stride: usize) -> (Vec<i8>, Vec<f32>) {
    if stride == 0 {
        return (Vec::new(), Vec::new());
    }
    let mut lows = vec![f32::INFINITY; stride];
    let mut highs = vec![f32::NEG_INFINITY; stride];
    for row in vectors.chunks_exact(stride) {
        for (value, (low, high)) in row.iter().zip(lows.iter_mut().zip(&mut highs)) {
            *low = low.min(*value);
            *high = high.max(*value);
        }
    }
    let mut ranges = vec![0.0; 2 * stride];
    let (middles, steps) = ranges.split_at_mut(stride);
    for at in 0..stride {
        // Without a vector there is no range.
        let (low, high) = if lows[at] <= highs[at] { (lows[at], highs[at]) } else { (0.0, 0.0) };
        (middles[at], steps[at]) = ((low + high) / 2.0, (high - low) / 254.0);
    }
    let mut codes = Vec::with_capacity(vectors.len());
    for row in vectors.chunks_exact(stride) {
        let parts = row.iter().zip(middles.iter().zip(steps.iter()));
        codes.extend(parts.map(|(value, (middle, step))| {
            // 0 / 0 is NaN, which becomes code 0.
            ((value - middle) / step).round().clamp(-127.0, 127.0) as i8
        }));
    }
    (codes, ranges)
}

/// The vectors of a graph that is being built, and their codes.
#[derive(Clone, Copy)]
pub(crate) struct Points<'a> {
    /// Padded unit vectors.
    pub(crate) vectors: &'a [f32],
    /// As [`quantise`] makes them, as are the ranges.
    pub(crate) codes: &'a [i8],
    pub(crate) ranges: &'a [f32],
    /// Components of a vector.
    pub(crate) stride: usize,
}

impl<'a> Points<'a> {
    /// The vector of a point, empty if there is no such point.
    pub(crate) fn vector(&self, point: u32) -> &'a [f32] {
        row(self.vectors, point as usize, self.stride).unwrap_or_default()
    }
}

/// A query, prepared to be compared with codes.
#[derive(Default)]
pub(crate) struct Probe {
    /// The padded query.
    pub(crate) query: Vec<f32>,
    /// Query times step, one whole number a dimension.
    pub(crate) weights: Vec<i16>,
    /// The cosine that a sum of 0 stands for.
    base: f32,
    /// What a sum of 1 adds to it.
    unit: f32,
    /// Standard deviation of the error of a cosine from codes.
    pub(crate) spread: f32,
}

impl Probe {
    /// Takes a query of unit length and pads it to `ranges`, which are those of [`quantise`].
    pub(crate) fn aim(&mut self, query: &[f32], ranges: &[f32]) {
        let (middles, steps) = ranges.split_at(ranges.len() / 2);
        self.query.clear();
        self.query.extend_from_slice(query);
        self.query.resize(middles.len(), 0.0);
        let scaled = || self.query.iter().zip(steps).map(|(query, step)| query * step);
        let largest = scaled().fold(0f32, |largest, weight| largest.max(weight.abs()));
        let total: f64 = scaled().map(|weight| f64::from(weight.abs())).sum();
        // As fine as i16 allows for each weight and i32 for the largest sum; rounding may add a
        // half to each weight.
        let room = f64::from(i32::MAX) / CODE_MAX - middles.len() as f64;
        let fineness = (f64::from(i16::MAX) / f64::from(largest)).min(room / total);
        let fineness = if fineness.is_finite() { fineness as f32 } else { 1.0 };
        self.weights.clear();
        self.weights.extend(
            self.query.iter().zip(steps).map(|(query, step)| (query * step * fineness) as i16),
        );
        self.base = self.query.iter().zip(middles).map(|(query, middle)| query * middle).sum();
        self.unit = 1.0 / fineness;
        // An even error within a step has the variance of a twelfth of its square.
        self.spread = (scaled().map(|weight| weight * weight).sum::<f32>() / 12.0).sqrt();
    }

    /// The cosine that a sum of weights times codes stands for.
    pub(crate) fn cosine(&self, sum: i32) -> f32 {
        self.base + self.unit * sum as f32
    }
}

#[cfg(test)]
mod tests {
    use super::{Probe, quantise};
    use crate::Embedding;
    use crate::simd::Kernel;

    fn unit(seed: usize, dim: usize) -> Vec<f32> {
        let wave = |at: usize| ((at * 7 + seed * 13 + 1) as f32).sin() / (1 + at % 5) as f32;
        Embedding::new((0..dim).map(wave).collect(), dim).expect("it is not zero").padded()
    }

    #[test]
    fn sums_stand_for_cosines() {
        for dim in [1, 3, 16, 48, 128, 1000] {
            let vectors: Vec<f32> = (0..50).flat_map(|seed| unit(seed, dim)).collect();
            let stride = vectors.len() / 50;
            let (codes, ranges) = quantise(&vectors, stride);
            let mut probe = Probe::default();
            for seed in 100..110 {
                let query = unit(seed, dim);
                probe.aim(&query, &ranges);
                let ids: Vec<u32> = (0..50).collect();
                let mut sums = Vec::new();
                Kernel::detect().sums_of(&probe.weights, &codes, &ids, &mut sums);
                for (row, &sum) in vectors.chunks(stride).zip(&sums) {
                    let error = probe.cosine(sum) - Kernel::detect().cosine(&query, row);
                    assert!(error.abs() <= 5.0 * probe.spread + 1e-4, "{dim}: {error}");
                }
            }
        }
    }

    #[test]
    fn damaged_ranges_do_no_harm() {
        let mut probe = Probe::default();
        for bad in [f32::NAN, f32::INFINITY, f32::MAX, f32::MIN_POSITIVE, 0.0] {
            probe.aim(&unit(1, 16), &[bad; 32]);
            assert_eq!((probe.weights.len(), probe.query.len()), (16, 16));
        }
        probe.aim(&unit(1, 16), &[]);
        assert!(probe.weights.is_empty());
    }
}
