//! How good is the first pick on tasks that nothing was learned from?

use crate::state::State;
use crate::steps::embed::evidence_kind;
use crate::steps::table::{self, Table};
use crate::steps::{results, training_set};
use crate::train::evaluate::records::{Records, Stated, StatedModel};
use crate::train::evaluate::{self, Contestant, Estimates, Evaluation, Protocol, Scores};
use crate::train::{FitOptions, Recipe};
use crate::{Error, Observer, Progress, Result};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Instant;
use tans_storage::PairKind;

/// Options of `evaluate`.
#[derive(Clone, Debug)]
pub struct EvaluateOptions {
    /// Folds over families; `None` holds out one family at a time.
    pub folds: Option<usize>,
    /// A CSV file of what each network's probe says of each task from its training part (columns `task`, `model`,
    /// `loo`, `logme`, and perhaps `held_out`, its accuracy on the test part, and `seconds`): it adds the rows for
    /// LogME and the probe of the whole zoo, and for the default recipe with some probes.
    pub scores: Option<PathBuf>,
    /// Leave nothing else out than one dataset at a time of this CSV file of results (columns `model`, `dataset`,
    /// `accuracy`, and as far as known `params`, `architecture`, `source_dataset` and `logme`); nothing of the zoo
    /// itself takes part.
    pub records: Option<PathBuf>,
    /// Judge candidates by their results of this kind alone; `None` for the first of probe, finetune, reported that
    /// three candidates have. With `scores`, results of another kind than `Probe` ignore `held_out`.
    pub judge: Option<PairKind>,
    /// Rank models with at most so many parameters only; the others are learned from all the same.
    pub params_max: Option<u64>,
    /// Add rows for networks of which nothing was measured, or little. Default true.
    pub cold: bool,
    /// Leave the libtorch recipes out.
    pub closed_form_only: bool,
    /// Add a row for `listwise` unless the libtorch recipes are left out. Default false.
    pub listwise: bool,
    /// Epochs of the libtorch recipes.
    pub epochs: usize,
    /// Seed.
    pub seed: u64,
}

impl Default for EvaluateOptions {
    fn default() -> Self {
        let FitOptions { epochs, seed, .. } = FitOptions::default();
        let (folds, scores, records) = (None, None, None);
        Self {
            folds,
            scores,
            records,
            judge: None,
            params_max: None,
            cold: true,
            closed_form_only: cfg!(not(feature = "torch")),
            listwise: false,
            epochs,
            seed,
        }
    }
}

pub(crate) fn run(
    state: &State,
    options: &EvaluateOptions,
    observer: Observer<'_>,
) -> Result<Evaluation> {
    if let Some(folds @ 0..2) = options.folds {
        return Err(Error::input(format!(
            "folds: expected at least 2, so that something is left to learn from, found {folds}"
        )));
    }
    let mut progress = |done, total| {
        observer(Progress { step: "held-out tasks", item: String::new(), done, total })
    };
    if let Some(path) = &options.records {
        return results_alone(path, options, &mut progress);
    }
    state.refresh()?;
    let (set, names) = training_set::load_named(&state.store)?;
    let mut scores = options.scores.as_deref().map(|path| scores(&names, path)).transpose()?;
    if options.judge.is_some_and(|kind| kind != PairKind::Probe) {
        // Those are accuracies of probes.
        scores.iter_mut().flat_map(Scores::values_mut).for_each(|one| one.held_out = None);
    }
    let default =
        FitOptions { epochs: options.epochs, seed: options.seed, ..FitOptions::default() };
    let mut contestants = vec![Contestant::new(default)];
    if !options.closed_form_only {
        let listwise = options.listwise.then_some(Recipe::Listwise);
        let recipes = [Recipe::Tans2021].into_iter().chain(listwise);
        contestants.extend(recipes.map(|recipe| Contestant::new(FitOptions { recipe, ..default })));
    }
    let protocol = Protocol {
        folds: options.folds,
        scores: scores.as_ref(),
        judge: options.judge.map(evidence_kind),
        params_max: options.params_max,
        cold: options.cold,
        memory: None,
        clock,
    };
    let evaluation = evaluate::leave_tasks_out(&set, &contestants, &protocol, &mut progress)?;
    answered(
        evaluation,
        match options.judge {
            Some(PairKind::Finetune) => {
                "expected tasks with at least three fine-tuned results each, found none: `tans measure ZOO --all DATASET --by finetune` makes them, `tans record` takes those of elsewhere (column kind)"
            }
            Some(PairKind::Reported) => {
                "expected tasks with at least three reported results each, found none: `tans record` takes them"
            }
            Some(PairKind::Probe) | None => {
                "expected tasks with at least three measured models each, found none: measure models first (`tans measure ZOO --all DATASET`)"
            }
        },
    )
}

fn results_alone(
    path: &Path,
    options: &EvaluateOptions,
    progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Evaluation> {
    let others = options.scores.is_some()
        || options.judge.is_some()
        || options.params_max.is_some()
        || options.folds.is_some()
        || options.listwise;
    if others {
        return Err(Error::input(
            "results alone are judged one dataset at a time: expected records without scores, judge, max_params, folds and \
             listwise",
        ));
    }
    let records = records(path)?;
    if records.datasets < 2 {
        return Err(Error::input(format!(
            "{}: expected results on at least two datasets, so that something is left to learn from, found one",
            path.display()
        )));
    }
    let evaluation = evaluate::records::leave_datasets_out(&records, options.seed, progress)?;
    answered(evaluation, "expected datasets with at least three models each, found none")
}

fn answered(evaluation: Evaluation, otherwise: &str) -> Result<Evaluation> {
    if evaluation.tasks.is_empty() { Err(Error::input(otherwise)) } else { Ok(evaluation) }
}

/// Milliseconds since the first call.
pub(crate) fn clock() -> f64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_secs_f64() * 1e3
}

/// Reads a file of estimates; its indices are those of the training set.
fn scores(names: &training_set::Names, path: &Path) -> Result<Scores> {
    let table = Table::read(path)?;
    let [task, model, loo, logme] =
        table.columns([&["task", "dataset"], &["model"], &["loo"], &["logme"]])?;
    let (held_out, seconds) = (table.column(&["held_out"])?, table.column(&["seconds"])?);
    let rows = table.map(|record| {
        let place = (names.task(&record[task])?, names.model(&record[model])?);
        let optional = |column: Option<usize>, name| {
            let text = column.map(|column| &record[column]).filter(|text| !text.is_empty());
            text.map(|text| table::number(text, name)).transpose()
        };
        let estimates = Estimates {
            loo: table::number(&record[loo], "loo")?,
            logme: table::number(&record[logme], "logme")?,
            held_out: optional(held_out, "held_out")?,
            seconds: optional(seconds, "seconds")?,
        };
        let accuracies = [("loo", Some(estimates.loo)), ("held_out", estimates.held_out)];
        for (name, found) in accuracies.into_iter().filter_map(|(name, it)| Some((name, it?))) {
            results::check_accuracy(name, found)?;
        }
        Ok((place, estimates))
    })?;
    Ok(rows.into_iter().collect())
}

/// Reads a file of results; the last one of each model and dataset counts. A model that was trained on a dataset before
/// is none that could be found for it.
fn records(path: &Path) -> Result<Records> {
    let table = Table::read(path)?;
    let [model, dataset, accuracy] =
        table.columns([&["model"], &["dataset", "task"], &["accuracy"]])?;
    let (params, logme) = (table.column(&["params"])?, table.column(&["logme"])?);
    let source = table.column(&["source_dataset"])?;
    let words = [table.column(&["architecture"])?, source];
    let lines = table.map(|record| {
        let field = |column: Option<usize>| column.map_or("", |column| &record[column]);
        let accuracy = table::number(&record[accuracy], "accuracy")?;
        results::check_accuracy("accuracy", accuracy)?;
        let params = match field(params) {
            "" => None,
            text => Some(crate::parse_count(text)? as f32),
        };
        let logme = match field(logme) {
            "" => None,
            text => Some(table::number(text, "logme")?),
        };
        let words = words.map(|column| field(column).to_owned()).to_vec();
        let names = (record[model].to_owned(), record[dataset].to_owned());
        let is_own = field(source).eq_ignore_ascii_case(&names.1);
        Ok((!is_own).then_some((names, StatedModel { params, words }, accuracy, logme)))
    })?;
    let (mut models, mut datasets) = (BTreeMap::new(), BTreeMap::new());
    let (mut out, mut results) = (Records::default(), BTreeMap::new());
    for ((model, dataset), stated, accuracy, logme) in lines.into_iter().flatten() {
        let model = *models.entry(model).or_insert_with(|| {
            out.models.push(stated);
            out.models.len() - 1
        });
        let count = datasets.len();
        let dataset = *datasets.entry(dataset).or_insert(count);
        results.insert((dataset, model), Stated { model, dataset, accuracy, logme });
    }
    out.datasets = datasets.len();
    out.results = results.into_values().collect();
    Ok(out)
}
