//! Everything in the zoo that encoders can learn from.

use super::embed::evidence_kind;
use super::{benchmark, bundle, family, readable_sample, stored_signature, task_sample};
use crate::encoder::TaskSample;
use crate::train::{TrainingModel, TrainingPair, TrainingSet, TrainingTask};
use crate::{Error, Result};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;
use tans_storage::{Store, TaskId, TaskRecord};

/// Reads tasks, models and the latest pairs.
pub fn load(store: &Store) -> Result<TrainingSet> {
    load_named(store).map(|(set, _)| set)
}

/// As `load`, with the names of what is spoken of by number.
pub fn load_named(store: &Store) -> Result<(TrainingSet, Names)> {
    load_with(store, &|task| task_sample(store, task))
}

/// As `load`, for a store whose tensors are damaged: rows that cannot be read are those that every build carries, or none.
/// Also counts the tasks that are left without.
pub fn load_readable(store: &Store) -> Result<(TrainingSet, usize)> {
    let carried = bundle::samples(Cursor::new(benchmark::TASKS), Path::new(benchmark::PREFIX))?;
    let lost = Cell::new(0);
    let (set, _) = load_with(store, &|task| {
        let sample = readable_sample(store, task)?.or_else(|| carried.get(&task.id).cloned());
        lost.set(lost.get() + usize::from(sample.is_none() && task.sample.is_some()));
        Ok(sample)
    })?;
    Ok((set, lost.get()))
}

type Sampled<'a> = &'a dyn Fn(&TaskRecord) -> Result<Option<TaskSample>>;

fn load_with(store: &Store, sample_of: Sampled<'_>) -> Result<(TrainingSet, Names)> {
    let (mut set, mut names) = (TrainingSet::default(), Names::default());
    let mut task_index: HashMap<TaskId, usize> = HashMap::new();
    let tasks = store.tasks()?;
    for (task, family) in tasks.iter().zip(families(store, &tasks)?) {
        task_index.insert(task.id, set.tasks.len());
        names.tasks.insert(task.name.clone(), set.tasks.len());
        set.tasks.push(TrainingTask {
            id: task.id.0,
            family,
            sample: sample_of(task)?.map(Arc::new),
            prior: benchmark::prior(&task.name)
                .filter(|_| task.benchmark)
                .map(|prior| (prior.mean, prior.sd)),
        });
    }
    let mut model_index: HashMap<u64, usize> = HashMap::new();
    for model in store.models()? {
        let model = model?;
        model_index.insert(model.row, set.models.len());
        names.models.insert(model.name, set.models.len());
        let numbers = model.architecture.map_or_else(Vec::new, |space| space.numbers);
        set.models.push(TrainingModel {
            numbers: numbers.into(),
            topology: model.topology.into(),
            signature: stored_signature(store, model.row)?.map(Into::into),
            params: model.cost.params,
            is_trained: !model.seen.is_empty(),
            seen: model.seen.iter().filter_map(|id| task_index.get(id).copied()).collect(),
        });
    }
    for pair in store.pairs()? {
        let known = (task_index.get(&pair.task), model_index.get(&pair.model));
        if let (Some(&task), Some(&model)) = known {
            let (kind, accuracy) = (evidence_kind(pair.kind), pair.accuracy);
            set.pairs.push(TrainingPair { task, model, kind, accuracy });
        }
    }
    Ok((set, names))
}

/// Share of the images of the smaller of two tasks from which on they are of one family.
const SHARED_MIN: f64 = 0.1;

/// Tasks with one image of which all pairs are looked at.
const HOLDERS_MAX: usize = 32;

/// The family of each task. Tasks that share images are of one, whatever they were called: another sample of a dataset
/// tells what a network reaches on this one.
fn families(store: &Store, tasks: &[TaskRecord]) -> Result<Vec<String>> {
    let mut families: Vec<String> = tasks.iter().map(family).collect();
    let mut holders: HashMap<[u8; 32], Vec<usize>> = HashMap::new();
    let mut sizes = vec![0; tasks.len()];
    for (index, task) in tasks.iter().enumerate() {
        let images = image_hashes(store, task)?;
        sizes[index] = images.len();
        images.into_iter().for_each(|image| holders.entry(image).or_default().push(index));
    }
    let mut shared: BTreeMap<(usize, usize), usize> = BTreeMap::new();
    for holders in holders.into_values() {
        // Of many, neighbours are enough: a family goes on from each to the next.
        let reach = if holders.len() > HOLDERS_MAX { 1 } else { HOLDERS_MAX };
        for (at, &holder) in holders.iter().enumerate() {
            for &other in holders[at + 1..].iter().take(reach) {
                *shared.entry((holder, other)).or_default() += 1;
            }
        }
    }
    for ((a, b), count) in shared {
        let is_one = count as f64 >= SHARED_MIN * sizes[a].min(sizes[b]) as f64;
        if is_one && families[a] != families[b] {
            let (kept, gone) = (families[a].clone(), families[b].clone());
            families.iter_mut().filter(|it| **it == gone).for_each(|it| it.clone_from(&kept));
        }
    }
    Ok(families)
}

/// The different images of a task, as far as they are known and can be read.
fn image_hashes(store: &Store, task: &TaskRecord) -> Result<BTreeSet<[u8; 32]>> {
    let Some(id) = task.sample.as_ref().and_then(|sample| sample.image_hashes) else {
        return Ok(BTreeSet::new());
    };
    match store.tensor(id) {
        Ok(hashes) => Ok(hashes.bytes().as_chunks().0.iter().copied().collect()),
        Err(tans_storage::Error::Corrupt { .. }) => Ok(BTreeSet::new()),
        Err(error) => Err(error.into()),
    }
}

/// Names of the tasks and models of a training set.
#[derive(Default)]
pub struct Names {
    tasks: HashMap<String, usize>,
    models: HashMap<String, usize>,
}

impl Names {
    /// Index of a task.
    pub fn task(&self, name: &str) -> Result<usize> {
        let unknown =
            || Error::input(format!("no task is named {name:?}; `tans task list` shows the names"));
        self.tasks.get(name).copied().ok_or_else(unknown)
    }

    /// Index of a model.
    pub fn model(&self, name: &str) -> Result<usize> {
        let unknown =
            || Error::input(format!("no model is named {name:?}; `tans list` shows the names"));
        self.models.get(name).copied().ok_or_else(unknown)
    }
}
