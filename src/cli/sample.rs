//! The flags that say how much of a dataset is used.

use super::units;
use tans::SampleOptions;

/// Sampling and split.
#[derive(clap::Args)]
pub struct SampleFlags {
    /// At most this many images of each class
    #[arg(
        long,
        value_name = "N",
        default_value_t = SampleOptions::default().per_class,
        value_parser = units::whole_from::<usize>(2)
    )]
    per_class: usize,
    /// Share of the training part of the split
    #[arg(
        long,
        value_name = "SHARE",
        default_value_t = SampleOptions::default().train_share,
        value_parser = units::share
    )]
    train_share: f32,
    /// Seed of sampling and split
    #[arg(
        long,
        value_name = "N",
        default_value_t = SampleOptions::default().seed,
        value_parser = units::whole::<u64>
    )]
    split_seed: u64,
}

impl SampleFlags {
    /// The library's options.
    pub fn options(&self) -> SampleOptions {
        SampleOptions {
            per_class: self.per_class,
            train_share: self.train_share,
            seed: self.split_seed,
        }
    }
}
