//! `tans remove`

use super::{Context, units};
use anyhow::Result;
use std::collections::BTreeSet;
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
        let zoo = context.write(&self.zoo)?;
        let children = zoo.children(&self.models)?;
        zoo.remove(&self.models)?;
        let mut named = BTreeSet::new();
        for (model, children) in self.models.iter().zip(&children) {
            if !named.insert(model) {
                continue;
            }
            context.output.changed("model", model, ("removed", ""))?;
            if !children.is_empty() {
                context.output.note(&format!(
                    "{model} was the parent of {}, which stay and have no parent now: {}",
                    units::counted(children.len(), "model"),
                    children.join(", ")
                ));
            }
        }
        Ok(true)
    }
}
