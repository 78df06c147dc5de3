//! `tans export`

use super::{Context, units};
use anyhow::Result;
use std::path::PathBuf;
use tans::StarterOptions;

/// Write a model as ONNX or safetensors, or the whole zoo as a starter bundle
#[derive(clap::Args)]
pub struct Export {
    /// The zoo's directory
    zoo: PathBuf,
    /// Name of the model
    model: Option<String>,
    /// Write every model, task and result as a starter bundle for `tans init --starter`
    #[arg(long)]
    starter: bool,
    /// With --starter: leave the weights out, so that networks become references with what was measured of them
    #[arg(long, requires = "starter")]
    without_weights: bool,
    /// The file to write: .onnx or .safetensors; with --starter .tar
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

impl Export {
    pub fn run(&self, context: &Context) -> Result<bool> {
        let refuse = |message: &str| Err(tans::Error::Input(message.to_owned()).into());
        let report = match (&self.model, self.starter) {
            (Some(model), false) => context.read(&self.zoo)?.export(model, &self.output)?,
            (None, true) => {
                let options = StarterOptions { without_weights: self.without_weights };
                context.read(&self.zoo)?.export_starter(&self.output, options)?
            }
            (None, false) => {
                return refuse("expected a model to write, or --starter for the whole zoo");
            }
            (Some(_), true) => {
                return refuse("--starter writes the whole zoo: expected no model beside it");
            }
        };
        if context.output.json {
            context.output.object(&report)?;
        } else {
            context.output.line(&format!(
                "{}: {}, {}",
                report.output.display(),
                units::counted(report.models, "model"),
                units::short_bytes(report.bytes)
            ))?;
        }
        Ok(true)
    }
}
