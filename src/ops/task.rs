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
    /// (file, reason) of images that could not be read when it was added.
    pub skipped: Vec<(String, String)>,
}

/// Encodes a dataset and keeps its rows, never its images.
#[cfg(feature = "torch")]
pub(crate) fn add(
    state: &State,
    name: &str,
    source: &crate::DatasetSource,
    options: &TaskOptions,
    observer: crate::Observer<'_>,
) -> Result<TaskSummary> {
    use crate::steps::dataset::{self, NewTask};
    if name.is_empty() {
        return Err(crate::Error::input("expected a task name, found an empty one"));
    }
    let samples = dataset::samples(source, &options.sample)?;
    let seed = options.sample.seed;
    if let Some(stored) = state.store.task(samples.task)? {
        return summary(state, &stored, samples.skipped);
    }
    if state.store.task_by_name(name)?.is_some() {
        return Err(crate::Error::input(format!(
            "the name {name:?} belongs to another task: remove that one first, or choose another name"
        )));
    }
    let (sample, _) = dataset::measure(state, &samples, seed, observer)?;
    let record = dataset::store_task(
        &state.store,
        &NewTask {
            id: samples.task,
            name,
            family: options.family.clone(),
            class_names: &samples.class_names,
            sample: &sample,
            image_hashes: &samples.image_hashes,
            benchmark: options.benchmark,
        },
    )?;
    let mut batch = Batch::new();
    batch.put_task(&record);
    let ordered = state.lock_commits();
    state.store.commit(batch)?;
    drop(ordered);
    summary(state, &record, samples.skipped)
}

/// All tasks by name.
pub(crate) fn list(state: &State) -> Result<Vec<TaskSummary>> {
    state.refresh()?;
    let mut tasks = state.store.tasks()?;
    tasks.sort_by(|a, b| a.name.cmp(&b.name));
    tasks.iter().map(|task| summary(state, task, Vec::new())).collect()
}

/// Forgets a task and the results on it. Models keep their vectors until the next `train`.
pub(crate) fn remove(state: &State, name: &str) -> Result<()> {
    let _ordered = state.lock_commits();
    let task = steps::task(&state.store, name)?;
    let mut batch = Batch::new();
    batch.remove_task(task.id);
    state.store.commit(batch)?;
    Ok(())
}

fn summary(
    state: &State,
    task: &TaskRecord,
    skipped: Vec<(String, String)>,
) -> Result<TaskSummary> {
    Ok(TaskSummary {
        task: task.name.clone(),
        id: task.id.to_string(),
        family: steps::family(task),
        classes: task.class_names.len(),
        rows: task.sample.as_ref().map_or(0, |sample| sample.labels.len()),
        pairs: state.store.pairs_of_task(task.id)?.len(),
        benchmark: task.benchmark,
        reference: task.sample.is_none(),
        skipped,
    })
}
