//! Learns the task basis of the `default` recipe.

use crate::encoder::basis::{
    Basis, Directions, Standardiser, centred_mean, class_mean, scalar_row, spread,
};
use crate::encoder::linalg::{distance_squared, eigh, product, product_f32};
use crate::encoder::{Error, SCALARS, TaskSample};
use faer::{Mat, MatRef};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Principal directions that spread is measured in.
const DIRECTIONS: usize = 48;
/// Rows of each task that the directions are learned from, and of all together.
const ROWS_PER_TASK: usize = 60;
const ROWS_TOTAL: usize = 2400;
/// Up to this size a matrix is decomposed as a whole.
const EXACT_MAX: usize = 512;
/// Columns and rounds of the subspace iteration for larger ones.
const SUBSPACE: usize = 72;
const ROUNDS: usize = 12;
/// Coordinates kept of the kernel, and the least eigenvalue beside the largest.
const COORDINATES_MAX: usize = 61;
const EIGENVALUE_MIN: f64 = 1e-6;

/// Learns the basis from the samples of these tasks.
pub(super) fn fit(tasks: &[([u8; 32], &TaskSample)], seed: u64) -> Result<Basis, Error> {
    let mut basis = Basis { tasks: tasks.iter().map(|task| task.0).collect(), ..Basis::default() };
    let Some((_, first)) = tasks.first() else {
        return Ok(basis);
    };
    basis.dim = first.rows.dim();
    for (_, sample) in tasks {
        basis.check(sample)?;
    }
    basis.directions = directions(tasks, basis.dim, seed)?;
    let means: Vec<Vec<f32>> = tasks.iter().map(|(_, sample)| class_mean(sample)).collect();
    basis.centre = (0..basis.dim)
        .map(|column| means.iter().map(|mean| mean[column]).sum::<f32>() / means.len() as f32)
        .collect();
    let spreads: Vec<_> =
        tasks.iter().map(|(_, sample)| spread(sample, &basis.directions)).collect();
    let scalars: Vec<_> = tasks.iter().map(|(_, sample)| scalar_row(sample)).collect();
    basis.spread = Standardiser::fit(&spreads, spreads[0].len());
    basis.scalars = Standardiser::fit(&scalars, SCALARS + 1);
    basis.blocks = [
        means.iter().flat_map(|mean| centred_mean(mean, &basis.centre)).collect(),
        spreads.iter().flat_map(|row| basis.spread.apply(row)).collect(),
        scalars.iter().flat_map(|row| basis.scalars.apply(&row[..SCALARS])).collect(),
    ];
    for block in 0..3 {
        basis.medians[block] = median_distance(&basis.blocks[block], tasks.len());
    }
    let contrasts: Vec<f32> =
        tasks.iter().filter_map(|(_, sample)| basis.contrast(sample)).collect();
    place(&mut basis, &contrasts)?;
    Ok(basis)
}

/// Kernel values among the training tasks, `[tasks, tasks]` row-major.
pub(super) fn kernel(basis: &Basis) -> Vec<f32> {
    let count = basis.tasks.len();
    let row = |task: usize| {
        let block = |index: usize| {
            let len = basis.blocks[index].len() / count;
            basis.blocks[index][task * len..(task + 1) * len].to_vec()
        };
        basis.kernel(&[block(0), block(1), block(2)])
    };
    (0..count).flat_map(row).collect()
}

/// Coordinates from the eigenvectors of the kernel, and the contrast of each task.
fn place(basis: &mut Basis, contrasts: &[f32]) -> Result<(), Error> {
    let count = basis.tasks.len();
    let kernel = kernel(basis);
    let matrix = Mat::from_fn(count, count, |i, j| {
        (f64::from(kernel[i * count + j]) + f64::from(kernel[j * count + i])) / 2.0
    });
    let (values, vectors) = eigh(matrix.as_ref())?;
    let floor = values[0] * EIGENVALUE_MIN;
    let kept = values.iter().take(COORDINATES_MAX).take_while(|&&value| value > floor).count();
    basis.k = kept + 1;
    basis.map = (0..kept * count)
        .map(|at| (vectors[(at % count, at / count)] / values[at / count].sqrt()) as f32)
        .collect();
    let coordinate = |task, at: usize| (vectors[(task, at)] * values[at].sqrt()) as f32;
    basis.coordinates = contrasts
        .iter()
        .enumerate()
        .flat_map(|(task, &contrast)| {
            (0..kept).map(move |at| coordinate(task, at)).chain([contrast])
        })
        .collect();
    Ok(())
}

fn median_distance(block: &[f32], tasks: usize) -> f32 {
    let len = block.len() / tasks;
    let row = |task: usize| &block[task * len..(task + 1) * len];
    let mut distances: Vec<f32> = (0..tasks)
        .flat_map(|i| (0..i).map(move |j| (i, j)))
        .map(|(i, j)| distance_squared(row(i), row(j)))
        .collect();
    distances.sort_by(f32::total_cmp);
    let count = distances.len();
    if count == 0 {
        return 0.0;
    }
    (distances[(count - 1) / 2] + distances[count / 2]) / 2.0
}

/// Whitened principal directions of rows spread evenly over each task.
fn directions(
    tasks: &[([u8; 32], &TaskSample)],
    dim: usize,
    seed: u64,
) -> Result<Directions, Error> {
    let share = (ROWS_TOTAL / tasks.len()).clamp(2, ROWS_PER_TASK);
    let mut values = Vec::new();
    for (_, sample) in tasks {
        let take = sample.rows.len().min(share);
        for index in 0..take {
            values.extend_from_slice(sample.rows.row(index * sample.rows.len() / take));
        }
    }
    let count = values.len() / dim;
    let mut centre = vec![0.0_f64; dim];
    for row in values.chunks_exact(dim) {
        for (sum, &value) in centre.iter_mut().zip(row) {
            *sum += f64::from(value) / count as f64;
        }
    }
    for row in values.chunks_exact_mut(dim) {
        for (value, centre) in row.iter_mut().zip(&centre) {
            *value = (f64::from(*value) - centre) as f32;
        }
    }
    let rows = MatRef::from_row_major_slice(&values, count, dim);
    let (variances, vectors) = principal(rows, seed)?;
    let floor = variances.first().map_or(0.0, |largest| largest * EIGENVALUE_MIN).max(1e-20);
    let mut out = Directions::default();
    for (index, variance) in variances.iter().enumerate().take(DIRECTIONS) {
        if *variance <= floor {
            break;
        }
        let scale = 1.0 / variance.sqrt();
        let direction: Vec<f64> = (0..dim).map(|row| vectors[(row, index)] * scale).collect();
        let offset: f64 = direction.iter().zip(&centre).map(|(a, b)| a * b).sum();
        out.vectors.extend(direction.iter().map(|&value| value as f32));
        out.offsets.push(offset as f32);
    }
    Ok(out)
}

/// Largest variances and their directions (columns of unit length) of centred rows.
fn principal(rows: MatRef<'_, f32>, seed: u64) -> Result<(Vec<f64>, Mat<f64>), Error> {
    let (count, dim) = (rows.nrows(), rows.ncols());
    let wide = count < dim && count <= EXACT_MAX;
    let gram = if wide {
        product_f32(rows, rows.transpose())
    } else {
        product_f32(rows.transpose(), rows)
    };
    let gram = Mat::from_fn(gram.nrows(), gram.ncols(), |i, j| {
        f64::from(gram[(i, j)].midpoint(gram[(j, i)])) / count as f64
    });
    if !wide && dim > EXACT_MAX {
        return leading(gram.as_ref(), seed);
    }
    let (values, vectors) = eigh(gram.as_ref())?;
    if !wide {
        return Ok((values, vectors));
    }
    let rows = Mat::from_fn(count, dim, |i, j| f64::from(rows[(i, j)]));
    let mut directions = product(rows.transpose(), vectors.as_ref());
    for column in 0..count {
        let length = directions.col(column).norm_l2().max(1e-30);
        for row in 0..dim {
            directions[(row, column)] /= length;
        }
    }
    Ok((values, directions))
}

/// Leading eigenpairs by subspace iteration: the full decomposition takes a second at 1280, this a tenth.
fn leading(matrix: MatRef<'_, f64>, seed: u64) -> Result<(Vec<f64>, Mat<f64>), Error> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let start = Mat::from_fn(matrix.nrows(), SUBSPACE, |_, _| random.random_range(-1.0..1.0));
    let mut basis = orthonormal(start.as_ref())?;
    for _ in 0..ROUNDS {
        basis = orthonormal(product(matrix, basis.as_ref()).as_ref())?;
    }
    let image = product(matrix, basis.as_ref());
    let small = product(basis.transpose(), image.as_ref());
    let (values, turn) = eigh(small.as_ref())?;
    Ok((values, product(basis.as_ref(), turn.as_ref())))
}

/// An orthonormal basis of the columns' span; directions without length are dropped.
fn orthonormal(columns: MatRef<'_, f64>) -> Result<Mat<f64>, Error> {
    let gram = product(columns.transpose(), columns);
    let (values, vectors) = eigh(gram.as_ref())?;
    let floor = values.first().map_or(0.0, |largest| largest * 1e-13).max(1e-280);
    let kept = values.iter().take_while(|&&value| value > floor).count();
    let turn = Mat::from_fn(values.len(), kept, |i, j| vectors[(i, j)] / values[j].sqrt());
    Ok(product(columns, turn.as_ref()))
}
