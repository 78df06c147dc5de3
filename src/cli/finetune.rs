//! `tans finetune`

use super::ingest::BenchmarkFlag;
use super::sample::SampleFlags;
use super::{Context, units};
use anyhow::Result;
use std::path::PathBuf;
use tans::{DatasetSource, FinetuneOptions, FinetuneReport, Optimizer, TuningOptions};

/// Fine-tune a network on a dataset and store the result as a new model
#[derive(clap::Args)]
pub struct Finetune {
    /// The zoo's directory
    zoo: PathBuf,
    /// Name of a stored model, or SPACE:CONFIG for a generated network, such as small:resnet8-w16@32
    model: String,
    /// The dataset
    dataset: String,
    #[command(flatten)]
    tuning: TuningFlags,
    /// Name of the new model
    #[arg(long)]
    name: Option<String>,
    /// License of the new model (SPDX); default: its parent's
    #[arg(long)]
    license: Option<String>,
    /// A tag as key=value; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = units::tag)]
    tag: Vec<(String, String)>,
    /// Benchmark tasks that the new model is measured on
    #[arg(long, value_enum, default_value = "quick")]
    benchmark: BenchmarkFlag,
    /// Also write the new model here as ONNX
    #[arg(short, long, value_name = "FILE.onnx")]
    output: Option<PathBuf>,
    #[command(flatten)]
    sample: SampleFlags,
}

/// How a network is trained.
#[derive(clap::Args)]
pub struct TuningFlags {
    /// Passes over the training part
    #[arg(long, default_value_t = TuningOptions::default().epochs)]
    epochs: usize,
    /// Images a step
    #[arg(long, default_value_t = TuningOptions::default().batch_size)]
    batch_size: usize,
    /// Peak learning rate; default: 1e-3 (AdamW), 0.05 (SGD)
    #[arg(long)]
    learning_rate: Option<f32>,
    /// Optimiser
    #[arg(long, value_enum, default_value = "adamw")]
    optimizer: OptimizerFlag,
    /// Start from random weights instead of the stored ones
    #[arg(long)]
    from_scratch: bool,
    /// Train the new head only
    #[arg(long)]
    head_only: bool,
    /// Stop after this many epochs without a better validation result; 0 never
    #[arg(long, default_value_t = TuningOptions::default().patience)]
    patience: usize,
    /// Seed of head, order of images and augmentation
    #[arg(long, default_value_t = TuningOptions::default().seed)]
    seed: u64,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum OptimizerFlag {
    Sgd,
    Adamw,
}

impl TuningFlags {
    /// The library's options.
    pub fn options(&self) -> TuningOptions {
        TuningOptions {
            epochs: self.epochs,
            batch_size: self.batch_size,
            learning_rate: self.learning_rate,
            optimizer: match self.optimizer {
                OptimizerFlag::Sgd => Optimizer::Sgd,
                OptimizerFlag::Adamw => Optimizer::AdamW,
            },
            from_scratch: self.from_scratch,
            head_only: self.head_only,
            patience: self.patience,
            seed: self.seed,
            ..TuningOptions::default()
        }
    }
}

impl Finetune {
    pub fn run(&self, context: &Context) -> Result<bool> {
        let options = FinetuneOptions {
            tuning: self.tuning.options(),
            name: self.name.clone(),
            license: self.license.clone(),
            tags: self.tag.iter().cloned().collect(),
            benchmark: self.benchmark.benchmark(),
            output: self.output.clone(),
            sample: self.sample.options(),
        };
        let zoo = context.write(&self.zoo)?;
        let source = DatasetSource::parse(&self.dataset);
        let report =
            zoo.finetune(&self.model, &source, &options, &mut context.output.progress())?;
        context.output.skipped(&report.skipped);
        if context.output.json {
            context.output.object(&report)?;
        } else {
            show(context, &report)?;
        }
        Ok(true)
    }
}

fn show(context: &Context, report: &FinetuneReport) -> Result<()> {
    let optional = |value: Option<f32>| value.map_or("-".into(), |value| format!("{value:.3}"));
    let rows = report.epochs.iter().map(|epoch| {
        vec![
            epoch.epoch.to_string(),
            format!("{:.4}", epoch.train_loss),
            optional(epoch.validation_loss),
            optional(epoch.validation_accuracy),
            format!("{:.2}", epoch.seconds),
        ]
    });
    let header = [">epoch", ">loss", ">validation loss", ">validation accuracy", ">seconds"];
    context.output.table(&header, rows.collect())?;
    context.output.line(&format!(
        "{}: test accuracy {:.3} on {} images of {} (weights of epoch {}, {:.1} s)",
        report.model,
        report.accuracy,
        report.test_images,
        report.task,
        report.best_epoch,
        report.seconds
    ))
}
