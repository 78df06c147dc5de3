//! `tans cut`

use super::finetune::ChildFlags;
use super::sample::SampleFlags;
use super::{Context, units};
use anyhow::Result;
use std::path::PathBuf;
use tans::{CutOptions, CutReport, DatasetSource, SubnetChoice};

/// Cut a smaller network out of a stored supernet (Once-for-all) and store it as a new model
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("choice").required(true).multiple(true).args(["subnet", "max_params", "max_macs"]))]
pub struct Cut {
    /// The zoo's directory
    zoo: PathBuf,
    /// Name of the supernet
    model: String,
    /// The subnet, such as d2-k3-e4 or d2.3.4.4.2-k3.5.3.7.7-e6, or its 45 numbers joined by commas
    #[arg(long, value_name = "CODE", conflicts_with_all = ["max_params", "max_macs"])]
    subnet: Option<String>,
    /// The best subnet of at most this many parameters, such as 2M
    #[arg(long, value_name = "N", value_parser = units::count)]
    max_params: Option<u64>,
    /// The best subnet of at most this many multiply-accumulate operations a sample, such as 100M
    #[arg(long, value_name = "N", value_parser = units::count)]
    max_macs: Option<u64>,
    /// Subnets that are looked at under a bound
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = units::whole_from::<usize>(1))]
    candidates: usize,
    /// Estimate the cut network's batch-norm statistics on this dataset, and measure it there
    #[arg(long, value_name = "DATASET")]
    calibrate: Option<String>,
    /// Images that the statistics are estimated on, at most
    #[arg(
        long,
        value_name = "N",
        default_value_t = CutOptions::default().images,
        value_parser = units::whole_from::<usize>(2)
    )]
    images: usize,
    /// Sort the channels by importance first: for a network that was trained at full size only
    #[arg(long)]
    sort: bool,
    /// Seed of the subnets and images that are drawn
    #[arg(long, default_value_t = 0, value_parser = units::whole::<u64>)]
    seed: u64,
    #[command(flatten)]
    child: ChildFlags,
    #[command(flatten)]
    sample: SampleFlags,
}

impl Cut {
    pub fn run(&self, context: &Context) -> Result<bool> {
        let choice = match &self.subnet {
            Some(code) => SubnetChoice::Code(code.clone()),
            None => SubnetChoice::Within {
                params: self.max_params,
                macs: self.max_macs,
                candidates: self.candidates,
            },
        };
        let options = CutOptions {
            calibrate: self.calibrate.as_deref().map(DatasetSource::parse),
            images: self.images,
            sort: self.sort,
            seed: self.seed,
            name: self.child.name.clone(),
            license: self.child.license.clone(),
            tags: self.child.tag.iter().cloned().collect(),
            benchmark: self.child.benchmark.benchmark(),
            output: self.child.output.clone(),
            sample: self.sample.options(),
        };
        let zoo = context.write(&self.zoo)?;
        let report = zoo.cut(&self.model, &choice, &options, &mut context.output.progress())?;
        context.output.skipped(&report.skipped);
        if context.output.json {
            context.output.object(&report)?;
        } else {
            show(context, &report)?;
        }
        if report.calibrated_images == 0 {
            context.output.note(
                "its batch-norm statistics are those of the whole supernet: --calibrate DATASET estimates its own, without \
                 which a smaller network answers at random",
            );
        }
        Ok(true)
    }
}

fn show(context: &Context, report: &CutReport) -> Result<()> {
    let optional = |value: Option<f32>| value.map_or("-".into(), |value| format!("{value:.3}"));
    if !report.candidates.is_empty() {
        let rows = report.candidates.iter().map(|tried| {
            vec![
                tried.subnet.clone(),
                units::known_count(Some(tried.params)),
                units::known_count(Some(tried.macs)),
                optional(tried.accuracy),
            ]
        });
        let header = ["subnet", ">parameters", ">MACs", ">leave-one-out accuracy"];
        context.output.table(&header, rows.collect())?;
        context.output.line("")?;
    }
    let accuracy = match &report.task {
        Some(task) => format!(
            "; on {} of {task}: probe {}, own head {}",
            units::counted(report.test_images, "test image"),
            optional(report.probe_accuracy),
            optional(report.accuracy)
        ),
        None => String::new(),
    };
    context.output.line(&format!(
        "{}: {} from {} ({} parameters, {} MACs){accuracy}",
        report.model,
        report.architecture,
        report.parent,
        units::known_count(Some(report.params)),
        units::known_count(Some(report.macs))
    ))
}
