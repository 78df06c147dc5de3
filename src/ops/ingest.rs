//! Takes trained networks into a zoo: one file, a folder, a manifest, or a generated one.

use crate::error::ErrorKind;
use crate::graph::formats::Limits;
use crate::graph::input::{ChannelOrder, InputHints};
use crate::graph::spaces;
use crate::state::{self, State};
use crate::steps::admit::{self, Admitted, Bench, NewModel, NewNetwork};
use crate::steps::benchmark::Benchmark;
use crate::steps::bundle;
use crate::steps::embed::Known;
use crate::steps::network_source::{self, Reading};
use crate::steps::results::{self, NewReference, Subject, Tasks};
use crate::{Error, Observer, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use tans_storage::{Architecture, ModelRecord, PairKind, TaskId, TaskRecord};

/// Options of `ingest`; with a manifest they are the defaults of its lines (input hints: of its files).
#[derive(Clone, Debug, Default)]
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
    /// What a file may make us allocate.
    pub limits: Limits,
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

/// Called with each network as soon as it is stored or refused; `Break` asks to stop.
pub type Reporter<'a> = &'a mut dyn FnMut(Ingested) -> ControlFlow<()>;

/// One line of a manifest. Paths are relative to the manifest.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    path: Option<PathBuf>,
    uri: Option<String>,
    space: Option<String>,
    name: Option<String>,
    task: Option<String>,
    accuracy: Option<f32>,
    license: Option<String>,
    params: Option<u64>,
    #[serde(default)]
    tags: BTreeMap<String, String>,
    input: Option<(usize, usize, usize)>,
    mean: Option<Vec<f32>>,
    std: Option<Vec<f32>>,
    scale: Option<f32>,
    channel_order: Option<ChannelOrder>,
}

/// Where one network comes from.
enum Origin {
    File(PathBuf),
    Generated(String),
    Reference { uri: String, params: Option<u64> },
}

/// One network that is asked for.
struct Wanted {
    origin: Origin,
    options: IngestOptions,
}

/// Stores each network by its own commit and reports it at once. With several networks, one that is refused does not
/// stop the others.
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
    check_result(options)?;
    let mut tell = |ingested| match report(ingested) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::Cancelled),
    };
    let Some(many) = several(source, options)? else {
        let wanted = single(source, options)?;
        let bench = Bench::load(state)?;
        return tell(one(state, &bench, source, wanted, observer)?);
    };
    let bench = Bench::load(state)?;
    let total = many.len();
    for (done, (shown, wanted)) in many.into_iter().enumerate() {
        crate::progress::report(&mut *observer, "ingesting", &shown, done, total)?;
        let result = wanted.and_then(|wanted| one(state, &bench, &shown, wanted, &mut *observer));
        tell(or_refused(shown, result)?)?;
    }
    Ok(())
}

fn single(source: &str, options: &IngestOptions) -> Result<Wanted> {
    let origin = match is_generated(source) {
        true => {
            refuse_hints(&options.input, source)?;
            refuse_space(options.space.as_deref(), source)?;
            Origin::Generated(source.to_owned())
        }
        false => Origin::File(PathBuf::from(source)),
    };
    Ok(Wanted { origin, options: options.clone() })
}

/// Networks with what to call them in the report.
type Several = Vec<(String, Result<Wanted>)>;

/// The networks of a folder or manifest; `None` if `source` is a single one.
fn several(source: &str, options: &IngestOptions) -> Result<Option<Several>> {
    if is_generated(source) {
        return Ok(None);
    }
    let path = Path::new(source);
    let metadata =
        std::fs::metadata(path).map_err(|error| Error::file("cannot read", path, error))?;
    let many = if metadata.is_dir() {
        folder(path, options)?
    } else if path.extension().is_some_and(|suffix| suffix == "jsonl") {
        manifest(path, options)?
    } else {
        return Ok(None);
    };
    if options.name.is_some() && many.len() > 1 {
        return Err(Error::input(format!(
            "--name: expected one network, found {} in {source}",
            many.len()
        )));
    }
    Ok(Some(many))
}

/// An accuracy is a fraction, and belongs to a task.
fn check_result(options: &IngestOptions) -> Result<()> {
    match (options.accuracy, &options.task) {
        (Some(value), _) if !(0.0..=1.0).contains(&value) => {
            Err(Error::input(format!("accuracy: expected a fraction in 0..1, found {value}")))
        }
        (Some(_), None) => Err(Error::input(
            "accuracy: expected a task that it was measured on, found none; pass --task",
        )),
        (Some(_), Some(_)) | (None, _) => Ok(()),
    }
}

/// Input hints are for files, whose contract has to be found out.
fn refuse_hints(hints: &InputHints, found: &str) -> Result<()> {
    let InputHints { shape, mean, std, scale, order } = hints;
    let is_empty =
        shape.is_none() && mean.is_none() && std.is_none() && scale.is_none() && order.is_none();
    if is_empty {
        return Ok(());
    }
    Err(Error::input(format!(
        "input, mean, std, scale and channel order: expected with the file of a network, found with {found}"
    )))
}

fn refuse_space(space: Option<&str>, found: &str) -> Result<()> {
    match space {
        None => Ok(()),
        Some(space) => Err(Error::input(format!(
            "space {space}: expected with a file of weights, found with {found}"
        ))),
    }
}

fn is_generated(source: &str) -> bool {
    source
        .split_once(':')
        .is_some_and(|(space, _)| space == bundle::BUILT_IN || spaces::NAMES.contains(&space))
}

fn folder(path: &Path, options: &IngestOptions) -> Result<Several> {
    let mut files = Vec::new();
    let entries =
        std::fs::read_dir(path).map_err(|error| Error::file("cannot read", path, error))?;
    for entry in entries {
        let file = entry.map_err(|error| Error::file("cannot read", path, error))?.path();
        let suffix = file.extension().map(|suffix| suffix.to_string_lossy().to_lowercase());
        if suffix.is_some_and(|suffix| network_source::SUFFIXES.contains(&suffix.as_str())) {
            files.push(file);
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(Error::input(format!(
            "{}: expected files of networks (.{}), found none (other formats: export to ONNX first)",
            path.display(),
            network_source::SUFFIXES.join(", .")
        )));
    }
    let wanted = |file: PathBuf| {
        let shown = file.display().to_string();
        (shown, Ok(Wanted { origin: Origin::File(file), options: options.clone() }))
    };
    Ok(files.into_iter().map(wanted).collect())
}

fn manifest(path: &Path, options: &IngestOptions) -> Result<Several> {
    let text =
        std::fs::read_to_string(path).map_err(|error| Error::file("cannot read", path, error))?;
    let base = path.parent().unwrap_or(Path::new("."));
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let wanted = |(number, line): (usize, &str)| {
        let shown = format!("{}:{}", path.display(), number + 1);
        let parsed = serde_json::from_str::<Line>(line)
            .map_err(|error| Error::input(error.to_string()))
            .and_then(|line| manifest_line(base, line, options))
            .map_err(|error| Error::input(format!("{shown}: {error}")));
        (shown, parsed)
    };
    Ok(lines.map(wanted).collect())
}

fn manifest_line(base: &Path, line: Line, defaults: &IngestOptions) -> Result<Wanted> {
    let hints = InputHints {
        shape: line.input,
        mean: line.mean,
        std: line.std,
        scale: line.scale,
        order: line.channel_order,
    };
    let space = line.space.clone();
    let origin = match (line.path, line.uri, line.space) {
        (Some(path), None, _) => Origin::File(base.join(path)),
        (None, Some(uri), None) => Origin::Reference { uri, params: line.params },
        (None, None, Some(space)) if is_generated(&space) => Origin::Generated(space),
        (None, None, Some(space)) => {
            return Err(Error::input(format!(
                "space: expected SPACE:CONFIG with one of {} or {}, found {space:?}",
                spaces::NAMES.join(", "),
                crate::encoder::backbone::SPEC
            )));
        }
        _ => {
            return Err(Error::input(
                "expected one of path, uri and space (both path and space for a file of weights alone)",
            ));
        }
    };
    let space = match &origin {
        Origin::File(_) => space.or_else(|| defaults.space.clone()),
        Origin::Generated(named) | Origin::Reference { uri: named, .. } => {
            refuse_hints(&hints, named)?;
            None
        }
    };
    if line.params.is_some() && !matches!(origin, Origin::Reference { .. }) {
        return Err(Error::input("params: expected with a uri only, others are counted"));
    }
    // An accuracy belongs to its task, so a line that names a task takes none from the defaults.
    let accuracy = line.accuracy.or(defaults.accuracy.filter(|_| line.task.is_none()));
    let options = IngestOptions {
        name: line.name.or_else(|| defaults.name.clone()),
        task: line.task.or_else(|| defaults.task.clone()),
        accuracy,
        license: line.license.or_else(|| defaults.license.clone()),
        tags: defaults.tags.clone().into_iter().chain(line.tags).collect(),
        input: InputHints {
            shape: hints.shape.or(defaults.input.shape),
            mean: hints.mean.or_else(|| defaults.input.mean.clone()),
            std: hints.std.or_else(|| defaults.input.std.clone()),
            scale: hints.scale.or(defaults.input.scale),
            order: hints.order.or(defaults.input.order),
        },
        space,
        benchmark: defaults.benchmark,
        limits: defaults.limits,
    };
    check_result(&options)?;
    Ok(Wanted { origin, options })
}

fn one(
    state: &State,
    bench: &Bench,
    shown: &str,
    wanted: Wanted,
    observer: Observer<'_>,
) -> Result<Ingested> {
    let Wanted { origin, options } = wanted;
    let stated = match origin {
        Origin::Reference { params, .. } => params,
        Origin::File(_) | Origin::Generated(_) => None,
    };
    let mut placed = None;
    let (record, is_known) = match origin {
        Origin::File(path) => {
            let (stored, note) = file(state, bench, &path, &options, observer)?;
            placed = note;
            stored
        }
        Origin::Generated(spec) => generated(state, bench, &spec, &options, observer)?,
        Origin::Reference { uri, params } => reference(state, uri, params, &options)?,
    };
    let attributes = state::attributes(&record);
    let other_params = stated.is_some() && stated != attributes.params;
    let kept = is_known.then(|| kept(&record, &options, other_params)).flatten();
    let notes: Vec<String> = record.not_runnable.into_iter().chain(placed).chain(kept).collect();
    Ok(Ingested {
        source: shown.to_owned(),
        model: Some(record.name),
        status: if is_known { "already stored" } else { "stored" },
        note: (!notes.is_empty()).then(|| notes.join("; ")),
        params: attributes.params,
        macs: attributes.macs,
    })
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
        Err(error) if error.kind() == ErrorKind::Input => Ok(Ingested {
            source,
            model: None,
            status: "refused",
            note: Some(error.to_string()),
            params: None,
            macs: None,
        }),
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
    let Training { seen, results, tasks } = training(state, options)?;
    Ok(NewModel {
        name: options.name.clone().unwrap_or(default_name),
        license: options.license.clone(),
        tags: options.tags.clone(),
        benchmark: options.benchmark,
        limits: options.limits,
        seen,
        results,
        tasks,
        ..NewModel::default()
    })
}

/// A record, and whether it was stored before.
type Stored = (ModelRecord, bool);

fn admit(
    state: &State,
    bench: &Bench,
    network: NewNetwork<'_>,
    new: NewModel,
    observer: Observer<'_>,
) -> Result<Stored> {
    let Admitted { record, is_known } = admit::admit(state, bench, network, new, observer)?;
    Ok((record, is_known))
}

/// Classes of a generated network's head until it is fine-tuned.
const GENERATED_CLASSES: usize = 10;

fn generated(
    state: &State,
    bench: &Bench,
    spec: &str,
    options: &IngestOptions,
    observer: Observer<'_>,
) -> Result<Stored> {
    if spec == crate::encoder::backbone::SPEC {
        let (graph, input) = crate::encoder::backbone::network()?;
        let config = "efficientnet-lite0".to_owned();
        let mut new = new_model(state, config.clone(), options)?;
        new.license = new.license.or_else(|| Some("Apache-2.0".into()));
        let (space, numbers) = (bundle::BUILT_IN.to_owned(), Vec::new());
        new.architecture = Some(Architecture { space, config, numbers });
        let network = NewNetwork { graph: &graph, input: &input };
        return admit(state, bench, network, new, observer);
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
    admit(state, bench, network, new, observer)
}

/// What became of a file, and how its weights were placed where that was not by name.
fn file(
    state: &State,
    bench: &Bench,
    path: &Path,
    options: &IngestOptions,
    observer: Observer<'_>,
) -> Result<(Stored, Option<String>)> {
    let IngestOptions { space, input, limits, .. } = options;
    let reading = Reading { space: space.as_deref(), hints: input, limits };
    let source = network_source::read(path, &reading)?;
    let stem =
        path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    let mut new = new_model(state, stem, options)?;
    new.architecture = source.architecture;
    let network = NewNetwork { graph: &source.graph, input: &source.input };
    let stored = admit(state, bench, network, new, observer).map_err(|error| match error {
        Error::Graph(inner) => network_source::located(path, inner),
        other => other,
    })?;
    Ok((stored, source.note))
}

fn reference(
    state: &State,
    uri: String,
    params: Option<u64>,
    options: &IngestOptions,
) -> Result<Stored> {
    let Training { seen, results, tasks } = training(state, options)?;
    let new = NewReference {
        name: options.name.clone().unwrap_or_else(|| uri.clone()),
        uri,
        license: options.license.clone(),
        tags: options.tags.clone(),
        seen,
        results,
        params,
    };
    let ordered = state.lock_commits();
    let addition = results::reference(&state.store, new)?;
    let is_known = matches!(addition.subject, Subject::Stored(_));
    let tasks = Tasks { new: &tasks, replaced: None };
    let record = results::commit(state, &ordered, &tasks, vec![addition])?.remove(0);
    Ok((record, is_known))
}
