//! `tans finetune`

use super::filter::CostFlags;
use super::ingest::BenchmarkFlag;
use super::sample::SampleFlags;
use super::{Context, units};
use anyhow::Result;
use std::path::PathBuf;
use std::time::Duration;
use tans::{DatasetSource, FinetuneOptions, FinetuneReport, Optimizer, TopOptions, TuningOptions};

/// Fine-tune a network on a dataset and store the result as a new model
#[derive(clap::Args)]
pub struct Finetune {
    /// The zoo's directory
    zoo: PathBuf,
    /// Name of a stored model, or SPACE:CONFIG for a generated network, such as small:resnet8-w16@32 (left out with
    /// --top), then the dataset
    #[arg(required = true, num_args = 1..=2, value_name = "MODEL DATASET")]
    what: Vec<String>,
    /// Race the query's first N answers (successive halving) and keep the winner
    #[arg(long, value_name = "N", value_parser = units::whole_from::<usize>(1))]
    top: Option<usize>,
    #[command(flatten)]
    cost: CostFlags,
    #[command(flatten)]
    tuning: TuningFlags,
    #[command(flatten)]
    child: ChildFlags,
    #[command(flatten)]
    sample: SampleFlags,
}

/// What becomes of a network that is made from another one.
#[derive(clap::Args)]
pub struct ChildFlags {
    /// Name of the new model
    #[arg(long)]
    pub name: Option<String>,
    /// License of the new model (SPDX); default: its parent's
    #[arg(long)]
    pub license: Option<String>,
    /// A tag as key=value; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = units::tag)]
    pub tag: Vec<(String, String)>,
    /// Benchmark tasks that the new model is measured on
    #[arg(long, value_enum, default_value = "quick")]
    pub benchmark: BenchmarkFlag,
    /// Also write the new model here, .onnx or .safetensors
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// How a network is fine-tuned.
#[derive(clap::Args)]
pub struct TuningFlags {
    #[command(flatten)]
    training: TrainingFlags,
    /// Start from random weights instead of the stored ones
    #[arg(long)]
    from_scratch: bool,
    /// Train the subnets of a supernet, such as mobilenetv3_tiny:supernet@32, along with it, so many random ones a step;
    /// `tans cut` cuts them out
    #[arg(
        long,
        value_name = "N",
        num_args = 0..=1,
        default_missing_value = "2",
        require_equals = true,
        conflicts_with = "head_only",
        value_parser = units::whole::<usize>
    )]
    elastic: Option<usize>,
    /// Train the new head only
    #[arg(long, conflicts_with = "from_scratch")]
    head_only: bool,
    /// Stop after the epoch in which this time has passed, such as 10m
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    budget: Option<Duration>,
}

/// How a network is trained, wherever its weights come from.
#[derive(clap::Args)]
pub struct TrainingFlags {
    /// Passes over the training part; default: as many as show 6,000 images, 10 to 30
    #[arg(long, value_parser = units::whole_from::<usize>(1))]
    epochs: Option<usize>,
    /// Images a step
    #[arg(
        long,
        default_value_t = TuningOptions::default().batch_size,
        value_parser = units::whole_from::<usize>(1)
    )]
    batch_size: usize,
    /// Peak learning rate; default: 1e-3 (AdamW), 0.05 (SGD)
    #[arg(long)]
    learning_rate: Option<f32>,
    /// Optimiser
    #[arg(long, value_enum, default_value = "adamw")]
    optimizer: OptimizerFlag,
    /// Stop after this many epochs that were clearly worse on images held back for validation than an earlier one; 0
    /// never
    #[arg(
        long,
        default_value_t = TuningOptions::default().patience,
        value_parser = units::whole::<usize>
    )]
    patience: usize,
    /// Seed of weights, order of images and augmentation
    #[arg(
        long,
        default_value_t = TuningOptions::default().seed,
        value_parser = units::whole::<u64>
    )]
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
            from_scratch: self.from_scratch,
            head_only: self.head_only,
            budget: self.budget,
            elastic: self.elastic,
            ..self.training.options()
        }
    }
}

impl TrainingFlags {
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
            name: self.child.name.clone(),
            license: self.child.license.clone(),
            tags: self.child.tag.iter().cloned().collect(),
            benchmark: self.child.benchmark.benchmark(),
            output: self.child.output.clone(),
            sample: self.sample.options(),
        };
        let mut progress = context.output.progress();
        let report = match (&self.what[..], self.top) {
            ([model, dataset], None) => {
                self.cost.refuse_given()?;
                let source = DatasetSource::parse(dataset);
                context.write(&self.zoo)?.finetune(model, &source, &options, &mut progress)?
            }
            ([dataset], Some(count)) => {
                let source = DatasetSource::parse(dataset);
                let top = TopOptions { count, filter: self.cost.filter() };
                context.write(&self.zoo)?.finetune_top(&source, &top, &options, &mut progress)?
            }
            _ => {
                let message = "expected MODEL DATASET, or --top N DATASET".to_owned();
                return Err(tans::Error::Input(message).into());
            }
        };
        drop(progress);
        context.output.skipped(&report.skipped);
        if report.resumed_epochs > 0 {
            let epochs = units::counted(report.resumed_epochs, "epoch");
            context.output.note(&format!("went on after {epochs} of a training that was stopped"));
        }
        if context.output.json {
            report.epochs.iter().try_for_each(|epoch| context.output.object(epoch))?;
            context.output.object(&report)?;
        } else {
            show(context, &report)?;
        }
        if report.status == "already stored" {
            let ChildFlags { name, license, tag, .. } = &self.child;
            let not_applied = match name.is_some() || license.is_some() || !tag.is_empty() {
                true => ": --name, --license and --tag were not applied, `tans edit` changes them",
                false => "",
            };
            let model = &report.model;
            let known = format!("this very network was stored before, as {model}{not_applied}");
            context.output.note(&known);
        }
        Ok(true)
    }
}

fn show(context: &Context, report: &FinetuneReport) -> Result<()> {
    let optional = |value: Option<f32>| value.map_or("-".into(), |value| format!("{value:.3}"));
    if report.candidates.len() > 1 {
        let rows = report.candidates.iter().map(|candidate| {
            vec![
                candidate.model.clone(),
                candidate.epochs.to_string(),
                optional(candidate.validation_accuracy),
                candidate.failure.clone().unwrap_or_default(),
            ]
        });
        let header = ["candidate", ">epochs", ">validation accuracy", "failure"];
        context.output.table(&header, rows.collect())?;
        context.output.line("")?;
    }
    let start = report.start.map(|start| {
        let none = || "-".to_owned();
        vec![
            "start".into(),
            none(),
            optional(Some(start.loss)),
            optional(Some(start.accuracy)),
            none(),
        ]
    });
    let epochs = report.epochs.iter().map(|epoch| {
        vec![
            epoch.epoch.to_string(),
            format!("{:.4}", epoch.train_loss),
            optional(epoch.validation_loss),
            optional(epoch.validation_accuracy),
            format!("{:.2}", epoch.seconds),
        ]
    });
    let header = [">epoch", ">loss", ">validation loss", ">validation accuracy", ">seconds"];
    context.output.table(&header, start.into_iter().chain(epochs).collect())?;
    context.output.line(&format!(
        "{}: test accuracy {:.3} on {} of {} (weights of {}, {:.1} s)",
        report.model,
        report.accuracy,
        units::counted(report.test_images, "image"),
        report.task,
        match report.best_epoch {
            0 => "the start, with a probe's head".to_string(),
            epoch => format!("epoch {epoch}"),
        },
        report.seconds
    ))
}
