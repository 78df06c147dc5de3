//! Errors of the index.

use std::path::PathBuf;

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong in the index.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A vector of another dimension. Encode it with the encoders of this index.
    #[error("expected a vector of {expected} dimensions, found {found}")]
    Dimension {
        /// The index's dimension.
        expected: usize,
        /// The vector's.
        found: usize,
    },
    /// Not usable as a direction: NaN, infinite or zero.
    #[error("expected a finite, non-zero vector, found {found}")]
    NotAVector {
        /// What is wrong with it.
        found: String,
    },
    /// Build or search options out of range.
    #[error("{name}: expected {expected}, found {found}")]
    Option {
        /// The option.
        name: &'static str,
        /// Allowed values.
        expected: String,
        /// The value given.
        found: String,
    },
    /// The segment file is damaged. It is derived data: build it again.
    #[error("{path} is damaged at byte {offset}: {what}")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Byte offset.
        offset: u64,
        /// What was expected and found.
        what: String,
    },
    /// The segment file was written by another version of this crate. It is derived data: build it
    /// again.
    #[error("{path} has segment format {found}, expected {expected}: build it again")]
    Version {
        /// The file.
        path: PathBuf,
        /// The version that this crate reads.
        expected: u32,
        /// The file's.
        found: u32,
    },
    /// The operating system failed.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// The caller's progress function asked to stop. Nothing was written.
    #[error("cancelled")]
    Cancelled,
}
