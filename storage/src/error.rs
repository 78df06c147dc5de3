//! Errors of the store.

use std::path::PathBuf;

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong in the store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The directory is not a zoo. Give the path of a zoo, or make one with `init`.
    #[error("{path} is not a zoo: expected {expected}, found {found}; `tans init` makes one")]
    NotAZoo {
        /// The path that was given.
        path: PathBuf,
        /// What a zoo has there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A zoo cannot be created here, because something is here already. Choose another path.
    #[error("cannot create a zoo at {path}: expected a new or empty directory, found {found}")]
    AlreadyExists {
        /// The path that was given.
        path: PathBuf,
        /// What is there.
        found: String,
    },
    /// The zoo was written by a newer version. Update tans.
    #[error("{path} has format version {found}, this tans reads up to {supported}: update tans")]
    NewerFormat {
        /// The zoo.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest this build reads.
        supported: u32,
    },
    /// Another process writes to the zoo. Wait for it; reading (`Mode::Read`) needs no waiting.
    #[error(
        "{path} is being written by {holder}; wait for it to end; who only reads need not wait"
    )]
    Locked {
        /// The zoo.
        path: PathBuf,
        /// Process id, command and start of the holder, as far as known.
        holder: String,
    },
    /// The store was opened with `Mode::Read`. Open it with `Mode::Write`.
    #[error("the zoo is open for reading only")]
    ReadOnly,
    /// An earlier sync failed, so what is on disk is uncertain. Close the zoo and open it again.
    #[error(
        "an earlier write could not be made durable ({reason}); close the zoo and open it again"
    )]
    Poisoned {
        /// The first failure.
        reason: String,
    },
    /// Stored bytes are wrong. Restore a backup; everything else can still be read.
    #[error("{file} is damaged at {offset}: {what}")]
    Corrupt {
        /// File or column family.
        file: String,
        /// Byte offset or key.
        offset: String,
        /// What was expected and found.
        what: String,
    },
    /// The operating system failed (disk full, permission, hardware). Mend that and retry.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was tried, as in `cannot write`.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// RocksDB failed. Its message says why.
    #[error("rocksdb: {0}")]
    Rocks(String),
    /// The caller's observer asked to stop. Nothing was left behind.
    #[error("cancelled")]
    Cancelled,
    /// A record is missing or in conflict with another one; a caller's mistake.
    #[error("{0}")]
    Invalid(String),
}
