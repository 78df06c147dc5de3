//! What a network does, whatever its width: the projected Gram matrix of its penultimate activations.

use super::Error;
use super::linalg::product;
use crate::rows::Rows;
use faer::Mat;
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Numbers in a signature.
pub const SIGNATURE_LEN: usize = 512;

/// Version of probe images, projection and formula.
pub const SIGNATURE_VERSION: u16 = 1;

/// Fixed probe images that a signature is measured on.
pub const PROBE_IMAGES: usize = 128;

/// Part of the formula: another seed makes other signatures and needs another version.
const PROJECTION_SEED: u64 = 0x7461_6e73_2073_6967;

/// features: `[128, d]`, penultimate activations on the probe images -> 512 numbers.
///
/// G = P P' / |P P'| of centred P; its upper triangle times a seeded random matrix, so that the inner product of two
/// signatures approximates linear CKA (within about 0.05).
///
/// # Errors
/// `Error::Input` for another number of rows, values that are not finite, or activations that are the same for every
/// image.
pub fn signature(features: &Rows) -> Result<Vec<f32>, Error> {
    if features.len() != PROBE_IMAGES {
        return Err(Error::Input {
            what: "activations on the probe images",
            expected: format!("{PROBE_IMAGES} rows"),
            found: format!("{} rows", features.len()),
        });
    }
    let gram = normalised_gram(features)?;
    let mut random = ChaCha8Rng::seed_from_u64(PROJECTION_SEED);
    let mut sums = vec![0.0_f64; SIGNATURE_LEN];
    for row in 0..PROBE_IMAGES {
        for column in row..PROBE_IMAGES {
            // Both halves of the symmetric matrix count in the Frobenius product.
            let weight = if row == column { 1.0 } else { std::f64::consts::SQRT_2 };
            add_signed(&mut sums, weight * gram[(row, column)], &mut random);
        }
    }
    let scale = 1.0 / (SIGNATURE_LEN as f64).sqrt();
    Ok(sums.into_iter().map(|sum| (sum * scale) as f32).collect())
}

/// Adds or subtracts `value` in each sum, by the next random bits.
fn add_signed(sums: &mut [f64], value: f64, random: &mut ChaCha8Rng) {
    for chunk in sums.chunks_mut(64) {
        let bits = random.next_u64();
        for (bit, sum) in chunk.iter_mut().enumerate() {
            let sign = ((bits >> bit) & 1) as f64 * 2.0 - 1.0;
            *sum += sign * value;
        }
    }
}

fn normalised_gram(features: &Rows) -> Result<Mat<f64>, Error> {
    let refuse = |found: &str| Error::Input {
        what: "activations on the probe images",
        expected: "finite numbers that differ between images".into(),
        found: found.into(),
    };
    if features.values().iter().any(|value| !value.is_finite()) {
        return Err(refuse("NaN or infinity"));
    }
    // Divided by the largest first, so that squares of squares stay in range.
    let largest = features.values().iter().fold(0.0_f64, |top, &v| top.max(f64::from(v).abs()));
    let (count, dim) = (features.len(), features.dim());
    let scale = if largest > 0.0 { 1.0 / largest } else { 0.0 };
    let mut means = vec![0.0; dim];
    for row in features.iter() {
        for (mean, &value) in means.iter_mut().zip(row) {
            *mean += f64::from(value) * scale / count as f64;
        }
    }
    let centred = Mat::from_fn(count, dim, |r, c| f64::from(features.row(r)[c]) * scale - means[c]);
    let mut gram = product(centred.as_ref(), centred.transpose());
    let length = gram.norm_l2();
    if length.is_nan() || length <= 1e-12 {
        return Err(refuse("the same row for every image"));
    }
    gram /= faer::Scale(length);
    Ok(gram)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]
mod tests {
    use super::*;
    use rand::Rng;

    fn random_rows(seed: u64, dim: usize) -> Vec<f32> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        (0..PROBE_IMAGES * dim).map(|_| random.random_range(-1.0..1.0)).collect()
    }

    /// `[128, dim]`: a few directions shared by all, `share` of them.
    fn related(seed: u64, dim: usize, share: f32) -> Rows {
        let (common, own) = (random_rows(1, 4), random_rows(seed, dim));
        let mix = random_rows(seed + 100, dim);
        let values = (0..PROBE_IMAGES * dim).map(|index| {
            let (row, column) = (index / dim, index % dim);
            let known: f32 = (0..4).map(|k| common[row * 4 + k] * mix[k * dim + column]).sum();
            share * known + (1.0 - share) * own[index]
        });
        Rows::new(dim, values.collect()).unwrap()
    }

    fn dot(a: &[f32], b: &[f32]) -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum()
    }

    #[test]
    fn inner_products_approximate_linear_cka() {
        for (seed, share) in [(2, 0.0), (3, 0.5), (4, 0.8), (5, 1.0)] {
            let (a, b) = (related(seed, 12, share), related(seed + 10, 30, share));
            let (left, right) = (normalised_gram(&a).unwrap(), normalised_gram(&b).unwrap());
            let cka: f64 = (0..PROBE_IMAGES)
                .flat_map(|i| (0..PROBE_IMAGES).map(move |j| (i, j)))
                .map(|at| left[at] * right[at])
                .sum();
            let found = dot(&signature(&a).unwrap(), &signature(&b).unwrap());
            assert!((found - cka).abs() < 0.12, "share {share}: {found} instead of {cka}");
        }
    }

    #[test]
    fn rotation_scale_shift_and_width_do_not_matter() {
        let rows = related(2, 2, 0.5);
        let (sin, cos) = 0.7_f32.sin_cos();
        let turned: Vec<f32> = rows
            .iter()
            .flat_map(|row| [row[0], row[1], 3.0])
            .collect::<Vec<_>>()
            .chunks(3)
            .flat_map(|r| {
                [40.0 * (cos * r[0] - sin * r[1]), 40.0 * (sin * r[0] + cos * r[1]) + 9.0, r[2]]
            })
            .collect();
        let turned = Rows::new(3, turned).unwrap();
        let (a, b) = (signature(&rows).unwrap(), signature(&turned).unwrap());
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-5));
        assert_eq!(a.len(), SIGNATURE_LEN);
        assert!((dot(&a, &a) - 1.0).abs() < 0.15, "{}", dot(&a, &a));
    }

    #[test]
    fn hostile_activations_are_refused() {
        assert!(signature(&Rows::new(4, vec![1.0; 4 * PROBE_IMAGES]).unwrap()).is_err());
        assert!(signature(&Rows::new(4, vec![1.0; 4 * 7]).unwrap()).is_err());
        let mut values = random_rows(1, 4);
        values[9] = f32::INFINITY;
        assert!(signature(&Rows::new(4, values).unwrap()).is_err());
        let huge = random_rows(1, 4).iter().map(|value| value * 1e38).collect();
        assert!(signature(&Rows::new(4, huge).unwrap()).is_ok());
    }
}
