//! `tans check`

use super::Context;
use anyhow::Result;
use std::path::PathBuf;

/// Prove every checksum, reference and tensor hash; exit code 1 if something is damaged
#[derive(clap::Args)]
pub struct Check {
    /// The zoo's directory
    zoo: PathBuf,
}

impl Check {
    pub fn run(&self, context: &Context) -> Result<bool> {
        let report = context.read(&self.zoo)?.check()?;
        if context.output.json {
            context.output.object(&report)?;
            return Ok(report.sound);
        }
        for finding in &report.findings {
            let place = finding.offset.map_or(String::new(), |offset| format!(" at {offset}"));
            context.output.line(&format!("{}{place}: {}", finding.file, finding.what))?;
        }
        let verdict = if report.sound {
            "sound".to_owned()
        } else {
            format!("{} findings", report.findings.len())
        };
        context.output.line(&format!(
            "{verdict}: {} records, {} tensors, {} networks, {} vectors",
            report.records, report.tensors, report.networks, report.vectors
        ))?;
        Ok(report.sound)
    }
}
