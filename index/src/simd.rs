//! Dot products: AVX-512 or AVX2 with FMA or NEON where the processor has them, portable code
//! elsewhere.
//!
//! Every cosine of a search comes from one [`Kernel`], and all of a kernel's functions add up in
//! the same order: the same two vectors give the same bits in a re-rank, a scan and the delta.
//! Products with 8-bit codes are whole numbers and the same on every processor.

/// Components that one step of the portable code takes, and the unit of padding.
const LANES: usize = 16;

/// The fastest instruction set that this processor has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kernel(Isa);

/// Private, so that a kind exists only after its detection.
#[derive(Clone, Copy, Debug)]
enum Isa {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "aarch64")]
    Neon,
    Portable,
}

impl Kernel {
    /// Asks the processor (the answer is cached by the standard library).
    pub(crate) fn detect() -> Self {
        Self::available()[0]
    }

    /// All that this processor can run, fastest first.
    fn available() -> [Self; 3] {
        let mut kinds = [Self(Isa::Portable); 3];
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("neon") {
            kinds[0] = Self(Isa::Neon);
        }
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            kinds[..2].fill(Self(Isa::Avx2));
            if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") {
                kinds[0] = Self(Isa::Avx512);
            }
        }
        kinds
    }

    /// The cosine of two unit vectors of equal length, within -1..=1.
    ///
    /// Of vectors of unequal length (there are none in this crate) the common part counts.
    #[inline]
    pub(crate) fn cosine(self, a: &[f32], b: &[f32]) -> f32 {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Isa::Avx512` is only made after its features were detected.
            Isa::Avx512 => unsafe { avx512::cosine(a, b) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Isa::Avx2` is only made after both features were detected.
            Isa::Avx2 => unsafe { avx2::cosine(a, b) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: `Isa::Neon` is only made after the feature was detected.
            Isa::Neon => unsafe { neon::cosine(a, b) },
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
        let rows = ids.iter().map(|&id| row(vectors, id as usize, query.len()));
        cosines.extend(rows.map(|row| row.map_or(-1.0, |row| self.cosine(query, row))));
    }

    /// Cosines of `query` with each row of `rows`, into `cosines`.
    pub(crate) fn cosines_all(self, query: &[f32], rows: &[f32], cosines: &mut Vec<f32>) {
        cosines.clear();
        let rows = rows.chunks_exact(query.len().max(1));
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as in `cosine`.
            Isa::Avx512 => unsafe { avx512::cosines_all(query, rows, cosines) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as in `cosine`.
            Isa::Avx2 => unsafe { avx2::cosines_all(query, rows, cosines) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as in `cosine`.
            Isa::Neon => unsafe { neon::cosines_all(query, rows, cosines) },
            Isa::Portable => {
                cosines.extend(rows.map(|row| clamp(dot_portable(query, row))));
            }
        }
    }

    /// Sums of weight times code over the rows `ids` of `codes` (rows of `weights.len()`, a
    /// multiple of 16), in the order of `ids`, into `sums`. A row that does not exist gets the
    /// smallest number. The weights must be such that no sum leaves i32: `Probe` sees to it.
    pub(crate) fn sums_of(self, weights: &[i16], codes: &[i8], ids: &[u32], sums: &mut Vec<i32>) {
        sums.clear();
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as in `cosine`.
            Isa::Avx512 => unsafe { avx512::sums_of(weights, codes, ids, sums) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as in `cosine`.
            Isa::Avx2 => unsafe { avx2::sums_of(weights, codes, ids, sums) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as in `cosine`.
            Isa::Neon => unsafe { neon::sums_of(weights, codes, ids, sums) },
            Isa::Portable => sums.extend(ids.iter().map(|&id| {
                let row = row(codes, id as usize, weights.len());
                row.map_or(i32::MIN, |row| sum_portable(weights, row))
            })),
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
pub(crate) fn row<T>(vectors: &[T], id: usize, width: usize) -> Option<&[T]> {
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

fn sum_portable(weights: &[i16], codes: &[i8]) -> i32 {
    let products = weights.iter().zip(codes).map(|(&w, &c)| i32::from(w) * i32::from(c));
    products.fold(0, i32::wrapping_add)
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{clamp, row};
    use std::arch::x86_64::{
        __m256, __m256i, _mm_add_epi32, _mm_add_ps, _mm_add_ss, _mm_cvtsi128_si32, _mm_cvtss_f32,
        _mm_loadu_si128, _mm_movehl_ps, _mm_shuffle_epi32, _mm_shuffle_ps, _mm256_add_epi32,
        _mm256_add_ps, _mm256_castps256_ps128, _mm256_castsi256_si128, _mm256_cvtepi8_epi16,
        _mm256_extractf128_ps, _mm256_extracti128_si256, _mm256_fmadd_ps, _mm256_loadu_ps,
        _mm256_loadu_si256, _mm256_madd_epi16, _mm256_setzero_ps, _mm256_setzero_si256,
    };
    use std::slice::ChunksExact;

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn cosine(a: &[f32], b: &[f32]) -> f32 {
        clamp(dot(a, b))
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn cosines_all(query: &[f32], rows: ChunksExact<'_, f32>, out: &mut Vec<f32>) {
        out.extend(rows.map(|row| clamp(dot(query, row))));
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn sums_of(weights: &[i16], codes: &[i8], ids: &[u32], out: &mut Vec<i32>) {
        out.extend(ids.iter().map(|&id| match row(codes, id as usize, weights.len()) {
            Some(row) => sum(weights, row),
            None => i32::MIN,
        }));
    }

    /// Four running sums hide the latency of the multiply-add.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    fn dot(a: &[f32], b: &[f32]) -> f32 {
        let common = a.len().min(b.len());
        let (a32, a_rest) = a[..common].as_chunks::<32>();
        let (b32, b_rest) = b[..common].as_chunks::<32>();
        let mut sums = [_mm256_setzero_ps(); 4];
        for (x, y) in a32.iter().zip(b32) {
            let (x, y) = (x.as_chunks::<8>().0, y.as_chunks::<8>().0);
            for at in 0..4 {
                sums[at] = _mm256_fmadd_ps(load(&x[at]), load(&y[at]), sums[at]);
            }
        }
        let ((a8, a_rest), (b8, b_rest)) = (a_rest.as_chunks::<8>(), b_rest.as_chunks::<8>());
        for (x, y) in a8.iter().zip(b8) {
            sums[0] = _mm256_fmadd_ps(load(x), load(y), sums[0]);
        }
        let tail: f32 = a_rest.iter().zip(b_rest).map(|(x, y)| x * y).sum();
        let sum = _mm256_add_ps(_mm256_add_ps(sums[0], sums[1]), _mm256_add_ps(sums[2], sums[3]));
        horizontal(sum) + tail
    }

    #[target_feature(enable = "avx2,fma")]
    #[inline]
    fn sum(weights: &[i16], codes: &[i8]) -> i32 {
        let (weights, codes) = (weights.as_chunks::<16>().0, codes.as_chunks::<16>().0);
        let ((weights2, weights1), (codes2, codes1)) =
            (weights.as_chunks::<2>(), codes.as_chunks::<2>());
        let mut sums = [_mm256_setzero_si256(); 2];
        for (weight, code) in weights2.iter().zip(codes2) {
            sums[0] = _mm256_add_epi32(sums[0], products(&weight[0], &code[0]));
            sums[1] = _mm256_add_epi32(sums[1], products(&weight[1], &code[1]));
        }
        for (weight, code) in weights1.iter().zip(codes1) {
            sums[0] = _mm256_add_epi32(sums[0], products(weight, code));
        }
        horizontal_whole(_mm256_add_epi32(sums[0], sums[1]))
    }

    #[target_feature(enable = "avx2,fma")]
    #[inline]
    fn load(eight: &[f32; 8]) -> __m256 {
        // SAFETY: the array holds eight f32, and `loadu` asks for no alignment.
        unsafe { _mm256_loadu_ps(eight.as_ptr()) }
    }

    /// Products of 16 weights and codes, added in pairs.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    fn products(weights: &[i16; 16], codes: &[i8; 16]) -> __m256i {
        // SAFETY: the arrays hold 32 and 16 bytes, and `loadu` asks for no alignment.
        let (weights, codes) = unsafe {
            (_mm256_loadu_si256(weights.as_ptr().cast()), _mm_loadu_si128(codes.as_ptr().cast()))
        };
        _mm256_madd_epi16(weights, _mm256_cvtepi8_epi16(codes))
    }

    #[target_feature(enable = "avx2,fma")]
    #[inline]
    fn horizontal(sum: __m256) -> f32 {
        let four = _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps::<1>(sum));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        let one = _mm_add_ss(two, _mm_shuffle_ps::<1>(two, two));
        _mm_cvtss_f32(one)
    }

    #[target_feature(enable = "avx2,fma")]
    #[inline]
    fn horizontal_whole(sum: __m256i) -> i32 {
        let halves = (_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
        let four = _mm_add_epi32(halves.0, halves.1);
        let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0b01_00_11_10>(four));
        let one = _mm_add_epi32(two, _mm_shuffle_epi32::<0b10_11_00_01>(two));
        _mm_cvtsi128_si32(one)
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::{clamp, row};
    use std::arch::x86_64::{
        __m512, __m512i, _mm256_loadu_si256, _mm512_add_epi32, _mm512_add_ps, _mm512_cvtepi8_epi16,
        _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_madd_epi16,
        _mm512_reduce_add_epi32, _mm512_reduce_add_ps, _mm512_setzero_ps, _mm512_setzero_si512,
    };
    use std::slice::ChunksExact;

    #[target_feature(enable = "avx512f,avx512bw")]
    pub(super) fn cosine(a: &[f32], b: &[f32]) -> f32 {
        clamp(dot(a, b))
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    pub(super) fn cosines_all(query: &[f32], rows: ChunksExact<'_, f32>, out: &mut Vec<f32>) {
        out.extend(rows.map(|row| clamp(dot(query, row))));
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    pub(super) fn sums_of(weights: &[i16], codes: &[i8], ids: &[u32], out: &mut Vec<i32>) {
        out.extend(ids.iter().map(|&id| match row(codes, id as usize, weights.len()) {
            Some(row) => sum(weights, row),
            None => i32::MIN,
        }));
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    fn dot(a: &[f32], b: &[f32]) -> f32 {
        let common = a.len().min(b.len());
        let (a16, a_rest) = a[..common].as_chunks::<16>();
        let (b16, b_rest) = b[..common].as_chunks::<16>();
        let ((a2, a1), (b2, b1)) = (a16.as_chunks::<2>(), b16.as_chunks::<2>());
        let mut sums = [_mm512_setzero_ps(); 2];
        for (x, y) in a2.iter().zip(b2) {
            sums[0] = _mm512_fmadd_ps(load(&x[0]), load(&y[0]), sums[0]);
            sums[1] = _mm512_fmadd_ps(load(&x[1]), load(&y[1]), sums[1]);
        }
        for (x, y) in a1.iter().zip(b1) {
            sums[0] = _mm512_fmadd_ps(load(x), load(y), sums[0]);
        }
        let tail: f32 = a_rest.iter().zip(b_rest).map(|(x, y)| x * y).sum();
        _mm512_reduce_add_ps(_mm512_add_ps(sums[0], sums[1])) + tail
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    fn sum(weights: &[i16], codes: &[i8]) -> i32 {
        let (weights32, weights) = weights.as_chunks::<32>();
        let (codes32, codes) = codes.as_chunks::<32>();
        let mut sum = _mm512_setzero_si512();
        for (weight, code) in weights32.iter().zip(codes32) {
            sum = _mm512_add_epi32(sum, products(weight, code));
        }
        _mm512_reduce_add_epi32(sum) + super::sum_portable(weights, codes)
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    fn load(sixteen: &[f32; 16]) -> __m512 {
        // SAFETY: the array holds sixteen f32, and `loadu` asks for no alignment.
        unsafe { _mm512_loadu_ps(sixteen.as_ptr()) }
    }

    /// Products of 32 weights and codes, added in pairs.
    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    fn products(weights: &[i16; 32], codes: &[i8; 32]) -> __m512i {
        // SAFETY: the arrays hold 64 and 32 bytes, and `loadu` asks for no alignment.
        let (weights, codes) = unsafe {
            (_mm512_loadu_si512(weights.as_ptr().cast()), _mm256_loadu_si256(codes.as_ptr().cast()))
        };
        _mm512_madd_epi16(weights, _mm512_cvtepi8_epi16(codes))
    }
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use super::{clamp, row};
    use std::arch::aarch64::{
        float32x4_t, int16x8_t, int32x4_t, vaddq_f32, vaddq_s32, vaddvq_f32, vaddvq_s32,
        vdupq_n_f32, vdupq_n_s32, vfmaq_f32, vget_low_s16, vld1_s8, vld1q_f32, vld1q_s16,
        vmlal_high_s16, vmlal_s16, vmovl_s8,
    };
    use std::slice::ChunksExact;

    #[target_feature(enable = "neon")]
    pub(super) fn cosine(a: &[f32], b: &[f32]) -> f32 {
        clamp(dot(a, b))
    }

    #[target_feature(enable = "neon")]
    pub(super) fn cosines_all(query: &[f32], rows: ChunksExact<'_, f32>, out: &mut Vec<f32>) {
        out.extend(rows.map(|row| clamp(dot(query, row))));
    }

    #[target_feature(enable = "neon")]
    pub(super) fn sums_of(weights: &[i16], codes: &[i8], ids: &[u32], out: &mut Vec<i32>) {
        out.extend(ids.iter().map(|&id| match row(codes, id as usize, weights.len()) {
            Some(row) => sum(weights, row),
            None => i32::MIN,
        }));
    }

    #[target_feature(enable = "neon")]
    #[inline]
    fn dot(a: &[f32], b: &[f32]) -> f32 {
        let common = a.len().min(b.len());
        let (a16, a_rest) = a[..common].as_chunks::<16>();
        let (b16, b_rest) = b[..common].as_chunks::<16>();
        let mut sums = [vdupq_n_f32(0.0); 4];
        for (x, y) in a16.iter().zip(b16) {
            let (x, y) = (x.as_chunks::<4>().0, y.as_chunks::<4>().0);
            for at in 0..4 {
                sums[at] = vfmaq_f32(sums[at], load(&x[at]), load(&y[at]));
            }
        }
        let tail: f32 = a_rest.iter().zip(b_rest).map(|(x, y)| x * y).sum();
        let halves = (vaddq_f32(sums[0], sums[1]), vaddq_f32(sums[2], sums[3]));
        vaddvq_f32(vaddq_f32(halves.0, halves.1)) + tail
    }

    #[target_feature(enable = "neon")]
    #[inline]
    fn sum(weights: &[i16], codes: &[i8]) -> i32 {
        let (weights, codes) = (weights.as_chunks::<8>().0, codes.as_chunks::<8>().0);
        let mut sums = [vdupq_n_s32(0); 2];
        for (weight, code) in weights.iter().zip(codes) {
            let (weight, code) = widened(weight, code);
            sums[0] = vmlal_s16(sums[0], vget_low_s16(weight), vget_low_s16(code));
            sums[1] = vmlal_high_s16(sums[1], weight, code);
        }
        let sum: int32x4_t = vaddq_s32(sums[0], sums[1]);
        vaddvq_s32(sum)
    }

    #[target_feature(enable = "neon")]
    #[inline]
    fn load(four: &[f32; 4]) -> float32x4_t {
        // SAFETY: the array holds four f32.
        unsafe { vld1q_f32(four.as_ptr()) }
    }

    #[target_feature(enable = "neon")]
    #[inline]
    fn widened(weights: &[i16; 8], codes: &[i8; 8]) -> (int16x8_t, int16x8_t) {
        // SAFETY: both arrays hold eight numbers.
        unsafe { (vld1q_s16(weights.as_ptr()), vmovl_s8(vld1_s8(codes.as_ptr()))) }
    }
}

#[cfg(test)]
mod tests {
    use super::{Isa, Kernel};
    use proptest::prelude::{ProptestConfig, any, prop_assert, prop_assert_eq, proptest};

    fn portable() -> Kernel {
        Kernel(Isa::Portable)
    }

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
            for kernel in Kernel::available() {
                let fast = kernel.cosine(a, b);
                prop_assert!((fast - portable().cosine(a, b)).abs() <= 1e-5);
                prop_assert!((f64::from(fast) - exact).abs() <= 1e-5);
            }
        }

        #[test]
        fn all_functions_of_a_kernel_agree_to_the_bit(
            rows in proptest::collection::vec(-1f32..1.0, 48 * 7),
            query in proptest::collection::vec(-0.2f32..0.2, 48),
        ) {
            for kernel in Kernel::available() {
                let one: Vec<f32> = rows.chunks(48).map(|row| kernel.cosine(&query, row)).collect();
                let (mut some, mut all) = (Vec::new(), Vec::new());
                kernel.cosines_of(&query, &rows, &[6, 0, 7], &mut some);
                kernel.cosines_all(&query, &rows, &mut all);
                prop_assert_eq!(&all, &one);
                prop_assert_eq!(some, vec![one[6], one[0], -1.0]);
            }
        }

        #[test]
        fn sums_of_codes_are_exact(
            pairs in proptest::collection::vec((any::<i16>(), any::<i8>()), 16 * 9),
            width in 1usize..9,
        ) {
            let (weights, codes): (Vec<i16>, Vec<i8>) = pairs.into_iter().unzip();
            let weights = &weights[..16 * width];
            let exact = |row: &[i8]| -> i32 {
                weights.iter().zip(row).map(|(&w, &c)| i32::from(w) * i32::from(c)).sum()
            };
            for kernel in Kernel::available() {
                let mut sums = Vec::new();
                kernel.sums_of(weights, &codes, &[0, u32::MAX], &mut sums);
                prop_assert_eq!(&sums, &[exact(&codes[..16 * width]), i32::MIN]);
            }
        }
    }

    #[test]
    fn damaged_components_give_a_cosine_within_bounds() {
        for kernel in Kernel::available() {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX] {
                let cosine = kernel.cosine(&[bad; 40], &[0.5; 40]);
                assert!((-1.0..=1.0).contains(&cosine), "{bad} gave {cosine}");
            }
            assert_eq!(kernel.cosine(&[0.0; 16], &[-0.5; 16]).to_bits(), 0f32.to_bits());
        }
    }
}
