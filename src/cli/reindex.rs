//! `tans reindex`

use super::{Context, units};
use anyhow::Result;
use std::path::PathBuf;

/// Measure signatures and latencies that are missing, embed every model again and build the index anew
#[derive(clap::Args)]
pub struct Reindex {
    /// The zoo's directory
    zoo: PathBuf,
}

impl Reindex {
    pub fn run(&self, context: &Context) -> Result<bool> {
        let report = context.write(&self.zoo)?.reindex(&mut context.output.progress())?;
        if context.output.json {
            context.output.object(&report)?;
        } else {
            context.output.line(&format!(
                "generation {}: {}, {} measured",
                report.generation,
                units::counted(report.models, "model"),
                report.measured
            ))?;
        }
        Ok(true)
    }
}
