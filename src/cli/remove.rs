//! `tans remove`

use super::Context;
use anyhow::Result;
use std::path::PathBuf;

/// Remove models: all of the named ones, or none if one is unknown
#[derive(clap::Args)]
pub struct Remove {
    /// The zoo's directory
    zoo: PathBuf,
    /// Names of models
    #[arg(required = true)]
    models: Vec<String>,
}

impl Remove {
    pub fn run(&self, context: &Context) -> Result<bool> {
        context.write(&self.zoo)?.remove(&self.models)?;
        self.models
            .iter()
            .try_for_each(|model| context.output.changed("model", model, "removed"))?;
        Ok(true)
    }
}
