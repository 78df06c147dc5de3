//! Errors of reading datasets.

use std::path::PathBuf;

/// What can go wrong with a dataset.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The dataset cannot be used as it is. The message says what was expected and found.
    #[error("{path}: expected {expected}, found {found}")]
    Unusable {
        /// The dataset.
        path: PathBuf,
        /// What a dataset has.
        expected: String,
        /// What this one has.
        found: String,
    },
    /// A file could not be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
}
