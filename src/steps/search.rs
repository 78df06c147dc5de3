//! Search of the current generation, with records and predictions: what a lookup consists of.

use super::known::Measured;
use super::summary;
use crate::Result;
use crate::encoder::{Prediction, TaskEncoding, belief};
use crate::state::{Generation, State, attributes};
use std::sync::PoisonError;
use tans_index::{Embedding, Filter, SearchOptions};
use tans_storage::ModelRecord;

/// One model found.
pub struct Found {
    /// Its record.
    pub model: ModelRecord,
    /// Cosine of its vector with the query's.
    pub cosine: f32,
    /// What that cosine stands for.
    pub prediction: Prediction,
    /// What is known of it on the task itself.
    pub measured: Vec<Measured>,
    /// Leave-one-out accuracy of a probe on the query's training part.
    pub probed: Option<f32>,
}

impl Found {
    /// Before anything is known but its vector.
    pub fn new(model: ModelRecord, cosine: f32, prediction: Prediction) -> Self {
        Self { model, cosine, prediction, measured: Vec::new(), probed: None }
    }
}

/// The `k` models nearest to a task that match the filter.
pub fn search(
    state: &State,
    generation: &Generation,
    task: &TaskEncoding,
    filter: &Filter,
    k: usize,
) -> Result<Vec<Found>> {
    let found = nearest(state, generation, &task.vector, filter, k)?;
    let predicted = found.into_iter().map(|(model, cosine)| {
        Found::new(model, cosine, generation.encoders.predict(task, cosine))
    });
    Ok(predicted.collect())
}

/// Whether a search with this filter finds anything, whatever it is asked.
pub fn finds_any(state: &State, generation: &Generation, filter: &Filter) -> Result<bool> {
    if filter.is_empty() {
        return Ok(generation.has_vectors());
    }
    let mut vector = vec![0.0; generation.encoders.dim()];
    vector[0] = 1.0;
    Ok(!nearest(state, generation, &vector, filter, 1)?.is_empty())
}

/// Whether a model keeps to a filter: what its record knows and the index does not is looked at here.
pub fn permits(filter: &Filter, model: &ModelRecord) -> bool {
    filter.matches(&attributes(model)) && (!filter.runnable || summary::is_runnable(model))
}

/// The `k` models whose vectors are nearest to one, with their cosines.
fn nearest(
    state: &State,
    generation: &Generation,
    vector: &[f32],
    filter: &Filter,
    k: usize,
) -> Result<Vec<(ModelRecord, f32)>> {
    let query = Embedding::new(vector.to_vec(), generation.encoders.dim())?;
    let mut wanted = k;
    loop {
        let delta = generation.delta.read().unwrap_or_else(PoisonError::into_inner);
        let options = SearchOptions { k: wanted, ..SearchOptions::default() };
        let segment = generation.segment.as_ref();
        let neighbours = tans_index::search(segment, &delta, &query, filter, &options)?;
        drop(delta);
        let is_all = neighbours.len() < wanted;
        let mut found = Vec::with_capacity(neighbours.len());
        for neighbour in neighbours {
            // A model that was removed since the search is no answer, and operations are counted of some references: of
            // those from a bundle that left its weights out.
            let model = state.store.model(neighbour.key)?;
            let permitted = |model: &ModelRecord| !filter.runnable || summary::is_runnable(model);
            found.extend(model.filter(permitted).map(|model| (model, neighbour.cosine)));
        }
        if is_all || found.len() >= k {
            found.truncate(k);
            return Ok(found);
        }
        wanted = wanted.saturating_mul(4);
    }
}

/// One model as a search would find it; `None` where it is gone or the filter excludes it.
pub fn one(
    state: &State,
    generation: &Generation,
    task: &TaskEncoding,
    filter: &Filter,
    row: u64,
) -> Result<Option<Found>> {
    let Some(model) = state.store.model(row)?.filter(|model| permits(filter, model)) else {
        return Ok(None);
    };
    let vector = vectors(state, generation, &[row])?.remove(0);
    Ok(vector.map(|vector| {
        let cosine = cosine(&vector, task);
        let prediction = generation.encoders.predict(task, cosine);
        Found::new(model, cosine, prediction)
    }))
}

/// Cosine of a stored vector with a task's.
pub fn cosine(vector: &[f32], task: &TaskEncoding) -> f32 {
    let cosine: f32 = vector.iter().zip(&task.vector).map(|(a, b)| a * b).sum();
    cosine.clamp(-1.0, 1.0)
}

/// The vectors of these rows as this generation knows them; `None` of a model that is gone.
///
/// The store is asked before the segment, whose keys are in no order; it forgets the vectors of encoders that were
/// replaced while a query goes on with them.
pub fn vectors(
    state: &State,
    generation: &Generation,
    rows: &[u64],
) -> Result<Vec<Option<Vec<f32>>>> {
    let mut vectors = Vec::with_capacity(rows.len());
    let mut missing = Vec::new();
    {
        let delta = generation.delta.read().unwrap_or_else(PoisonError::into_inner);
        for &row in rows {
            let vector = match delta.vector(row) {
                Some(vector) => Some(vector.to_vec()),
                None if delta.shadows(row) => None,
                None => {
                    let stored = state.store.embedding(generation.record.encoder, row)?;
                    missing.extend(stored.is_none().then_some(row));
                    stored
                }
            };
            vectors.push(vector);
        }
    }
    if let (Some(segment), false) = (&generation.segment, missing.is_empty()) {
        let found = segment.find(&missing)?;
        for (vector, row) in vectors.iter_mut().zip(rows).filter(|(vector, _)| vector.is_none()) {
            *vector = found.get(row).map(|vector| vector.as_slice().to_vec());
        }
    }
    Ok(vectors)
}

/// The vectors of what was found; a model that was removed meanwhile counts as a stranger to all others.
pub fn vectors_of(
    state: &State,
    generation: &Generation,
    found: &[Found],
) -> Result<Vec<Vec<f32>>> {
    let rows: Vec<u64> = found.iter().map(|hit| hit.model.row).collect();
    let stranger = || vec![0.0; generation.encoders.dim()];
    let vectors = vectors(state, generation, &rows)?.into_iter();
    Ok(vectors.map(|vector| vector.unwrap_or_else(stranger)).collect())
}

/// The distance between two models of the zoo that is neither near nor far.
pub fn typical_distance(generation: &Generation) -> Result<f64> {
    let delta = generation.delta.read().unwrap_or_else(PoisonError::into_inner);
    let some = tans_index::sample(generation.segment.as_ref(), &delta, belief::SAMPLED)?;
    Ok(belief::typical_distance(&some.iter().map(Embedding::as_slice).collect::<Vec<_>>()))
}

/// Moves a model's vector in the current generation's delta after its record or history changed.
pub fn refresh_delta(generation: &Generation, model: &ModelRecord, vector: Vec<f32>) -> Result<()> {
    let dim = vector.len();
    let mut delta = generation.delta.write().unwrap_or_else(PoisonError::into_inner);
    Ok(delta.insert(model.row, &Embedding::new(vector, dim)?, attributes(model))?)
}
