//! `tans ingest`

use super::{Context, units};
use anyhow::Result;
use std::ops::ControlFlow;
use std::path::PathBuf;
use tans::{Benchmark, ChannelOrder, ErrorKind, IngestOptions, InputHints, Limits};

/// Take trained networks into the zoo
#[derive(clap::Args)]
pub struct Ingest {
    /// The zoo's directory
    zoo: PathBuf,
    /// Network files (ONNX; PyTorch checkpoints and safetensors with --space), folders of them at any depth, manifests
    /// (.jsonl), or the built-in backbone:efficientnet-lite0
    #[arg(required = true, value_name = "FILE|FOLDER|MANIFEST.jsonl")]
    sources: Vec<String>,
    /// Name of the model; default: the file's, below a folder with the path to it
    #[arg(long)]
    name: Option<String>,
    /// Task that the network was trained on; an unknown name becomes a reference
    #[arg(long)]
    task: Option<String>,
    /// Its accuracy on that task, in 0..1
    #[arg(long, requires = "task")]
    accuracy: Option<f32>,
    /// License (SPDX); default: what a file made by `export` says
    #[arg(long)]
    license: Option<String>,
    /// A tag as key=value; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = units::tag)]
    tag: Vec<(String, String)>,
    /// Architecture of files that hold weights alone, such as resnet:18 or efficientnet_lite:lite0
    #[arg(long, value_name = "SPACE:CONFIG[@SIDE]")]
    space: Option<String>,
    /// Size of the input, as CHANNELSxHEIGHTxWIDTH
    #[arg(long, value_name = "CxHxW", value_parser = units::shape)]
    input: Option<(usize, usize, usize)>,
    /// Subtracted from each channel after scaling
    #[arg(long, value_delimiter = ',', allow_hyphen_values = true)]
    mean: Option<Vec<f32>>,
    /// Each channel is divided by this
    #[arg(long, value_delimiter = ',')]
    std: Option<Vec<f32>>,
    /// Pixels (0..255) are multiplied by this first; default 1/255
    #[arg(long)]
    scale: Option<f32>,
    /// Order of the input's channels
    #[arg(long, value_enum)]
    channel_order: Option<Order>,
    /// Networks of a folder or manifest that are taken in side by side; more than one measure no latency
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = units::whole_from::<usize>(1))]
    jobs: usize,
    /// Benchmark tasks that the network is measured on
    #[arg(long, value_enum, default_value = "quick")]
    benchmark: BenchmarkFlag,
    /// Most bytes of weights that a file may expand to, such as 8G
    #[arg(long, value_name = "BYTES", value_parser = units::count)]
    max_weight_bytes: Option<u64>,
    /// Most bytes of constants that a network may compute from its weights, such as 64M
    #[arg(long, value_name = "BYTES", value_parser = units::count)]
    max_constant_bytes: Option<u64>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Order {
    Rgb,
    Bgr,
    Grey,
}

/// How many benchmark tasks a new network is measured on.
#[derive(Clone, Copy, clap::ValueEnum)]
pub enum BenchmarkFlag {
    /// None
    None,
    /// Eight tasks of 100 images
    Quick,
}

impl BenchmarkFlag {
    /// The library's word.
    pub fn benchmark(self) -> Benchmark {
        match self {
            Self::None => Benchmark::None,
            Self::Quick => Benchmark::Quick,
        }
    }
}

impl Ingest {
    fn options(&self) -> IngestOptions {
        let mut limits = Limits::default();
        limits.weight_bytes_max = self.max_weight_bytes.unwrap_or(limits.weight_bytes_max);
        limits.constant_bytes_max = self.max_constant_bytes.unwrap_or(limits.constant_bytes_max);
        IngestOptions {
            name: self.name.clone(),
            task: self.task.clone(),
            accuracy: self.accuracy,
            license: self.license.clone(),
            tags: self.tag.iter().cloned().collect(),
            input: InputHints {
                shape: self.input,
                mean: self.mean.clone(),
                std: self.std.clone(),
                scale: self.scale,
                order: self.channel_order.map(|order| match order {
                    Order::Rgb => ChannelOrder::Rgb,
                    Order::Bgr => ChannelOrder::Bgr,
                    Order::Grey => ChannelOrder::Grey,
                }),
            },
            space: self.space.clone(),
            benchmark: self.benchmark.benchmark(),
            limits,
            jobs: self.jobs,
        }
    }

    pub fn run(&self, context: &Context) -> Result<bool> {
        if self.name.is_some() && self.sources.len() > 1 {
            let found = self.sources.len();
            let message = format!("--name: expected one network, found {found}");
            return Err(tans::Error::Input(message).into());
        }
        let zoo = context.write(&self.zoo)?;
        units::note_license(context, self.license.as_deref());
        let options = self.options();
        let (mut stored, mut known, mut refused) = (0, 0, 0);
        for source in &self.sources {
            let mut printed = Ok(());
            let mut report = |network: tans::Ingested| {
                match network.status {
                    "stored" => stored += 1,
                    "already stored" => known += 1,
                    _ => refused += 1,
                }
                printed = show(context, &network);
                if printed.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            };
            let progress = &mut context.output.progress();
            let ingested = zoo.ingest_each(source, &options, &mut report, progress);
            printed?;
            match ingested {
                Err(error) if error.kind() == ErrorKind::Input => {
                    refused += 1;
                    if context.output.json {
                        context.output.object(&tans::Ingested::refused(source.clone(), &error))?;
                    }
                    if self.sources.len() == 1 {
                        return Err(error.into());
                    }
                    super::output::complain(&error.into());
                }
                other => other?,
            }
        }
        context.merge(&zoo)?;
        if stored + known + refused > 1 {
            let totals = format!("{stored} stored, {known} already stored, {refused} refused");
            context.output.note(&totals);
        }
        if refused > 0 {
            let others = match stored + known {
                0 => "nothing was stored",
                _ => "the others are stored",
            };
            let message = format!("{} refused, {others}", units::counted(refused, "network"));
            return Err(tans::Error::Input(message).into());
        }
        Ok(true)
    }
}

fn show(context: &Context, network: &tans::Ingested) -> Result<()> {
    if context.output.json {
        return context.output.object(network);
    }
    let what = match (&network.model, network.status) {
        (Some(model), "already stored") => format!("already stored as {model}"),
        (Some(model), status) => format!(
            "{status} as {model} ({} parameters, {} MACs)",
            units::known_count(network.params),
            units::known_count(network.macs)
        ),
        (None, status) => status.to_owned(),
    };
    let note = network.note.as_ref().map_or(String::new(), |note| format!("; {note}"));
    context.output.line(&format!("{}: {what}{note}", network.source))
}
