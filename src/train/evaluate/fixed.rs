//! What needs no learning: the static list, and the accuracies on the nearest task.

use crate::encoder::closed_form::standardised;
use crate::encoder::linalg::mean_sd;
use crate::encoder::{Encoders, TaskEncoding};
use crate::train::{FitOptions, TrainingPair, TrainingSet};
use std::collections::BTreeMap;

/// Results by which a mean standing is shrunk.
pub(super) const STATIC_SHRINK: f32 = 3.0;
/// A task's mean and spread count once this many models were measured on it.
const MEASURED_MIN: usize = 3;

/// Standings of each model by task, in standard deviations of the accuracies measured there; of several kinds of result
/// the first counts, and what flatters a model does not.
pub(super) struct Fixed(Vec<BTreeMap<usize, f32>>);

impl Fixed {
    pub(super) fn new(set: &TrainingSet, options: &FitOptions) -> Self {
        let mut pairs: Vec<&TrainingPair> =
            set.pairs.iter().filter(|pair| options.uses(set, pair)).collect();
        pairs.sort_by_key(|pair| pair.kind);
        let mut accuracies: BTreeMap<_, Vec<f64>> = BTreeMap::new();
        for pair in &pairs {
            let of = accuracies.entry((pair.task, pair.kind)).or_default();
            of.push(f64::from(pair.accuracy));
        }
        let mut standings = vec![BTreeMap::new(); set.models.len()];
        for pair in pairs {
            let measured = &accuracies[&(pair.task, pair.kind)];
            let (mean, sd) = mean_sd(measured);
            let spread = (measured.len() >= MEASURED_MIN).then_some((mean as f32, sd as f32));
            if let Some(spread) = spread.or(set.tasks[pair.task].prior) {
                let z = standardised(pair.accuracy, spread);
                standings[pair.model].entry(pair.task).or_insert(z);
            }
        }
        Self(standings)
    }

    /// Mean standings.
    pub(super) fn list(&self, models: &[usize]) -> Vec<f32> {
        let mean = |&model: &usize| {
            let standings = &self.0[model];
            standings.values().sum::<f32>() / (standings.len() as f32 + STATIC_SHRINK)
        };
        models.iter().map(mean).collect()
    }

    /// Standings on the task nearest to the query on which any of the models was measured; the others count as average.
    pub(super) fn nearest(
        &self,
        set: &TrainingSet,
        (encoders, query): (&Encoders, &TaskEncoding),
        models: &[usize],
    ) -> Vec<f32> {
        let on = |&(place, _): &(usize, f32)| -> Vec<f32> {
            let id = encoders.basis()[place];
            let task = set.tasks.iter().position(|task| task.id == id);
            let standing = |&model: &usize| {
                task.and_then(|task| self.0[model].get(&task)).copied().unwrap_or(0.0)
            };
            models.iter().map(standing).collect()
        };
        let mut found = query.nearest.iter().map(on);
        let first = found.find(|scores| scores.iter().any(|&score| score != 0.0));
        first.unwrap_or_else(|| vec![0.0; models.len()])
    }
}
