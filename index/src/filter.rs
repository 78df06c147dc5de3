//! Attribute columns and the filters over them.

/// What a filter can ask about one vector. Unknown values are `None` and never match a limit on them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attributes {
    /// Parameters.
    pub params: Option<u64>,
    /// Multiply-accumulate operations.
    pub macs: Option<u64>,
    /// Measured latency.
    pub latency_ms: Option<f32>,
    /// License (SPDX).
    pub license: Option<String>,
    /// Tags as `key=value`, sorted.
    pub tags: Vec<String>,
}

/// Conditions that all must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// At most this many parameters.
    pub params_max: Option<u64>,
    /// At most this many multiply-accumulate operations.
    pub macs_max: Option<u64>,
    /// At most this latency.
    pub latency_ms_max: Option<f32>,
    /// One of these licenses; empty = any.
    pub licenses: Vec<String>,
    /// All of these tags (`key=value`).
    pub tags: Vec<String>,
}

impl Filter {
    /// Whether every condition holds.
    pub fn matches(&self, _attributes: &Attributes) -> bool {
        todo!()
    }
    /// Whether there is no condition.
    pub fn is_empty(&self) -> bool {
        todo!()
    }
}
