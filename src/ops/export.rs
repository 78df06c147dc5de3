//! Writes a model, or the whole zoo, into a file that others read.

use crate::state::State;
use crate::steps::network_file::{self, Format};
use crate::steps::{self, bundle};
use crate::{Error, Result};
use serde::Serialize;
use std::path::{Path, PathBuf};
use tans_storage::Store;

/// What `export` wrote.
#[derive(Clone, Debug, Serialize)]
pub struct ExportReport {
    /// The model; `None` for a whole zoo.
    pub model: Option<String>,
    /// The file.
    pub output: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Models in it.
    pub models: usize,
}

/// Writes a model as ONNX or safetensors, by the suffix of `output`.
pub(crate) fn model(state: &State, name: &str, output: &Path) -> Result<ExportReport> {
    let format = Format::of(output)?;
    state.refresh()?;
    let model = steps::model(&state.store, name)?;
    let bytes = network_file::encode(&state.store, &model, format)?;
    steps::write_file(output, &bytes)?;
    let (model, output) = (Some(model.name), output.to_path_buf());
    Ok(ExportReport { model, output, bytes: bytes.len() as u64, models: 1 })
}

/// Options of `export_starter`.
#[derive(Clone, Copy, Debug, Default)]
pub struct StarterOptions {
    /// Leave the weights out: networks become references that keep what was measured of them. Default false.
    pub without_weights: bool,
}

/// Writes every model, task and pair as a starter bundle; float weights become f16.
pub(crate) fn starter(
    state: &State,
    output: &Path,
    options: StarterOptions,
) -> Result<ExportReport> {
    if output.extension().is_none_or(|suffix| !suffix.eq_ignore_ascii_case("tar")) {
        return Err(Error::input(format!(
            "{}: expected a file name that ends in .tar, which is what a starter bundle is",
            output.display()
        )));
    }
    state.refresh()?;
    prove_all(&state.store)?;
    let weights = match options.without_weights {
        true => bundle::Weights::Without,
        false => bundle::Weights::Half,
    };
    let counts = steps::write_with(output, |out| bundle::export(&state.store, weights, out))?;
    let bytes = output.metadata().map_err(|error| Error::file("cannot read", output, error))?.len();
    Ok(ExportReport { model: None, output: output.to_path_buf(), bytes, models: counts.models })
}

/// A bundle is rounded to f16, so nobody could tell a flipped byte from a rounded one later.
fn prove_all(store: &Store) -> Result<()> {
    for model in store.models()? {
        let model = model?;
        let owner = format!("model {}", model.name);
        network_file::prove(store, &owner, network_file::tensors(&model))?;
    }
    for task in store.tasks()? {
        let owner = format!("task {}", task.name);
        network_file::prove(store, &owner, network_file::task_tensors(&task))?;
    }
    Ok(())
}
