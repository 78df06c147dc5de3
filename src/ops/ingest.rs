//! Takes trained networks into a zoo: one file, a folder, a manifest, or a generated one.

use crate::graph::formats::{Limits, onnx};
use crate::graph::input::{ChannelOrder, InputContract, InputHints};
use crate::graph::{Graph, spaces};
use crate::state::State;
use crate::steps::admit::{self, Admitted, Bench, NewModel};
use crate::steps::benchmark::Benchmark;
use crate::steps::bundle;
use crate::steps::results::{self, NewReference};
use crate::{Error, Observer, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tans_storage::{Architecture, PairKind};

/// Options of `ingest`; with a manifest they are the defaults of its lines.
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
    /// What is known of its input.
    pub input: InputHints,
    /// Benchmark tasks to measure it on.
    pub benchmark: Benchmark,
    /// What a file may make us allocate.
    pub limits: Limits,
}

/// What became of one network.
#[derive(Clone, Debug, Serialize)]
pub struct Ingested {
    /// File, URI or specification it came from.
    pub source: String,
    /// Name in the zoo; `None` if it was refused.
    pub model: Option<String>,
    /// `stored`, `already stored` or `refused`.
    pub status: &'static str,
    /// Why it was refused, or why it cannot be run.
    pub note: Option<String>,
    /// Parameters.
    pub params: u64,
    /// Multiply-accumulate operations of one sample.
    pub macs: u64,
}

/// One line of a manifest. Paths are relative to the manifest.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    path: Option<PathBuf>,
    uri: Option<String>,
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

/// Stores each network by its own commit. With several networks, one that is refused does not stop the others.
///
/// # Errors
/// For a single network, the reason why it was refused.
pub(crate) fn run(
    state: &State,
    source: &str,
    options: &IngestOptions,
    observer: Observer<'_>,
) -> Result<Vec<Ingested>> {
    check_accuracy(options.accuracy)?;
    let bench = Bench::load(state)?;
    if is_generated(source) {
        let (graph, input, new) = generated(source, options)?;
        return Ok(vec![admit_one(state, &bench, source, &graph, &input, new, observer)?]);
    }
    let path = Path::new(source);
    let metadata =
        std::fs::metadata(path).map_err(|error| Error::file("cannot read", path, error))?;
    if metadata.is_dir() {
        return folder(state, &bench, path, options, observer);
    }
    if path.extension().is_some_and(|suffix| suffix == "jsonl") {
        return manifest(state, &bench, path, options, observer);
    }
    Ok(vec![file(state, &bench, path, options, observer)?])
}

fn check_accuracy(accuracy: Option<f32>) -> Result<()> {
    match accuracy {
        Some(value) if !(0.0..=1.0).contains(&value) => {
            Err(Error::input(format!("accuracy: expected a fraction in 0..1, found {value}")))
        }
        Some(_) | None => Ok(()),
    }
}

fn is_generated(source: &str) -> bool {
    source == crate::encoder::backbone::SPEC
        || source.split_once(':').is_some_and(|(space, _)| spaces::NAMES.contains(&space))
}

/// Classes of a generated network's head until it is fine-tuned.
const GENERATED_CLASSES: usize = 10;

fn generated(source: &str, options: &IngestOptions) -> Result<(Graph, InputContract, NewModel)> {
    if source == crate::encoder::backbone::SPEC {
        let (graph, input) = crate::encoder::backbone::network()?;
        let config = "efficientnet-lite0".to_owned();
        let mut new = new_model(config.clone(), options);
        new.license = new.license.or_else(|| Some("Apache-2.0".into()));
        let (space, numbers) = (bundle::BUILT_IN.to_owned(), Vec::new());
        new.architecture = Some(Architecture { space, config, numbers });
        return Ok((graph, input, new));
    }
    let made = spaces::generate(source, GENERATED_CLASSES, 0)?;
    let mut new = new_model(made.config.clone(), options);
    new.architecture =
        Some(Architecture { space: made.space, config: made.config, numbers: made.numbers });
    Ok((made.graph, made.input, new))
}

fn new_model(default_name: String, options: &IngestOptions) -> NewModel {
    NewModel {
        name: options.name.clone().unwrap_or(default_name),
        license: options.license.clone(),
        tags: options.tags.clone(),
        benchmark: options.benchmark,
        limits: options.limits,
        ..NewModel::default()
    }
}

fn file(
    state: &State,
    bench: &Bench,
    path: &Path,
    options: &IngestOptions,
    observer: Observer<'_>,
) -> Result<Ingested> {
    let bytes = std::fs::read(path).map_err(|error| Error::file("cannot read", path, error))?;
    let located = |error: Error| Error::input(format!("{}: {error}", path.display()));
    let onnx = onnx::read(&bytes, &options.limits).map_err(Error::from).map_err(located)?;
    drop(bytes);
    let input = InputContract::infer(&onnx.graph, &onnx.metadata, &options.input)
        .map_err(Error::from)
        .map_err(located)?;
    let stem =
        path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    let mut new = new_model(stem, options);
    if let Some(task) = &options.task {
        let (task, is_new) = results::task(state, task)?;
        new.seen.push(task.id);
        new.results.extend(options.accuracy.map(|value| (task.id, PairKind::Reported, value)));
        new.tasks.extend(is_new.then_some(task));
    } else if options.accuracy.is_some() {
        return Err(Error::input(
            "accuracy: expected a task that it was measured on, found none; pass --task",
        ));
    }
    let source = path.display().to_string();
    admit_one(state, bench, &source, &onnx.graph, &input, new, observer).map_err(
        |error| match error {
            Error::Graph(inner) => located(inner.into()),
            other => other,
        },
    )
}

fn admit_one(
    state: &State,
    bench: &Bench,
    source: &str,
    graph: &Graph,
    input: &InputContract,
    new: NewModel,
    observer: Observer<'_>,
) -> Result<Ingested> {
    let (record, status) = match admit::admit(state, bench, graph, input, new, observer)? {
        Admitted::Stored(record) => (record, "stored"),
        Admitted::AlreadyStored(record) => (record, "already stored"),
    };
    Ok(Ingested {
        source: source.to_owned(),
        model: Some(record.name.clone()),
        status,
        params: record.cost.params,
        macs: record.cost.macs,
        note: record.not_runnable,
    })
}

fn folder(
    state: &State,
    bench: &Bench,
    path: &Path,
    options: &IngestOptions,
    observer: Observer<'_>,
) -> Result<Vec<Ingested>> {
    let mut files = Vec::new();
    let entries =
        std::fs::read_dir(path).map_err(|error| Error::file("cannot read", path, error))?;
    for entry in entries {
        let file = entry.map_err(|error| Error::file("cannot read", path, error))?.path();
        if file.extension().is_some_and(|suffix| suffix.eq_ignore_ascii_case("onnx")) {
            files.push(file);
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(Error::input(format!(
            "{}: expected .onnx files, found none (other formats: export to ONNX first)",
            path.display()
        )));
    }
    if options.name.is_some() && files.len() > 1 {
        return Err(Error::input(format!(
            "--name: expected one network, found {} in {}",
            files.len(),
            path.display()
        )));
    }
    let mut ingested = Vec::with_capacity(files.len());
    for (done, item) in files.iter().enumerate() {
        let shown = item.display().to_string();
        crate::progress::report(&mut *observer, "ingesting", &shown, done, files.len())?;
        ingested.push(or_refused(&shown, file(state, bench, item, options, &mut *observer))?);
    }
    Ok(ingested)
}

/// Bad input becomes a line of the report; a failing disk or a cancelled job ends the operation.
fn or_refused(source: &str, result: Result<Ingested>) -> Result<Ingested> {
    match result {
        Err(error @ (Error::Input(_) | Error::Graph(_) | Error::Data(_) | Error::File { .. })) => {
            Ok(Ingested {
                source: source.to_owned(),
                model: None,
                status: "refused",
                note: Some(error.to_string()),
                params: 0,
                macs: 0,
            })
        }
        other => other,
    }
}

fn manifest(
    state: &State,
    bench: &Bench,
    path: &Path,
    options: &IngestOptions,
    observer: Observer<'_>,
) -> Result<Vec<Ingested>> {
    let text =
        std::fs::read_to_string(path).map_err(|error| Error::file("cannot read", path, error))?;
    let lines: Vec<(usize, &str)> =
        text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).collect();
    let mut ingested = Vec::with_capacity(lines.len());
    for (done, (number, line)) in lines.iter().enumerate() {
        let shown = format!("{}:{}", path.display(), number + 1);
        crate::progress::report(&mut *observer, "ingesting", &shown, done, lines.len())?;
        let result = serde_json::from_str::<Line>(line)
            .map_err(|error| Error::input(format!("{shown}: {error}")))
            .and_then(|line| manifest_line(state, bench, path, line, (options, &mut *observer)));
        ingested.push(or_refused(&shown, result)?);
    }
    Ok(ingested)
}

fn manifest_line(
    state: &State,
    bench: &Bench,
    manifest: &Path,
    line: Line,
    (options, observer): (&IngestOptions, Observer<'_>),
) -> Result<Ingested> {
    check_accuracy(line.accuracy)?;
    let merged = IngestOptions {
        name: line.name,
        task: line.task,
        accuracy: line.accuracy,
        license: line.license.or_else(|| options.license.clone()),
        tags: options.tags.clone().into_iter().chain(line.tags).collect(),
        input: InputHints {
            shape: line.input.or(options.input.shape),
            mean: line.mean.or_else(|| options.input.mean.clone()),
            std: line.std.or_else(|| options.input.std.clone()),
            scale: line.scale.or(options.input.scale),
            order: line.channel_order.or(options.input.order),
        },
        benchmark: options.benchmark,
        limits: options.limits,
    };
    match (line.path, line.uri) {
        (Some(path), None) => {
            let base = manifest.parent().unwrap_or(Path::new("."));
            file(state, bench, &base.join(path), &merged, observer)
        }
        (None, Some(uri)) => reference_line(state, &uri, &merged, line.params),
        _ => Err(Error::input("expected either a path or a uri")),
    }
}

fn reference_line(
    state: &State,
    uri: &str,
    options: &IngestOptions,
    params: Option<u64>,
) -> Result<Ingested> {
    let mut new = NewReference {
        name: options.name.clone().unwrap_or_else(|| uri.to_owned()),
        uri: uri.to_owned(),
        license: options.license.clone(),
        tags: options.tags.clone(),
        params,
        ..NewReference::default()
    };
    if let Some(task) = &options.task {
        let (task, is_new) = results::task(state, task)?;
        new.results.extend(options.accuracy.map(|value| (task.id, PairKind::Reported, value)));
        new.seen.push(task.id);
        new.tasks.extend(is_new.then_some(task));
    }
    let (record, is_new) = results::model(state, new)?;
    Ok(Ingested {
        source: uri.to_owned(),
        model: Some(record.name),
        status: if is_new { "stored" } else { "already stored" },
        note: None,
        params: record.cost.params,
        macs: record.cost.macs,
    })
}
