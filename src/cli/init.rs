//! `tans init`

use super::{Context, units};
use anyhow::Result;
use std::path::PathBuf;
use tans::{Database, InitOptions};

/// Make a zoo in a new or empty directory
#[derive(clap::Args)]
pub struct Init {
    /// The zoo's directory
    zoo: PathBuf,
    /// Fill it from a starter bundle (assets/starter.tar, or one made by `tans export --starter`); may be repeated
    #[arg(long, value_name = "FILE")]
    starter: Vec<PathBuf>,
}

impl Init {
    pub fn run(&self, context: &Context) -> Result<bool> {
        let options = InitOptions { starters: self.starter.clone() };
        let (_, report) = Database::init(&self.zoo, &options, context.options(false))?;
        if context.output.json {
            context.output.object(&report)?;
        } else {
            context.output.line(&format!(
                "{}: {}, {}, {}",
                report.zoo.display(),
                units::counted(report.models, "model"),
                units::counted(report.tasks, "task"),
                units::counted(report.pairs, "result")
            ))?;
        }
        Ok(true)
    }
}
