//! A network file as others write it: ONNX, or weights alone for a generated architecture.

use super::network_file::{self, ARCHITECTURE_KEY, Described};
use crate::graph::Error as GraphError;
use crate::graph::Graph;
use crate::graph::formats::{Limits, StateDict, onnx, pytorch, safetensors};
use crate::graph::input::{InputContract, InputHints};
use crate::graph::spaces;
use crate::{Error, Result};
use std::path::Path;
use tans_storage::Architecture;

/// Suffixes of files that `read` takes.
pub const SUFFIXES: [&str; 5] = ["onnx", "safetensors", "pt", "pth", "ckpt"];

/// A network that was read.
pub struct Source {
    /// With its weights.
    pub graph: Graph,
    /// How images become its input.
    pub input: InputContract,
    /// Where it comes from in a generated space.
    pub architecture: Option<Architecture>,
    /// What the file says of it.
    pub described: Described,
    /// How weights were placed, if not by name.
    pub note: Option<String>,
}

/// What a file is read with.
pub struct Reading<'a> {
    /// Architecture of weights that come without one.
    pub space: Option<&'a str>,
    /// What is known of the input.
    pub hints: &'a InputHints,
    /// What the file may make us allocate.
    pub limits: &'a Limits,
}

/// Reads a network; the bytes, not the suffix, say what the file is.
///
/// # Errors
/// `Error::Input` that names the file.
pub fn read(path: &Path, reading: &Reading<'_>) -> Result<Source> {
    let bytes = std::fs::read(path).map_err(|error| Error::file("cannot read", path, error))?;
    decode(path, &bytes, reading).map_err(|error| located(path, error))
}

/// The error of a file; one of the device stays what it is.
pub fn located(path: &Path, error: GraphError) -> Error {
    match error {
        GraphError::Device { .. } => Error::Graph(error),
        error => Error::input(format!("{}: {error}", path.display())),
    }
}

/// Text of both kinds of network file.
type Metadata = Vec<(String, String)>;

type Decoded = std::result::Result<Source, GraphError>;

fn decode(path: &Path, bytes: &[u8], reading: &Reading<'_>) -> Decoded {
    let suffix = path.extension().map(|suffix| suffix.to_string_lossy().to_lowercase());
    let suffix = suffix.as_deref().unwrap_or_default();
    if pytorch::is_checkpoint(bytes) || matches!(suffix, "pt" | "pth" | "bin" | "ckpt") {
        return weights(pytorch::read(bytes, reading.limits)?, &[], reading);
    }
    if safetensors::is_file(bytes) || suffix == "safetensors" {
        let (state, metadata) = safetensors::read(bytes)?;
        return weights(state, &metadata, reading);
    }
    if let Some(space) = reading.space {
        return Err(GraphError::Contract(format!(
            "--space {space}: expected a file of weights alone, found a network with its own graph"
        )));
    }
    let file = onnx::read(bytes, reading.limits)?;
    let input = InputContract::infer(&file.graph, &file.metadata, reading.hints)?;
    let described = network_file::described(&file.metadata)?;
    Ok(Source { graph: file.graph, input, architecture: None, described, note: None })
}

fn weights(state: StateDict, metadata: &[(String, String)], reading: &Reading<'_>) -> Decoded {
    let exported = metadata.iter().find(|(key, _)| key == ARCHITECTURE_KEY);
    let spec = reading.space.or(exported.map(|(_, spec)| spec.as_str())).ok_or_else(|| {
        GraphError::Contract(format!(
            "expected a network, found weights alone: name their architecture with --space SPACE:CONFIG, such as \
            --space resnet:18 (spaces: {}), or export the network as ONNX",
            spaces::NAMES.join(", ")
        ))
    })?;
    let spaces::Pretrained { network, note } = spaces::pretrained(spec, state)?;
    let spaces::Generated { graph, input: own, space, config, numbers } = network;
    let described = network_file::described(metadata)?;
    let metadata: Metadata = metadata.iter().cloned().chain(own.to_metadata()).collect();
    let input = InputContract::infer(&graph, &metadata, reading.hints)?;
    let (expected, found) = (own.batch_shape(1), input.batch_shape(1));
    if expected != found {
        return Err(GraphError::Contract(format!(
            "{spec} takes {expected:?}, found {found:?} stated: name the side with the architecture, as in \
            resnet:18@96"
        )));
    }
    let architecture = Some(Architecture { space, config, numbers });
    Ok(Source { graph, input, architecture, described, note })
}
