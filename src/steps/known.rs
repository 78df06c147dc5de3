//! The answers to a query: what the search finds, with what is already measured on the very task that is asked about.

use super::embed::evidence_kind;
use super::search::{self, Found};
use crate::Result;
use crate::encoder::belief::{Belief, Candidate};
use crate::encoder::{Kind, TaskEncoding};
use crate::state::{Generation, State};
use std::collections::{BTreeMap, BTreeSet};
use tans_index::Filter;
use tans_storage::{Pair, PairKind, TaskId};

/// A result on the task itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// 0..=1.
    pub accuracy: f32,
    /// Fine-tuned before probed before reported.
    pub kind: PairKind,
}

/// More models with results than these tell of the task's level no more than these.
const OBSERVED_MAX: usize = 200;
/// Models with the best results that are looked at whatever the search finds, or as many as are asked for.
const BEST_MIN: usize = 200;

/// Results by row: fine-tuned before probed before reported.
type Results = BTreeMap<u64, Vec<Measured>>;

/// The models to be answered, best first: the `k` that the search finds, and every one that has a result on the task.
///
/// Results enter the predictions of all, for what one network shows tells what others will, whether or not the filter
/// permits it. The predictions decide the order where there are any results. A benchmark task has a result of nearly
/// every model, and their vectors were learned from it: there only what the search finds is looked at, each by its own.
pub fn answers(
    state: &State,
    generation: &Generation,
    (id, task): (Option<TaskId>, &TaskEncoding),
    filter: &Filter,
    k: usize,
) -> Result<Vec<Found>> {
    let found = search::search(state, generation, task, filter, k)?;
    let mut found = with_results(state, generation, (id, task), (found, k.max(BEST_MIN)))?;
    found.retain(|hit| search::permits(filter, &hit.model));
    if found.iter().any(|hit| !hit.measured.is_empty()) {
        // Of equals the one that is known to be so comes first: predictions end at 1.
        found.sort_by(|a, b| {
            let accuracy = b.prediction.accuracy.total_cmp(&a.prediction.accuracy);
            accuracy.then(a.measured.is_empty().cmp(&b.measured.is_empty()))
        });
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
    Ok(with_results(state, generation, asked, (vec![found], 0))?.swap_remove(0))
}

/// What was found and, behind it, the `best` others with results and those that tell of the task's level, with the
/// predictions that follow from the results.
fn with_results(
    state: &State,
    generation: &Generation,
    (id, task): (Option<TaskId>, &TaskEncoding),
    (mut found, best): (Vec<Found>, usize),
) -> Result<Vec<Found>> {
    let Some(record) = id.map(|id| state.store.task(id)).transpose()?.flatten() else {
        return Ok(found);
    };
    if record.benchmark {
        let own = of_found(state, record.id, &found)?;
        return believe(state, generation, (record.id, task), found, (&own, 0));
    }
    let results = by_model(state.store.pairs_of_task(record.id)?);
    let known: BTreeSet<u64> = found.iter().map(|hit| hit.model.row).collect();
    for row in looked_at(&results, best).into_iter().filter(|row| !known.contains(row)) {
        found.extend(search::one(state, generation, task, &Filter::default(), row)?);
    }
    believe(state, generation, (record.id, task), found, (&results, OBSERVED_MAX))
}

/// Rows of the models whose results are observed, and of those with the best ones.
fn looked_at(results: &Results, best: usize) -> BTreeSet<u64> {
    let highest =
        |of_model: &[Measured]| of_model.iter().map(|one| one.accuracy).fold(0.0, f32::max);
    let mut by_result: Vec<(f32, u64)> =
        results.iter().map(|(&row, of_model)| (highest(of_model), row)).collect();
    by_result.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let best = by_result.into_iter().take(best).map(|(_, row)| row);
    results.keys().copied().take(OBSERVED_MAX).chain(best).collect()
}

/// Results of the found models on a task.
fn of_found(state: &State, task: TaskId, found: &[Found]) -> Result<Results> {
    let mut pairs = Vec::new();
    for hit in found {
        let of_model = state.store.pairs_of_model(hit.model.row)?;
        pairs.extend(of_model.into_iter().filter(|pair| pair.task == task));
    }
    Ok(by_model(pairs))
}

fn by_model(pairs: Vec<Pair>) -> Results {
    let mut results = Results::new();
    for Pair { model, accuracy, kind, .. } in pairs {
        results.entry(model).or_default().push(Measured { accuracy, kind });
    }
    results.values_mut().for_each(|of_model| of_model.sort_by_key(|one| precedence(one.kind)));
    results
}

/// Moves what is predicted of all by the results of the first `observed` models, and of each by its own.
///
/// Which models these are does not depend on what was found, so that no prediction does. What a model reaches that was
/// trained on this very task tells of no other.
fn believe(
    state: &State,
    generation: &Generation,
    (id, task): (TaskId, &TaskEncoding),
    mut found: Vec<Found>,
    (results, observed): (&Results, usize),
) -> Result<Vec<Found>> {
    if results.is_empty() {
        return Ok(found);
    }
    let vectors = search::vectors_of(state, generation, &found)?;
    let candidates: Vec<Candidate<'_>> = found
        .iter()
        .zip(&vectors)
        .map(|(hit, vector)| Candidate { prediction: hit.prediction, vector, runnable: false })
        .collect();
    let distance = search::typical_distance(generation)?;
    // Nothing is left out of a result, so that groups do not matter.
    let mut belief = Belief::new(task, &candidates, (distance, false));
    let place: BTreeMap<u64, usize> =
        found.iter().enumerate().map(|(at, hit)| (hit.model.row, at)).collect();
    let mut own: Vec<Vec<(Kind, f32)>> = vec![Vec::new(); found.len()];
    for (order, (row, of_model)) in results.iter().enumerate() {
        let Some(&at) = place.get(row) else { continue };
        found[at].measured.clone_from(of_model);
        let is_trained_here = found[at].model.seen.contains(&id);
        let evidence = of_model.iter().map(|one| evidence(one, is_trained_here));
        if is_trained_here || order >= observed {
            own[at] = evidence.collect();
        } else {
            evidence.for_each(|one| belief.observe_result(at, one));
        }
    }
    for (at, (hit, own)) in found.iter_mut().zip(own).enumerate() {
        hit.prediction = belief.prediction_given(at, &own);
    }
    Ok(found)
}

/// Of a model that was trained here, what it reached is what a probe of it would show.
fn evidence(measured: &Measured, is_trained_here: bool) -> (Kind, f32) {
    let kind = match evidence_kind(measured.kind) {
        Kind::Finetune if is_trained_here => Kind::Probe,
        kind => kind,
    };
    (kind, measured.accuracy)
}

fn precedence(kind: PairKind) -> u8 {
    match kind {
        PairKind::Finetune => 0,
        PairKind::Probe => 1,
        PairKind::Reported => 2,
    }
}
