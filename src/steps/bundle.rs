//! The import format of a starter zoo: one tar of a manifest, f16 weights, task rows and pairs. No database files.

use super::{bundle_check, cannot_write, stored_graph, stored_weight};
use crate::encoder::signature::SIGNATURE_VERSION;
use crate::encoder::{BACKBONE_DIM, TaskSample};
use crate::graph::formats::{onnx, safetensors};
use crate::graph::input::InputContract;
use crate::graph::{Dtype, Weight, cost};
use crate::rows::Rows;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;
use tans_storage::{
    Architecture, Batch, Cost, ModelId, ModelRecord, NewTensor, PairKind, Store, TaskId,
    TaskRecord, TaskSampleRecord, TensorId, WeightRef,
};

/// Version of the format.
const VERSION: u32 = 1;

/// Ends the name of an f32 weight that a bundle holds as f16: it becomes f32 again, so that the network stays valid.
const NARROWED: &str = ".f32";

/// Rows of a task that a bundle carries: enough for the encoders, at a third of the size.
const TASK_ROWS_MAX: usize = 64;

/// Space name of networks that every build carries; a bundle names them instead of repeating their weights.
pub const BUILT_IN: &str = "backbone";

/// The first member, which says what the others are.
const MANIFEST: &str = "manifest.json";

/// A bundle names at most this many bytes per member.
const MEMBER_BYTES_MAX: u64 = 1 << 30;

#[derive(Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) version: u32,
    /// Version of the signatures: those of another version than the program's do not count.
    #[serde(default = "first_signature_version")]
    pub(super) signature_version: u16,
    pub(super) backbone: [u8; 32],
    pub(super) tasks: Vec<TaskEntry>,
    pub(super) models: Vec<ModelEntry>,
    /// (index of task, index of model, kind, accuracy)
    pub(super) pairs: Vec<(usize, usize, PairKind, f32)>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct TaskEntry {
    pub(super) id: [u8; 32],
    pub(super) name: String,
    pub(super) family: Option<String>,
    pub(super) class_names: Vec<String>,
    pub(super) benchmark: bool,
    pub(super) labels: Option<Vec<u32>>,
    pub(super) scalars: [Option<f32>; 10],
}

#[derive(Serialize, Deserialize)]
pub(super) struct ModelEntry {
    pub(super) name: String,
    pub(super) uri: Option<String>,
    pub(super) license: Option<String>,
    pub(super) tags: BTreeMap<String, String>,
    /// Index of the parent among the models, which comes before this one.
    pub(super) parent: Option<usize>,
    /// Indices of tasks.
    pub(super) seen: Vec<usize>,
    /// A network that every build carries: its weights are not repeated here.
    pub(super) built_in: bool,
    pub(super) weight_names: Vec<String>,
    pub(super) input: Vec<u8>,
    pub(super) cost: Cost,
    pub(super) not_runnable: Option<String>,
    pub(super) architecture: Option<Architecture>,
    pub(super) topology: Vec<f32>,
    pub(super) class_names: Vec<String>,
}

/// Bundles of before there were two versions name none.
fn first_signature_version() -> u16 {
    1
}

/// What a bundle holds, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Models.
    pub models: usize,
    /// Tasks.
    pub tasks: usize,
    /// Pairs.
    pub pairs: usize,
}

/// Whether a bundle carries its networks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Weights {
    /// As f16.
    #[default]
    Half,
    /// Not at all: networks become references that keep record, topology and signature.
    Without,
}

/// Writes every task, model and latest pair of a zoo as a bundle.
pub fn export(store: &Store, weights: Weights, out: &mut dyn Write) -> Result<Counts> {
    let tasks = store.tasks()?;
    let task_index: HashMap<TaskId, usize> =
        tasks.iter().enumerate().map(|(index, task)| (task.id, index)).collect();
    let models = store.models()?.collect::<tans_storage::Result<Vec<ModelRecord>>>()?;
    let model_index: HashMap<u64, usize> =
        models.iter().enumerate().map(|(index, model)| (model.row, index)).collect();
    let by_id: HashMap<ModelId, usize> =
        models.iter().enumerate().map(|(index, model)| (model.id, index)).collect();
    let pairs = store
        .pairs()?
        .iter()
        .filter_map(|pair| {
            let (task, model) = (task_index.get(&pair.task)?, model_index.get(&pair.model)?);
            Some((*task, *model, pair.kind, pair.accuracy))
        })
        .collect::<Vec<_>>();
    let counts = Counts { models: models.len(), tasks: tasks.len(), pairs: pairs.len() };
    let mut manifest = Manifest {
        version: VERSION,
        signature_version: SIGNATURE_VERSION,
        backbone: store.backbone(),
        tasks: tasks.iter().map(task_entry).collect(),
        models: models.iter().map(|model| model_entry(model, &by_id, &task_index)).collect(),
        pairs,
    };
    if weights == Weights::Without {
        manifest.models.iter_mut().zip(&models).for_each(|(entry, model)| strip(entry, model));
    }
    let mut archive = tar::Builder::new(out);
    let json = serde_json::to_vec(&manifest).map_err(|error| Error::input(error.to_string()))?;
    append(&mut archive, MANIFEST, &json)?;
    append(&mut archive, "tasks.safetensors", &task_tensors(store, &tasks)?)?;
    append(&mut archive, "signatures.safetensors", &signatures(store, &models)?)?;
    for (index, model) in models.iter().enumerate().filter(|_| weights == Weights::Half) {
        export_model(store, &mut archive, index, model)?;
    }
    archive.finish().map_err(|error| cannot_write(Path::new("the bundle"), error))?;
    Ok(counts)
}

fn append(archive: &mut tar::Builder<&mut dyn Write>, name: &str, bytes: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    // No time stamp: the same zoo gives the same bytes.
    header.set_mtime(0);
    let appended = archive.append_data(&mut header, name, bytes);
    appended.map_err(|error| cannot_write(Path::new(name), error))
}

fn task_entry(task: &TaskRecord) -> TaskEntry {
    TaskEntry {
        id: task.id.0,
        name: task.name.clone(),
        family: task.family.clone(),
        class_names: task.class_names.clone(),
        benchmark: task.benchmark,
        labels: task.sample.as_ref().map(|sample| {
            kept_rows(&sample.labels).iter().map(|&row| sample.labels[row]).collect()
        }),
        scalars: task.sample.as_ref().map_or([None; 10], |sample| sample.scalars),
    }
}

fn model_entry(
    model: &ModelRecord,
    by_id: &HashMap<ModelId, usize>,
    task_index: &HashMap<TaskId, usize>,
) -> ModelEntry {
    ModelEntry {
        name: model.name.clone(),
        uri: model.uri.clone(),
        license: model.license.clone(),
        tags: model.tags.clone(),
        // One that was removed and has come back comes after its child, and is left out.
        parent: model
            .parent
            .and_then(|parent| by_id.get(&parent).copied())
            .filter(|&parent| by_id.get(&model.id).is_some_and(|&own| parent < own)),
        seen: model.seen.iter().filter_map(|task| task_index.get(task).copied()).collect(),
        built_in: is_built_in(model),
        weight_names: model.weights.iter().map(|weight| weight.name.clone()).collect(),
        input: model.input.clone(),
        cost: model.cost.clone(),
        not_runnable: model.not_runnable.clone(),
        architecture: model.architecture.clone(),
        topology: model.topology.clone(),
        class_names: model.class_names.clone(),
    }
}

/// Makes a network a reference, named by its content.
fn strip(entry: &mut ModelEntry, model: &ModelRecord) {
    if model.graph.is_none() || entry.built_in {
        return;
    }
    entry.uri = entry.uri.take().or_else(|| Some(format!("tans:{}", model.id)));
    entry.weight_names.clear();
    entry.input.clear();
}

/// At most `TASK_ROWS_MAX` rows, taken from every class in turn.
fn kept_rows(labels: &[u32]) -> Vec<usize> {
    let mut turns: HashMap<u32, usize> = HashMap::new();
    let mut order: Vec<(usize, usize)> = labels
        .iter()
        .enumerate()
        .map(|(row, label)| {
            let turn = turns.entry(*label).or_default();
            *turn += 1;
            (*turn, row)
        })
        .collect();
    order.sort_unstable();
    order.truncate(TASK_ROWS_MAX);
    let mut rows: Vec<usize> = order.into_iter().map(|(_, row)| row).collect();
    rows.sort_unstable();
    rows
}

/// The chosen rows of a matrix; `None` if it has fewer rows.
fn select_rows(weight: &Weight, rows: &[usize]) -> Option<Weight> {
    let bytes: &[u8] = (*weight.bytes).as_ref();
    let [count, dim] = *weight.shape else { return None };
    let row_bytes = bytes.len().checked_div(count)?;
    let mut selected = Vec::with_capacity(rows.len() * row_bytes);
    for &row in rows {
        selected.extend_from_slice(bytes.get(row * row_bytes..(row + 1) * row_bytes)?);
    }
    let shape = vec![rows.len(), dim];
    Some(Weight { dtype: weight.dtype, shape, bytes: Arc::new(selected) })
}

fn is_built_in(model: &ModelRecord) -> bool {
    let space = model.architecture.as_ref().map(|point| point.space.as_str());
    space == Some(BUILT_IN) && model.parent.is_none() && model.seen.is_empty()
}

fn task_tensors(store: &Store, tasks: &[TaskRecord]) -> Result<Vec<u8>> {
    let mut tensors = Vec::new();
    for (index, task) in tasks.iter().enumerate() {
        let Some(sample) = &task.sample else { continue };
        let rows = select_rows(&stored_weight(store, sample.rows)?, &kept_rows(&sample.labels));
        let rows = rows.ok_or_else(|| {
            let labels = sample.labels.len();
            Error::input(format!("task {}: expected {labels} rows, found fewer", task.name))
        })?;
        tensors.push((format!("{index}.rows"), rows));
        tensors.push((format!("{index}.means"), stored_weight(store, sample.class_means)?));
        if let Some(hashes) = sample.image_hashes {
            tensors.push((format!("{index}.hashes"), stored_weight(store, hashes)?));
        }
    }
    Ok(safetensors::write(&tensors, &[])?)
}

fn signatures(store: &Store, models: &[ModelRecord]) -> Result<Vec<u8>> {
    let mut tensors = Vec::new();
    for (index, model) in models.iter().enumerate() {
        if let Some(signature) = super::stored_signature(store, model.row)? {
            let (shape, bytes) = (vec![signature.len()], super::f16_bytes(&signature));
            let weight = Weight { dtype: Dtype::F16, shape, bytes: Arc::new(bytes) };
            tensors.push((index.to_string(), weight));
        }
    }
    Ok(safetensors::write(&tensors, &[])?)
}

fn export_model(
    store: &Store,
    archive: &mut tar::Builder<&mut dyn Write>,
    index: usize,
    model: &ModelRecord,
) -> Result<()> {
    if model.graph.is_none() || is_built_in(model) {
        return Ok(());
    }
    let graph = stored_graph(store, model)?;
    let canonical = onnx::canonical(&graph)?;
    append(archive, &format!("models/{index}.graph"), &canonical.graph)?;
    let weights: Vec<(String, Weight)> = canonical
        .weights
        .iter()
        .enumerate()
        .map(|(position, (_, weight))| match weight.narrowed() {
            Some(narrow) => (format!("{position}{NARROWED}"), narrow),
            None => (position.to_string(), weight.clone()),
        })
        .collect();
    append(archive, &format!("models/{index}.safetensors"), &safetensors::write(&weights, &[])?)
}

/// Why an archive ends before its time. What `tar` says of foreign bytes repeats them, and is left out.
fn unreadable(error: std::io::Error, origin: &Path, members_read: usize) -> Error {
    match members_read {
        _ if error.raw_os_error().is_some() => Error::file("cannot read", origin, error),
        0 => not_a_bundle(origin, "no tar archive"),
        count => truncated(origin, &format!("damage after member {count}")),
    }
}

fn not_a_bundle(origin: &Path, found: &str) -> Error {
    Error::input(format!(
        "{}: expected a starter bundle as `tans export ZOO --starter` writes it, found {found}",
        origin.display()
    ))
}

fn truncated(origin: &Path, found: &str) -> Error {
    Error::input(format!(
        "{}: the starter bundle is truncated or damaged: expected all of its members, found {found}; copy it again",
        origin.display()
    ))
}

/// Members of a bundle, checked for size, and read when they are taken: their networks need not fit into memory.
struct Members<R> {
    source: R,
    /// Offset and size by name.
    places: HashMap<String, (u64, u64)>,
}

impl<R: Read + Seek> Members<R> {
    fn find(mut source: R, origin: &Path) -> Result<Self> {
        let end = source.seek(SeekFrom::End(0)).and_then(|end| source.rewind().map(|()| end));
        let end = end.map_err(|error| Error::file("cannot read", origin, error))?;
        let mut places: HashMap<String, (u64, u64)> = HashMap::new();
        let mut archive = tar::Archive::new(&mut source);
        let entries = archive.entries_with_seek();
        for entry in entries.map_err(|error| unreadable(error, origin, 0))? {
            let read = places.len();
            let failed = |error| unreadable(error, origin, read);
            let entry = entry.map_err(failed)?;
            let name = entry.path().map_err(failed)?.to_string_lossy().into_owned();
            let (start, size) = (entry.raw_file_position(), entry.size());
            if size > MEMBER_BYTES_MAX {
                return Err(Error::input(format!(
                    "{}: {name}: expected at most {MEMBER_BYTES_MAX} bytes, found {size}",
                    origin.display()
                )));
            }
            let there = end.saturating_sub(start);
            if there < size {
                return Err(truncated(origin, &format!("{there} of {size} bytes of {name}")));
            }
            places.insert(name, (start, size));
        }
        if !places.contains_key(MANIFEST) {
            let found = match places.len() {
                0 => "an empty archive".to_owned(),
                _ => format!("a tar archive without {MANIFEST}"),
            };
            return Err(not_a_bundle(origin, &found));
        }
        Ok(Self { source, places })
    }

    fn take(&mut self, name: &str, origin: &Path) -> Result<Vec<u8>> {
        let (start, size) = self
            .places
            .remove(name)
            .ok_or_else(|| truncated(origin, &format!("no member {name}")))?;
        let mut content = vec![0; size as usize];
        let read = self.source.seek(SeekFrom::Start(start));
        read.and_then(|_| self.source.read_exact(&mut content))
            .map_err(|error| Error::file("cannot read", origin, error))?;
        Ok(content)
    }

    fn manifest(&mut self, origin: &Path) -> Result<Manifest> {
        serde_json::from_slice(&self.take(MANIFEST, origin)?).map_err(|error| {
            Error::input(format!("{}: not a starter bundle: {MANIFEST}: {error}", origin.display()))
        })
    }

    fn tensors(&mut self, name: &str, origin: &Path) -> Result<HashMap<String, Weight>> {
        let tensors = safetensors::read(&self.take(name, origin)?)?.0.entries;
        Ok(tensors.into_iter().collect())
    }
}

/// Reads a bundle into a zoo by one commit. A model or task that the zoo holds already (same id) is left as it is; its
/// pairs are added.
///
/// Models arrive without embeddings: the caller installs a generation afterwards.
pub fn import(store: &Store, source: impl Read + Seek, origin: &Path) -> Result<Counts> {
    let mut members = Members::find(source, origin)?;
    let manifest = members.manifest(origin)?;
    if manifest.version != VERSION {
        return Err(Error::input(format!(
            "{}: expected bundle version {VERSION}, found {}: update tans",
            origin.display(),
            manifest.version
        )));
    }
    if manifest.backbone != store.backbone() {
        return Err(Error::input(format!(
            "{}: expected rows of this zoo's backbone, found rows of another one",
            origin.display()
        )));
    }
    bundle_check::manifest(&manifest, origin)?;
    let mut batch = Batch::new();
    let mut tensors = members.tensors("tasks.safetensors", origin)?;
    for (index, task) in manifest.tasks.iter().enumerate() {
        if store.task(TaskId(task.id))?.is_none() {
            if store.task_by_name(&task.name)?.is_some() {
                let taken = "has another dataset of that name";
                return Err(conflict(origin, &format!("task {:?}", task.name), taken));
            }
            batch.put_task(&import_task(store, index, task, &mut tensors)?);
        }
    }
    let (rows, models) = import_models(store, &manifest, &mut members, origin, &mut batch)?;
    for &(task, model, kind, accuracy) in &manifest.pairs {
        batch.put_pair(TaskId(manifest.tasks[task].id), rows[model], kind, accuracy);
    }
    store.commit(batch)?;
    Ok(Counts { models, tasks: manifest.tasks.len(), pairs: manifest.pairs.len() })
}

/// The rows that a bundle holds of its tasks, without a zoo.
pub fn samples(source: impl Read + Seek, origin: &Path) -> Result<HashMap<TaskId, TaskSample>> {
    let mut members = Members::find(source, origin)?;
    let manifest = members.manifest(origin)?;
    let mut tensors = members.tensors("tasks.safetensors", origin)?;
    let mut found = HashMap::new();
    for (index, task) in manifest.tasks.into_iter().enumerate() {
        let mut rows = |part: &str| {
            let matrix = tensors.remove(&format!("{index}.{part}"))?;
            Rows::new(*matrix.shape.get(1)?, matrix.floats()?)
        };
        let (Some(rows), Some(class_means), Some(labels)) =
            (rows("rows"), rows("means"), task.labels)
        else {
            continue;
        };
        let scalars = task.scalars;
        found.insert(TaskId(task.id), TaskSample { rows, labels, class_means, scalars });
    }
    Ok(found)
}

fn conflict(origin: &Path, what: &str, taken: &str) -> Error {
    Error::input(format!("{}: {what}: the zoo {taken}; nothing was taken in", origin.display()))
}

fn put(store: &Store, weight: &Weight) -> Result<TensorId> {
    let (dtype, shape, bytes) = (weight.dtype, &weight.shape[..], (*weight.bytes).as_ref());
    Ok(store.put_tensors(&[NewTensor { dtype, shape, bytes }])?[0])
}

fn import_task(
    store: &Store,
    index: usize,
    task: &TaskEntry,
    tensors: &mut HashMap<String, Weight>,
) -> Result<TaskRecord> {
    let mut tensor = |part: &str| -> Result<Option<TensorId>> {
        let Some(weight) = tensors.remove(&format!("{index}.{part}")) else { return Ok(None) };
        let labels = task.labels.as_ref().map_or(0, Vec::len);
        let fits = match (part, &weight.shape[..]) {
            ("rows", &[rows, BACKBONE_DIM]) => weight.dtype == Dtype::F16 && rows == labels,
            ("means", &[classes, BACKBONE_DIM]) => {
                weight.dtype == Dtype::F16 && classes == task.class_names.len()
            }
            ("hashes", &[_, 32]) => weight.dtype == Dtype::U8,
            _ => false,
        };
        if !fits {
            return Err(Error::input(format!(
                "task {}: {part}: expected a matrix that fits {labels} labels, {} classes and rows of {BACKBONE_DIM} numbers, found {:?} {:?}",
                task.name,
                task.class_names.len(),
                weight.dtype,
                weight.shape
            )));
        }
        if weight.dtype == Dtype::F16 {
            bundle_check::finite_f16(&format!("task {}: {part}", task.name), &weight)?;
        }
        put(store, &weight).map(Some)
    };
    let (rows, means, image_hashes) = (tensor("rows")?, tensor("means")?, tensor("hashes")?);
    let sample = match (rows, means, &task.labels) {
        (Some(rows), Some(class_means), Some(labels)) => Some(TaskSampleRecord {
            backbone: store.backbone(),
            rows,
            labels: labels.clone(),
            class_means,
            scalars: task.scalars,
            image_hashes,
        }),
        _ => None,
    };
    Ok(TaskRecord {
        id: TaskId(task.id),
        name: task.name.clone(),
        family: task.family.clone(),
        class_names: task.class_names.clone(),
        sample,
        benchmark: task.benchmark,
        created: super::unix_seconds(),
    })
}

/// Stages every new model; the row ids of all by position, and how many are new.
fn import_models(
    store: &Store,
    manifest: &Manifest,
    members: &mut Members<impl Read + Seek>,
    origin: &Path,
    batch: &mut Batch,
) -> Result<(Vec<u64>, usize)> {
    let mut new = 0;
    let mut signatures = members.tensors("signatures.safetensors", origin)?;
    let mut rows = Vec::with_capacity(manifest.models.len());
    let mut ids: Vec<ModelId> = Vec::with_capacity(manifest.models.len());
    let mut taken_in: HashMap<ModelId, u64> = HashMap::new();
    for (index, entry) in manifest.models.iter().enumerate() {
        let (graph, weights) = import_network(store, index, entry, members, origin)?;
        let id = match (&entry.uri, &graph) {
            (_, Some((bytes, _))) => {
                let tensors: Vec<TensorId> = weights.iter().map(|weight| weight.tensor).collect();
                ModelId::of_network(bytes, &tensors, &entry.input)
            }
            (uri, None) => ModelId::of_reference(uri.as_deref().unwrap_or(&entry.name)),
        };
        ids.push(id);
        // Networks that differ by less than half floats tell apart are one from here on.
        if let Some(&row) = taken_in.get(&id) {
            rows.push(row);
            continue;
        }
        if let Some(stored) = store.model_by_id(id)? {
            rows.push(stored.row);
            continue;
        }
        if store.model_by_name(&entry.name)?.is_some() {
            let taken = "has another model of that name";
            return Err(conflict(origin, &format!("model {:?}", entry.name), taken));
        }
        new += 1;
        let row = store.next_row()?;
        let seen = entry.seen.iter().map(|&task| TaskId(manifest.tasks[task].id));
        batch.put_model(&ModelRecord {
            id,
            row,
            name: entry.name.clone(),
            parent: entry.parent.map(|parent| ids[parent]),
            seen: seen.collect(),
            license: entry.license.clone(),
            tags: entry.tags.clone(),
            uri: match (&entry.uri, &graph) {
                (None, None) => Some(entry.name.clone()),
                (uri, _) => uri.clone(),
            },
            graph: graph.map(|(_, tensor)| tensor),
            weights,
            input: entry.input.clone(),
            // A latency holds for the machine that measured it.
            cost: Cost { latency: None, ..entry.cost.clone() },
            not_runnable: entry.not_runnable.clone(),
            architecture: entry.architecture.clone(),
            topology: entry.topology.clone(),
            class_names: entry.class_names.clone(),
            created: super::unix_seconds(),
        });
        if let Some(signature) = signatures.remove(&index.to_string()) {
            let bits = signature_bits(manifest.signature_version, &entry.name, &signature)?;
            batch.put_signature(row, &bits);
        }
        taken_in.insert(id, row);
        rows.push(row);
    }
    Ok((rows, new))
}

/// A signature as it is stored: its version, then its numbers.
fn signature_bits(version: u16, model: &str, signature: &Weight) -> Result<Vec<u16>> {
    if version == SIGNATURE_VERSION {
        bundle_check::signature(model, signature)?;
    }
    let bytes: &[u8] = (*signature.bytes).as_ref();
    let numbers = bytes.chunks_exact(2).map(|two| u16::from_le_bytes([two[0], two[1]]));
    Ok(std::iter::once(version).chain(numbers).collect())
}

type StoredGraph = Option<(Vec<u8>, TensorId)>;

/// Stores a bundled network's graph and weights, after proving that they fit together.
fn import_network(
    store: &Store,
    index: usize,
    entry: &ModelEntry,
    members: &mut Members<impl Read + Seek>,
    origin: &Path,
) -> Result<(StoredGraph, Vec<WeightRef>)> {
    let (graph, weights) = match (entry.built_in, entry.uri.is_some()) {
        (true, _) => match built_in_network()? {
            Some(network) => network,
            None => return Ok((None, Vec::new())),
        },
        (false, true) => return Ok((None, Vec::new())),
        (false, false) => bundled_network(index, entry, members, origin)?,
    };
    let built = onnx::from_canonical(&graph, weights.clone())?;
    built.check_finite()?;
    let params = cost::params(&built);
    if params != entry.cost.params {
        let found = entry.cost.params;
        return Err(Error::input(format!(
            "{}: model {:?}: expected a cost of {params} parameters, found {found}",
            origin.display(),
            entry.name
        )));
    }
    let contract: InputContract = tans_storage::decode("input contract", &entry.input)
        .map_err(|error| truncated(origin, &format!("for {:?} {error}", entry.name)))?;
    contract.check()?;
    let (tensor, ids) = super::store_network(store, &graph, weights.iter())?;
    let names = entry.weight_names.iter().zip(ids);
    let weights = names.map(|(name, tensor)| WeightRef { name: name.clone(), tensor }).collect();
    Ok((Some((graph, tensor)), weights))
}

type Network = (Vec<u8>, Vec<Weight>);

fn bundled_network(
    index: usize,
    entry: &ModelEntry,
    members: &mut Members<impl Read + Seek>,
    origin: &Path,
) -> Result<Network> {
    let graph = members.take(&format!("models/{index}.graph"), origin)?;
    let mut tensors = members.tensors(&format!("models/{index}.safetensors"), origin)?;
    let mut weights = Vec::with_capacity(entry.weight_names.len());
    for position in 0..entry.weight_names.len() {
        let narrow = tensors.remove(&format!("{position}{NARROWED}"));
        let weight = narrow.map(|weight| weight.widened());
        let weight = weight.or_else(|| tensors.remove(&position.to_string())).ok_or_else(|| {
            Error::input(format!(
                "{}: {}: expected weight {position}, found none",
                origin.display(),
                entry.name
            ))
        })?;
        weights.push(weight);
    }
    Ok((graph, weights))
}

/// The backbone as a network; without libtorch its weights are not compiled in, and it becomes a reference.
#[cfg(feature = "torch")]
fn built_in_network() -> Result<Option<Network>> {
    let (graph, _) = crate::encoder::backbone::network()?;
    let canonical = onnx::canonical(&graph)?;
    let weights = canonical.weights.into_iter().map(|(_, weight)| weight).collect();
    Ok(Some((canonical.graph, weights)))
}

#[cfg(not(feature = "torch"))]
fn built_in_network() -> Result<Option<Network>> {
    Ok(None)
}
