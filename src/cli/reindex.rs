//! `tans reindex`

use super::Context;
use anyhow::Result;
use std::path::PathBuf;

/// Embed every model again with the running encoders and build the index anew
#[derive(clap::Args)]
pub struct Reindex {
    /// The zoo's directory
    zoo: PathBuf,
}

impl Reindex {
    pub fn run(&self, context: &Context) -> Result<bool> {
        let report = context.write(&self.zoo)?.reindex()?;
        if context.output.json {
            context.output.object(&report)?;
        } else {
            context
                .output
                .line(&format!("generation {}: {} models", report.generation, report.models))?;
        }
        Ok(true)
    }
}
