//! What several operations share.

#[cfg(feature = "torch")]
pub mod admit;
pub mod admit_name;
pub mod benchmark;
pub mod bundle;
mod bundle_check;
pub mod cache_file;
#[cfg(feature = "torch")]
pub mod cutting;
pub mod dataset;
pub mod embed;
#[cfg(feature = "torch")]
pub mod feature_cache;
#[cfg(feature = "torch")]
pub mod fit;
pub mod generation;
#[cfg(feature = "torch")]
pub mod growth;
pub mod known;
pub mod network_file;
#[cfg(feature = "torch")]
pub mod network_source;
#[cfg(feature = "torch")]
pub mod parallel;
#[cfg(feature = "torch")]
pub mod paused;
#[cfg(feature = "torch")]
pub mod probe;
pub mod remembered;
#[cfg(feature = "torch")]
pub mod rerank;
pub mod results;
pub mod search;
pub mod summary;
pub mod table;
pub mod training_set;
#[cfg(feature = "torch")]
pub mod tuned;
#[cfg(feature = "torch")]
pub mod tuning;

use crate::encoder::TaskSample;
use crate::encoder::signature::SIGNATURE_VERSION;
use crate::graph::formats::onnx;
use crate::graph::input::InputContract;
use crate::graph::{Graph, Weight};
use crate::rows::Rows;
use crate::{Error, Observer, Progress, Result};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tans_storage::{Dtype, ModelRecord, NewTensor, Store, TaskRecord, TensorId};

/// Seconds since 1970.
pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}

/// Widens f16 bits.
pub fn f16_to_f32(bits: &[u16]) -> Vec<f32> {
    bits.iter().map(|&bits| half::f16::from_bits(bits).to_f32()).collect()
}

/// Narrows to f16 bits.
pub fn f32_to_f16(values: &[f32]) -> Vec<u16> {
    values.iter().map(|&value| half::f16::from_f32(value).to_bits()).collect()
}

/// Narrows to f16, little-endian.
pub fn f16_bytes(values: &[f32]) -> Vec<u8> {
    f32_to_f16(values).into_iter().flat_map(u16::to_le_bytes).collect()
}

/// A signature as stored: its version, then its numbers as f16 bits.
pub fn signature_bits(signature: &[f32]) -> Vec<u16> {
    std::iter::once(SIGNATURE_VERSION).chain(f32_to_f16(signature)).collect()
}

/// A model's signature; one of another version is as good as none.
pub fn stored_signature(store: &Store, row: u64) -> Result<Option<Vec<f32>>> {
    let bits = store.signature(row)?;
    Ok(bits.and_then(|bits| match bits.split_first() {
        Some((&SIGNATURE_VERSION, numbers)) => Some(f16_to_f32(numbers)),
        _ => None,
    }))
}

/// A stored model by name.
pub fn model(store: &Store, name: &str) -> Result<ModelRecord> {
    store.model_by_name(name)?.ok_or_else(|| {
        Error::input(format!("no model is named {name:?}; `tans list` shows the names"))
    })
}

/// A stored task by name.
pub fn task(store: &Store, name: &str) -> Result<TaskRecord> {
    store.task_by_name(name)?.ok_or_else(|| {
        Error::input(format!("no task is named {name:?}; `tans task list` shows the names"))
    })
}

/// As `task_sample`, but `None` where the rows are damaged: what depends on them alone does not count.
pub fn readable_sample(store: &Store, task: &TaskRecord) -> Result<Option<TaskSample>> {
    match task_sample(store, task) {
        Err(Error::Storage(damage @ tans_storage::Error::Corrupt { .. })) => {
            tracing::warn!("{damage}; the rows of task {:?} do not count", task.name);
            Ok(None)
        }
        read => read,
    }
}

/// What the zoo keeps of a task's dataset; `None` for a reference task.
pub fn task_sample(store: &Store, task: &TaskRecord) -> Result<Option<TaskSample>> {
    let Some(sample) = &task.sample else { return Ok(None) };
    Ok(Some(TaskSample {
        rows: f16_rows(store, sample.rows)?,
        labels: sample.labels.clone(),
        class_means: f16_rows(store, sample.class_means)?,
        scalars: sample.scalars,
    }))
}

fn f16_rows(store: &Store, id: TensorId) -> Result<Rows> {
    let weight = stored_weight(store, id)?;
    let rows = match (weight.dtype, &weight.shape[..]) {
        (Dtype::F16, &[_, dim]) => weight.floats().and_then(|values| Rows::new(dim, values)),
        _ => None,
    };
    rows.ok_or_else(|| {
        Error::Storage(tans_storage::Error::Corrupt {
            file: "packs".into(),
            offset: id.to_string(),
            what: format!("expected a matrix of f16, found {weight:?}"),
        })
    })
}

/// The tensors of a network: its canonical graph, of `shape` (its length), then its weights.
pub fn network_tensors<'a, 'w: 'a>(
    graph: &'a [u8],
    shape: &'a [usize; 1],
    weights: impl Iterator<Item = &'w Weight>,
) -> Vec<NewTensor<'a>> {
    let graph = NewTensor { dtype: Dtype::U8, shape, bytes: graph };
    let weights = weights.map(|weight| NewTensor {
        dtype: weight.dtype,
        shape: &weight.shape,
        bytes: weight.data(),
    });
    std::iter::once(graph).chain(weights).collect()
}

/// Stores a network's canonical graph and its weights; their ids, the weights' in order.
pub fn store_network<'a>(
    store: &Store,
    graph: &[u8],
    weights: impl Iterator<Item = &'a Weight>,
) -> Result<(TensorId, Vec<TensorId>)> {
    let mut ids = store.put_tensors(&network_tensors(graph, &[graph.len()], weights))?;
    let weights = ids.split_off(1);
    Ok((ids[0], weights))
}

/// A stored tensor as a weight on mapped bytes.
pub fn stored_weight(store: &Store, id: TensorId) -> Result<Weight> {
    let tensor = store.tensor(id)?;
    Ok(Weight { dtype: tensor.dtype(), shape: tensor.shape().to_vec(), bytes: Arc::new(tensor) })
}

/// A stored network's graph on mapped weights, under the names that they came with where that is possible.
pub fn stored_graph(store: &Store, model: &ModelRecord) -> Result<Graph> {
    let graph = model.graph.ok_or_else(|| {
        Error::input(format!(
            "{} is a reference: its network is not stored here{}",
            model.name,
            match model.uri.as_ref().filter(|uri| **uri != model.name) {
                Some(uri) => format!(", but at {uri}"),
                None => String::new(),
            }
        ))
    })?;
    let mut weights = Vec::with_capacity(model.weights.len());
    for weight in &model.weights {
        weights.push(stored_weight(store, weight.tensor)?);
    }
    let mut graph = onnx::from_canonical(store.tensor(graph)?.as_ref(), weights)?;
    graph.rename_weights(|number| model.weights.get(number).map(|weight| weight.name.as_str()));
    Ok(graph)
}

/// A stored network's input contract.
pub fn input_contract(model: &ModelRecord) -> Result<InputContract> {
    let contract: InputContract = tans_storage::decode("input contract", &model.input)?;
    contract.check()?;
    Ok(contract)
}

/// What encoders and evaluation call the family of a task: its own name where none was given.
pub fn family(task: &TaskRecord) -> String {
    task.family.clone().unwrap_or_else(|| task.name.clone())
}

/// What the store reports of its files, in the words of an observer.
pub fn stored_files(
    observer: Observer<'_>,
    step: &'static str,
) -> impl FnMut(usize, usize) -> ControlFlow<()> {
    move |done, total| observer(Progress { step, item: String::new(), done, total })
}

/// Refuses a path whose folder does not exist, before work is done for it.
pub fn refuse_missing_folder(output: &Path) -> Result<()> {
    let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty());
    match folder {
        Some(folder) if !folder.is_dir() => Err(Error::input(format!(
            "{}: expected an existing folder, found none at {}: make it first",
            output.display(),
            folder.display()
        ))),
        Some(_) | None => Ok(()),
    }
}

/// Writes a user's file as a whole, or not at all.
pub fn write_file(output: &Path, bytes: &[u8]) -> Result<()> {
    write_with(output, |out| {
        std::io::Write::write_all(out, bytes).map_err(|source| cannot_write(output, source))
    })
}

/// As `write_file`, with what `write` makes, which need not fit into memory.
pub fn write_with<T>(
    output: &Path,
    write: impl FnOnce(&mut dyn std::io::Write) -> Result<T>,
) -> Result<T> {
    refuse_missing_folder(output)?;
    let mut written = None;
    let installed = tans_storage::install_file(output, |file| {
        let mut out = std::io::BufWriter::new(file);
        let made = write(&mut out);
        let is_made = made.is_ok();
        written = Some(made);
        // Nothing may be installed that is not whole; the error itself is told below.
        if is_made {
            std::io::Write::flush(&mut out)
        } else {
            Err(std::io::ErrorKind::Other.into())
        }
    });
    match (written, installed) {
        (Some(Err(Error::Write { source, .. })), _) => Err(cannot_write(output, source)),
        (Some(Err(error)), _) => Err(error),
        (Some(Ok(made)), Ok(())) => Ok(made),
        (_, Err(tans_storage::Error::Io { action, source, .. })) => {
            Err(Error::Write { action, path: output.to_owned(), source })
        }
        (_, Err(other)) => Err(other.into()),
        (None, Ok(())) => Err(cannot_write(output, std::io::ErrorKind::Other.into())),
    }
}

/// The error of a file that a user asked for.
pub fn cannot_write(output: &Path, source: std::io::Error) -> Error {
    Error::Write { action: "cannot write", path: output.to_owned(), source }
}
