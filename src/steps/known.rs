//! The answers to a query: what the search finds, with what is already measured on the very task that is asked about.

use super::search::{self, Found};
use crate::Result;
use crate::encoder::belief::{Belief, Candidate};
use crate::encoder::normal::HALF_WIDTH;
use crate::encoder::{Prediction, TaskEncoding};
use crate::state::{Generation, State};
use std::collections::BTreeMap;
use tans_index::Filter;
use tans_storage::{Pair, PairKind, TaskId};

/// Standard deviation of an accuracy that was measured on some hundred test images.
const MEASURED_SD: f32 = 0.05;

/// A result on the task itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// 0..=1.
    pub accuracy: f32,
    /// Fine-tuned before probed before reported.
    pub kind: PairKind,
}

/// More results than these tell of the task's level no more than these.
const OBSERVED_MAX: usize = 200;

/// The models to be answered, best first: the `k` that the search finds, and every one that was measured on the task.
///
/// Probes on the task enter the predictions of all, for what one network shows tells what others will; other results
/// enter that of their model alone. The predictions decide the order where there are any results. A benchmark task has a result of nearly every model, and their vectors were
/// learned from it: there only what the search finds is looked at.
pub fn answers(
    state: &State,
    generation: &Generation,
    (id, task): (Option<TaskId>, &TaskEncoding),
    filter: &Filter,
    k: usize,
) -> Result<Vec<Found>> {
    let found = search::search(state, generation, task, filter, k)?;
    let mut found = with_results(state, generation, (id, task), filter, found)?;
    if found.iter().any(|hit| hit.measured.is_some()) {
        found.sort_by(|a, b| b.prediction.accuracy.total_cmp(&a.prediction.accuracy));
    }
    Ok(found)
}

/// One model with what results on the task say of it.
pub fn answer(
    state: &State,
    generation: &Generation,
    asked: (Option<TaskId>, &TaskEncoding),
    found: Found,
) -> Result<Found> {
    let row = found.model.row;
    let mut all = with_results(state, generation, asked, &Filter::default(), vec![found])?;
    let place = all.iter().position(|hit| hit.model.row == row).unwrap_or(0);
    Ok(all.swap_remove(place))
}

/// What was found and what was measured on the task, with the predictions that follow from the results.
fn with_results(
    state: &State,
    generation: &Generation,
    (id, task): (Option<TaskId>, &TaskEncoding),
    filter: &Filter,
    mut found: Vec<Found>,
) -> Result<Vec<Found>> {
    let Some(record) = id.map(|id| state.store.task(id)).transpose()?.flatten() else {
        return Ok(found);
    };
    let measured = if record.benchmark {
        of_found(state, record.id, &found)?
    } else {
        latest(state.store.pairs_of_task(record.id)?)
    };
    if measured.is_empty() {
        return Ok(found);
    }
    let missing = |row: &&u64| !found.iter().any(|hit| hit.model.row == **row);
    let rows: Vec<u64> = measured.keys().filter(missing).copied().collect();
    for row in rows {
        found.extend(search::one(state, generation, task, filter, row)?);
    }
    observe(state, generation, task, &mut found, &measured)?;
    Ok(found)
}

/// Results of the found models on a task.
fn of_found(state: &State, task: TaskId, found: &[Found]) -> Result<BTreeMap<u64, Results>> {
    let mut pairs = Vec::new();
    for hit in found {
        let of_model = state.store.pairs_of_model(hit.model.row)?;
        pairs.extend(of_model.into_iter().filter(|pair| pair.task == task));
    }
    Ok(latest(pairs))
}

/// A model's results on the task.
#[derive(Clone, Copy)]
struct Results {
    /// The one that says most of this model.
    measured: Measured,
    /// The one that tells what probes of other models would say.
    probe: Option<f32>,
}

/// By row.
fn latest(pairs: Vec<Pair>) -> BTreeMap<u64, Results> {
    let mut results: BTreeMap<u64, Results> = BTreeMap::new();
    for pair in pairs {
        let new = Measured { accuracy: pair.accuracy, kind: pair.kind };
        let known = results.entry(pair.model).or_insert(Results { measured: new, probe: None });
        if precedence(new.kind) < precedence(known.measured.kind) {
            known.measured = new;
        }
        if new.kind == PairKind::Probe {
            known.probe = Some(new.accuracy);
        }
    }
    results
}

/// Moves what is predicted of all by what was measured of some.
fn observe(
    state: &State,
    generation: &Generation,
    task: &TaskEncoding,
    found: &mut [Found],
    measured: &BTreeMap<u64, Results>,
) -> Result<()> {
    let vectors = search::vectors_of(state, generation, found)?;
    let candidates: Vec<Candidate<'_>> = found
        .iter()
        .zip(&vectors)
        .map(|(hit, vector)| Candidate { prediction: hit.prediction, vector, runnable: false })
        .collect();
    let mut belief = Belief::new(task, &candidates);
    let known = |hit: &Found| measured.get(&hit.model.row).copied();
    let probes = found.iter().enumerate().filter_map(|(at, hit)| Some((at, known(hit)?.probe?)));
    let observed: Vec<(usize, f32)> = probes.take(OBSERVED_MAX).collect();
    observed.iter().for_each(|&(at, accuracy)| belief.observe_test(at, accuracy));
    let moved: Vec<Prediction> = (0..found.len()).map(|index| belief.prediction(index)).collect();
    for (at, (hit, prediction)) in found.iter_mut().zip(moved).enumerate() {
        hit.prediction = prediction;
        let Some(Results { measured, .. }) = known(hit) else { continue };
        hit.measured = Some(measured);
        let entered = observed.iter().any(|(seen, _)| *seen == at);
        if !entered || measured.kind != PairKind::Probe {
            fuse(hit, measured);
        }
    }
    Ok(())
}

fn precedence(kind: PairKind) -> u8 {
    match kind {
        PairKind::Finetune => 0,
        PairKind::Probe => 1,
        PairKind::Reported => 2,
    }
}

/// The prediction after one observation of a normal quantity with a normal prior.
fn fuse(hit: &mut Found, known: Measured) {
    let [low, high] = hit.prediction.interval;
    let prior = ((high - low) / 2.0 / HALF_WIDTH).max(1e-3).powi(2);
    let noise = MEASURED_SD.powi(2);
    let weight = prior / (prior + noise);
    let accuracy = hit.prediction.accuracy + weight * (known.accuracy - hit.prediction.accuracy);
    let half = HALF_WIDTH * (weight * noise).sqrt();
    hit.prediction.accuracy = accuracy;
    hit.prediction.interval = [(accuracy - half).max(0.0), (accuracy + half).min(1.0)];
}
