//! Everything in the zoo that encoders can learn from.

use super::embed::evidence_kind;
use super::{benchmark, bundle, family, readable_sample, stored_signature, task_sample};
use crate::encoder::TaskSample;
use crate::train::{TrainingModel, TrainingPair, TrainingSet, TrainingTask};
use crate::{Error, Result};
use std::collections::HashMap;
use std::io::Cursor;
use std::path::Path;
use tans_storage::{Store, TaskId, TaskRecord};

/// Reads tasks, models and the latest pairs.
pub fn load(store: &Store) -> Result<TrainingSet> {
    load_with(store, &|task| task_sample(store, task))
}

/// As `load`, for a store whose tensors are damaged: rows that cannot be read are those that every build carries, or none.
pub fn load_readable(store: &Store) -> Result<TrainingSet> {
    let carried = bundle::samples(Cursor::new(benchmark::TASKS), Path::new(benchmark::PREFIX))?;
    load_with(store, &|task| {
        Ok(readable_sample(store, task)?.or_else(|| carried.get(&task.id).cloned()))
    })
}

type Sampled<'a> = &'a dyn Fn(&TaskRecord) -> Result<Option<TaskSample>>;

fn load_with(store: &Store, sample_of: Sampled<'_>) -> Result<TrainingSet> {
    let mut set = TrainingSet::default();
    let mut task_index: HashMap<TaskId, usize> = HashMap::new();
    for task in store.tasks()? {
        task_index.insert(task.id, set.tasks.len());
        set.tasks.push(TrainingTask {
            id: task.id.0,
            family: family(&task),
            sample: sample_of(&task)?,
            prior: benchmark::prior(&task.name)
                .filter(|_| task.benchmark)
                .map(|prior| (prior.mean, prior.sd)),
        });
    }
    let mut model_index: HashMap<u64, usize> = HashMap::new();
    for model in store.models()? {
        let model = model?;
        model_index.insert(model.row, set.models.len());
        let numbers = model.architecture.map_or_else(Vec::new, |space| space.numbers);
        set.models.push(TrainingModel {
            numbers,
            topology: model.topology,
            signature: stored_signature(store, model.row)?,
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
    Ok(set)
}

/// Names of the tasks and models of a training set.
pub struct Names {
    tasks: HashMap<String, usize>,
    models: HashMap<String, usize>,
}

impl Names {
    /// In the order of `load`.
    pub fn load(store: &Store) -> Result<Self> {
        let tasks = store.tasks()?.into_iter().enumerate();
        let mut models = HashMap::new();
        for (index, model) in store.models()?.enumerate() {
            models.insert(model?.name, index);
        }
        Ok(Self { tasks: tasks.map(|(index, task)| (task.name, index)).collect(), models })
    }

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
