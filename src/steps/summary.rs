//! How models are shown in lists and answers.

use super::dataset::hex;
use crate::{Result, state};
use serde::Serialize;
use std::collections::BTreeMap;
use tans_storage::{ModelRecord, Store, TaskId};

/// A model in short.
#[derive(Clone, Debug, Serialize)]
pub struct ModelSummary {
    /// Name.
    pub model: String,
    /// Content address.
    pub id: String,
    /// Parameters; `None` where unknown.
    pub params: Option<u64>,
    /// Multiply-accumulate operations of one sample; `None` where unknown.
    pub macs: Option<u64>,
    /// SPDX expression.
    pub license: Option<String>,
    /// Labels.
    pub tags: BTreeMap<String, String>,
    /// Names of the tasks it was trained on.
    pub source_tasks: Vec<String>,
    /// `stored`, `reference`, or the reason why it cannot be run.
    pub status: String,
}

/// One known result.
#[derive(Clone, Debug, Serialize)]
pub struct KnownResult {
    /// Name of the task.
    pub task: String,
    /// `probe`, `finetune` or `reported`.
    pub kind: &'static str,
    /// 0..=1.
    pub accuracy: f32,
}

/// Known results of a model, best first; only those on `task` if one is named.
pub fn known_results(store: &Store, row: u64, task: Option<TaskId>) -> Result<Vec<KnownResult>> {
    let mut results = Vec::new();
    for pair in store.pairs_of_model(row)? {
        if task.is_some_and(|task| task != pair.task) {
            continue;
        }
        for task in task_names(store, &[pair.task])? {
            let kind = pair.kind.name();
            results.push(KnownResult { task, kind, accuracy: pair.accuracy });
        }
    }
    results.sort_by(|a, b| b.accuracy.total_cmp(&a.accuracy));
    Ok(results)
}

/// Names of tasks; one that was removed meanwhile is shown by the beginning of its id.
pub fn task_names(store: &Store, tasks: &[TaskId]) -> Result<Vec<String>> {
    let mut names = Vec::with_capacity(tasks.len());
    for &id in tasks {
        names.push(store.task(id)?.map_or_else(|| removed(id), |task| task.name));
    }
    Ok(names)
}

fn removed(id: TaskId) -> String {
    format!("removed task {}", hex(&id.0))
}

/// `stored`, `reference`, or the reason why it cannot be run.
pub fn status(model: &ModelRecord) -> String {
    match (&model.graph, &model.not_runnable) {
        // A missing operator says so itself.
        (_, Some(reason)) if reason.starts_with("not runnable") => reason.clone(),
        (_, Some(reason)) => format!("not runnable: {reason}"),
        (None, None) => "reference".to_owned(),
        (Some(_), None) => "stored".to_owned(),
    }
}

/// Whether its network lies here and can be run.
pub fn is_runnable(model: &ModelRecord) -> bool {
    model.graph.is_some() && model.not_runnable.is_none()
}

/// The summary of a record.
pub fn summary(store: &Store, model: ModelRecord) -> Result<ModelSummary> {
    let source_tasks = task_names(store, &model.seen)?;
    let cost = state::attributes(&model);
    let status = status(&model);
    Ok(ModelSummary {
        model: model.name,
        id: model.id.to_string(),
        params: cost.params,
        macs: cost.macs,
        license: model.license,
        tags: model.tags,
        source_tasks,
        status,
    })
}
