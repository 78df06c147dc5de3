//! PyTorch checkpoints, read as data: nothing that a file names is ever run.
//!
//! Two containers: the zip archive of PyTorch 1.6 and later (`NAME/data.pkl` and one stored entry for
//! each storage), and the row of pickles and raw storages of before. Both hold a pickle, whose globals
//! must be on a list (`globals.rs`); anything else in it is refused by its name.

mod archive;
mod globals;
mod legacy;
mod pickle;
mod state;
#[cfg(test)]
pub(super) mod tests;

use super::{Limits, StateDict};
use crate::graph::{Dtype, Error};

/// What to do with a file that holds code, or a network as an object.
const ADVICE: &str = "save the weights alone with torch.save(model.state_dict(), FILE), or export the \
    network with torch.onnx.export (in Python, zoo.ingest(module, input=(3, 224, 224)) does it)";

/// Whether these bytes begin as `torch.save` writes them.
pub fn is_checkpoint(bytes: &[u8]) -> bool {
    archive::is_archive(bytes) || matches!(bytes, [0x80, 2..=5, ..])
}

/// Reads the state dict of a checkpoint: the file's own, or the one under a usual key such as
/// `state_dict` or `model`.
///
/// What is allocated is bounded by twice the file's size and by `limits`.
///
/// # Errors
/// `Error::Contract` for what a state dict does not need: globals beyond the list (by name),
/// TorchScript, pickled modules; with the advice what to do. `Error::Malformed` for damage,
/// `Error::Limit` beyond `limits`.
pub fn read(bytes: &[u8], limits: &Limits) -> Result<StateDict, Error> {
    if archive::is_archive(bytes) {
        archive::read(bytes, limits)
    } else {
        legacy::read(bytes, limits)
    }
}

/// Raw values of one storage.
#[derive(Clone, Copy)]
struct Raw<'a> {
    dtype: Dtype,
    bytes: &'a [u8],
}

fn malformed(what: impl Into<String>) -> Error {
    Error::Malformed { format: "PyTorch checkpoint", what: what.into() }
}

/// A name from a file, fit for a message.
fn shown(name: &str) -> String {
    let short: String = name.chars().take(80).collect();
    format!("{short:?}{}", if short.len() < name.len() { "..." } else { "" })
}
