//! `tans measure`

use super::finetune::TuningFlags;
use super::sample::SampleFlags;
use super::{Context, units};
use anyhow::Result;
use std::path::PathBuf;
use tans::{DatasetSource, MeasureBy, MeasureOptions, MeasureReport, TuningOptions};

/// Measure stored models on a dataset and record the results
#[derive(clap::Args)]
pub struct Measure {
    /// The zoo's directory
    zoo: PathBuf,
    /// Name of the model (left out with --all), then the dataset
    #[arg(required = true, num_args = 1..=2, value_name = "MODEL DATASET")]
    what: Vec<String>,
    /// Measure every stored model
    #[arg(long)]
    all: bool,
    /// With --all: only models without such a result on this dataset, to go on where a run was stopped
    #[arg(long, requires = "all")]
    missing: bool,
    /// How: a ridge probe of penultimate features, or fine-tuning
    #[arg(long, value_enum, default_value = "probe")]
    by: ByFlag,
    #[command(flatten)]
    tuning: TuningFlags,
    #[command(flatten)]
    sample: SampleFlags,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum ByFlag {
    Probe,
    Finetune,
}

impl Measure {
    pub fn run(&self, context: &Context) -> Result<bool> {
        let (models, dataset) = match (&self.what[..], self.all) {
            ([dataset], true) => (Vec::new(), dataset),
            ([model, dataset], false) => (vec![model.clone()], dataset),
            _ => {
                let message = "expected MODEL DATASET, or --all DATASET".to_owned();
                return Err(tans::Error::Input(message).into());
            }
        };
        let tuning = self.tuning.options();
        if matches!(self.by, ByFlag::Probe) && tuning != TuningOptions::default() {
            let message = "expected --by finetune with flags of a training, found them with --by probe, which trains nothing";
            return Err(tans::Error::Input(message.to_owned()).into());
        }
        let options = MeasureOptions {
            by: match self.by {
                ByFlag::Probe => MeasureBy::Probe,
                ByFlag::Finetune => MeasureBy::Finetune(tuning),
            },
            sample: self.sample.options(),
            missing: self.missing,
        };
        let zoo = context.write(&self.zoo)?;
        let source = DatasetSource::parse(dataset);
        let report = zoo.measure(&models, &source, &options, &mut context.output.progress())?;
        context.output.skipped(&report.skipped);
        if context.output.json {
            report.measurements.iter().try_for_each(|row| context.output.object(row))?;
        } else if !report.measurements.is_empty() {
            show(context, &report)?;
        }
        match report.unmeasured.first() {
            Some((model, reason)) => context.output.note(&format!(
                "could not be measured: {} of {}; the first, {model}: {reason}",
                report.unmeasured.len(),
                units::counted(report.unmeasured.len() + report.measurements.len(), "model")
            )),
            None if report.measurements.is_empty() && self.missing => {
                context.output.note("no result is missing on this dataset");
            }
            None if report.measurements.is_empty() => {
                let message = "the zoo holds no network to measure; `tans ingest` takes some in";
                return Err(tans::Error::Input(message.to_owned()).into());
            }
            None => {}
        }
        Ok(true)
    }
}

fn show(context: &Context, report: &MeasureReport) -> Result<()> {
    let mut header = vec!["model", "task", "kind", ">accuracy"];
    // A measurement takes the place of one that was made otherwise, with another sample or other options.
    let replaces = report.measurements.iter().any(|row| row.replaced.is_some());
    if replaces {
        header.push(">before");
    }
    let rows = report.measurements.iter().map(|row| {
        let mut cells = vec![
            row.model.clone(),
            row.task.clone(),
            row.kind.to_owned(),
            format!("{:.3}", row.accuracy),
        ];
        if replaces {
            cells.push(row.replaced.map_or("-".into(), |before| format!("{before:.3}")));
        }
        cells
    });
    context.output.table(&header, rows.collect())
}
