//! The answers to a query: what the search finds, with what is already measured on the very task that is asked about.

use super::search::{self, Found};
use crate::Result;
use crate::encoder::TaskEncoding;
use crate::state::{Generation, State};
use std::collections::BTreeMap;
use tans_index::Filter;
use tans_storage::{PairKind, TaskId};

/// Standard deviation of an accuracy that was measured on some hundred test images.
const MEASURED_SD: f32 = 0.05;
/// Half-width of a 90 % interval in standard deviations.
const HALF_WIDTH: f32 = 1.645;

/// A result on the task itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// 0..=1.
    pub accuracy: f32,
    /// Fine-tuned before probed before reported.
    pub kind: PairKind,
}

/// The models to be answered, best first: the `k` that the search finds, and every one that was measured on the task.
///
/// Results on the task enter the predictions, and the predictions decide the order where there are any.
/// The encoders place a task among those that they were learned from. Where it is one of them, a model's vector holds
/// its result already; a task that they were not learned from shows in a vector only as far as it resembles theirs, so
/// that its measured models are asked for here, whether the search found them or not.
pub fn answers(
    state: &State,
    generation: &Generation,
    (id, task): (Option<TaskId>, &TaskEncoding),
    filter: &Filter,
    k: usize,
) -> Result<Vec<Found>> {
    let mut found = search::search(state, generation, task, filter, k)?;
    let measured = match id {
        Some(id) => on_task(state, generation, id)?,
        None => BTreeMap::new(),
    };
    if measured.is_empty() {
        return Ok(found);
    }
    let missing = |row: &&u64| !found.iter().any(|hit| hit.model.row == **row);
    let rows: Vec<u64> = measured.keys().filter(missing).copied().collect();
    for row in rows {
        found.extend(search::one(state, generation, task, filter, row)?);
    }
    found.iter_mut().for_each(|hit| fuse(hit, &measured));
    found.sort_by(|a, b| b.prediction.accuracy.total_cmp(&a.prediction.accuracy));
    Ok(found)
}

/// Results by row on a task that the encoders were not learned from; empty for the others.
pub fn on_task(
    state: &State,
    generation: &Generation,
    id: TaskId,
) -> Result<BTreeMap<u64, Measured>> {
    let mut measured: BTreeMap<u64, Measured> = BTreeMap::new();
    if generation.encoders.basis().contains(&id.0) {
        return Ok(measured);
    }
    for pair in state.store.pairs_of_task(id)? {
        let new = Measured { accuracy: pair.accuracy, kind: pair.kind };
        let known = measured.entry(pair.model).or_insert(new);
        if precedence(new.kind) < precedence(known.kind) {
            *known = new;
        }
    }
    Ok(measured)
}

fn precedence(kind: PairKind) -> u8 {
    match kind {
        PairKind::Finetune => 0,
        PairKind::Probe => 1,
        PairKind::Reported => 2,
    }
}

/// The prediction after one observation of a normal quantity with a normal prior.
pub fn fuse(hit: &mut Found, measured: &BTreeMap<u64, Measured>) {
    let Some(&known) = measured.get(&hit.model.row) else { return };
    let [low, high] = hit.prediction.interval;
    let prior = ((high - low) / 2.0 / HALF_WIDTH).max(1e-3).powi(2);
    let noise = MEASURED_SD.powi(2);
    let weight = prior / (prior + noise);
    let accuracy = hit.prediction.accuracy + weight * (known.accuracy - hit.prediction.accuracy);
    let half = HALF_WIDTH * (weight * noise).sqrt();
    hit.prediction.accuracy = accuracy;
    hit.prediction.interval = [(accuracy - half).max(0.0), (accuracy + half).min(1.0)];
    hit.measured = Some(known);
}
