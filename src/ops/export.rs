//! Writes a model, or the whole zoo, into a file that others read.

use crate::graph::formats::{onnx, safetensors};
use crate::state::State;
use crate::steps::{self, bundle};
use crate::{Error, Result};
use serde::Serialize;
use std::path::{Path, PathBuf};

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
    state.refresh()?;
    let model = steps::model(&state.store, name)?;
    let graph = steps::stored_graph(&state.store, &model)?;
    let metadata = steps::metadata(&model)?;
    let suffix = output.extension().map(|suffix| suffix.to_string_lossy().to_lowercase());
    let bytes = match suffix.as_deref() {
        Some("onnx") => onnx::write(&graph, &metadata)?,
        Some("safetensors") => {
            let names = model.weights.iter().map(|weight| weight.name.clone());
            let weights = onnx::canonical(&graph)?.weights.into_iter().map(|(_, weight)| weight);
            safetensors::write(&names.zip(weights).collect::<Vec<_>>(), &metadata)?
        }
        _ => {
            return Err(Error::input(format!(
                "{}: expected a file name that ends in .onnx or .safetensors",
                output.display()
            )));
        }
    };
    steps::write_file(output, &bytes)?;
    let (model, output) = (Some(model.name), output.to_path_buf());
    Ok(ExportReport { model, output, bytes: bytes.len() as u64, models: 1 })
}

/// Writes every model, task and pair as a starter bundle; float weights become f16.
pub(crate) fn starter(state: &State, output: &Path) -> Result<ExportReport> {
    state.refresh()?;
    let mut bytes = Vec::new();
    let counts = bundle::export(&state.store, &mut bytes)?;
    steps::write_file(output, &bytes)?;
    let output = output.to_path_buf();
    Ok(ExportReport { model: None, output, bytes: bytes.len() as u64, models: counts.models })
}
