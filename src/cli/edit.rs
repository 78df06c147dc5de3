//! `tans edit`

use super::{Context, units};
use anyhow::Result;
use std::path::PathBuf;
use tans::EditOptions;

/// Change a model's name, license or tags
#[derive(clap::Args)]
pub struct Edit {
    /// The zoo's directory
    zoo: PathBuf,
    /// Name of the model
    model: String,
    /// New name
    #[arg(long)]
    name: Option<String>,
    /// New license (SPDX); empty removes it
    #[arg(long)]
    license: Option<String>,
    /// Tag to set as key=value; an empty value removes it; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = units::tag)]
    tag: Vec<(String, String)>,
}

impl Edit {
    pub fn run(&self, context: &Context) -> Result<bool> {
        let options = EditOptions {
            name: self.name.clone(),
            license: self.license.clone(),
            tags: self.tag.clone(),
        };
        context.write(&self.zoo)?.edit(&self.model, &options)?;
        units::note_license(context, self.license.as_deref());
        let model = self.name.as_ref().unwrap_or(&self.model);
        context.output.changed("model", model, ("edited", ""))?;
        Ok(true)
    }
}
