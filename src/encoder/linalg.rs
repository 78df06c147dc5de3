//! The few dense operations that the encoders need, on one thread so that results do not depend on the machine.

use super::Error;
use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Par, Side};

/// `a b`, one thread.
pub(crate) fn product(a: MatRef<'_, f64>, b: MatRef<'_, f64>) -> Mat<f64> {
    let mut out = Mat::zeros(a.nrows(), b.ncols());
    matmul(out.as_mut(), Accum::Replace, a, b, 1.0, Par::Seq);
    out
}

/// `a b` in single precision, one thread.
pub(crate) fn product_f32(a: MatRef<'_, f32>, b: MatRef<'_, f32>) -> Mat<f32> {
    let mut out = Mat::zeros(a.nrows(), b.ncols());
    matmul(out.as_mut(), Accum::Replace, a, b, 1.0, Par::Seq);
    out
}

/// Eigenvalues, largest first, and their eigenvectors as columns, of a symmetric matrix.
///
/// # Errors
/// `Error::Numerical` for a matrix that is not finite or a decomposition that does not converge.
pub(crate) fn eigh(a: MatRef<'_, f64>) -> Result<(Vec<f64>, Mat<f64>), Error> {
    if a.col_iter().any(|column| column.iter().any(|value| !value.is_finite())) {
        return Err(Error::Numerical("a matrix to decompose holds NaN or infinity".into()));
    }
    let size = a.nrows();
    if size == 0 {
        return Ok((Vec::new(), Mat::zeros(0, 0)));
    }
    let eigen = a
        .self_adjoint_eigen(Side::Lower)
        .map_err(|error| Error::Numerical(format!("eigenvalues of {size} x {size}: {error:?}")))?;
    let values = eigen.S().column_vector();
    let vectors = eigen.U();
    let descending = (0..size).map(|index| values[size - 1 - index]).collect();
    Ok((descending, Mat::from_fn(size, size, |row, column| vectors[(row, size - 1 - column)])))
}

/// A symmetric positive definite matrix, factorised; small sizes.
pub(crate) struct Cholesky {
    size: usize,
    lower: Vec<f64>,
}

impl Cholesky {
    /// Factorises the row-major `[size, size]` matrix.
    ///
    /// # Errors
    /// `Error::Numerical` if it is not positive definite.
    pub(crate) fn new(size: usize, mut matrix: Vec<f64>) -> Result<Self, Error> {
        for row in 0..size {
            for column in 0..=row {
                let (left, right) = (row * size, column * size);
                let known = dot(&matrix[left..left + column], &matrix[right..right + column]);
                let rest = matrix[left + column] - known;
                if row != column {
                    matrix[left + column] = rest / matrix[right + column];
                    continue;
                }
                if rest.is_nan() || rest <= 0.0 {
                    let what = format!("expected a positive pivot {row} of {size}, found {rest}");
                    return Err(Error::Numerical(what));
                }
                matrix[left + column] = rest.sqrt();
            }
        }
        Ok(Self { size, lower: matrix })
    }

    /// Solves for one right-hand side.
    pub(crate) fn solve(&self, right: &[f64]) -> Vec<f64> {
        let size = self.size;
        let mut x = self.forward(right);
        for row in (0..size).rev() {
            x[row] /= self.lower[row * size + row];
            let value = x[row];
            for (column, entry) in x.iter_mut().enumerate().take(row) {
                *entry -= self.lower[row * size + column] * value;
            }
        }
        x
    }

    /// The lower factor's inverse times a vector: inner products of two such are those under the matrix' inverse.
    pub(crate) fn forward(&self, right: &[f64]) -> Vec<f64> {
        let size = self.size;
        let mut x = right.to_vec();
        for row in 0..size {
            let start = row * size;
            let known = dot(&self.lower[start..start + row], &x[..row]);
            x[row] = (x[row] - known) / self.lower[start + row];
        }
        x
    }

    /// Logarithm of the matrix' determinant.
    #[cfg(feature = "torch")]
    pub(crate) fn log_determinant(&self) -> f64 {
        (0..self.size).map(|at| 2.0 * self.lower[at * self.size + at].ln()).sum()
    }
}

/// Solves `(a + strength I) x = right` for a row-major symmetric positive semi-definite `a`.
///
/// # Errors
/// `Error::Numerical` if the sum is not positive definite.
pub(crate) fn solve_ridge(a: &[f64], strength: f64, right: &[f64]) -> Result<Vec<f64>, Error> {
    let size = right.len();
    let mut matrix = a.to_vec();
    for index in 0..size {
        matrix[index * size + index] += strength;
    }
    Ok(Cholesky::new(size, matrix)?.solve(right))
}

/// Inner product in double precision.
pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Inner product of single-precision vectors, summed in eight lanes and a fixed order.
pub(crate) fn dot_f32(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; 8];
    let (left, right) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = left.remainder().iter().zip(right.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in left.zip(right) {
        for lane in 0..8 {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    lanes.iter().sum::<f32>() + rest
}

/// Squared Euclidean distance, summed in eight lanes and a fixed order.
pub(crate) fn distance_squared(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; 8];
    let (left, right) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 =
        left.remainder().iter().zip(right.remainder()).map(|(a, b)| (a - b) * (a - b)).sum();
    for (a, b) in left.zip(right) {
        for lane in 0..8 {
            lanes[lane] += (a[lane] - b[lane]) * (a[lane] - b[lane]);
        }
    }
    lanes.iter().sum::<f32>() + rest
}

/// Scales to length 1; vectors without length or not finite become zero.
pub(crate) fn normalise(values: &mut [f32]) {
    let length = values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
    if !length.is_finite() || length < 1e-12 {
        values.fill(0.0);
        return;
    }
    for value in values {
        *value = (f64::from(*value) / length) as f32;
    }
}

/// Mean and population standard deviation.
pub(crate) fn mean_sd(values: &[f64]) -> (f64, f64) {
    let count = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
    (mean, variance.sqrt())
}

/// The value at `fraction` of the sorted values, the upper neighbour where it falls between two; 0 if there is none.
pub(crate) fn quantile(values: &mut [f64], fraction: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    let position = (fraction * values.len() as f64).ceil() as usize;
    values.get(position.saturating_sub(1).min(last)).copied().unwrap_or(0.0)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]
mod tests {
    use super::*;

    #[test]
    fn ridge_solution_satisfies_its_equation() {
        let a = [4.0, 1.0, 0.5, 1.0, 3.0, 0.2, 0.5, 0.2, 2.0];
        let x = solve_ridge(&a, 0.5, &[1.0, -2.0, 3.0]).unwrap();
        for (row, expected) in [1.0, -2.0, 3.0].iter().enumerate() {
            let left = dot(&a[row * 3..row * 3 + 3], &x) + 0.5 * x[row];
            assert!((left - expected).abs() < 1e-12, "{left} {expected}");
        }
        assert!(solve_ridge(&[-1.0], 0.5, &[1.0]).is_err());
    }

    #[test]
    fn eigenvectors_rebuild_the_matrix_largest_first() {
        let a = Mat::from_fn(5, 5, |i, j| 1.0 / (1.0 + i as f64 + j as f64));
        let (values, vectors) = eigh(a.as_ref()).unwrap();
        assert!(values.windows(2).all(|pair| pair[0] >= pair[1]));
        for (i, j) in [(0, 0), (1, 3), (4, 2)] {
            let sum: f64 = (0..5).map(|k| vectors[(i, k)] * values[k] * vectors[(j, k)]).sum();
            assert!((sum - a[(i, j)]).abs() < 1e-12);
        }
        assert!(eigh(Mat::from_fn(2, 2, |_, _| f64::NAN).as_ref()).is_err());
    }
}
