//! Tasks: datasets as the zoo remembers them.

use crate::state::State;
use crate::{Result, steps};
use serde::Serialize;
use tans_storage::{Batch, TaskRecord};

/// Options of `task add`.
#[derive(Clone, Debug, Default)]
pub struct TaskOptions {
    /// Tasks of one family share images or sources; they are held out together.
    pub family: Option<String>,
    /// Store it as one of the benchmark tasks (for making the built-in ones).
    pub benchmark: bool,
    /// How much of the dataset is used.
    pub sample: crate::SampleOptions,
}

/// A task in short.
#[derive(Clone, Debug, Serialize)]
pub struct TaskSummary {
    /// Name.
    pub task: String,
    /// Content address.
    pub id: String,
    /// Family.
    pub family: String,
    /// Number of classes (0 for a reference).
    pub classes: usize,
    /// Rows kept (0 for a reference).
    pub rows: usize,
    /// Results recorded on it.
    pub pairs: usize,
    /// One of the built-in benchmark tasks.
    pub benchmark: bool,
    /// A name only.
    pub reference: bool,
}

/// What `task add` did.
#[derive(Clone, Debug, Serialize)]
pub struct AddedTask {
    /// The task, under the name that it has in the zoo.
    #[serde(flatten)]
    pub summary: TaskSummary,
    /// `stored` or `already stored`.
    pub status: &'static str,
    /// Results that were recorded on the name before the zoo knew its dataset, and count for the task now.
    pub moved_pairs: usize,
    /// (file, reason) of images that could not be read.
    pub skipped: Vec<(String, String)>,
}

/// Encodes a dataset and keeps its rows, never its images.
///
/// A dataset that is stored already keeps its name, and its family if it has one. A reference of the given name goes:
/// what was recorded on it counts for the dataset.
#[cfg(feature = "torch")]
pub(crate) fn add(
    state: &State,
    name: &str,
    source: &crate::DatasetSource,
    options: &TaskOptions,
    observer: crate::Observer<'_>,
) -> Result<AddedTask> {
    use crate::steps::{
        admit_name,
        dataset::{self, Given, NewTask},
        results,
    };
    state.require_writer()?;
    admit_name::check("task", name)?;
    let given = Given::open(state, source, &options.sample)?;
    let named = state.store.task_by_name(name)?;
    let stored = state.store.task(given.task)?;
    refuse_taken(name, named.as_ref().filter(|named| named.id != given.task))?;
    let mut staging = state.store.staging();
    let task = match &stored {
        Some(stored) => with_family(stored, options.family.as_deref())?,
        None => {
            let sample = given.measure(state, options.sample.seed, observer)?;
            let new = NewTask {
                id: given.task,
                name,
                family: options.family.clone(),
                class_names: &given.class_names,
                sample: &sample,
                image_hashes: &given.image_hashes,
                benchmark: options.benchmark,
            };
            dataset::store_task(&state.store, &mut staging, &new)?
        }
    };
    let reference = named.filter(|named| named.sample.is_none() && named.id != task.id);
    let moved_pairs = match reference {
        Some(reference) => results::replace_reference(state, reference.id, &task)?,
        None if stored.as_ref() != Some(&task) => results::commit_task(state, &task).map(|()| 0)?,
        None => 0,
    };
    Ok(AddedTask {
        summary: summary(state, &task)?,
        status: if stored.is_some() { "already stored" } else { "stored" },
        moved_pairs,
        skipped: given.skipped,
    })
}

/// A stored task with the family that the user states.
#[cfg(feature = "torch")]
fn with_family(stored: &TaskRecord, family: Option<&str>) -> Result<TaskRecord> {
    match (stored.family.as_deref(), family) {
        (Some(known), Some(stated)) if known != stated => Err(crate::Error::input(format!(
            "the dataset is stored as task {:?} of family {known:?}: expected that family or none, found {stated:?}",
            stored.name
        ))),
        (known, stated) => {
            let family = known.or(stated).map(str::to_owned);
            Ok(TaskRecord { family, ..stored.clone() })
        }
    }
}

/// A name may belong to a reference, whose place the dataset takes, but not to another dataset.
#[cfg(feature = "torch")]
fn refuse_taken(name: &str, named: Option<&TaskRecord>) -> Result<()> {
    match named {
        Some(other) if other.sample.is_some() => Err(crate::Error::input(format!(
            "the name {name:?} belongs to another task: remove that one first, or choose another name"
        ))),
        Some(_) | None => Ok(()),
    }
}

/// All tasks by name.
pub(crate) fn list(state: &State) -> Result<Vec<TaskSummary>> {
    state.refresh()?;
    let mut tasks = state.store.tasks()?;
    tasks.sort_by(|a, b| a.name.cmp(&b.name));
    tasks.iter().map(|task| summary(state, task)).collect()
}

/// Forgets a task and the results on it. Models keep their vectors until the next `train`.
pub(crate) fn remove(state: &State, name: &str) -> Result<()> {
    state.commit(|_| {
        let task = steps::task(&state.store, name)?;
        let mut batch = Batch::new();
        batch.remove_task(task.id);
        state.store.apply(batch)?;
        Ok(())
    })
}

fn summary(state: &State, task: &TaskRecord) -> Result<TaskSummary> {
    Ok(TaskSummary {
        task: task.name.clone(),
        id: task.id.to_string(),
        family: steps::family(task),
        classes: task.class_names.len(),
        rows: task.sample.as_ref().map_or(0, |sample| sample.labels.len()),
        pairs: state.store.pairs_of_task(task.id)?.len(),
        benchmark: task.benchmark,
        reference: task.sample.is_none(),
    })
}
