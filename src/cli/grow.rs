//! `tans grow`

use super::finetune::TrainingFlags;
use super::ingest::BenchmarkFlag;
use super::sample::SampleFlags;
use super::{Context, units};
use anyhow::Result;
use std::ops::ControlFlow;
use std::path::PathBuf;
use tans::{DatasetSource, GrowBudget, GrowOptions, GrowReport, GrowTraining};

/// Train networks of a generated space on datasets, each time the pair that promises most
///
/// Each training is stored at once. What the zoo holds already is known and not trained again: the same command goes on
/// where it was stopped.
#[derive(clap::Args)]
pub struct Grow {
    /// The zoo's directory
    zoo: PathBuf,
    /// Datasets with images
    #[arg(required = true, value_name = "DATASET")]
    datasets: Vec<String>,
    /// The generated space: small (images of 32 and 64 px), small@32, mobilenetv3@96, resnet@64 or efficientnet_lite
    #[arg(long, value_name = "NAME", default_value_t = GrowOptions::default().space)]
    space: String,
    /// Trainings of this call, such as 40, or a time after which none begins, such as 30m
    #[arg(long, value_name = "N", default_value = "20", value_parser = budget)]
    budget: GrowBudget,
    /// Choose pairs at random, to compare with
    #[arg(long)]
    random: bool,
    #[command(flatten)]
    training: TrainingFlags,
    /// License of the new models (SPDX)
    #[arg(long)]
    license: Option<String>,
    /// A tag as key=value; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = units::tag)]
    tag: Vec<(String, String)>,
    /// Benchmark tasks that each new model is measured on
    #[arg(long, value_enum, default_value = "quick")]
    benchmark: BenchmarkFlag,
    #[command(flatten)]
    sample: SampleFlags,
}

/// A bare number counts trainings, one with a unit is a time.
fn budget(text: &str) -> Result<GrowBudget, String> {
    if let Ok(trainings) = text.parse() {
        return Ok(GrowBudget::Trainings(trainings));
    }
    let wrong = || format!("expected a number of trainings or a time such as 30m, found {text:?}");
    if !text.ends_with(['s', 'm', 'h']) {
        return Err(wrong());
    }
    units::duration(text).map(GrowBudget::Time).map_err(|_| wrong())
}

impl Grow {
    pub fn run(&self, context: &Context) -> Result<bool> {
        let options = GrowOptions {
            space: self.space.clone(),
            budget: self.budget,
            random: self.random,
            tuning: self.training.options(),
            license: self.license.clone(),
            tags: self.tag.iter().cloned().collect(),
            benchmark: self.benchmark.benchmark(),
            sample: self.sample.options(),
        };
        let sources: Vec<DatasetSource> =
            self.datasets.iter().map(|dataset| DatasetSource::parse(dataset)).collect();
        let zoo = context.write(&self.zoo)?;
        let mut printed = Ok(());
        let mut each = |training: &GrowTraining| {
            if context.output.json {
                printed = context.output.object(training);
            }
            if printed.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        let mut progress = context.output.progress();
        let report = zoo.grow_each(&sources, &options, &mut each, &mut progress);
        drop(progress);
        printed?;
        let report = report?;
        context.output.skipped(&report.skipped);
        match context.output.json {
            true => context.output.object(&report)?,
            false => show(context, &report)?,
        }
        let failed = report.trainings.iter().find_map(|it| it.failure.as_ref());
        if let Some(failure) = failed {
            context.output.note(&format!("some trainings failed; the first: {failure}"));
        }
        Ok(true)
    }
}

fn show(context: &Context, report: &GrowReport) -> Result<()> {
    let optional = |value: Option<f32>| value.map_or("-".into(), |value| format!("{value:.3}"));
    let rows = report.trainings.iter().map(|it| {
        vec![
            it.training.to_string(),
            it.dataset.clone(),
            it.model.clone().unwrap_or_else(|| format!("{} failed", it.architecture)),
            units::short_count(it.params),
            optional(it.expected_accuracy),
            optional(it.accuracy),
            format!("{:+.4}", it.gain),
            format!("{:.4}", it.area),
            format!("{:.1}", it.seconds),
        ]
    });
    let header = [
        ">training",
        "dataset",
        "model",
        ">params",
        ">expected",
        ">accuracy",
        ">gain",
        ">area",
        ">seconds",
    ];
    context.output.table(&header, rows.collect())?;
    context.output.line("")?;
    let rows = report.datasets.iter().map(|it| {
        vec![
            it.dataset.clone(),
            it.known.to_string(),
            it.trained.to_string(),
            format!("{:.4}", it.area_before),
            format!("{:.4}", it.area),
            it.front.last().map_or("-".into(), |best| best.model.clone()),
            optional(it.front.last().map(|best| best.accuracy)),
        ]
    });
    let header =
        ["dataset", ">known", ">trained", ">area before", ">area", "best model", ">accuracy"];
    context.output.table(&header, rows.collect())?;
    context.output.line(&format!(
        "{} of {} networks on {} left to train in {}",
        report.left,
        report.candidates * report.datasets.len(),
        units::counted(report.datasets.len(), "dataset"),
        report.space
    ))
}
