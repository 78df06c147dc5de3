//! `tans explain`

use super::sample::SampleFlags;
use super::{Context, units};
use anyhow::Result;
use std::path::PathBuf;
use tans::{DatasetSource, ExplainOptions, ExplainReport, KnownResult};

/// Show why a model stands where it does in the answer for a dataset
#[derive(clap::Args)]
pub struct Explain {
    /// The zoo's directory
    zoo: PathBuf,
    /// The dataset
    dataset: String,
    /// Name of the model
    model: String,
    #[command(flatten)]
    sample: SampleFlags,
}

impl Explain {
    pub fn run(&self, context: &Context) -> Result<bool> {
        let zoo = context.read(&self.zoo)?;
        let source = DatasetSource::parse(&self.dataset);
        let options = ExplainOptions { sample: self.sample.options() };
        let mut progress = context.output.progress();
        let report = zoo.explain(&source, &self.model, &options, &mut progress)?;
        drop(progress);
        context.output.skipped(&report.skipped);
        if context.output.json {
            context.output.object(&report)?;
        } else {
            show(context, &report)?;
        }
        Ok(true)
    }
}

fn show(context: &Context, report: &ExplainReport) -> Result<()> {
    let output = &context.output;
    output.line(&format!(
        "{} for {}: estimated accuracy {:.3} (90 % interval {:.2}..{:.2}), cosine {:.3}",
        report.model,
        report.dataset,
        report.predicted_accuracy,
        report.interval[0],
        report.interval[1],
        report.cosine
    ))?;
    output.line(&format!("measured on this dataset: {}", results(&report.measured)))?;
    output.line("")?;
    output.table(&["term", ">cosine", ">share", ">accuracy"], term_rows(report))?;
    output.line("")?;
    let rows = report.similar_tasks.iter().map(|task| {
        let seen = if task.seen { "yes" } else { "no" };
        let name = task.task.clone();
        vec![name, format!("{:.3}", task.similarity), seen.into(), results(&task.measured)]
    });
    output.table(&["similar task", ">similarity", "trained on it", "measured"], rows.collect())?;
    output.line("")?;
    output.table(&["cost of one image", ">value", "how it is known"], cost_rows(report))?;
    output.note(&format!(
        "learned from {} of this model; generation {} ({})",
        units::counted(report.results, "result"),
        report.generation,
        report.recipe
    ));
    Ok(())
}

/// The sum that makes the estimate, line by line.
fn term_rows(report: &ExplainReport) -> Vec<Vec<String>> {
    let dataset = vec![
        "any network on this dataset".to_owned(),
        String::new(),
        String::new(),
        format!("{:.3}", report.expected_accuracy),
    ];
    let terms = report.terms.iter().map(|term| {
        vec![
            term.term.to_owned(),
            format!("{:+.3}", term.cosine),
            format!("{:.0} %", term.share * 100.0),
            format!("{:+.3}", term.accuracy),
        ]
    });
    std::iter::once(dataset).chain(terms).collect()
}

fn cost_rows(report: &ExplainReport) -> Vec<Vec<String>> {
    let cost = &report.cost;
    let row = |name: &str, value: Option<String>, how: &str| match value {
        Some(value) => vec![name.to_owned(), value, how.to_owned()],
        None => vec![name.to_owned(), "-".to_owned(), "not known".to_owned()],
    };
    let how = cost.latency.as_ref().map_or(String::new(), |latency| {
        format!("measured at ingest ({}, {} threads)", latency.device, latency.threads)
    });
    let counted = if cost.params_counted { "counted" } else { "as stated" };
    let latency = cost.latency.as_ref().map(|latency| format!("{:.2} ms", latency.median_ms));
    vec![
        row("parameters", cost.params.map(units::short_count), counted),
        row("MACs", cost.macs.map(units::short_count), "counted"),
        row(
            "peak activations",
            cost.peak_activation_bytes.map(units::short_bytes),
            "estimated from shapes",
        ),
        row("latency", latency, &how),
    ]
}

fn results(known: &[KnownResult]) -> String {
    if known.is_empty() {
        return "nothing".to_owned();
    }
    let results: Vec<String> =
        known.iter().map(|result| format!("{:.3} ({})", result.accuracy, result.kind)).collect();
    results.join(", ")
}
