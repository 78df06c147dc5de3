//! A stored network as a file that others read.

use super::bundle::BUILT_IN;
use super::{input_contract, stored_graph};
use crate::graph::Error as GraphError;
use crate::graph::formats::{onnx, safetensors};
use crate::graph::input::InputContract;
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::path::Path;
use tans_storage::Error::Corrupt;
use tans_storage::{Architecture, ModelRecord, Store, TaskRecord, TensorId};

/// Key of the metadata entry that names the architecture of exported weights.
pub const ARCHITECTURE_KEY: &str = "tans.architecture";
const LICENSE_KEY: &str = "tans.license";
const TAGS_KEY: &str = "tans.tags";
const CLASS_NAMES_KEY: &str = "tans.classes";

/// What an exported file says of its network beside what runs it.
#[derive(Clone, Debug, Default)]
pub struct Described {
    /// SPDX expression.
    pub license: Option<String>,
    /// Labels.
    pub tags: BTreeMap<String, String>,
    /// By logit.
    pub class_names: Vec<String>,
}

/// What a network is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Graph and weights.
    Onnx,
    /// Weights alone.
    Safetensors,
}

impl Format {
    /// By the suffix.
    ///
    /// # Errors
    /// `Error::Input` for any other suffix.
    pub fn of(output: &Path) -> Result<Self> {
        let suffix = output.extension().map(|suffix| suffix.to_string_lossy().to_lowercase());
        match suffix.as_deref() {
            Some("onnx") => Ok(Self::Onnx),
            Some("safetensors") => Ok(Self::Safetensors),
            Some("tar") => Err(Error::input(format!(
                "{}: a .tar holds a whole zoo: pass --starter and no model, or a file name that ends in .onnx or .safetensors",
                output.display()
            ))),
            _ => Err(Error::input(format!(
                "{}: expected a file name that ends in .onnx or .safetensors",
                output.display()
            ))),
        }
    }
}

/// The bytes of the file. Weights are hashed first, for a flipped byte must not leave the zoo as a good one.
///
/// # Errors
/// `Error::Input` for a reference model, `Error::Storage` for damage.
pub fn encode(store: &Store, model: &ModelRecord, format: Format) -> Result<Vec<u8>> {
    prove(store, &format!("model {}", model.name), tensors(model))?;
    let graph = stored_graph(store, model)?;
    let metadata = metadata(model)?;
    Ok(match format {
        Format::Onnx => onnx::write(&graph, &metadata)?,
        Format::Safetensors => {
            let names = model.weights.iter().map(|weight| weight.name.clone());
            let weights = onnx::canonical(&graph)?.weights.into_iter().map(|(_, weight)| weight);
            safetensors::write(&names.zip(weights).collect::<Vec<_>>(), &metadata)?
        }
    })
}

/// Graph and weights.
pub fn tensors(model: &ModelRecord) -> impl Iterator<Item = TensorId> {
    model.graph.into_iter().chain(model.weights.iter().map(|weight| weight.tensor))
}

/// Feature rows, class means and image hashes.
pub fn task_tensors(task: &TaskRecord) -> impl Iterator<Item = TensorId> {
    let of = task.sample.as_ref();
    let tensors =
        of.map(|sample| [Some(sample.rows), Some(sample.class_means), sample.image_hashes]);
    tensors.into_iter().flatten().flatten()
}

/// Reads stored tensors, which are hashed then.
///
/// # Errors
/// `Error::Storage`; of damage, one that names `owner`, whose tensors these are.
pub fn prove(store: &Store, owner: &str, tensors: impl Iterator<Item = TensorId>) -> Result<()> {
    for id in tensors {
        store.tensor(id).map_err(|error| match error {
            Corrupt { what, .. } => Corrupt {
                file: owner.to_owned(),
                offset: format!("tensor {id}"),
                what: format!("{what}; `tans check` shows all damage, a backup has the rest"),
            },
            other => other,
        })?;
    }
    Ok(())
}

/// Reads back what `encode` wrote of a record; a file of others describes nothing.
///
/// # Errors
/// `GraphError::Contract` for an entry that `encode` would not have written.
pub fn described(metadata: &[(String, String)]) -> std::result::Result<Described, GraphError> {
    let entry = |wanted: &str| {
        metadata.iter().find(|(key, _)| key == wanted).map(|(_, value)| value.as_str())
    };
    let tags = entry(TAGS_KEY).map_or(Ok(BTreeMap::new()), serde_json::from_str);
    let names = entry(CLASS_NAMES_KEY).map_or(Ok(Vec::new()), serde_json::from_str);
    let refuse = |key: &str, error: serde_json::Error| {
        GraphError::Contract(format!(
            "metadata entry {key}: expected what `export` writes, found {error}"
        ))
    };
    Ok(Described {
        license: entry(LICENSE_KEY).map(str::to_owned),
        tags: tags.map_err(|error| refuse(TAGS_KEY, error))?,
        class_names: names.map_err(|error| refuse(CLASS_NAMES_KEY, error))?,
    })
}

/// A record as file metadata; `ingest` reads all but the name back from it.
fn metadata(model: &ModelRecord) -> Result<Vec<(String, String)>> {
    let input = input_contract(model)?;
    let mut metadata = input.to_metadata();
    if let Some(architecture) = &model.architecture {
        metadata.push(architecture_entry(architecture, &input));
    }
    metadata.push(("tans.name".into(), model.name.clone()));
    if let Some(license) = &model.license {
        metadata.push((LICENSE_KEY.into(), license.clone()));
    }
    if !model.tags.is_empty() {
        metadata.push((TAGS_KEY.into(), serde_json::json!(model.tags).to_string()));
    }
    if !model.class_names.is_empty() {
        metadata.push((CLASS_NAMES_KEY.into(), serde_json::json!(model.class_names).to_string()));
    }
    Ok(metadata)
}

/// The entry by which `network_source` finds the architecture of exported weights.
fn architecture_entry(architecture: &Architecture, input: &InputContract) -> (String, String) {
    let Architecture { space, config, numbers: _ } = architecture;
    // The backbone that every build carries is a member of a space, too.
    let member = match (space.as_str(), config.strip_prefix("efficientnet-")) {
        (BUILT_IN, Some(variant)) => format!("efficientnet_lite:{variant}"),
        _ => format!("{space}:{config}"),
    };
    (ARCHITECTURE_KEY.to_owned(), format!("{member}@{}", input.height))
}
