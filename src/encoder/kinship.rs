//! What networks that are alike can be expected to do alike: a kernel over what they are, what they do to the probe
//! images, and what they were trained on (PILOT: GP over task x network).

use super::ModelEvidence;
use super::basis::Standardiser;
use super::linalg::{distance_squared, dot_f32};
use super::tans2021::topology_row;
use serde::{Deserialize, Serialize};

/// Weights of the three blocks in the distance: topology, signature, sources.
pub(crate) const BLOCK_WEIGHTS: [f32; 3] = [2.0, 1.0, 2.0];
/// How much a network is known by its signature, and by its topology alone.
const KNOWN: [f32; 2] = [1.0, 0.5];

/// The networks that encoders were learned from, and what each adds to the expectations for its kin.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Kinship {
    pub(crate) topology: Standardiser,
    pub(crate) signature_mean: Vec<f32>,
    /// `[axes, signature]`: principal directions.
    pub(crate) signature_axes: Vec<f32>,
    pub(crate) source_mean: Vec<f32>,
    /// Factor of each block.
    pub(crate) scales: [f32; 3],
    /// Median squared distance between members.
    pub(crate) median: f32,
    /// `[members, dim]`: their features.
    pub(crate) members: Vec<f32>,
    pub(crate) known: Vec<f32>,
    /// `[members, coordinates + 1]`: what each adds, by similarity.
    pub(crate) duals: Vec<f32>,
}

impl Kinship {
    /// Features of a network, its sources as coordinates of the tasks that it was trained on, and how much it is known
    /// by them (0..=1). What is missing counts as average.
    pub(crate) fn describe(
        &self,
        model: &ModelEvidence<'_>,
        sources: &[&[f32]],
    ) -> (Vec<f32>, f32) {
        let row = topology_row(model.numbers, model.topology, self.topology.mean.len());
        let mut out = self.topology.apply(&row);
        out.iter_mut().for_each(|value| *value *= self.scales[0]);
        let len = self.signature_mean.len();
        let signature = model.signature.filter(|signature| signature.len() == len && len > 0);
        let known = match (signature, model.topology.is_empty()) {
            (Some(_), _) => KNOWN[0],
            (None, false) => KNOWN[1],
            (None, true) => 0.0,
        };
        let axes = self.signature_axes.chunks_exact(len.max(1));
        let centred: Option<Vec<f32>> = signature.map(|signature| {
            signature.iter().zip(&self.signature_mean).map(|(a, b)| a - b).collect()
        });
        out.extend(axes.map(|axis| {
            centred.as_ref().map_or(0.0, |centred| dot_f32(axis, centred) * self.scales[1])
        }));
        out.extend(self.source_mean.iter().enumerate().map(|(at, mean)| {
            let sum: f32 =
                sources.iter().map(|source| source.get(at).copied().unwrap_or(0.0)).sum();
            let count = sources.len().max(1) as f32;
            if sources.is_empty() { 0.0 } else { (sum / count - mean) * self.scales[2] }
        }));
        (out, known)
    }

    /// Similarity with each member, 0..=1.
    pub(crate) fn similarities(&self, features: &[f32], known: f32) -> Vec<f32> {
        let members = self.members.chunks_exact(features.len().max(1)).zip(&self.known);
        members
            .map(|(member, other)| {
                known * other * (-distance_squared(member, features) / self.median).exp()
            })
            .collect()
    }

    /// What is expected of a network before its own results, `[coordinates + 1]`, and the share of variance that its
    /// nearest kin leaves.
    pub(crate) fn expect(&self, features: &[f32], known: f32, size: usize) -> (Vec<f32>, f32) {
        let similarities = self.similarities(features, known);
        let mut out = vec![0.0; size];
        for (similarity, dual) in similarities.iter().zip(self.duals.chunks_exact(size)) {
            for (sum, value) in out.iter_mut().zip(dual) {
                *sum += similarity * value;
            }
        }
        let nearest = similarities.into_iter().fold(0.0, f32::max);
        (out, 1.0 - nearest.powi(2))
    }
}
