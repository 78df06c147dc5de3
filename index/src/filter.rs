//! Attribute columns and the filters over them.

use spdx::{Expression, ParseMode};

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
    /// License, an SPDX expression.
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
    /// A license expression that these licenses satisfy (`MIT OR Apache-2.0` is satisfied by `MIT`
    /// alone), or one of these strings as it is; empty = any.
    pub licenses: Vec<String>,
    /// All of these tags (`key=value`).
    pub tags: Vec<String>,
    /// Only networks that can be run. The operations of one that cannot are not counted, so that
    /// `Attributes::macs` must be known; what else it takes, the caller knows.
    pub runnable: bool,
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
            && within(attributes.macs, self.macs_limit())
            && within(attributes.latency_ms, self.latency_ms_max)
            && (self.licenses.is_empty()
                || attributes.license.as_ref().is_some_and(|found| self.permits(found)))
            && self.tags.iter().all(|tag| attributes.tags.contains(tag))
    }

    /// The limit on operations; with `runnable` there is always one, which any known number meets.
    pub(crate) fn macs_limit(&self) -> Option<u64> {
        self.macs_max.or(self.runnable.then_some(u64::MAX))
    }

    /// Whether a license expression is one of the wanted strings or satisfied by them. What is no
    /// SPDX expression is satisfied by itself alone.
    pub(crate) fn permits(&self, license: &str) -> bool {
        let is_wanted = |name: &str| self.licenses.iter().any(|it| it.eq_ignore_ascii_case(name));
        is_wanted(license)
            || Expression::parse_mode(license, ParseMode::LAX)
                .is_ok_and(|parsed| parsed.evaluate(|term| is_wanted(&term.to_string())))
    }

    /// Whether there is no condition.
    pub fn is_empty(&self) -> bool {
        let Filter { params_max, macs_max, latency_ms_max, licenses, tags, runnable } = self;
        !runnable
            && params_max.is_none()
            && macs_max.is_none()
            && latency_ms_max.is_none()
            && licenses.is_empty()
            && tags.is_empty()
    }
}

/// Whether a license is an SPDX expression (`mit or apache-2.0` counts); a filter finds any other by its very words alone.
pub fn is_license_expression(license: &str) -> bool {
    Expression::parse_mode(license, ParseMode::LAX).is_ok()
}

/// Whether `value` keeps to `limit`; without a limit everything does, with one nothing unknown.
fn within<T: PartialOrd>(value: Option<T>, limit: Option<T>) -> bool {
    match (value, limit) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(value), Some(limit)) => value <= limit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licenses_are_expressions() {
        let cases = [
            ("MIT", "MIT", true),
            ("MIT OR Apache-2.0", "MIT", true),
            ("MIT or Apache-2.0", "MIT", true),
            ("MIT AND Zlib", "MIT", false),
            ("MIT AND Zlib", "Zlib,MIT", true),
            ("(MIT OR GPL-2.0-only) AND Zlib", "MIT,Zlib", true),
            ("GPL-3.0-or-later", "GPL-3.0-or-later", true),
            ("GPL-3.0-or-later", "GPL-3.0-only", false),
            ("Apache-2.0 WITH LLVM-exception", "Apache-2.0", false),
            ("ask the author", "ask the author", true),
            ("ask the author", "MIT", false),
            ("LicenseRef-lab OR MIT", "LicenseRef-lab", true),
        ];
        for (license, wanted, expected) in cases {
            let licenses = wanted.split(',').map(str::to_string).collect();
            let filter = Filter { licenses, ..Filter::default() };
            let attributes = Attributes { license: Some(license.into()), ..Attributes::default() };
            assert_eq!(filter.matches(&attributes), expected, "{license} for {wanted}");
        }
    }
}
