//! safetensors export of a network's weights.

use crate::graph::{Error, Weight};

/// Serialises named weights with string metadata.
pub fn write(
    _weights: &[(String, Weight)],
    _metadata: &[(String, String)],
) -> Result<Vec<u8>, Error> {
    todo!()
}

/// Reads named weights and metadata.
#[expect(clippy::type_complexity, reason = "a pair of plain lists")]
pub fn read(_bytes: &[u8]) -> Result<(Vec<(String, Weight)>, Vec<(String, String)>), Error> {
    todo!()
}
