//! The engine's error: what happened, and whether to mend the input, the disk or the expectation.

use std::path::PathBuf;

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong in an operation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The store failed; see the inner error for what to do.
    #[error(transparent)]
    Storage(tans_storage::Error),
    /// The index failed; its segment is derived data and is built again by `reindex`.
    #[error(transparent)]
    Index(#[from] tans_index::Error),
    /// A network cannot be read, checked or run.
    #[error(transparent)]
    Graph(#[from] crate::graph::Error),
    /// A dataset cannot be read.
    #[error(transparent)]
    Data(#[from] crate::data::Error),
    /// Encoding or learning failed.
    #[error(transparent)]
    Encoder(crate::encoder::Error),
    /// An argument is out of range or names something that is not there. The message says what was expected.
    #[error("{0}")]
    Input(String),
    /// A file of the user could not be read or written.
    #[error("{action} {path}: {source}")]
    File {
        /// What was tried, as in `cannot read`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// The new encoders were not better, so nothing was installed. `force` installs them all the same.
    #[error("refused: {0}")]
    Refused(String),
    /// The caller's progress function asked to stop. The zoo is as it was.
    #[error("cancelled")]
    Cancelled,
}

/// A wish to stop is the same whoever passes it on.
impl From<tans_storage::Error> for Error {
    fn from(error: tans_storage::Error) -> Self {
        match error {
            tans_storage::Error::Cancelled => Self::Cancelled,
            other => Self::Storage(other),
        }
    }
}

impl From<crate::encoder::Error> for Error {
    fn from(error: crate::encoder::Error) -> Self {
        match error {
            crate::encoder::Error::Cancelled => Self::Cancelled,
            other => Self::Encoder(other),
        }
    }
}

impl Error {
    /// An `Input` error from anything that can be shown.
    pub(crate) fn input(message: impl Into<String>) -> Self {
        Self::Input(message.into())
    }
    /// A `File` error.
    pub(crate) fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
        source: std::io::Error,
    ) -> Self {
        Self::File { action, path: path.into(), source }
    }
}
