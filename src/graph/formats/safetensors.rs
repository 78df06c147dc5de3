//! safetensors: named weights with a little text.

use super::StateDict;
use crate::graph::{Bytes, Dtype, Error, Weight};
use safetensors::tensor::{SafeTensorError, SafeTensors, View, serialize};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Serialises named weights with string metadata.
///
/// # Errors
/// `Error::Contract` if a name or key comes twice; `Error::Malformed` if a weight's bytes do not
/// fit its type and shape.
pub fn write(
    weights: &[(String, Weight)],
    metadata: &[(String, String)],
) -> Result<Vec<u8>, Error> {
    refuse_twice("weight", weights.iter().map(|(name, _)| name))?;
    refuse_twice("metadata key", metadata.iter().map(|(key, _)| key))?;
    for (name, weight) in weights {
        let found = weight.data().len();
        if weight.byte_size() != Some(found) {
            return Err(malformed(format!("weight {name:?} ({weight:?}) has {found} bytes")));
        }
    }
    let views = weights.iter().map(|(name, weight)| (name.as_str(), Shared(weight)));
    let metadata: HashMap<String, String> = metadata.iter().cloned().collect();
    let metadata = Some(metadata).filter(|metadata| !metadata.is_empty());
    serialize(views, metadata).map_err(|error| malformed(error.to_string()))
}

/// Whether these bytes begin as a safetensors file: with the length of a header in JSON.
pub fn is_file(bytes: &[u8]) -> bool {
    let Some((length, rest)) = bytes.split_first_chunk() else { return false };
    u64::from_le_bytes(*length) <= rest.len() as u64 && rest.starts_with(b"{")
}

/// Reads named weights, in order of their bytes, which is not that of the network's layers, and metadata, sorted by
/// key.
///
/// # Errors
/// `Error::Malformed` if the bytes are not a sound safetensors file.
pub fn read(bytes: &[u8]) -> Result<(StateDict, Vec<(String, String)>), Error> {
    let wrong = |error: SafeTensorError| match error {
        SafeTensorError::MetadataIncompleteBuffer => malformed(format!(
            "expected as many bytes as the header says, found {}: truncated, or something was appended",
            bytes.len()
        )),
        other => malformed(other.to_string()),
    };
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(wrong)?;
    let file = SafeTensors::deserialize(bytes).map_err(wrong)?;
    let mut entries = Vec::with_capacity(file.len());
    for name in header.offset_keys() {
        let tensor = file.tensor(&name).map_err(wrong)?;
        let bytes: Bytes = Arc::new(tensor.data().to_vec());
        entries
            .push((name, Weight { dtype: tensor.dtype(), shape: tensor.shape().to_vec(), bytes }));
    }
    let metadata = header.metadata().clone().unwrap_or_default();
    let mut metadata: Vec<(String, String)> = metadata.into_iter().collect();
    metadata.sort_unstable();
    Ok((StateDict { entries, is_ordered: false }, metadata))
}

struct Shared<'a>(&'a Weight);

impl View for Shared<'_> {
    fn dtype(&self) -> Dtype {
        self.0.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.0.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(self.0.data())
    }
    fn data_len(&self) -> usize {
        self.0.data().len()
    }
}

fn refuse_twice<'a>(what: &str, names: impl Iterator<Item = &'a String>) -> Result<(), Error> {
    let mut seen = HashSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(Error::Contract(format!("{what} {name:?} is there twice")));
        }
    }
    Ok(())
}

fn malformed(what: String) -> Error {
    Error::Malformed { format: "safetensors", what }
}
