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
    Storage(#[from] tans_storage::Error),
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
    /// A file of the user could not be read. Check the path.
    #[error("{action} {path}: {source}")]
    File {
        /// What was tried, as in `cannot read`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// A file for the user could not be written. Mend the disk or its permissions, or write elsewhere.
    #[error("{action} {path}: {source}")]
    Write {
        /// What was tried, as in `cannot write`.
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

/// Whose turn it is after an error: what the exit codes of the command line and the exceptions of Python tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The answer is no; nothing is wrong.
    Refused,
    /// The caller asked to stop.
    Cancelled,
    /// The caller's: an argument, a file or a path is not what was expected.
    Input,
    /// Another process writes to the zoo: wait for it.
    Locked,
    /// Stored bytes are wrong: `check` says which, a backup has them.
    Damaged,
    /// The zoo, the disk or the device failed, or the zoo is of a newer format.
    Failed,
}

/// A wish to stop is the same whoever passes it on.
impl From<crate::encoder::Error> for Error {
    fn from(error: crate::encoder::Error) -> Self {
        match error {
            crate::encoder::Error::Cancelled => Self::Cancelled,
            other => Self::Encoder(other),
        }
    }
}

impl Error {
    /// Whose turn it is.
    pub fn kind(&self) -> ErrorKind {
        use tans_storage::Error as Storage;
        match self {
            Self::Refused(_) => ErrorKind::Refused,
            Self::Cancelled => ErrorKind::Cancelled,
            Self::Graph(crate::graph::Error::Device { .. })
            | Self::Encoder(crate::encoder::Error::Graph(crate::graph::Error::Device { .. }))
            | Self::Write { .. } => ErrorKind::Failed,
            Self::Graph(_)
            | Self::Data(_)
            | Self::Encoder(_)
            | Self::Input(_)
            | Self::File { .. }
            | Self::Storage(
                Storage::NotAZoo { .. }
                | Storage::AlreadyExists { .. }
                | Storage::ReadOnly
                | Storage::Invalid(_),
            ) => ErrorKind::Input,
            Self::Storage(Storage::Locked { .. }) => ErrorKind::Locked,
            Self::Storage(Storage::Corrupt { .. }) => ErrorKind::Damaged,
            Self::Storage(_) | Self::Index(_) => ErrorKind::Failed,
        }
    }

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
