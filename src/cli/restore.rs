//! `tans restore`

use super::{Context, units};
use anyhow::Result;
use std::path::PathBuf;
use tans::Database;

/// Make a zoo out of a backup, comparing every byte; exit code 1 if the zoo was damaged when it was backed up
#[derive(clap::Args)]
pub struct Restore {
    /// A backup, or a folder of backups, of which the newest is taken
    backup: PathBuf,
    /// The zoo to be made; nothing may be there
    zoo: PathBuf,
}

impl Restore {
    pub fn run(&self, context: &Context) -> Result<bool> {
        let mut observer = context.output.progress();
        let report = Database::restore(&self.backup, &self.zoo, &mut observer)?;
        let sound = report.damages.is_empty();
        if context.output.json {
            context.output.object(&report)?;
            return Ok(sound);
        }
        for damage in &report.damages {
            context.output.line(&format!("{}: {}", damage.file, damage.what))?;
        }
        context.output.line(&format!(
            "restored {}: {}, {}",
            report.backup.display(),
            units::counted(report.files, "file"),
            units::short_bytes(report.bytes)
        ))?;
        Ok(sound)
    }
}
