//! From keyword arguments to the library's options, each refused by its name.

use crate::errors::{InputError, raise};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::collections::BTreeMap;
use std::time::Duration;
use tans::{Benchmark, ChannelOrder, Filter, Optimizer, PairKind, SampleOptions, TuningOptions};

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

/// The (channels, height, width) of an input.
pub fn shape((channels, height, width): (i128, i128, i128)) -> PyResult<(usize, usize, usize)> {
    let side = |found| whole("input", found);
    Ok((side(channels)?, side(height)?, side(width)?))
}

/// A time in seconds.
pub fn seconds(name: &str, seconds: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(seconds)
        .map_err(|error| InputError::new_err(format!("{name}: {error}, found {seconds}")))
}

/// One of a few words.
pub fn word<T: Copy>(name: &str, found: &str, words: &[(&str, T)]) -> PyResult<T> {
    words.iter().find(|(word, _)| *word == found).map(|(_, meaning)| *meaning).ok_or_else(|| {
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        InputError::new_err(format!("{name}: expected {}, found {found:?}", known.join(" or ")))
    })
}

/// Which benchmark tasks a new network is measured on.
pub fn benchmark(found: &str) -> PyResult<Benchmark> {
    word("benchmark", found, &[("none", Benchmark::None), ("quick", Benchmark::Quick)])
}

/// The order of an input's channels.
pub fn channel_order(found: &str) -> PyResult<ChannelOrder> {
    let words =
        [("rgb", ChannelOrder::Rgb), ("bgr", ChannelOrder::Bgr), ("grey", ChannelOrder::Grey)];
    word("channel_order", found, &words)
}

/// How an accuracy was obtained.
pub fn kind(found: &str) -> PyResult<PairKind> {
    found.parse().map_err(|error| raise(tans::Error::from(error)))
}

/// How much of a dataset is used.
pub fn sampling(
    per_class: Option<i128>,
    train_share: Option<f32>,
    split_seed: i128,
) -> PyResult<SampleOptions> {
    let default = SampleOptions::default();
    Ok(SampleOptions {
        per_class: whole_if("per_class", per_class)?.unwrap_or(default.per_class),
        train_share: train_share.unwrap_or(default.train_share),
        seed: whole("split_seed", split_seed)?,
    })
}

/// Limits on what models cost.
pub fn costs(
    max_params: Option<i128>,
    max_macs: Option<i128>,
    max_latency_ms: Option<f32>,
) -> PyResult<Filter> {
    Ok(Filter {
        params_max: whole_if("max_params", max_params)?,
        macs_max: whole_if("max_macs", max_macs)?,
        latency_ms_max: max_latency_ms,
        ..Filter::default()
    })
}

/// Tags as a filter has them.
pub fn tagged(tags: Option<BTreeMap<String, String>>) -> Vec<String> {
    tags.unwrap_or_default().iter().map(|(key, value)| format!("{key}={value}")).collect()
}

/// How a network is fine-tuned, by the names of the command line's flags.
pub fn tuning(given: Option<&Bound<'_, PyDict>>) -> PyResult<TuningOptions> {
    let mut tuning = TuningOptions::default();
    for (name, value) in given.into_iter().flatten() {
        let name: String = name.extract()?;
        let number = || whole_if(&name, value.extract()?);
        match name.as_str() {
            "epochs" => tuning.epochs = number()?,
            "batch_size" => set(&mut tuning.batch_size, number()?),
            "patience" => set(&mut tuning.patience, number()?),
            "elastic" => tuning.elastic = number()?,
            "seed" => set(&mut tuning.seed, whole_if(&name, value.extract()?)?),
            "learning_rate" => tuning.learning_rate = value.extract()?,
            "optimizer" => {
                let word: Option<String> = value.extract()?;
                set(&mut tuning.optimizer, word.map(|word| optimizer(&word)).transpose()?);
            }
            "from_scratch" => tuning.from_scratch = value.extract()?,
            "head_only" => tuning.head_only = value.extract()?,
            "budget" => {
                let time: Option<f64> = value.extract()?;
                tuning.budget = time.map(|time| seconds(&name, time)).transpose()?;
            }
            _ => {
                let message = format!("unexpected keyword argument {name:?}");
                return Err(PyTypeError::new_err(message));
            }
        }
    }
    Ok(tuning)
}

/// `None` leaves the default, as with Python's own arguments.
pub fn set<T>(option: &mut T, given: Option<T>) {
    if let Some(given) = given {
        *option = given;
    }
}

fn optimizer(found: &str) -> PyResult<Optimizer> {
    word("optimizer", found, &[("adamw", Optimizer::AdamW), ("sgd", Optimizer::Sgd)])
}
