//! The built-in benchmark tasks: small open image sets on which new networks are measured.

#[cfg(feature = "torch")]
use super::dataset::{self, DatasetSource, SampleOptions, Samples};
#[cfg(feature = "torch")]
use crate::Result;
use serde::{Deserialize, Serialize};

/// Names start with this.
pub const PREFIX: &str = "benchmark/";

/// Rows, labels and landmarks of the benchmark tasks, in the import format; compiled in with and without `torch`.
pub const TASKS: &[u8] = include_bytes!("../../assets/benchmark/tasks.tar");

/// How many benchmark tasks a new network is measured on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Benchmark {
    /// None: the network's standing stays unknown until results are recorded.
    None,
    /// All eight tasks of this version, 100 images each.
    #[default]
    Quick,
}

/// Mean and standard deviation of the starter networks' probe accuracies on a benchmark task: what a first
/// network is compared with in an empty zoo. Computed by `scripts/build_benchmark.py --priors`.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct Prior {
    /// Mean accuracy.
    pub mean: f32,
    /// Standard deviation.
    pub sd: f32,
}

/// The prior of a benchmark task by its name.
pub fn prior(name: &str) -> Option<Prior> {
    let all: std::collections::BTreeMap<String, Prior> =
        serde_json::from_str(include_str!("../../assets/benchmark/priors.json")).ok()?;
    all.get(name).copied()
}

#[cfg(feature = "torch")]
const IMAGES: [(&str, &[u8]); 8] = include!("../../assets/benchmark/images.in");

/// Decoded and split images of the benchmark tasks, by name. Splits are those of `tasks.tar`.
#[cfg(feature = "torch")]
pub fn images() -> Result<Vec<(String, Samples)>> {
    IMAGES
        .iter()
        .map(|(name, npz)| {
            let loaded = crate::data::open_npz_bytes(name, npz)?.load_all();
            let source = DatasetSource::Images {
                name: (*name).to_owned(),
                images: loaded.images,
                labels: loaded.labels,
            };
            let samples = dataset::samples(&source, &SampleOptions::default())?;
            Ok((format!("{PREFIX}{name}"), samples))
        })
        .collect()
}

/// The 128 fixed images that signatures are computed on.
#[cfg(feature = "torch")]
pub fn probe_images() -> Result<Vec<crate::sample::Image>> {
    let npz = include_bytes!("../../assets/probe.npz");
    Ok(crate::data::open_npz_bytes("probe", npz)?.load_all().images)
}
