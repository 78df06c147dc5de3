//! Errors of reading datasets.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// What can go wrong with a dataset.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The dataset cannot be used as it is: do what `advice` says and open it again.
    #[error("{path}: expected {expected}, found {found}; {advice}")]
    Unusable {
        /// The dataset.
        path: PathBuf,
        /// What a dataset has.
        expected: String,
        /// What this one has.
        found: String,
        /// What the caller can do.
        advice: String,
    },
    /// A file could not be read: check its permissions and the disk, then try again.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
}

impl Error {
    pub(super) fn unusable(
        path: &Path,
        expected: impl Into<String>,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self::Unusable {
            path: path.to_path_buf(),
            expected: expected.into(),
            found: found.into(),
            advice: advice.into(),
        }
    }

    pub(super) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_path_buf(), source }
    }

    /// A failure while bytes are parsed: decoders report damage as `io::Error`, and damage is not a
    /// failure of the disk.
    pub(super) fn reading(path: &Path, part: &str, source: std::io::Error) -> Self {
        let damage = matches!(
            source.kind(),
            ErrorKind::UnexpectedEof | ErrorKind::InvalidData | ErrorKind::InvalidInput
        );
        if !damage {
            return Self::io(path, source);
        }
        Self::unusable(
            path,
            format!("a complete {part}"),
            format!("damaged or truncated bytes ({source})"),
            "copy or write the file again",
        )
    }
}
