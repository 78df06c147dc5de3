//! Dot products: AVX2 with FMA where the processor has them, portable code elsewhere.
//!
//! Every cosine of a search comes from one [`Kernel`], and all of a kernel's functions add up in
//! the same order: the same two vectors give the same bits in a walk, a scan and the delta.

/// Components that one step of the portable code takes, and the unit of padding.
const LANES: usize = 16;

/// The fastest instruction set that this processor has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kernel(Isa);

/// Private, so that `Avx2` exists only after its detection.
#[derive(Clone, Copy, Debug)]
enum Isa {
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

impl Kernel {
    /// Asks the processor (the answer is cached by the standard library).
    pub(crate) fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return Self(Isa::Avx2);
        }
        Self(Isa::Portable)
    }

    /// The portable code, whatever the processor has.
    #[cfg(test)]
    pub(crate) fn portable() -> Self {
        Self(Isa::Portable)
    }

    /// The cosine of two unit vectors of equal length, within -1..=1.
    ///
    /// Of vectors of unequal length (there are none in this crate) the common part counts.
    pub(crate) fn cosine(self, a: &[f32], b: &[f32]) -> f32 {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Isa::Avx2` is only made after both features were detected.
            Isa::Avx2 => unsafe { avx2::cosine(a, b) },
            Isa::Portable => clamp(dot_portable(a, b)),
        }
    }

    /// Cosines of `query` with the rows `ids` of `vectors` (rows of `query.len()` components), in
    /// the order of `ids`, into `cosines`. A row that does not exist gets -1.
    pub(crate) fn cosines_of(
        self,
        query: &[f32],
        vectors: &[f32],
        ids: &[u32],
        cosines: &mut Vec<f32>,
    ) {
        cosines.clear();
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as in `cosine`.
            Isa::Avx2 => unsafe { avx2::cosines_of(query, vectors, ids, cosines) },
            Isa::Portable => {
                let rows = ids.iter().map(|&id| row(vectors, id as usize, query.len()));
                cosines.extend(
                    rows.map(|row| row.map_or(-1.0, |row| clamp(dot_portable(query, row)))),
                );
            }
        }
    }

    /// Cosines of `query` with each row of `rows`, into `cosines`.
    pub(crate) fn cosines_all(self, query: &[f32], rows: &[f32], cosines: &mut Vec<f32>) {
        cosines.clear();
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as in `cosine`.
            Isa::Avx2 => unsafe { avx2::cosines_all(query, rows, cosines) },
            Isa::Portable => {
                let rows = rows.chunks_exact(query.len().max(1));
                cosines.extend(rows.map(|row| clamp(dot_portable(query, row))));
            }
        }
    }
}

/// Asks the processor to fetch the start of `data`; it may ignore the wish.
#[inline]
pub(crate) fn prefetch<T>(data: &[T]) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE belongs to every x86_64 processor, and a prefetch never faults, whatever the
    // address; this one even lies within or right behind a live slice.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(data.as_ptr().cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = data;
}

/// Row `id` of a matrix with rows of `width`.
#[inline]
pub(crate) fn row(vectors: &[f32], id: usize, width: usize) -> Option<&[f32]> {
    let start = id.checked_mul(width)?;
    vectors.get(start..start.checked_add(width)?)
}

/// Rounding leaves cosines slightly outside -1..=1, and damaged bytes may hold NaN, which becomes
/// -1. Adding zero turns -0 into 0, so that the two are a tie.
#[expect(clippy::manual_clamp, reason = "f32::clamp keeps NaN, which must become -1")]
#[inline(always)]
fn clamp(dot: f32) -> f32 {
    (dot + 0.0).max(-1.0).min(1.0)
}

fn dot_portable(a: &[f32], b: &[f32]) -> f32 {
    let common = a.len().min(b.len());
    let (a, b) = (a[..common].chunks_exact(LANES), b[..common].chunks_exact(LANES));
    let rest: f32 = a.remainder().iter().zip(b.remainder()).map(|(x, y)| x * y).sum();
    let mut sums = [0.0f32; LANES];
    for (x, y) in a.zip(b) {
        for lane in 0..LANES {
            sums[lane] += x[lane] * y[lane];
        }
    }
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            sums[lane] += sums[lane + half];
        }
    }
    sums[0] + rest
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{clamp, row};
    use std::arch::x86_64::{
        __m256, _mm_add_ps, _mm_add_ss, _mm_cvtss_f32, _mm_movehl_ps, _mm_shuffle_ps,
        _mm256_add_ps, _mm256_castps256_ps128, _mm256_extractf128_ps, _mm256_fmadd_ps,
        _mm256_loadu_ps, _mm256_setzero_ps,
    };

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn cosine(a: &[f32], b: &[f32]) -> f32 {
        clamp(dot(a, b))
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn cosines_of(query: &[f32], vectors: &[f32], ids: &[u32], out: &mut Vec<f32>) {
        out.extend(ids.iter().map(|&id| match row(vectors, id as usize, query.len()) {
            Some(row) => clamp(dot(query, row)),
            None => -1.0,
        }));
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn cosines_all(query: &[f32], rows: &[f32], out: &mut Vec<f32>) {
        out.extend(rows.chunks_exact(query.len().max(1)).map(|row| clamp(dot(query, row))));
    }

    /// Four running sums hide the latency of the multiply-add.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    fn dot(a: &[f32], b: &[f32]) -> f32 {
        let mut sums = [_mm256_setzero_ps(); 4];
        let common = a.len().min(b.len());
        let (a, b) = (&a[..common], &b[..common]);
        let (a32, b32) = (a.chunks_exact(32), b.chunks_exact(32));
        let (a_rest, b_rest) = (a32.remainder(), b32.remainder());
        for (x, y) in a32.zip(b32) {
            sums[0] = _mm256_fmadd_ps(load(&x[0..8]), load(&y[0..8]), sums[0]);
            sums[1] = _mm256_fmadd_ps(load(&x[8..16]), load(&y[8..16]), sums[1]);
            sums[2] = _mm256_fmadd_ps(load(&x[16..24]), load(&y[16..24]), sums[2]);
            sums[3] = _mm256_fmadd_ps(load(&x[24..32]), load(&y[24..32]), sums[3]);
        }
        let (a8, b8) = (a_rest.chunks_exact(8), b_rest.chunks_exact(8));
        let tail: f32 = a8.remainder().iter().zip(b8.remainder()).map(|(x, y)| x * y).sum();
        for (x, y) in a8.zip(b8) {
            sums[0] = _mm256_fmadd_ps(load(x), load(y), sums[0]);
        }
        let sum = _mm256_add_ps(_mm256_add_ps(sums[0], sums[1]), _mm256_add_ps(sums[2], sums[3]));
        horizontal(sum) + tail
    }

    /// Loads eight components; of a shorter slice (there is none) nothing.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    fn load(eight: &[f32]) -> __m256 {
        if eight.len() < 8 {
            return _mm256_setzero_ps();
        }
        // SAFETY: the slice holds at least eight f32, and `loadu` asks for no alignment.
        unsafe { _mm256_loadu_ps(eight.as_ptr()) }
    }

    #[target_feature(enable = "avx2,fma")]
    #[inline]
    fn horizontal(sum: __m256) -> f32 {
        let four = _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps::<1>(sum));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        let one = _mm_add_ss(two, _mm_shuffle_ps::<1>(two, two));
        _mm_cvtss_f32(one)
    }
}

#[cfg(test)]
mod tests {
    use super::Kernel;
    use proptest::prelude::{ProptestConfig, prop_assert, prop_assert_eq, proptest};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn simd_equals_portable(
            pairs in proptest::collection::vec((-1f32..1.0, -1f32..1.0), 1..300),
            skew in 0usize..4,
        ) {
            let unit = |values: Vec<f32>| {
                let norm = values.iter().map(|v| v * v).sum::<f32>().sqrt().max(1e-3);
                values.into_iter().map(|v| v / norm).collect::<Vec<_>>()
            };
            let a = unit(pairs.iter().map(|p| p.0).collect());
            let b = unit(pairs.iter().map(|p| p.1).collect());
            // Slices that start off the alignment of the allocation must work as well.
            let (a, b) = (&a[skew.min(a.len())..], &b[skew.min(b.len())..]);
            let exact: f64 = a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
            let fast = Kernel::detect().cosine(a, b);
            prop_assert!((fast - Kernel::portable().cosine(a, b)).abs() <= 1e-5);
            prop_assert!((f64::from(fast) - exact).abs() <= 1e-5);
        }

        #[test]
        fn all_functions_of_a_kernel_agree_to_the_bit(
            rows in proptest::collection::vec(-1f32..1.0, 32 * 7),
            query in proptest::collection::vec(-0.2f32..0.2, 32),
        ) {
            for kernel in [Kernel::detect(), Kernel::portable()] {
                let one: Vec<f32> = rows.chunks(32).map(|row| kernel.cosine(&query, row)).collect();
                let (mut some, mut all) = (Vec::new(), Vec::new());
                kernel.cosines_of(&query, &rows, &[6, 0, 7], &mut some);
                kernel.cosines_all(&query, &rows, &mut all);
                prop_assert_eq!(&all, &one);
                prop_assert_eq!(some, vec![one[6], one[0], -1.0]);
            }
        }
    }

    #[test]
    fn damaged_components_give_a_cosine_within_bounds() {
        for kernel in [Kernel::detect(), Kernel::portable()] {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX] {
                let cosine = kernel.cosine(&[bad; 40], &[0.5; 40]);
                assert!((-1.0..=1.0).contains(&cosine), "{bad} gave {cosine}");
            }
            assert_eq!(kernel.cosine(&[0.0; 16], &[-0.5; 16]).to_bits(), 0f32.to_bits());
        }
    }
}
