//! What is asked for: a file, a generated network, or the lines of a folder or manifest.

mod entry;

use super::IngestOptions;
use crate::graph::input::InputHints;
use crate::graph::spaces;
use crate::steps::{bundle, network_source, results};
use crate::{Error, Result};
use entry::{Entry, Shape};
use std::path::{Path, PathBuf};

/// Where one network comes from.
pub enum Origin {
    File(PathBuf),
    Generated(String),
}

/// A network that is asked for.
pub struct Network {
    pub origin: Origin,
    pub options: IngestOptions,
}

/// A reference that is asked for.
pub struct Reference {
    pub uri: String,
    pub params: Option<u64>,
    pub options: IngestOptions,
}

pub enum Wanted {
    Network(Network),
    Reference(Reference),
}

/// What is asked for, and what to call it in the report.
pub type Line = (String, Result<Wanted>);

/// A network that is named by itself.
pub fn single(source: &str, options: &IngestOptions) -> Result<Network> {
    let origin = match is_generated(source) {
        true => {
            refuse_hints(&options.input, source)?;
            refuse_space(options.space.as_deref(), source)?;
            Origin::Generated(source.to_owned())
        }
        false => Origin::File(PathBuf::from(source)),
    };
    Ok(Network { origin, options: options.clone() })
}

/// The lines of a folder or manifest; `None` if `source` is a single network.
pub fn several(source: &str, options: &IngestOptions) -> Result<Option<Vec<Line>>> {
    if is_generated(source) {
        return Ok(None);
    }
    let path = Path::new(source);
    if source.contains("://") && !path.exists() {
        return Err(Error::input(format!(
            "expected a file or folder, found the address {source}: fetch the file first, or name the network in a \
            manifest line with `uri`, which keeps a reference to it"
        )));
    }
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
pub fn check_result(options: &IngestOptions) -> Result<()> {
    if let Some(accuracy) = options.accuracy {
        results::check_accuracy("accuracy", accuracy)?;
    }
    match (options.accuracy, &options.task) {
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

fn folder(path: &Path, options: &IngestOptions) -> Result<Vec<Line>> {
    let (mut files, mut unread) = (Vec::new(), Vec::new());
    network_files(path, &mut files, &mut unread)?;
    files.sort();
    if files.is_empty() {
        return Err(Error::input(format!(
            "{}: expected files of networks (.{}), found none (other formats: export to ONNX first)",
            path.display(),
            network_source::SUFFIXES.join(", .")
        )));
    }
    let line = |file: PathBuf| {
        let shown = file.display().to_string();
        let mut options = options.clone();
        options.name = options.name.or_else(|| nested_name(path, &file));
        let network = Network { origin: Origin::File(file), options };
        (shown, Ok(Wanted::Network(network)))
    };
    Ok(files.into_iter().map(line).chain(unread).collect())
}

/// Files of networks in a folder and the folders in it, and lines for folders that cannot be read. Links to folders are not
/// followed, for they may lead back.
fn network_files(path: &Path, files: &mut Vec<PathBuf>, unread: &mut Vec<Line>) -> Result<()> {
    let refused = |error| Error::file("cannot read", path, error);
    for entry in std::fs::read_dir(path).map_err(refused)? {
        let entry = entry.map_err(refused)?;
        let file = entry.path();
        if entry.file_type().map_err(refused)?.is_dir() {
            if let Err(error) = network_files(&file, files, unread) {
                unread.push((file.display().to_string(), Err(Error::input(error.to_string()))));
            }
            continue;
        }
        let suffix = file.extension().map(|suffix| suffix.to_string_lossy().to_lowercase());
        if suffix.is_some_and(|suffix| network_source::SUFFIXES.contains(&suffix.as_str())) {
            files.push(file);
        }
    }
    Ok(())
}

/// The path below the folder, without suffix, of a file in a subfolder: file names repeat there.
fn nested_name(folder: &Path, file: &Path) -> Option<String> {
    let below = file.strip_prefix(folder).ok()?;
    let is_nested = below.components().count() > 1;
    is_nested.then(|| below.with_extension("").to_string_lossy().trim().to_owned())
}

fn manifest(path: &Path, options: &IngestOptions) -> Result<Vec<Line>> {
    let text =
        std::fs::read_to_string(path).map_err(|error| Error::file("cannot read", path, error))?;
    let base = path.parent().unwrap_or(Path::new("."));
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).peekable();
    if lines.peek().is_none() {
        return Err(Error::input(format!(
            "{}: expected a line for each network, found none",
            path.display()
        )));
    }
    let line = |(number, line): (usize, &str)| {
        let parsed = serde_json::from_str::<Entry>(line)
            .map_err(|error| Error::input(entry::explained(line, &error)))
            .and_then(|entry| wanted(base, entry, options));
        (format!("{}:{}", path.display(), number + 1), parsed)
    };
    Ok(lines.map(line).collect())
}

fn wanted(base: &Path, mut entry: Entry, defaults: &IngestOptions) -> Result<Wanted> {
    let hints = InputHints {
        shape: entry.input.take().map(Shape::sides).transpose()?,
        mean: entry.mean.take(),
        std: entry.std.take(),
        scale: entry.scale,
        order: entry.channel_order,
    };
    let (path, uri, space) = (entry.path.take(), entry.uri.take(), entry.space.take());
    let params = entry.params;
    if params.is_some() && uri.is_none() {
        return Err(Error::input("params: expected with a uri only, others are counted"));
    }
    let mut options = options(entry, defaults)?;
    match (path, uri, space) {
        (Some(path), None, space) => {
            options.space = space.or_else(|| defaults.space.clone());
            options.input = hints_of_file(hints, &defaults.input);
            let origin = Origin::File(base.join(path));
            Ok(Wanted::Network(Network { origin, options }))
        }
        (None, Some(uri), None) => {
            refuse_hints(&hints, &uri)?;
            Ok(Wanted::Reference(Reference { uri, params, options }))
        }
        (None, None, Some(space)) if is_generated(&space) => {
            refuse_hints(&hints, &space)?;
            let origin = Origin::Generated(space);
            Ok(Wanted::Network(Network { origin, options }))
        }
        (None, None, Some(space)) => Err(Error::input(format!(
            "space: expected SPACE:CONFIG with one of {} or {}, found {space:?}",
            spaces::NAMES.join(", "),
            crate::encoder::backbone::SPEC
        ))),
        _ => Err(Error::input(
            "expected one of path, uri and space (both path and space for a file of weights alone)",
        )),
    }
}

/// What a line says of its network, and the defaults where it says nothing.
fn options(entry: Entry, defaults: &IngestOptions) -> Result<IngestOptions> {
    // An accuracy belongs to its task, so a line that names a task takes none from the defaults.
    let accuracy = entry.accuracy.or(defaults.accuracy.filter(|_| entry.task.is_none()));
    let options = IngestOptions {
        name: entry.name.or_else(|| defaults.name.clone()),
        task: entry.task.or_else(|| defaults.task.clone()),
        accuracy,
        license: entry.license.or_else(|| defaults.license.clone()),
        tags: defaults.tags.clone().into_iter().chain(entry.tags).collect(),
        input: InputHints::default(),
        space: None,
        benchmark: defaults.benchmark,
        limits: defaults.limits,
        jobs: defaults.jobs,
    };
    check_result(&options)?;
    Ok(options)
}

fn hints_of_file(hints: InputHints, defaults: &InputHints) -> InputHints {
    InputHints {
        shape: hints.shape.or(defaults.shape),
        mean: hints.mean.or_else(|| defaults.mean.clone()),
        std: hints.std.or_else(|| defaults.std.clone()),
        scale: hints.scale.or(defaults.scale),
        order: hints.order.or(defaults.order),
    }
}
