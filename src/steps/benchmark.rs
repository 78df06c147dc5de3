//! The built-in benchmark tasks: small open image sets on which new networks are measured.

#[cfg(feature = "torch")]
use super::dataset::{self, SampleOptions, Samples};
#[cfg(feature = "torch")]
use crate::data::{self, Dataset, ImageDataset};
#[cfg(feature = "torch")]
use crate::sample::Image;
#[cfg(feature = "torch")]
use crate::{Error, Result};
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
/// network is compared with in an empty zoo. Computed by `scripts/build_benchmark_tasks.py --priors ZOO`.
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
const IMAGES: [(&str, &[u8]); 8] = [
    ("char_hiragana", include_bytes!("../../assets/benchmark/char_hiragana.npz")),
    ("char_latin_lower", include_bytes!("../../assets/benchmark/char_latin_lower.npz")),
    ("clipart_food", include_bytes!("../../assets/benchmark/clipart_food.npz")),
    ("fashion_mnist", include_bytes!("../../assets/benchmark/fashion_mnist.npz")),
    ("font_style", include_bytes!("../../assets/benchmark/font_style.npz")),
    ("icons_colour", include_bytes!("../../assets/benchmark/icons_colour.npz")),
    ("icons_devices", include_bytes!("../../assets/benchmark/icons_devices.npz")),
    ("icons_weather_nature", include_bytes!("../../assets/benchmark/icons_weather_nature.npz")),
];

/// Decoded and split images of the benchmark tasks, by name; the splits are those of `tasks.tar`.
#[cfg(feature = "torch")]
pub fn images() -> Result<Vec<(String, Samples)>> {
    IMAGES
        .iter()
        .map(|&(name, npz)| {
            let dataset = images_of(name, npz)?;
            let task = format!("{PREFIX}{name}");
            let samples = dataset::load_samples(task.clone(), &dataset, &SampleOptions::default())?;
            Ok((task, samples))
        })
        .collect()
}

#[cfg(feature = "torch")]
fn images_of(name: &str, npz: &[u8]) -> Result<ImageDataset> {
    match data::open_npz_bytes(name, npz)? {
        Dataset::Images(images) => Ok(images),
        Dataset::Rows(_) => Err(Error::input(format!("{name}: expected images, found rows"))),
    }
}

/// The 128 fixed images that signatures are computed on.
#[cfg(feature = "torch")]
pub fn probe_images() -> Result<Vec<Image>> {
    data::open_npz_images("probe", include_bytes!("../../assets/probe.npz")).map_err(Error::from)
}
