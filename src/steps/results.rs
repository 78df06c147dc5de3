//! Results and the vectors they move; references: models and tasks of which the zoo knows a name and results only.

use super::admit_name;
use super::embed::{self, Known};
use super::search;
use crate::state::State;
use crate::{Error, Result};
use std::collections::BTreeMap;
use tans_storage::{Batch, Cost, ModelId, ModelRecord, TaskId, TaskRecord};

/// What is known of a model before it is stored.
#[derive(Clone, Debug, Default)]
pub struct NewReference {
    /// Unique name.
    pub name: String,
    /// Where it lies.
    pub uri: String,
    /// SPDX expression.
    pub license: Option<String>,
    /// Labels.
    pub tags: BTreeMap<String, String>,
    /// Tasks it was trained on.
    pub seen: Vec<TaskId>,
    /// Results.
    pub results: Vec<Known>,
    /// Tasks that are new with it.
    pub tasks: Vec<TaskRecord>,
    /// Parameters, where stated.
    pub params: Option<u64>,
}

/// The task of that name, and whether it is new: an unknown name becomes a reference task, which the caller commits
/// together with what refers to it.
pub fn task(state: &State, name: &str) -> Result<(TaskRecord, bool)> {
    if name.is_empty() {
        return Err(Error::input("expected a task name, found an empty one"));
    }
    match state.store.task_by_name(name)? {
        Some(task) => Ok((task, false)),
        None => Ok((super::dataset::reference_task(name), true)),
    }
}

/// Commits a task of its own.
pub fn commit_task(state: &State, task: &TaskRecord) -> Result<()> {
    let mut batch = Batch::new();
    batch.put_task(task);
    let _ordered = state.lock_commits();
    state.store.commit(batch)?;
    Ok(())
}

/// Stores a reference model, or finds the stored one of the same URI (whose results are then added to).
pub fn model(state: &State, new: NewReference) -> Result<(ModelRecord, bool)> {
    let id = ModelId::of_reference(&new.uri);
    if let Some(stored) = state.store.model_by_id(id)? {
        new.tasks.iter().try_for_each(|task| commit_task(state, task))?;
        record_results(state, &stored, &new.results)?;
        return Ok((stored, false));
    }
    admit_name::refuse_taken(&state.store, &new.name)?;
    let mut record = ModelRecord {
        id,
        row: 0,
        name: new.name,
        parent: None,
        seen: new.seen,
        license: new.license,
        tags: new.tags,
        uri: Some(new.uri),
        graph: None,
        weights: Vec::new(),
        input: Vec::new(),
        cost: Cost { params: new.params.unwrap_or(0), ..Cost::default() },
        not_runnable: None,
        architecture: None,
        topology: Vec::new(),
        class_names: Vec::new(),
        created: super::unix_seconds(),
    };
    let _ordered = state.lock_commits();
    commit_new(state, &mut record, None, &new.results, &new.tasks)?;
    Ok((record, true))
}

/// Writes a new record with signature, results, embedding and the tasks that are new with it by one commit; the delta
/// follows.
///
/// The caller holds the commit lock.
pub fn commit_new(
    state: &State,
    record: &mut ModelRecord,
    signature: Option<&[f32]>,
    results: &[Known],
    tasks: &[TaskRecord],
) -> Result<()> {
    let generation = state.generation();
    record.row = state.store.next_row()?;
    let context = embed::Context::load(&state.store, &generation.encoders)?;
    let vector = context.embed_with(record, signature, results)?;
    let mut batch = Batch::new();
    tasks.iter().for_each(|task| batch.put_task(task));
    batch.put_model(record);
    if let Some(signature) = signature {
        batch.put_signature(record.row, &super::signature_bits(signature));
    }
    for &(task, kind, accuracy) in results {
        batch.put_pair(task, record.row, kind, accuracy);
    }
    batch.put_embedding(generation.record.encoder, record.row, &vector);
    state.store.commit(batch)?;
    search::refresh_delta(&generation, record, vector)
}

/// Records results of a stored model; its vector moves at once.
pub fn record_results(state: &State, model: &ModelRecord, results: &[Known]) -> Result<()> {
    if results.is_empty() {
        return Ok(());
    }
    let _ordered = state.lock_commits();
    let generation = state.generation();
    let context = embed::Context::load(&state.store, &generation.encoders)?;
    let vector = context.embed(&state.store, model, results)?;
    let mut batch = Batch::new();
    for &(task, kind, accuracy) in results {
        batch.put_pair(task, model.row, kind, accuracy);
    }
    batch.put_embedding(generation.record.encoder, model.row, &vector);
    state.store.commit(batch)?;
    search::refresh_delta(&generation, model, vector)
}
