//! Search of the current generation, with records and predictions: what a lookup consists of.

use super::known::Measured;
use crate::Result;
use crate::encoder::{Prediction, TaskEncoding};
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
    /// What was measured on the task itself.
    pub measured: Option<Measured>,
    /// Leave-one-out accuracy of a probe on the query's training part.
    pub probed: Option<f32>,
}

impl Found {
    fn new(model: ModelRecord, cosine: f32, prediction: Prediction) -> Self {
        Self { model, cosine, prediction, measured: None, probed: None }
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
    let query = Embedding::new(task.vector.clone(), generation.encoders.dim())?;
    let delta = generation.delta.read().unwrap_or_else(PoisonError::into_inner);
    let options = SearchOptions { k, ..SearchOptions::default() };
    let neighbours =
        tans_index::search(generation.segment.as_ref(), &delta, &query, filter, &options)?;
    drop(delta);
    let mut found = Vec::with_capacity(neighbours.len());
    for neighbour in neighbours {
        // A model that was removed since the search is no answer.
        let Some(model) = state.store.model(neighbour.key)? else { continue };
        let prediction = generation.encoders.predict(task, neighbour.cosine);
        found.push(Found::new(model, neighbour.cosine, prediction));
    }
    Ok(found)
}

/// One model as a search would find it; `None` where it is gone or the filter excludes it.
pub fn one(
    state: &State,
    generation: &Generation,
    task: &TaskEncoding,
    filter: &Filter,
    row: u64,
) -> Result<Option<Found>> {
    let Some(model) = state.store.model(row)? else { return Ok(None) };
    let vector = state.store.embedding(generation.record.encoder, row)?;
    let vector = vector.filter(|_| filter.matches(&attributes(&model)));
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

/// The vectors of what was found.
pub fn vectors(state: &State, generation: &Generation, found: &[Found]) -> Result<Vec<Vec<f32>>> {
    let vector = |hit: &Found| {
        let stored = state.store.embedding(generation.record.encoder, hit.model.row)?;
        // What is embedded in memory alone counts as a stranger to all others.
        Ok(stored.unwrap_or_else(|| vec![0.0; generation.encoders.dim()]))
    };
    found.iter().map(vector).collect()
}

/// Moves a model's vector in the current generation's delta after its record or history changed.
pub fn refresh_delta(generation: &Generation, model: &ModelRecord, vector: Vec<f32>) -> Result<()> {
    let dim = vector.len();
    let mut delta = generation.delta.write().unwrap_or_else(PoisonError::into_inner);
    Ok(delta.insert(model.row, &Embedding::new(vector, dim)?, attributes(model))?)
}
