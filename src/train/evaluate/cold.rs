//! Leave-models-out: networks of which no result was known when the encoders were learned.

use super::score::Scored;
use super::{Query, without};
use crate::encoder::{Encoders, Error, Prediction, TaskEncoding};
use crate::train::{FitOptions, TrainingSet, closed_form};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::ops::ControlFlow;

/// Networks are dealt into so many groups, and each is left out once.
const GROUPS: usize = 5;
/// Candidates of one group that are ranked among themselves, at least.
const CANDIDATES_MIN: usize = 5;
/// Tasks that a network was measured on since, benchmark tasks first.
pub(super) const MEASURED: [usize; 3] = [0, 8, 32];

/// Encoders of one fold that know nothing of the networks of one group.
pub(super) struct Group {
    models: Vec<usize>,
    encoders: Encoders,
}

/// Learns from a fold's tasks without the results of each group in turn.
pub(super) fn fit(
    set: &TrainingSet,
    options: &FitOptions,
    stop: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<Vec<Group>, Error> {
    let mut order: Vec<usize> = (0..set.models.len()).collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(options.seed));
    let group = |number: usize| -> Result<Group, Error> {
        let models: Vec<usize> = order.iter().copied().skip(number).step_by(GROUPS).collect();
        let mut known = without(set, &[]);
        known.pairs.retain(|pair| !models.contains(&pair.model));
        let encoders = crate::train::fit(&known, options, &mut |_, _, _| stop())?;
        Ok(Group { models, encoders })
    };
    (0..GROUPS.min(order.len())).map(group).collect()
}

/// Figures of each number of measured tasks, averaged over the groups; `set` is what the fold was learned from, with
/// the results of all networks.
pub(super) fn judge(
    set: &TrainingSet,
    groups: &[Group],
    query: &Query,
    sample: &crate::encoder::TaskSample,
) -> Result<[Option<Scored>; MEASURED.len()], Error> {
    let known = closed_form::known(set, &|_| None);
    let order = measured_first(set);
    let mut scored: [Vec<Scored>; MEASURED.len()] = Default::default();
    for group in groups {
        let positions: Vec<usize> = (0..query.models.len())
            .filter(|&at| group.models.contains(&query.models[at]))
            .collect();
        if positions.len() < CANDIDATES_MIN {
            continue;
        }
        let task = group.encoders.encode_task(sample)?;
        let truth: Vec<f32> = positions.iter().map(|&at| query.truth[at]).collect();
        for (count, scored) in MEASURED.into_iter().zip(&mut scored) {
            let answer = |&at: &usize| -> (f32, Prediction) {
                let model = query.models[at];
                let tasks: Vec<[u8; 32]> = known[model].tasks().collect();
                let first = order.iter().filter(|task| tasks.contains(task)).take(count);
                let after = known[model].after(&first.copied().collect::<Vec<_>>());
                predicted(&group.encoders, &task, &closed_form::evidence(set, model, &after))
            };
            let (cosines, predictions): (Vec<_>, Vec<_>) = positions.iter().map(answer).unzip();
            scored.push(Scored::new(&cosines, &truth).with_predictions(&predictions, &truth));
        }
    }
    Ok(scored.map(|groups| Scored::mean(&groups)))
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
