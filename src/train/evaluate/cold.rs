//! Leave-models-out: networks of which no result was known when the encoders were learned.

use super::score::Scored;
use super::{Query, without};
use crate::encoder::{Encoders, Error, Prediction, TaskEncoding, TaskSample};
use crate::train::closed_form::{self, Known};
use crate::train::{FitOptions, TrainingSet};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeSet;
use std::ops::ControlFlow;

/// Networks are dealt into so many groups, and each is left out once.
const GROUPS: usize = 5;
/// Candidates of one group that are ranked among themselves, at least.
const CANDIDATES_MIN: usize = 5;
/// Tasks that a network was measured on since, benchmark tasks first.
pub(super) const MEASURED: [usize; 3] = [0, 8, 32];

/// Encoders of one fold that know nothing of the networks of one group.
struct Group {
    /// Whether a network belongs to it.
    holds: Vec<bool>,
    encoders: Encoders,
}

/// What was learned of one fold's tasks without the results of each group in turn.
pub(super) struct Cold<'a> {
    set: &'a TrainingSet,
    groups: Vec<Group>,
    /// What the fold's results say of each network.
    known: Vec<Known<'a>>,
    /// Tasks in the order in which a new network is measured.
    order: Vec<[u8; 32]>,
}

impl<'a> Cold<'a> {
    /// `set`: what the fold was learned from, with the results of all networks.
    pub(super) fn fit(
        set: &'a TrainingSet,
        options: &FitOptions,
        stop: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Self, Error> {
        let mut order: Vec<usize> = (0..set.models.len()).collect();
        order.shuffle(&mut ChaCha8Rng::seed_from_u64(options.seed));
        let group = |number: usize| -> Result<Group, Error> {
            let mut holds = vec![false; set.models.len()];
            order.iter().skip(number).step_by(GROUPS).for_each(|&model| holds[model] = true);
            let mut known = without(set, &[]);
            known.pairs.retain(|pair| !holds[pair.model]);
            let encoders = crate::train::fit(&known, options, &mut |_, _, _| stop())?;
            Ok(Group { holds, encoders })
        };
        let groups = (0..GROUPS.min(order.len())).map(group).collect::<Result<_, _>>()?;
        let (known, order) = (closed_form::known(set, &|_| None), measured_first(set));
        Ok(Self { set, groups, known, order })
    }

    /// Figures of each number of measured tasks, averaged over the groups.
    pub(super) fn judge(
        &self,
        query: &Query,
        sample: &TaskSample,
    ) -> Result<[Option<Scored>; MEASURED.len()], Error> {
        let mut scored: [Vec<Scored>; MEASURED.len()] = Default::default();
        for group in &self.groups {
            let positions: Vec<usize> =
                (0..query.models.len()).filter(|&at| group.holds[query.models[at]]).collect();
            if positions.len() < CANDIDATES_MIN {
                continue;
            }
            let task = group.encoders.encode_task(sample)?;
            let truth: Vec<f32> = positions.iter().map(|&at| query.truth[at]).collect();
            for (count, scored) in MEASURED.into_iter().zip(&mut scored) {
                let answer = |&at: &usize| -> (f32, Prediction) {
                    let model = query.models[at];
                    let after = self.known[model].after(&self.first(model, count));
                    let evidence = closed_form::evidence(self.set, model, &after);
                    predicted(&group.encoders, &task, &evidence)
                };
                let (cosines, predictions): (Vec<_>, Vec<_>) = positions.iter().map(answer).unzip();
                scored.push(Scored::new(&cosines, &truth).with_predictions(&predictions, &truth));
            }
        }
        Ok(scored.map(|groups| Scored::mean(&groups)))
    }

    /// The first `count` tasks of those that a network was measured on.
    fn first(&self, model: usize, count: usize) -> Vec<[u8; 32]> {
        let tasks: BTreeSet<[u8; 32]> = self.known[model].tasks().collect();
        self.order.iter().filter(|task| tasks.contains(*task)).take(count).copied().collect()
    }
}

fn predicted(
    encoders: &Encoders,
    task: &TaskEncoding,
    model: &crate::encoder::ModelEvidence<'_>,
) -> (f32, Prediction) {
    let vector = encoders.encode_model(model);
    let cosine = vector.iter().zip(&task.vector).map(|(a, b)| a * b).sum();
    (cosine, encoders.predict(task, cosine))
}

/// Tasks in the order in which a new network is measured: the benchmark tasks, then the others at random.
fn measured_first(set: &TrainingSet) -> Vec<[u8; 32]> {
    let mut tasks: Vec<(bool, [u8; 32])> =
        set.tasks.iter().map(|task| (task.prior.is_none(), task.id)).collect();
    tasks.shuffle(&mut ChaCha8Rng::seed_from_u64(0));
    tasks.sort_by_key(|task| task.0);
    tasks.into_iter().map(|(_, id)| id).collect()
}
