//! Results that were made elsewhere.

use crate::options::parse_count;
use crate::state::{Ordered, State};
use crate::steps::admit_name;
use crate::steps::results::{self, Addition, NewReference, Subject, Tasks};
use crate::steps::table::Table;
use crate::{Error, Observer, Result};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use tans_storage::{ModelRecord, PairKind, TaskId, TaskRecord};

/// What `record` did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RecordReport {
    /// Results recorded.
    pub pairs: usize,
    /// Those of them that take the place of another accuracy of the same model, task and kind.
    pub replaced: usize,
    /// Models that became references.
    pub new_models: usize,
    /// Tasks that became references.
    pub new_tasks: usize,
    /// Columns of the file that were not read.
    pub ignored_columns: Vec<String>,
}

/// One result.
struct Reported {
    model: String,
    task: String,
    kind: PairKind,
    accuracy: f32,
    params: Option<u64>,
}

/// Records one result; unknown names become references.
pub(crate) fn one(state: &State, model: &str, task: &str, accuracy: f32) -> Result<RecordReport> {
    admit_name::check("model", model)?;
    results::check_accuracy("accuracy", accuracy)?;
    let (model, task) = (model.to_owned(), bare(task).to_owned());
    let reported = Reported { model, task, kind: PairKind::Reported, accuracy, params: None };
    all(state, &[reported], &mut crate::unobserved)
}

/// A task's name, also where it is written as a dataset is.
fn bare(task: &str) -> &str {
    task.strip_prefix("task:").unwrap_or(task)
}

/// Columns of a file of results.
const COLUMNS: [&str; 6] = ["model", "dataset", "task", "accuracy", "kind", "params"];

/// Records a CSV file with columns `model`, `dataset` (or `task`), `accuracy` and perhaps `kind` (`probe`, `finetune` or
/// `reported`, which is meant where it is empty) and `params`, the parameters of models that become references (such as
/// 5000000 or 5M).
///
/// Other columns are ignored, and named. The whole file is checked before anything is recorded, and recorded by one commit.
pub(crate) fn file(state: &State, path: &Path, observer: Observer<'_>) -> Result<RecordReport> {
    let table = Table::read(path)?;
    let report = all(state, &parse(&table)?, observer)?;
    Ok(RecordReport { ignored_columns: table.others(&COLUMNS), ..report })
}

fn parse(table: &Table) -> Result<Vec<Reported>> {
    let [model, task, accuracy] =
        table.columns([&["model"], &["dataset", "task"], &["accuracy"]])?;
    let (kind, params) = (table.column(&["kind"])?, table.column(&["params"])?);
    let reported = table.map(|record| {
        let (model, task) = (&record[model], bare(&record[task]));
        admit_name::check("model", model)?;
        admit_name::check("task", task)?;
        let text = &record[accuracy];
        let accuracy = text
            .parse()
            .map_err(|_| Error::input(format!("expected an accuracy in 0..1, found {text:?}")))?;
        results::check_accuracy("accuracy", accuracy)?;
        let params = params.map(|column| &record[column]).filter(|text| !text.is_empty());
        Ok(Reported {
            model: model.to_owned(),
            task: task.to_owned(),
            kind: match kind.map_or("", |column| &record[column]) {
                "" => PairKind::Reported,
                text => text.parse()?,
            },
            accuracy,
            params: params.map(parse_count).transpose()?,
        })
    })?;
    refuse_contradictions(table, &reported)?;
    Ok(reported)
}

/// One result may be repeated, but not with another accuracy: nothing says which of them counts.
fn refuse_contradictions(table: &Table, reported: &[Reported]) -> Result<()> {
    let mut first: HashMap<(&str, &str, PairKind), usize> = HashMap::new();
    for (at, result) in reported.iter().enumerate() {
        let Reported { model, task, kind, accuracy, params: _ } = result;
        let earlier = *first.entry((model, task, *kind)).or_insert(at);
        let known = reported[earlier].accuracy;
        if known != *accuracy {
            return Err(Error::input(format!(
                "{}: {model} on {task}: expected {known} as in {}, found {accuracy}: leave one of the lines out",
                table.place(at),
                table.place(earlier)
            )));
        }
    }
    Ok(())
}

/// What is reported of one model.
#[derive(Default)]
struct OfModel {
    results: BTreeMap<(TaskId, PairKind), f32>,
    params: Option<u64>,
}

/// The tasks of the results by name, and those of them that are new.
fn tasks(
    state: &State,
    reported: &[Reported],
) -> Result<(BTreeMap<String, TaskId>, Vec<TaskRecord>)> {
    let mut ids = BTreeMap::new();
    let mut new = Vec::new();
    for result in reported {
        if !ids.contains_key(&result.task) {
            let (task, is_new) = results::task(state, &result.task)?;
            ids.insert(result.task.clone(), task.id);
            new.extend(is_new.then_some(task));
        }
    }
    Ok((ids, new))
}

fn by_model<'a>(
    reported: &'a [Reported],
    tasks: &BTreeMap<String, TaskId>,
) -> Result<BTreeMap<&'a str, OfModel>> {
    let mut models: BTreeMap<&str, OfModel> = BTreeMap::new();
    for result in reported {
        let of_model = models.entry(&result.model).or_default();
        of_model.results.insert((tasks[&result.task], result.kind), result.accuracy);
        match (of_model.params, result.params) {
            (Some(first), Some(other)) if first != other => {
                return Err(Error::input(format!(
                    "params of {}: expected the same in every line, found {first} and {other}",
                    result.model
                )));
            }
            (first, other) => of_model.params = first.or(other),
        }
    }
    Ok(models)
}

fn all(state: &State, reported: &[Reported], observer: Observer<'_>) -> Result<RecordReport> {
    state.commit(|ordered| apply(state, ordered, reported, observer))
}

/// Names are looked up in the operation's turn: one that is unknown must still be so when it becomes a reference.
fn apply(
    state: &State,
    ordered: &Ordered<'_>,
    reported: &[Reported],
    observer: Observer<'_>,
) -> Result<RecordReport> {
    let (task_ids, new_tasks) = tasks(state, reported)?;
    let models = by_model(reported, &task_ids)?;
    let (total, mut additions) = (models.len(), Vec::<Addition>::with_capacity(models.len()));
    let mut replaced = 0;
    let mut places: HashMap<u64, usize> = HashMap::new();
    for (done, (name, of_model)) in models.into_iter().enumerate() {
        crate::progress::report(&mut *observer, "recording", name, done, total)?;
        let addition = addition(state, name, of_model)?;
        if let Subject::Stored(row) = addition.subject {
            let results = &addition.results;
            replaced += results::differences(&state.store, row, results, results)?.len();
            // A reference that was renamed can be meant by two names; a commit names it once.
            if let Some(&place) = places.get(&row) {
                additions[place].results.extend(addition.results);
                continue;
            }
            places.insert(row, additions.len());
        }
        additions.push(addition);
    }
    let is_new = |addition: &&Addition| matches!(addition.subject, Subject::New(..));
    let report = RecordReport {
        pairs: additions.iter().map(|addition| addition.results.len()).sum(),
        replaced,
        new_models: additions.iter().filter(is_new).count(),
        new_tasks: new_tasks.len(),
        ignored_columns: Vec::new(),
    };
    let tasks = Tasks { new: &new_tasks, ..Tasks::default() };
    results::apply(state, ordered, &tasks, additions)?;
    Ok(report)
}

/// Of a network the parameters were counted, so that what others say of them does not matter.
fn refuse_other_params(model: &ModelRecord, stated: Option<u64>) -> Result<()> {
    let known = model.cost.params;
    match stated {
        Some(stated) if model.graph.is_none() && known != 0 && stated != known => {
            Err(Error::input(format!(
                "params of {}: expected {known}, as the reference has, found {stated}: mend the file, or remove the model first",
                model.name
            )))
        }
        _ => Ok(()),
    }
}

fn addition(state: &State, name: &str, of_model: OfModel) -> Result<Addition> {
    let OfModel { results, params } = of_model;
    let results: Vec<_> =
        results.into_iter().map(|((task, kind), accuracy)| (task, kind, accuracy)).collect();
    if let Some(model) = state.store.model_by_name(name)? {
        refuse_other_params(&model, params)?;
        let subject = Subject::Stored(model.row);
        return Ok(Addition { subject, seen: Vec::new(), results });
    }
    let (name, uri) = (name.to_owned(), name.to_owned());
    let new = NewReference { name, uri, results, params, ..NewReference::default() };
    results::reference(&state.store, new)
}
