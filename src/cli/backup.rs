//! `tans backup`

use super::{Context, units};
use anyhow::Result;
use std::path::PathBuf;

/// Copy a zoo as it is now into a folder of backups; exit code 1 if what it copies is damaged
///
/// Unchanged files become hard links to the backup before; weights that are copied are hashed.
/// Reads go on meanwhile. While another process writes to the zoo, that process has to make the backup
/// (`Database::backup`), or wait for it with --wait.
#[derive(clap::Args)]
pub struct Backup {
    /// The zoo's directory
    zoo: PathBuf,
    /// Folder of backups: new, empty, or with earlier ones
    folder: PathBuf,
}

impl Backup {
    pub fn run(&self, context: &Context) -> Result<bool> {
        let zoo = context.write(&self.zoo)?;
        let report = zoo.backup(&self.folder, &mut context.output.progress())?;
        let sound = report.damages.is_empty();
        if context.output.json {
            context.output.object(&report)?;
            return Ok(sound);
        }
        for damage in &report.damages {
            context.output.line(&format!("{}: {}", damage.file, damage.what))?;
        }
        context.output.line(&format!(
            "{}: {}, {}, of which {} copied",
            report.path.display(),
            units::counted(report.files, "file"),
            units::short_bytes(report.bytes),
            units::short_bytes(report.bytes_copied)
        ))?;
        Ok(sound)
    }
}
