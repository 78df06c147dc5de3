//! `tans stats`

use super::{Context, units};
use anyhow::Result;
use std::path::PathBuf;

/// Show counts and sizes
#[derive(clap::Args)]
pub struct Stats {
    /// The zoo's directory
    zoo: PathBuf,
}

impl Stats {
    pub fn run(&self, context: &Context) -> Result<bool> {
        let stats = context.read(&self.zoo)?.stats()?;
        if context.output.json {
            context.output.object(&stats)?;
            return Ok(true);
        }
        let rows = [
            ("models", stats.models.to_string()),
            ("tasks", stats.tasks.to_string()),
            ("results", stats.pairs.to_string()),
            ("tensors", stats.tensors.to_string()),
            ("logical bytes", units::short_bytes(stats.logical_bytes)),
            ("distinct bytes", units::short_bytes(stats.distinct_bytes)),
            ("saved by sharing", units::short_bytes(stats.saved_bytes)),
            ("bytes on disk", units::short_bytes(stats.disk_bytes)),
            ("generation", format!("{} ({})", stats.generation, stats.recipe)),
            ("vectors", stats.vectors.to_string()),
            ("numbers in a vector", stats.dim.to_string()),
        ];
        let rows = rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]);
        context.output.table(&["figure", ">value"], rows.collect())?;
        Ok(true)
    }
}
