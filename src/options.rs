//! How a zoo is opened, and counts as people write them.

use crate::{Error, Result};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Options that hold for an open zoo.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// Open for reading beside a writer; every operation that writes is refused.
    pub read_only: bool,
    /// Where backbone rows of images that were encoded before are kept, and the states of fine-tunings that were stopped;
    /// `None` keeps none.
    pub cache_dir: Option<PathBuf>,
    /// How long to wait for another writer to end before it is an error. Default: not at all.
    pub wait: Duration,
    /// Learn new encoders by itself, in a thread of the writer, once so many results came since the zoo was opened or
    /// encoders were last learned; they are installed if the gate of `train` lets them. Default: never.
    pub retrain_after: Option<usize>,
    /// Where networks run. Default: CUDA where it is there, else the CPU.
    #[cfg(feature = "torch")]
    pub device: crate::graph::exec::Device,
    /// Threads of every computation on libtorch in this process; `None` leaves libtorch's choice, all cores.
    #[cfg(feature = "torch")]
    pub threads: Option<usize>,
    /// The `lib` folder of an installed PyTorch, for its CUDA part; it must be named before the first network runs.
    #[cfg(feature = "torch")]
    pub torch_lib: Option<PathBuf>,
}

/// The user's cache folder for backbone rows, `$XDG_CACHE_HOME/tans/features` or `~/.cache/tans/features`: the one rule
/// for every program on top of this library, which itself reads no environment.
pub fn user_cache_dir(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let given = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = given("XDG_CACHE_HOME").or_else(|| given("HOME").map(|home| home.join(".cache")))?;
    Some(base.join("tans").join("features"))
}

/// Parses a count with an optional k, M or G (or B), such as 5000000, 5M or 1.5k.
///
/// # Errors
/// `Error::Input` for anything else, and for counts that are not below 2^63.
pub fn parse_count(text: &str) -> Result<u64> {
    let (digits, factor) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 1e3),
        Some((at, 'm' | 'M')) => (&text[..at], 1e6),
        Some((at, 'g' | 'G' | 'b' | 'B')) => (&text[..at], 1e9),
        Some(_) | None => (text, 1.0),
    };
    let count = digits.parse::<f64>().ok().map(|value| (value * factor).round());
    match count {
        Some(count) if (0.0..9.2e18).contains(&count) => Ok(count as u64),
        Some(_) | None => Err(Error::input(format!(
            "expected a count such as 5000000, 5M or 200k, found {text:?}"
        ))),
    }
}
