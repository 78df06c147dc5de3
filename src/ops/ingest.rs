//! Takes trained networks into a zoo: one file, a folder, a manifest, or a generated one.

mod sources;

use crate::error::ErrorKind;
use crate::graph::exec::device::ThreadShare;
use crate::graph::formats::Limits;
use crate::graph::head::find_head;
use crate::graph::input::InputHints;
use crate::graph::spaces;
use crate::state::{self, Ordered, State};
use crate::steps::admit::{self, Admitted, Bench, NewModel, NewNetwork};
use crate::steps::admit_name;
use crate::steps::benchmark::Benchmark;
use crate::steps::bundle;
use crate::steps::embed::Known;
use crate::steps::network_source::{self, Reading};
use crate::steps::parallel;
use crate::steps::results::{self, Addition, Difference, NewReference, Subject, Tasks};
use crate::{Error, Observer, Result};
use serde::Serialize;
use sources::{Line, Network, Origin, Reference, Wanted};
use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;
use std::path::Path;
use tans_storage::{Architecture, ModelRecord, PairKind, TaskId, TaskRecord};

/// Options of `ingest`; with a manifest they are the defaults of its lines (input hints: of its files).
#[derive(Clone, Debug)]
pub struct IngestOptions {
    /// Name of the model; the file name without suffix where none is given.
    pub name: Option<String>,
    /// Task that the network was trained on; unknown names become references.
    pub task: Option<String>,
    /// Accuracy on that task, 0..=1.
    pub accuracy: Option<f32>,
    /// SPDX expression.
    pub license: Option<String>,
    /// Labels.
    pub tags: BTreeMap<String, String>,
    /// What is known of its input; a generated network brings its own.
    pub input: InputHints,
    /// Architecture of a file that holds weights alone, as `SPACE:CONFIG[@SIDE]`, such as `resnet:18`.
    pub space: Option<String>,
    /// Benchmark tasks to measure it on.
    pub benchmark: Benchmark,
    /// What a file may make us allocate; of several files side by side, each.
    pub limits: Limits,
    /// Networks of a folder or manifest that are read, measured and stored side by side, at least 1; no more are than this
    /// process has threads, which they share until the last is done. With more than one, references come first and networks in the
    /// order in which they are done (of two that are equal the first gives its name), and latencies are left to
    /// `reindex`. Default 1.
    pub jobs: usize,
}

impl Default for IngestOptions {
    fn default() -> Self {
        Self {
            name: None,
            task: None,
            accuracy: None,
            license: None,
            tags: BTreeMap::new(),
            input: InputHints::default(),
            space: None,
            benchmark: Benchmark::default(),
            limits: Limits::default(),
            jobs: 1,
        }
    }
}

/// What became of one network.
#[derive(Clone, Debug, Serialize)]
pub struct Ingested {
    /// File, URI, specification, or line of a manifest that it came from.
    pub source: String,
    /// Name in the zoo; `None` if it was refused.
    pub model: Option<String>,
    /// `stored`, `already stored` or `refused`.
    pub status: &'static str,
    /// Why it was refused, why it cannot be run, or what was left as it is.
    pub note: Option<String>,
    /// Parameters; `None` where unknown.
    pub params: Option<u64>,
    /// Multiply-accumulate operations of one sample; `None` where unknown.
    pub macs: Option<u64>,
}

impl Ingested {
    /// The line of what was refused; errors of files name them, and so does the line.
    pub fn refused(source: String, error: &Error) -> Self {
        let reason = error.to_string();
        let bare = reason.strip_prefix(&format!("{source}: ")).unwrap_or(&reason).to_owned();
        Self { source, model: None, status: "refused", note: Some(bare), params: None, macs: None }
    }
}

/// Called with each network as soon as it is stored or refused; `Break` asks to stop.
pub type Reporter<'a> = &'a mut dyn FnMut(Ingested) -> ControlFlow<()>;

/// Stores each network by its own commit, references by the hundred, and reports each at once. With several networks,
/// one that is refused does not stop the others.
///
/// # Errors
/// For a single network, the reason why it was refused; a zoo, disk or device that fails.
pub(crate) fn run(
    state: &State,
    source: &str,
    options: &IngestOptions,
    report: Reporter<'_>,
    observer: Observer<'_>,
) -> Result<()> {
    state.require_writer()?;
    sources::check_result(options)?;
    if options.jobs == 0 {
        return Err(Error::input("jobs: expected at least 1, found 0"));
    }
    let Some(many) = sources::several(source, options)? else {
        let wanted = sources::single(source, options)?;
        let bench = Bench::load(state)?;
        return tell(report, network(state, &bench, source.to_owned(), wanted, observer)?);
    };
    let bench = Bench::load(state)?;
    let (total, mut done) = (many.len(), 0);
    let (first, rest): (Vec<Batch>, Vec<Batch>) = batches(many)
        .into_iter()
        .partition(|batch| options.jobs == 1 || matches!(batch, Batch::References(_)));
    for batch in first {
        crate::progress::report(&mut *observer, "ingesting", batch.shown(), done, total)?;
        for ingested in store(state, &bench, batch, &mut *observer)? {
            done += 1;
            tell(&mut *report, ingested)?;
        }
    }
    if rest.is_empty() {
        return Ok(());
    }
    let threads = ThreadShare::new(options.jobs.min(rest.len()))?;
    let work = |batch, observer: Observer<'_>| store(state, &bench, batch, observer);
    let mut each = |ingested: Option<Vec<Ingested>>| {
        for ingested in ingested.into_iter().flatten() {
            done += 1;
            tell(&mut *report, ingested)?;
        }
        crate::progress::report(&mut *observer, "ingesting", "", done, total)
    };
    parallel::for_each(rest, threads.jobs(), work, &mut each)
}

fn tell(report: Reporter<'_>, ingested: Ingested) -> Result<()> {
    match report(ingested) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::Cancelled),
    }
}

/// References are records alone, so that many of them share a commit.
const REFERENCES_MAX: usize = 500;

/// What one commit stores.
enum Batch {
    Network(String, Network),
    /// No two share a URI or a name.
    References(Vec<(String, Reference)>),
    Refused(String, Error),
}

impl Batch {
    /// What to call it while it is worked on.
    fn shown(&self) -> &str {
        match self {
            Self::Network(shown, _) | Self::Refused(shown, _) => shown,
            Self::References(all) => all.first().map_or("", |(shown, _)| shown),
        }
    }
}

/// References that follow each other go together.
fn batches(many: Vec<Line>) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    let mut taken: HashSet<String> = HashSet::new();
    for (shown, wanted) in many {
        match wanted {
            Err(error) => batches.push(Batch::Refused(shown, error)),
            Ok(Wanted::Network(network)) => batches.push(Batch::Network(shown, network)),
            Ok(Wanted::Reference(reference)) => {
                let name = reference.options.name.clone();
                let words: HashSet<String> =
                    name.into_iter().chain([reference.uri.clone()]).collect();
                match batches.last_mut() {
                    Some(Batch::References(last))
                        if last.len() < REFERENCES_MAX && taken.is_disjoint(&words) =>
                    {
                        last.push((shown, reference));
                        taken.extend(words);
                    }
                    _ => {
                        batches.push(Batch::References(vec![(shown, reference)]));
                        taken = words;
                    }
                }
            }
        }
    }
    batches
}

/// One line for each network or reference.
fn store(
    state: &State,
    bench: &Bench,
    batch: Batch,
    observer: Observer<'_>,
) -> Result<Vec<Ingested>> {
    match batch {
        Batch::Refused(shown, error) => Ok(vec![or_refused(shown, Err(error))?]),
        Batch::Network(shown, wanted) => {
            let stored = network(state, bench, shown.clone(), wanted, observer);
            Ok(vec![or_refused(shown, stored)?])
        }
        Batch::References(all) => references(state, all),
    }
}

fn network(
    state: &State,
    bench: &Bench,
    shown: String,
    Network { origin, options }: Network,
    observer: Observer<'_>,
) -> Result<Ingested> {
    match origin {
        Origin::File(path) => {
            let (stored, notes) = file(state, bench, &path, &options, observer)?;
            let mut line = ingested(shown, stored, &options, None);
            line.note = notes.into_iter().chain(line.note).reduce(|a, b| format!("{a}; {b}"));
            Ok(line)
        }
        Origin::Generated(spec) => {
            let stored = generated(state, bench, &spec, &options, observer)?;
            Ok(ingested(shown, stored, &options, None))
        }
    }
}

/// The line of what is stored; `stated` are the parameters that a reference came with.
fn ingested(
    source: String,
    stored: Admitted,
    options: &IngestOptions,
    stated: Option<u64>,
) -> Ingested {
    let Admitted { record, is_known, differences } = stored;
    let attributes = state::attributes(&record);
    let other_params = stated.is_some() && stated != attributes.params;
    let kept = is_known.then(|| kept(&record, options, other_params)).flatten();
    let task = options.task.as_deref().unwrap_or_default();
    let changed = differences.iter().map(|it| changed(task, it));
    let notes: Vec<String> = record.not_runnable.into_iter().chain(changed).chain(kept).collect();
    Ingested {
        source,
        model: Some(record.name),
        status: if is_known { "already stored" } else { "stored" },
        note: (!notes.is_empty()).then(|| notes.join("; ")),
        params: attributes.params,
        macs: attributes.macs,
    }
}

/// What became of a stored model's result.
fn changed(task: &str, difference: &Difference) -> String {
    let Difference { stated, stored, is_news } = difference;
    match is_news {
        true => format!("accuracy on {task}: {stored:.3} before, {stated:.3} now"),
        false => format!(
            "accuracy on {task}: stays {stored:.3}, for {stated:.3} is older; `tans record` records it again"
        ),
    }
}

/// What was asked for and is not done to a model that is stored already.
fn kept(record: &ModelRecord, options: &IngestOptions, other_params: bool) -> Option<String> {
    let differs = [
        ("name", options.name.as_ref().is_some_and(|name| *name != record.name)),
        ("license", options.license.is_some() && options.license != record.license),
        ("params", other_params),
        ("tags", options.tags.iter().any(|(key, value)| record.tags.get(key) != Some(value))),
    ];
    let fields: Vec<&str> =
        differs.into_iter().filter(|(_, differs)| *differs).map(|(field, _)| field).collect();
    let fields = (!fields.is_empty()).then(|| fields.join(", "))?;
    Some(format!("{fields}: as stored before; `tans edit` changes name, license and tags"))
}

/// Bad input becomes a line of the report; a failing zoo, disk or device, or a cancelled job, ends the operation.
fn or_refused(source: String, result: Result<Ingested>) -> Result<Ingested> {
    match result {
        Err(error) if error.kind() == ErrorKind::Input => Ok(Ingested::refused(source, &error)),
        other => other,
    }
}

/// What the user says of a network's training.
#[derive(Default)]
struct Training {
    seen: Vec<TaskId>,
    results: Vec<Known>,
    tasks: Vec<TaskRecord>,
}

fn training(state: &State, options: &IngestOptions) -> Result<Training> {
    let Some(name) = &options.task else { return Ok(Training::default()) };
    let (task, is_new) = results::task(state, name)?;
    let reported = options.accuracy.map(|value| (task.id, PairKind::Reported, value));
    Ok(Training {
        seen: vec![task.id],
        results: reported.into_iter().collect(),
        tasks: is_new.then_some(task).into_iter().collect(),
    })
}

fn new_model(state: &State, default_name: String, options: &IngestOptions) -> Result<NewModel> {
    let name = options.name.clone().unwrap_or_else(|| default_name.trim().to_owned());
    // Also where the network is stored already and keeps its name: what is wrong is refused in any case.
    admit_name::check("model", &name)?;
    let Training { seen, results, tasks } = training(state, options)?;
    Ok(NewModel {
        name,
        license: options.license.clone(),
        tags: options.tags.clone(),
        benchmark: options.benchmark,
        skip_latency: options.jobs > 1,
        limits: options.limits,
        seen,
        results,
        tasks,
        ..NewModel::default()
    })
}

/// Classes of a generated network's head until it is fine-tuned.
const GENERATED_CLASSES: usize = 10;

fn generated(
    state: &State,
    bench: &Bench,
    spec: &str,
    options: &IngestOptions,
    observer: Observer<'_>,
) -> Result<Admitted> {
    if spec == crate::encoder::backbone::SPEC {
        let (graph, input) = crate::encoder::backbone::network()?;
        let config = "efficientnet-lite0".to_owned();
        let mut new = new_model(state, config.clone(), options)?;
        new.license = new.license.or_else(|| Some("Apache-2.0".into()));
        let (space, numbers) = (bundle::BUILT_IN.to_owned(), Vec::new());
        new.architecture = Some(Architecture { space, config, numbers });
        let network = NewNetwork { graph: &graph, input: &input };
        return admit::admit(state, bench, network, new, observer);
    }
    if spec.split_once(':').is_some_and(|(space, _)| space == bundle::BUILT_IN) {
        return Err(Error::input(format!(
            "expected {}, the only built-in network, found {spec}",
            crate::encoder::backbone::SPEC
        )));
    }
    let made = spaces::generate(spec, GENERATED_CLASSES, 0)?;
    let mut new = new_model(state, made.config.clone(), options)?;
    new.architecture =
        Some(Architecture { space: made.space, config: made.config, numbers: made.numbers });
    let network = NewNetwork { graph: &made.graph, input: &made.input };
    admit::admit(state, bench, network, new, observer)
}

fn file(
    state: &State,
    bench: &Bench,
    path: &Path,
    options: &IngestOptions,
    observer: Observer<'_>,
) -> Result<(Admitted, Vec<String>)> {
    let IngestOptions { space, input, limits, .. } = options;
    let reading = Reading { space: space.as_deref(), hints: input, limits };
    let source = network_source::read(path, &reading)?;
    let stem =
        path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    let mut new = new_model(state, stem, options)?;
    new.architecture = source.architecture;
    new.license = new.license.or(source.described.license);
    new.tags = source.described.tags.into_iter().chain(new.tags).collect();
    new.class_names = source.described.class_names;
    let network = NewNetwork { graph: &source.graph, input: &source.input };
    let stored = admit::admit(state, bench, network, new, observer);
    let stored = stored.map_err(|error| match error {
        Error::Graph(inner) => network_source::located(path, inner),
        other => other,
    })?;
    let headless = stored.record.not_runnable.is_none() && find_head(&source.graph).is_none();
    let notes = source.note.into_iter().chain(headless.then(|| NOT_TUNABLE.to_owned()));
    Ok((stored, notes.collect()))
}

/// What a head is wanted for, and what goes without.
const NOT_TUNABLE: &str =
    "it has no last linear layer: it can be found and measured, but not fine-tuned";

/// Stores references by one commit; if one of them is refused by it, one by one.
fn references(state: &State, batch: Vec<(String, Reference)>) -> Result<Vec<Ingested>> {
    if let [_, _, ..] = &batch[..] {
        match commit_references(state, &batch) {
            Err(error) if error.kind() == ErrorKind::Input => {}
            stored => return stored,
        }
    }
    let one = |line: &(String, Reference)| {
        let stored = commit_references(state, std::slice::from_ref(line));
        or_refused(line.0.clone(), stored.map(|mut lines| lines.remove(0)))
    };
    batch.iter().map(one).collect()
}

fn commit_references(state: &State, batch: &[(String, Reference)]) -> Result<Vec<Ingested>> {
    state.commit(|ordered| apply_references(state, ordered, batch))
}

fn apply_references(
    state: &State,
    ordered: &Ordered<'_>,
    batch: &[(String, Reference)],
) -> Result<Vec<Ingested>> {
    let (mut known, mut additions, mut new_tasks) = (Vec::new(), Vec::new(), BTreeMap::new());
    for (_, reference) in batch {
        let Training { seen, results, tasks } = training(state, &reference.options)?;
        new_tasks.extend(tasks.into_iter().map(|task| (task.id, task)));
        let addition = addition(state, reference, seen, results.clone())?;
        known.push(match addition.subject {
            Subject::Stored(row) => {
                Some(results::differences(&state.store, row, &results, &addition.results)?)
            }
            Subject::New(..) => None,
        });
        additions.push(addition);
    }
    let new_tasks: Vec<TaskRecord> = new_tasks.into_values().collect();
    let tasks = Tasks { new: &new_tasks, ..Tasks::default() };
    let records = results::apply(state, ordered, &tasks, additions)?;
    let stored = records.into_iter().zip(known).zip(batch);
    let line = |((record, known), (shown, reference)): (_, &(String, Reference))| {
        let is_known = Option::is_some(&known);
        let stored = Admitted { record, is_known, differences: known.unwrap_or_default() };
        ingested(shown.clone(), stored, &reference.options, reference.params)
    };
    Ok(stored.map(line).collect())
}

fn addition(
    state: &State,
    reference: &Reference,
    seen: Vec<TaskId>,
    results: Vec<Known>,
) -> Result<Addition> {
    let Reference { uri, params, options } = reference;
    let name = options.name.clone().unwrap_or_else(|| uri.clone());
    admit_name::check("model", &name)?;
    let new = NewReference {
        name,
        uri: uri.clone(),
        license: options.license.clone(),
        tags: options.tags.clone(),
        seen,
        results,
        params: *params,
    };
    results::reference(&state.store, new)
}
