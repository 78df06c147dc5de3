//! Numbers as people write them: 5M, 200k, 5ms, 10m.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

/// Parses a count with an optional k, M or G.
pub fn count(text: &str) -> Result<u64, String> {
    tans::parse_count(text).map_err(|error| error.to_string())
}

/// Parses a whole number from 0.
pub fn whole<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("expected a whole number from 0, found {text:?}"))
}

/// Parses a whole number from `least`.
pub fn whole_from<T: FromStr + PartialOrd + From<u8>>(
    least: u8,
) -> impl Fn(&str) -> Result<T, String> + Clone {
    move |text: &str| match text.parse::<T>() {
        Ok(number) if number >= T::from(least) => Ok(number),
        _ => Err(format!("expected a whole number from {least}, found {text:?}")),
    }
}

/// Parses a share between 0 and 1, neither of them included.
pub fn share(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(share) if share > 0.0 && share < 1.0 => Ok(share),
        _ => Err(format!("expected a number between 0 and 1, found {text:?}")),
    }
}

/// Parses a duration in milliseconds, such as 5ms or 0.2s.
pub fn milliseconds(text: &str) -> Result<f32, String> {
    let (digits, factor) = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(digits), _) => (digits, 1.0),
        (None, Some(digits)) => (digits, 1e3),
        (None, None) => (text, 1.0),
    };
    match digits.trim().parse::<f32>() {
        Ok(value) if value.is_finite() && value > 0.0 => Ok(value * factor),
        _ => Err(format!("expected a time such as 5ms or 0.2s, found {text:?}")),
    }
}

/// Parses a duration such as 90s, 10m or 2h; a bare number is seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let (digits, factor) = match text.chars().last() {
        Some('s') => (&text[..text.len() - 1], 1.0),
        Some('m') => (&text[..text.len() - 1], 60.0),
        Some('h') => (&text[..text.len() - 1], 3600.0),
        _ => (text, 1.0),
    };
    let wrong = || format!("expected a time such as 90s, 10m or 2h, found {text:?}");
    let value: f64 = digits.trim().parse().map_err(|_| wrong())?;
    Duration::try_from_secs_f64(value * factor).map_err(|_| wrong())
}

/// Parses key=value.
pub fn tag(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("expected key=value, found {text:?}")),
    }
}

/// Parses the name of a license to look for.
pub fn license(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err(format!("expected a license (SPDX) such as MIT, found {text:?}")),
        license => Ok(license.to_owned()),
    }
}

/// Parses CxHxW, such as 3x224x224.
pub fn shape(text: &str) -> Result<(usize, usize, usize), String> {
    tans::InputHints::parse_shape(text).map_err(|error| error.to_string())
}

/// 1234567 as 1.23M.
pub fn short_count(value: u64) -> String {
    match value {
        0..1_000 => value.to_string(),
        1_000..1_000_000 => format!("{:.1}k", value as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2}M", value as f64 / 1e6),
        _ => format!("{:.2}G", value as f64 / 1e9),
    }
}

/// Says so where a license is none that filters understand.
pub fn note_license(context: &super::Context, license: Option<&str>) {
    let odd = license.filter(|it| !it.is_empty() && !tans::is_license_expression(it));
    if let Some(license) = odd {
        context.output.note(&format!(
            "license {license:?} is no SPDX expression (such as MIT OR Apache-2.0): filters find it by these words alone"
        ));
    }
}

/// 1 finding, 2 findings.
pub fn counted<T: Display + PartialEq + From<u8>>(count: T, noun: &str) -> String {
    let end = if count == T::from(1) { "" } else { "s" };
    format!("{count} {noun}{end}")
}

/// A count where it is known, else a dash.
pub fn known_count(value: Option<u64>) -> String {
    value.map_or_else(|| "-".to_owned(), short_count)
}

/// Bytes where their number is known, else a dash.
pub fn known_bytes(value: Option<u64>) -> String {
    value.map_or_else(|| "-".to_owned(), short_bytes)
}

/// Bytes as 1.2 MB.
pub fn short_bytes(value: u64) -> String {
    match value {
        0..1_000 => format!("{value} B"),
        1_000..1_000_000 => format!("{:.1} kB", value as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", value as f64 / 1e6),
        _ => format!("{:.2} GB", value as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::{count, duration, milliseconds, shape, short_count};
    use std::time::Duration;

    #[test]
    fn counts_take_the_usual_suffixes_and_nothing_else() {
        assert_eq!(count("5M"), Ok(5_000_000));
        assert_eq!(count("1.5k"), Ok(1_500));
        assert_eq!(count("42"), Ok(42));
        for wrong in ["", "M", "-1", "5 apples", "NaN", "1e30", "5é"] {
            assert!(count(wrong).is_err(), "{wrong:?} was taken for a count");
        }
        assert_eq!(short_count(78_300), "78.3k");
    }

    #[test]
    fn times_and_shapes_are_read_as_written() {
        assert_eq!(milliseconds("5ms"), Ok(5.0));
        assert_eq!(milliseconds("0.2s"), Ok(200.0));
        assert!(milliseconds("-5ms").is_err());
        assert_eq!(duration("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(duration("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["", "m", "-1s", "inf", "NaN", "5 apples", "1e300h"] {
            assert!(duration(wrong).is_err(), "{wrong:?} was taken for a time");
        }
        assert_eq!(shape("3x48x192"), Ok((3, 48, 192)));
        assert!(shape("3x0x192").is_err());
        assert!(shape("3x48x192xfoo").is_err());
        assert!(shape("224x224").is_err());
    }
}
