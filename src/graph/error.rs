//! Errors of reading, checking and running networks.

/// What can go wrong with a network.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes are not what they claim to be. Check the file.
    #[error("not a readable {format} file: {what}")]
    Malformed {
        /// Such as `ONNX`.
        format: &'static str,
        /// What was expected and what was found, where.
        what: String,
    },
    /// The network asks for more than a stated limit. Raise the limit if the file is trusted.
    #[error("{what} takes {found}, more than the limit of {limit}")]
    Limit {
        /// What would be allocated.
        what: String,
        /// Size asked for.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// An operator that cannot be executed. The model is stored all the same.
    #[error("not runnable: op {op} (domain {domain:?}, opset {opset}, node {node:?}): {why}")]
    NotRunnable {
        /// Operator.
        op: String,
        /// Domain.
        domain: String,
        /// Operator-set version.
        opset: i64,
        /// Node name.
        node: String,
        /// Missing operator or attribute value.
        why: String,
    },
    /// NaN or infinite weights.
    #[error("weight {name:?} holds NaN or infinite values ({count} of them)")]
    NotFinite {
        /// The weight.
        name: String,
        /// How many.
        count: usize,
    },
    /// The network and its input contract, or its head, do not fit together.
    #[error("{0}")]
    Contract(String),
    /// The device failed, whatever the network: out of memory, or lost. Free it, or name another one.
    #[error("the device failed at {}: {message}", place(node, op))]
    Device {
        /// Node name.
        node: String,
        /// Operator.
        op: String,
        /// Message.
        message: String,
    },
    /// libtorch refused; its message says why.
    #[error("{}: {message}", place(node, op))]
    Execution {
        /// Node name.
        node: String,
        /// Operator.
        op: String,
        /// Message.
        message: String,
    },
}

/// A node with its operator; what lies outside any node has no name.
fn place(node: &str, op: &str) -> String {
    if node.is_empty() { op.to_string() } else { format!("node {node:?} ({op})") }
}

impl Error {
    /// Whether it will be so wherever and whenever the network runs: what a file or a device failed at is not.
    pub fn is_of_network(&self) -> bool {
        match self {
            Self::Malformed { .. } | Self::Device { .. } => false,
            Self::Limit { .. }
            | Self::NotRunnable { .. }
            | Self::NotFinite { .. }
            | Self::Contract(_)
            | Self::Execution { .. } => true,
        }
    }
}
