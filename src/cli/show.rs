//! `tans show`

use super::{Context, units};
use anyhow::Result;
use std::path::PathBuf;
use tans::ShowReport;

/// Show everything that is known of one model
#[derive(clap::Args)]
pub struct Show {
    /// The zoo's directory
    zoo: PathBuf,
    /// Name of the model
    model: String,
}

impl Show {
    pub fn run(&self, context: &Context) -> Result<bool> {
        let report = context.read(&self.zoo)?.show(&self.model)?;
        if context.output.json {
            context.output.object(&report)?;
            return Ok(true);
        }
        context.output.table(&["field", "value"], fields(&report))?;
        let results = report.results.iter().map(|result| {
            vec![result.task.clone(), result.kind.to_owned(), format!("{:.3}", result.accuracy)]
        });
        context.output.line("")?;
        context.output.table(&["task", "kind", ">accuracy"], results.collect())?;
        Ok(true)
    }
}

fn fields(report: &ShowReport) -> Vec<Vec<String>> {
    let or_dash = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".into());
    let summary = &report.summary;
    let tags: Vec<String> =
        summary.tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let input = report.input.as_ref().map(|input| {
        format!(
            "{}x{}x{} {}, (pixel * {} - {:?}) / {:?}",
            input.channels(),
            input.height,
            input.width,
            format!("{:?} {:?}", input.layout, input.order).to_uppercase(),
            input.scale,
            input.mean,
            input.std
        )
    });
    [
        ("model", summary.model.clone()),
        ("id", summary.id.clone()),
        ("status", summary.status.clone()),
        ("parent", or_dash(&report.parent)),
        ("uri", or_dash(&report.uri)),
        ("architecture", or_dash(&report.architecture)),
        ("source tasks", summary.source_tasks.join(", ")),
        ("license", or_dash(&summary.license)),
        ("tags", tags.join(", ")),
        ("input", or_dash(&input)),
        ("parameters", units::known_count(summary.params)),
        ("MACs", units::known_count(summary.macs)),
        ("peak activations", units::known_bytes(report.peak_activation_bytes)),
        ("weights", units::known_bytes(report.weight_bytes)),
        ("classes", report.class_names.join(", ")),
    ]
    .into_iter()
    .map(|(name, value)| vec![name.to_owned(), value])
    .collect()
}
