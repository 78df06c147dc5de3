//! Results and the vectors they move; references: models and tasks of which the zoo knows a name and results only.

use super::admit_name;
use super::embed::{self, Known};
use super::search;
use crate::state::{Ordered, State};
use crate::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use tans_storage::{Batch, Cost, ModelId, ModelRecord, Store, TaskId, TaskRecord};

/// What one commit adds to what a zoo knows of one model.
pub struct Addition {
    /// The model.
    pub subject: Subject,
    /// Tasks that it was trained on, besides those of its record.
    pub seen: Vec<TaskId>,
    /// Results; they replace stored ones of the same task and kind.
    pub results: Vec<Known>,
}

/// Whom an addition is about.
pub enum Subject {
    /// A stored model by its row. Its record is read under the commit lock, so that an edit that came in between stays.
    Stored(u64),
    /// A new model, with its signature; the commit gives it its row.
    New(Box<ModelRecord>, Option<Vec<f32>>),
}

/// Tasks that a commit changes.
#[derive(Default)]
pub struct Tasks<'a> {
    /// Stored with the commit under a free name, unless another operation has stored the same dataset since they were
    /// made.
    pub new: &'a [TaskRecord],
    /// Stored as it is.
    pub changed: Option<&'a TaskRecord>,
    /// A reference that goes, and the task that stands for it from now on.
    pub replaced: Option<(TaskId, TaskId)>,
}

/// What is known of a reference model before it is stored.
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
    /// Parameters, where stated.
    pub params: Option<u64>,
}

/// Refuses what is no accuracy. `what`: where it stands.
pub fn check_accuracy(what: &str, accuracy: f32) -> Result<()> {
    match (0.0..=1.0).contains(&accuracy) {
        true => Ok(()),
        false => {
            Err(Error::input(format!("{what}: expected an accuracy in 0..1, found {accuracy}")))
        }
    }
}

/// The task of that name, and whether it is new: an unknown name becomes a reference task, which the caller commits
/// together with what refers to it.
pub fn task(state: &State, name: &str) -> Result<(TaskRecord, bool)> {
    admit_name::check("task", name)?;
    match state.store.task_by_name(name)? {
        Some(task) => Ok((task, false)),
        None => Ok((super::dataset::reference_task(name), true)),
    }
}

/// A reference model as an addition: to the stored one of the same URI, or as a new one.
pub fn reference(store: &Store, new: NewReference) -> Result<Addition> {
    let NewReference { name, uri, license, tags, seen, results, params } = new;
    let id = ModelId::of_reference(&uri);
    if let Some(stored) = store.model_by_id(id)? {
        let results = unheard(store, stored.row, results)?;
        return Ok(Addition { subject: Subject::Stored(stored.row), seen, results });
    }
    admit_name::refuse_taken(store, &name)?;
    let record = ModelRecord {
        id,
        row: 0,
        name,
        parent: None,
        seen: Vec::new(),
        license,
        tags,
        uri: Some(uri),
        graph: None,
        weights: Vec::new(),
        input: Vec::new(),
        cost: Cost { params: params.unwrap_or(0), ..Cost::default() },
        not_runnable: None,
        architecture: None,
        topology: Vec::new(),
        class_names: Vec::new(),
        created: super::unix_seconds(),
    };
    Ok(Addition { subject: Subject::New(Box::new(record), None), seen, results })
}

/// Those of the stated results that were never recorded of a model. What was, and has been superseded since, is old.
pub fn unheard(store: &Store, row: u64, stated: Vec<Known>) -> Result<Vec<Known>> {
    if stated.is_empty() {
        return Ok(stated);
    }
    let history = store.history_of_model(row)?;
    let is_new = |&(task, kind, accuracy): &Known| {
        !history.iter().any(|pair| (pair.task, pair.kind, pair.accuracy) == (task, kind, accuracy))
    };
    Ok(stated.into_iter().filter(is_new).collect())
}

/// A stated result of a stored model that is not what the zoo has of its task and kind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// What is stated.
    pub stated: f32,
    /// What the zoo has.
    pub stored: f32,
    /// Whether it was never recorded, so that it takes the place of the stored one.
    pub is_news: bool,
}

/// What the stated results of a stored model change, or would have changed before they were superseded.
/// `news` are those of them that are `unheard`.
pub fn differences(
    store: &Store,
    row: u64,
    stated: &[Known],
    news: &[Known],
) -> Result<Vec<Difference>> {
    if stated.is_empty() {
        return Ok(Vec::new());
    }
    let pairs = store.pairs_of_model(row)?;
    let difference = |known: &Known| {
        let &(task, kind, stated) = known;
        let pair = pairs.iter().find(|pair| (pair.task, pair.kind) == (task, kind))?;
        let is_news = news.contains(known);
        (pair.accuracy != stated).then_some(Difference { stated, stored: pair.accuracy, is_news })
    };
    Ok(stated.iter().filter_map(difference).collect())
}

/// Commits a task as it is.
#[cfg(feature = "torch")]
pub fn commit_task(state: &State, task: &TaskRecord) -> Result<()> {
    let tasks = Tasks { changed: Some(task), ..Tasks::default() };
    state.commit(|ordered| apply(state, ordered, &tasks, Vec::new())).map(|_| ())
}

/// Commits a new task under a free name, unless its dataset is stored by now; returns it as it is stored.
#[cfg(feature = "torch")]
pub fn commit_new_task(state: &State, task: TaskRecord) -> Result<TaskRecord> {
    let tasks = Tasks { new: std::slice::from_ref(&task), ..Tasks::default() };
    state.commit(|ordered| apply(state, ordered, &tasks, Vec::new()))?;
    Ok(state.store.task(task.id)?.unwrap_or(task))
}

/// Records results of a stored model; its vector moves at once.
#[cfg(feature = "torch")]
pub fn record_results(state: &State, model: &ModelRecord, results: &[Known]) -> Result<()> {
    if results.is_empty() {
        return Ok(());
    }
    let (subject, results) = (Subject::Stored(model.row), results.to_vec());
    let addition = Addition { subject, seen: Vec::new(), results };
    state.commit(|ordered| apply(state, ordered, &Tasks::default(), vec![addition])).map(|_| ())
}

/// Lets a task take the place of a reference: the latest results on the reference and every "trained on" move to it.
/// Returns how many results moved.
///
/// A result that is older than one of the same model and kind on the task itself gives way to that one.
#[cfg(feature = "torch")]
pub fn replace_reference(state: &State, reference: TaskId, task: &TaskRecord) -> Result<usize> {
    state.commit(|ordered| move_to(state, ordered, reference, task))
}

#[cfg(feature = "torch")]
fn move_to(
    state: &State,
    ordered: &Ordered<'_>,
    reference: TaskId,
    task: &TaskRecord,
) -> Result<usize> {
    let id = task.id;
    let own = state.store.pairs_of_task(id)?;
    let mut rows: BTreeMap<u64, Vec<Known>> = BTreeMap::new();
    let mut moved = 0;
    for pair in state.store.pairs_of_task(reference)? {
        let results = rows.entry(pair.model).or_default();
        let newer = own.iter().any(|other| {
            (other.model, other.kind) == (pair.model, pair.kind) && other.sequence > pair.sequence
        });
        if !newer {
            results.push((id, pair.kind, pair.accuracy));
            moved += 1;
        }
    }
    for model in state.store.models()? {
        let model = model?;
        if model.seen.contains(&reference) {
            rows.entry(model.row).or_default();
        }
    }
    let additions = rows.into_iter().map(|(row, results)| Addition {
        subject: Subject::Stored(row),
        seen: Vec::new(),
        results,
    });
    let tasks = Tasks { changed: Some(task), replaced: Some((reference, id)), ..Tasks::default() };
    apply(state, ordered, &tasks, additions.collect())?;
    Ok(moved)
}

/// Writes tasks, records, results and the vectors that they move by one batch; the delta follows. Returns the records
/// in the order of the additions, which name each stored model once. What is no news is not written.
pub fn apply(
    state: &State,
    _ordered: &Ordered<'_>,
    tasks: &Tasks<'_>,
    additions: Vec<Addition>,
) -> Result<Vec<ModelRecord>> {
    let generation = state.generation();
    let mut batch = Batch::new();
    if let Some((reference, _)) = tasks.replaced {
        // First, because the task may take over its name.
        batch.remove_task(reference);
    }
    tasks.changed.into_iter().for_each(|task| batch.put_task(task));
    for task in tasks.new {
        if state.store.task(task.id)?.is_none() {
            let name = super::dataset::free_task_name(&state.store, &task.name)?;
            batch.put_task(&TaskRecord { name, ..task.clone() });
        }
    }
    let mut moved = Vec::with_capacity(additions.len());
    if !additions.is_empty() {
        let (encoders, encoded) = (&generation.encoders, &generation.encoded);
        let mut context = embed::Context::load(&state.store, encoders, encoded)?;
        for task in tasks.new.iter().chain(tasks.changed) {
            context.include(&state.store, task)?;
        }
        for addition in additions {
            moved.push(stage(state, &context, tasks.replaced, addition, &mut batch)?);
        }
    }
    for Moved { record, vector, results: _ } in &moved {
        if let Some(vector) = vector {
            batch.put_embedding(generation.record.encoder, record.row, vector);
        }
    }
    if !batch.is_empty() {
        state.store.apply(batch)?;
    }
    state.recorded(moved.iter().map(|moved| moved.results).sum());
    let mut records = Vec::with_capacity(moved.len());
    for Moved { record, vector, results: _ } in moved {
        if let Some(vector) = vector {
            search::refresh_delta(&generation, &record, vector)?;
        }
        records.push(record);
    }
    Ok(records)
}

/// A model after an addition.
struct Moved {
    record: ModelRecord,
    /// `None` without news.
    vector: Option<Vec<f32>>,
    /// How many results are new.
    results: usize,
}

/// Puts one addition into the batch.
fn stage(
    state: &State,
    context: &embed::Context<'_>,
    replaced: Option<(TaskId, TaskId)>,
    addition: Addition,
    batch: &mut Batch,
) -> Result<Moved> {
    let Addition { subject, seen, mut results } = addition;
    let (record, vector) = match subject {
        Subject::New(mut record, signature) => {
            admit_name::refuse_taken(&state.store, &record.name)?;
            record.row = state.store.next_row()?;
            record.seen = united(&record.seen, &seen, replaced);
            let vector = context.embed_with(&record, signature.as_deref(), &results)?;
            batch.put_model(&record);
            if let Some(signature) = signature {
                batch.put_signature(record.row, &super::signature_bits(&signature));
            }
            (*record, Some(vector))
        }
        Subject::Stored(row) => {
            let mut record = state.store.model(row)?.ok_or_else(|| {
                Error::input("expected a stored model, found that it was removed meanwhile")
            })?;
            let seen = united(&record.seen, &seen, replaced);
            let pairs = state.store.pairs_of_model(row)?;
            results.retain(|&(task, kind, accuracy)| {
                !pairs.iter().any(|it| (it.task, it.kind, it.accuracy) == (task, kind, accuracy))
            });
            let stays = |task| replaced.is_none_or(|(reference, _)| task != reference);
            if seen == record.seen && results.is_empty() && pairs.iter().all(|it| stays(it.task)) {
                return Ok(Moved { record, vector: None, results: 0 });
            }
            if seen != record.seen {
                record.seen = seen;
                batch.put_model(&record);
            }
            let signature = super::stored_signature(&state.store, row)?;
            let stored = pairs
                .iter()
                .filter(|pair| stays(pair.task))
                .map(|pair| (pair.task, pair.kind, pair.accuracy));
            let history = embed::merge(stored, &results);
            let vector = context.embed_with(&record, signature.as_deref(), &history)?;
            (record, Some(vector))
        }
    };
    for &(task, kind, accuracy) in &results {
        batch.put_pair(task, record.row, kind, accuracy);
    }
    Ok(Moved { record, vector, results: results.len() })
}

/// The tasks of both lists, each once and in order, with the replaced one under its new id.
fn united(seen: &[TaskId], more: &[TaskId], replaced: Option<(TaskId, TaskId)>) -> Vec<TaskId> {
    let mut found = BTreeSet::new();
    let current = |task: &TaskId| match replaced {
        Some((old, new)) if old == *task => new,
        Some(_) | None => *task,
    };
    seen.iter().chain(more).map(current).filter(|task| found.insert(*task)).collect()
}
