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
            "freed {} ({} deleted, {} dropped, {} moved)",
            units::short_bytes(report.bytes_freed),
            units::counted(report.packs_deleted, "pack"),
            units::counted(report.tensors_dropped, "tensor"),
            report.tensors_moved
        ))?;
        if report.files_kept_for_readers > 0 {
            let kept = units::counted(report.files_kept_for_readers, "file");
            context.output.note(&format!(
                "kept for a reader that has not caught up: {kept}; run it again later"
            ));
        }
        if report.tensors_damaged > 0 {
            let damaged = units::counted(report.tensors_damaged, "tensor");
            context.output.note(&format!("damaged: {damaged}; run check"));
        }
        Ok(true)
    }
}
