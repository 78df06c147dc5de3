//! Results that were made elsewhere.

use crate::state::State;
use crate::steps::results::{self, NewReference};
use crate::{Error, Observer, Result};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use tans_storage::{PairKind, TaskId};

/// What `record` did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RecordReport {
    /// Results recorded.
    pub pairs: usize,
    /// Models that became references.
    pub new_models: usize,
    /// Tasks that became references.
    pub new_tasks: usize,
}

/// One result.
pub(crate) struct Reported {
    model: String,
    task: String,
    accuracy: f32,
    params: Option<u64>,
}

/// Records one result; unknown names become references.
pub(crate) fn one(state: &State, model: &str, task: &str, accuracy: f32) -> Result<RecordReport> {
    check_accuracy(accuracy, "accuracy")?;
    let reported =
        Reported { model: model.to_owned(), task: task.to_owned(), accuracy, params: None };
    all(state, &[reported], &mut crate::unobserved)
}

fn check_accuracy(accuracy: f32, place: &str) -> Result<()> {
    if (0.0..=1.0).contains(&accuracy) {
        return Ok(());
    }
    Err(Error::input(format!("{place}: expected an accuracy in 0..1, found {accuracy}")))
}

/// Records a CSV file with columns `model`, `dataset` (or `task`), `accuracy` and perhaps `params`.
///
/// The whole file is checked before anything is recorded.
pub(crate) fn file(state: &State, path: &Path, observer: Observer<'_>) -> Result<RecordReport> {
    let text =
        std::fs::read_to_string(path).map_err(|error| Error::file("cannot read", path, error))?;
    let reported = parse(&text, path)?;
    all(state, &reported, observer)
}

fn parse(text: &str, path: &Path) -> Result<Vec<Reported>> {
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let header = lines.next().map_or("", |(_, line)| line);
    let names: Vec<&str> =
        header.trim_start_matches('\u{feff}').split(',').map(str::trim).collect();
    let column = |wanted: &[&str]| names.iter().position(|name| wanted.contains(name));
    let (Some(model), Some(task), Some(accuracy)) =
        (column(&["model"]), column(&["dataset", "task"]), column(&["accuracy"]))
    else {
        return Err(Error::input(format!(
            "{}: expected a first line with the columns model, dataset, accuracy, found {header:?}",
            path.display()
        )));
    };
    let params = column(&["params"]);
    let mut reported = Vec::new();
    for (index, line) in lines {
        let place = format!("{}:{}", path.display(), index + 1);
        let fields = split_fields(line);
        if fields.len() != names.len() {
            return Err(Error::input(format!(
                "{place}: expected {} fields, found {}",
                names.len(),
                fields.len()
            )));
        }
        let value: f32 = fields[accuracy].trim().parse().map_err(|_| {
            Error::input(format!("{place}: expected an accuracy, found {:?}", fields[accuracy]))
        })?;
        check_accuracy(value, &place)?;
        reported.push(Reported {
            model: fields[model].trim().to_owned(),
            task: fields[task].trim().to_owned(),
            accuracy: value,
            params: params.and_then(|column| fields[column].trim().parse().ok()),
        });
    }
    Ok(reported)
}

/// Fields of a CSV line; a quoted field may hold commas and doubled quotes (RFC 4180, no line breaks).
fn split_fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                fields.last_mut().expect("never empty").push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            other => fields.last_mut().expect("never empty").push(other),
        }
    }
    fields
}

fn all(state: &State, reported: &[Reported], observer: Observer<'_>) -> Result<RecordReport> {
    let mut report = RecordReport::default();
    let mut tasks: BTreeMap<&str, TaskId> = BTreeMap::new();
    let mut models: BTreeMap<&str, Vec<&Reported>> = BTreeMap::new();
    for result in reported {
        if !tasks.contains_key(result.task.as_str()) {
            let (task, is_new) = results::task(state, &result.task)?;
            if is_new {
                results::commit_task(state, &task)?;
                report.new_tasks += 1;
            }
            tasks.insert(&result.task, task.id);
        }
        models.entry(&result.model).or_default().push(result);
    }
    let total = models.len();
    for (done, (name, of_model)) in models.into_iter().enumerate() {
        crate::progress::report(&mut *observer, "recording", name, done, total)?;
        let known: Vec<_> = of_model
            .iter()
            .map(|result| (tasks[result.task.as_str()], PairKind::Reported, result.accuracy))
            .collect();
        report.pairs += known.len();
        match state.store.model_by_name(name)? {
            Some(model) => results::record_results(state, &model, &known)?,
            None => {
                report.new_models += 1;
                let params = of_model.iter().find_map(|result| result.params);
                let (name, uri) = (name.to_owned(), name.to_owned());
                let new = NewReference { name, uri, results: known, params, ..Default::default() };
                results::model(state, new)?;
            }
        }
    }
    Ok(report)
}
