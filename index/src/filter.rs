//! Attribute columns and the filters over them.

/// What a filter can ask about one vector. Unknown values are `None` and never match a limit on
/// them.
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
    ///
    /// # Examples
    /// ```
    /// use tans_index::{Attributes, Filter};
    /// let small = Filter { params_max: Some(5_000_000), ..Filter::default() };
    /// assert!(small.matches(&Attributes { params: Some(900), ..Attributes::default() }));
    /// assert!(!small.matches(&Attributes::default()));
    /// ```
    pub fn matches(&self, attributes: &Attributes) -> bool {
        within(attributes.params, self.params_max)
            && within(attributes.macs, self.macs_max)
            && within(attributes.latency_ms, self.latency_ms_max)
            && (self.licenses.is_empty()
                || attributes.license.as_ref().is_some_and(|id| self.licenses.contains(id)))
            && self.tags.iter().all(|tag| attributes.tags.contains(tag))
    }

    /// Whether there is no condition.
    pub fn is_empty(&self) -> bool {
        let Filter { params_max, macs_max, latency_ms_max, licenses, tags } = self;
        params_max.is_none()
            && macs_max.is_none()
            && latency_ms_max.is_none()
            && licenses.is_empty()
            && tags.is_empty()
    }
}

/// Whether `value` keeps to `limit`; without a limit everything does, with one nothing unknown.
pub(crate) fn within<T: PartialOrd>(value: Option<T>, limit: Option<T>) -> bool {
    match (value, limit) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(value), Some(limit)) => value <= limit,
    }
}
