//! `tans gc`

use super::{Context, units};
use anyhow::Result;
use std::path::PathBuf;

/// Give the disk back what no record names: removed models' weights, old generations
#[derive(clap::Args)]
pub struct Gc {
    /// The zoo's directory
    zoo: PathBuf,
}

impl Gc {
    pub fn run(&self, context: &Context) -> Result<bool> {
        let zoo = context.write(&self.zoo)?;
        let report = zoo.gc(&mut context.output.progress())?;
        if context.output.json {
            context.output.object(&report)?;
            return Ok(true);
        }
        context.output.line(&format!(
            "freed {} ({} packs deleted, {} tensors dropped, {} moved)",
            units::short_bytes(report.bytes_freed),
            report.packs_deleted,
            report.tensors_dropped,
            report.tensors_moved
        ))?;
        if report.files_kept_for_readers > 0 {
            let kept = report.files_kept_for_readers;
            context.output.note(&format!(
                "{kept} files are kept for a reader that has not caught up; run it again later"
            ));
        }
        if report.tensors_damaged > 0 {
            let damaged = report.tensors_damaged;
            context.output.note(&format!("{damaged} tensors are damaged; run check"));
        }
        Ok(true)
    }
}
