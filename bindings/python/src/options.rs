//! From keyword arguments to the library's options, each refused by its name.

use crate::errors::InputError;
use pyo3::PyResult;
use std::time::Duration;

/// A whole number, which Python has of any sign.
pub fn whole<T: TryFrom<i128>>(name: &str, found: i128) -> PyResult<T> {
    T::try_from(found).map_err(|_| {
        let expected = "expected a whole number from 0 to 2^64 - 1";
        InputError::new_err(format!("{name}: {expected}, found {found}"))
    })
}

/// A whole number where one is given.
pub fn whole_if<T: TryFrom<i128>>(name: &str, given: Option<i128>) -> PyResult<Option<T>> {
    given.map(|found| whole(name, found)).transpose()
}

/// A time in seconds.
pub fn seconds(name: &str, seconds: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(seconds)
        .map_err(|error| InputError::new_err(format!("{name}: {error}, found {seconds}")))
}

/// The (channels, height, width) of an input.
pub fn shape((channels, height, width): (i128, i128, i128)) -> PyResult<(usize, usize, usize)> {
    let side = |found| whole("input", found);
    Ok((side(channels)?, side(height)?, side(width)?))
}
