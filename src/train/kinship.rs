//! Learns what networks that are alike do alike: the duals of a Gaussian process over task x network.
//!
//! The covariance is a product of one over tasks and one over networks, so that no matrix over all pairs is needed:
//! conjugate gradients multiply by one after the other and leave out what was not measured.

use crate::encoder::basis::Standardiser;
use crate::encoder::closed_form::{ClosedForm, NOISE, OWN, Standing};
use crate::encoder::kinship::{BLOCK_WEIGHTS, Kinship};
use crate::encoder::linalg::{distance_squared, dot, eigh, product, quantile};
use crate::encoder::tans2021::topology_row;
use crate::encoder::{Error, ModelEvidence};
use faer::{Mat, MatRef};
use std::collections::BTreeMap;

/// Networks that the process is learned from, at most and at least.
const MEMBERS_MAX: usize = 300;
const MEMBERS_MIN: usize = 4;
/// Principal directions of signatures.
const SIGNATURE_AXES: usize = 32;
/// Rounds of conjugate gradients, and the share of the residual at which they end.
const ROUNDS: usize = 300;
const SETTLED: f64 = 1e-5;
/// The same for results that are left out, of which only predictions are wanted.
const SETTLED_ROUGHLY: f64 = 1e-3;

/// A network as the process sees it.
pub(super) struct Member<'a> {
    pub(super) evidence: ModelEvidence<'a>,
    /// Coordinates of its sources.
    pub(super) sources: Vec<&'a [f32]>,
    pub(super) standings: Vec<Standing<'a>>,
}

/// Results at places (tasks, told apart by how much of the level they tell) of networks.
pub(super) struct Process {
    kinship: Kinship,
    /// Task of each place.
    tasks: Vec<[u8; 32]>,
    /// `[places, coordinates + 1]`.
    places: Mat<f64>,
    /// `[members, members]`.
    covariance: Mat<f64>,
    /// `[places, members]`, 0 where nothing was measured.
    standings: Mat<f64>,
    measured: Mat<f64>,
    duals: Mat<f64>,
    /// Positions of the members among the models.
    members: Vec<usize>,
}

/// `None` where too few networks have results.
pub(super) fn learn(form: &ClosedForm, models: &[Member<'_>]) -> Result<Option<Process>, Error> {
    let members = choose(models);
    if members.len() < MEMBERS_MIN {
        return Ok(None);
    }
    let chosen: Vec<&Member<'_>> = members.iter().map(|&model| &models[model]).collect();
    let kinship = describe(form, &chosen)?;
    let size = form.basis.k + 1;
    let mut index: BTreeMap<([u8; 32], u32, u64), usize> = BTreeMap::new();
    let key = |standing: &Standing<'_>| {
        (standing.task, standing.level.to_bits(), standing.trust.to_bits())
    };
    let mut rows: Vec<Vec<f64>> = Vec::new();
    for standing in chosen.iter().flat_map(|member| &member.standings) {
        index.entry(key(standing)).or_insert_with(|| {
            rows.push(standing.place(size));
            rows.len() - 1
        });
    }
    let (count, width) = (rows.len(), chosen.len());
    let (mut standings, mut measured) = (Mat::zeros(count, width), Mat::zeros(count, width));
    for (column, member) in chosen.iter().enumerate() {
        for standing in &member.standings {
            let row = index[&key(standing)];
            standings[(row, column)] = standing.weighted();
            measured[(row, column)] = 1.0;
        }
    }
    let mut tasks = vec![[0; 32]; count];
    index.iter().for_each(|((task, ..), &row)| tasks[row] = *task);
    let mut process = Process {
        tasks,
        places: Mat::from_fn(count, size, |i, j| rows[i][j]),
        covariance: covariance(&kinship),
        standings,
        measured,
        duals: Mat::zeros(count, width),
        kinship,
        members,
    };
    process.duals = process.solve(&process.measured, SETTLED);
    process.kinship.duals = process.by_member(process.duals.as_ref());
    Ok(Some(process))
}

impl Process {
    pub(super) fn kinship(&self) -> &Kinship {
        &self.kinship
    }

    /// Standings predicted without any result on the tasks that `held` names, as (task, model, standing).
    pub(super) fn without(&self, held: &dyn Fn(&[u8; 32]) -> bool) -> Vec<([u8; 32], usize, f32)> {
        let is_held: Vec<bool> = self.tasks.iter().map(held).collect();
        let duals = self.solve_without(&is_held);
        let predicted = self.apply(duals.as_ref());
        let mut out = Vec::new();
        for (row, task) in self.tasks.iter().enumerate().filter(|(row, _)| is_held[*row]) {
            for (column, &model) in self.members.iter().enumerate() {
                // Flattered and doubtful results are not what is to be predicted.
                if self.measured[(row, column)] > 0.0 && self.places[(row, 0)] == 1.0 {
                    out.push((*task, model, predicted[(row, column)] as f32));
                }
            }
        }
        out
    }

    /// What networks add to the expectations for their kin without any result on the tasks that `held` names.
    pub(super) fn kinship_without(&self, held: &dyn Fn(&[u8; 32]) -> bool) -> Kinship {
        let is_held: Vec<bool> = self.tasks.iter().map(held).collect();
        let duals = self.by_member(self.solve_without(&is_held).as_ref());
        Kinship { duals, ..self.kinship.clone() }
    }

    fn solve_without(&self, is_held: &[bool]) -> Mat<f64> {
        let kept = Mat::from_fn(self.measured.nrows(), self.measured.ncols(), |i, j| {
            if is_held[i] { 0.0 } else { self.measured[(i, j)] }
        });
        self.solve(&kept, SETTLED_ROUGHLY)
    }

    /// The duals of each network summed over places, `[members, coordinates + 1]`.
    fn by_member(&self, duals: MatRef<'_, f64>) -> Vec<f32> {
        let sums = product(duals.transpose(), self.places.as_ref());
        let (width, size) = (sums.nrows(), sums.ncols());
        (0..width * size).map(|at| sums[(at / size, at % size)] as f32).collect()
    }

    /// The covariance times duals.
    fn apply(&self, duals: MatRef<'_, f64>) -> Mat<f64> {
        let weights = product(self.places.transpose(), duals);
        let shared = product(weights.as_ref(), self.covariance.as_ref());
        product(self.places.as_ref(), shared.as_ref())
    }

    /// Duals of the standings where `kept` is 1, beginning with those known.
    fn solve(&self, kept: &Mat<f64>, settled: f64) -> Mat<f64> {
        let (count, width) = (kept.nrows(), kept.ncols());
        let masked =
            |matrix: &Mat<f64>| Mat::from_fn(count, width, |i, j| matrix[(i, j)] * kept[(i, j)]);
        let operate = |duals: &Mat<f64>| -> Mat<f64> {
            masked(&self.apply(duals.as_ref())) + duals * faer::Scale(NOISE)
        };
        let inner = |a: &Mat<f64>, b: &Mat<f64>| -> f64 {
            a.col_iter().zip(b.col_iter()).map(|(a, b)| a.transpose() * b).sum()
        };
        let target = masked(&self.standings);
        let enough = settled.powi(2) * inner(&target, &target);
        let mut duals = masked(&self.duals);
        let mut rest = &target - operate(&duals);
        let mut direction = rest.clone();
        let mut square = inner(&rest, &rest);
        for _ in 0..ROUNDS {
            if square <= enough {
                break;
            }
            let image = operate(&direction);
            let step = square / inner(&direction, &image);
            duals += &direction * faer::Scale(step);
            rest -= &image * faer::Scale(step);
            let next = inner(&rest, &rest);
            direction = &rest + direction * faer::Scale(next / square);
            square = next;
        }
        duals
    }
}

/// Models with most results, in their order.
fn choose(models: &[Member<'_>]) -> Vec<usize> {
    let count = |model: &usize| models[*model].standings.len();
    let mut members: Vec<usize> = (0..models.len()).filter(|model| count(model) > 0).collect();
    members.sort_by_key(|model| std::cmp::Reverse(count(model)));
    members.truncate(MEMBERS_MAX);
    members.sort_unstable();
    members
}

fn covariance(kinship: &Kinship) -> Mat<f64> {
    let count = kinship.known.len();
    let dim = kinship.members.len() / count;
    let rows: Vec<Vec<f32>> = kinship
        .members
        .chunks_exact(dim.max(1))
        .zip(&kinship.known)
        .map(|(member, &known)| kinship.similarities(member, known))
        .collect();
    // What is not known of a network varies by itself.
    Mat::from_fn(count, count, |i, j| if i == j { 1.0 + OWN } else { f64::from(rows[i][j]) })
}

/// Learns how networks are described, and describes the members.
fn describe(form: &ClosedForm, members: &[&Member<'_>]) -> Result<Kinship, Error> {
    let summary = members.iter().map(|member| member.evidence.topology.len()).max().unwrap_or(0);
    let rows: Vec<Vec<Option<f32>>> = members
        .iter()
        .map(|member| &member.evidence)
        .map(|model| {
            topology_row(model.numbers, model.topology, crate::encoder::tans2021::NUMBERS + summary)
        })
        .collect();
    let len = rows.first().map_or(0, Vec::len);
    let signatures: Vec<&[f32]> =
        members.iter().filter_map(|member| member.evidence.signature).collect();
    let (signature_mean, signature_axes) = axes(&signatures)?;
    let mut kinship = Kinship {
        topology: Standardiser::fit(&rows, len),
        signature_mean,
        signature_axes,
        source_mean: source_mean(form.basis.k, members),
        scales: [1.0; 3],
        median: 1.0,
        ..Kinship::default()
    };
    kinship.scales = scales(&kinship, members);
    for member in members {
        let (features, known) = kinship.describe(&member.evidence, &member.sources);
        kinship.members.extend(features);
        kinship.known.push(known);
    }
    kinship.median = median_distance(&kinship);
    Ok(kinship)
}

fn source_mean(k: usize, members: &[&Member<'_>]) -> Vec<f32> {
    let of = |member: &&&Member<'_>| !member.sources.is_empty();
    let known: Vec<&&Member<'_>> = members.iter().filter(of).collect();
    let mean = |at: usize| -> f32 {
        let of_one = |member: &&&Member<'_>| {
            let sum: f32 = member.sources.iter().map(|source| source[at]).sum();
            sum / member.sources.len() as f32
        };
        known.iter().map(of_one).sum::<f32>() / known.len().max(1) as f32
    };
    (0..k).map(mean).collect()
}

/// Mean and principal directions of signatures, `[axes, len]`.
fn axes(signatures: &[&[f32]]) -> Result<(Vec<f32>, Vec<f32>), Error> {
    let Some(len) = signatures.first().map(|first| first.len()) else {
        return Ok((Vec::new(), Vec::new()));
    };
    let count = signatures.len();
    let mean: Vec<f32> = (0..len)
        .map(|at| signatures.iter().map(|one| one[at]).sum::<f32>() / count as f32)
        .collect();
    let centred = Mat::from_fn(count, len, |i, j| f64::from(signatures[i][j]) - f64::from(mean[j]));
    let gram = product(centred.as_ref(), centred.transpose());
    let (values, vectors) = eigh(gram.as_ref())?;
    let floor = values.first().map_or(0.0, |largest| largest * 1e-6).max(1e-12);
    let kept = values.iter().take(SIGNATURE_AXES).take_while(|&&value| value > floor).count();
    let directions = product(centred.transpose(), vectors.subcols(0, kept));
    let axis = |at: usize| (directions[(at % len, at / len)] / values[at / len].sqrt()) as f32;
    Ok((mean, (0..kept * len).map(axis).collect()))
}

/// Factors that give each block its weight, whatever its units.
fn scales(kinship: &Kinship, members: &[&Member<'_>]) -> [f32; 3] {
    let topology = kinship.topology.mean.len();
    let axes = kinship.signature_axes.len() / kinship.signature_mean.len().max(1);
    let blocks = [0..topology, topology..topology + axes, topology + axes..usize::MAX];
    let mut squares = [0.0_f64; 3];
    for member in members {
        let (features, _) = kinship.describe(&member.evidence, &member.sources);
        for (square, block) in squares.iter_mut().zip(&blocks) {
            let part = &features[block.start.min(features.len())..block.end.min(features.len())];
            let part: Vec<f64> = part.iter().map(|&value| f64::from(value)).collect();
            *square += dot(&part, &part) / members.len() as f64;
        }
    }
    let mut out = [0.0; 3];
    for (scale, (square, weight)) in out.iter_mut().zip(squares.into_iter().zip(BLOCK_WEIGHTS)) {
        *scale = if square > 1e-12 { (f64::from(weight) / square).sqrt() as f32 } else { 0.0 };
    }
    out
}

fn median_distance(kinship: &Kinship) -> f32 {
    let dim = kinship.members.len() / kinship.known.len().max(1);
    let rows: Vec<&[f32]> = kinship.members.chunks_exact(dim.max(1)).collect();
    let pairs = (0..rows.len()).flat_map(|i| (0..i).map(move |j| (i, j)));
    let mut distances: Vec<f64> =
        pairs.map(|(i, j)| f64::from(distance_squared(rows[i], rows[j]))).collect();
    let median = quantile(&mut distances, 0.5) as f32;
    if median > 1e-9 { median } else { 1.0 }
}
