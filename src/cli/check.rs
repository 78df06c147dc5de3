//! `tans check`

use super::{Context, units};
use anyhow::Result;
use std::path::PathBuf;
use tans::{CheckOptions, Database};

/// Prove every checksum, reference and tensor hash; exit code 1 if something is damaged
#[derive(clap::Args)]
pub struct Check {
    /// The zoo's directory
    zoo: PathBuf,
    /// Hash no tensor and rebuild no network: records, references, and files that are long enough
    #[arg(long)]
    fast: bool,
}

impl Check {
    pub fn run(&self, context: &Context) -> Result<bool> {
        // Not through an open zoo: what keeps it from opening is to be found as well.
        let report = Database::check_at(&self.zoo, CheckOptions { fast: self.fast })?;
        if context.output.json {
            context.output.object(&report)?;
            return Ok(report.sound);
        }
        for finding in &report.findings {
            let place = finding.offset.map_or(String::new(), |offset| format!(" at {offset}"));
            context.output.line(&format!("{}{place}: {}", finding.file, finding.what))?;
            if !finding.models.is_empty() {
                context.output.line(&format!("    concerns {}", finding.models.join(", ")))?;
            }
            context.output.line(&format!("    {}", finding.remedy))?;
        }
        let verdict = if report.sound {
            "sound".to_owned()
        } else {
            units::counted(report.findings.len(), "finding")
        };
        context.output.line(&format!(
            "{verdict}: {}, {}, {}, {}",
            units::counted(report.records, "record"),
            units::counted(report.tensors, "tensor"),
            units::counted(report.networks, "network"),
            units::counted(report.vectors, "vector")
        ))?;
        Ok(report.sound)
    }
}
