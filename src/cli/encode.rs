//! `tans encode`

use super::sample::SampleFlags;
use super::{Context, units};
use anyhow::Result;
use std::path::PathBuf;
use tans::DatasetSource;

/// Write a dataset's feature rows into a file that `tans query` takes instead of images
#[derive(clap::Args)]
pub struct Encode {
    /// The zoo's directory
    zoo: PathBuf,
    /// The dataset
    dataset: String,
    /// The file to write, .npz
    #[arg(short, long, value_name = "ROWS.npz")]
    output: PathBuf,
    #[command(flatten)]
    sample: SampleFlags,
}

impl Encode {
    pub fn run(&self, context: &Context) -> Result<bool> {
        let zoo = context.read(&self.zoo)?;
        let source = DatasetSource::parse(&self.dataset);
        let options = self.sample.options();
        let report = zoo.encode(&source, &self.output, &options, &mut context.output.progress())?;
        context.output.skipped(&report.skipped);
        if context.output.json {
            context.output.object(&report)?;
        } else {
            context.output.line(&format!(
                "{}: {} of {} numbers ({:.0} ms in the backbone)",
                report.output.display(),
                units::counted(report.rows, "row"),
                report.dim,
                report.backbone_ms
            ))?;
        }
        Ok(true)
    }
}
