//! Errors of the encoders.

/// What can go wrong when encoding or fitting.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Input of the wrong shape or kind.
    #[error("{what}: expected {expected}, found {found}")]
    Input {
        /// Which input.
        what: &'static str,
        /// What is needed.
        expected: String,
        /// What was given.
        found: String,
    },
    /// A matrix could not be decomposed.
    #[error("numerical failure: {0}")]
    Numerical(String),
    /// Running a network failed.
    #[error(transparent)]
    Graph(#[from] crate::graph::Error),
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
}
