//! `tans query`

use super::filter::FilterFlags;
use super::sample::SampleFlags;
use super::{Context, units};
use anyhow::Result;
use std::path::PathBuf;
use tans::{DatasetSource, QueryOptions, QueryReport};

/// Which stored networks should be fine-tuned on this dataset?
#[derive(clap::Args)]
pub struct Query {
    /// The zoo's directory
    zoo: PathBuf,
    /// The dataset
    dataset: String,
    /// Number of answers
    #[arg(short, default_value_t = QueryOptions::default().k, value_parser = units::whole_from::<usize>(1))]
    k: usize,
    #[command(flatten)]
    filter: FilterFlags,
    /// Probe up to this many candidates on the dataset, each time the one that promises most, and rank all again
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = units::whole::<usize>)]
    rerank: usize,
    /// Begin no probe later than this after the first one, such as 10s
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    budget: Option<std::time::Duration>,
    #[command(flatten)]
    sample: SampleFlags,
}

impl Query {
    pub fn run(&self, context: &Context) -> Result<bool> {
        let options = QueryOptions {
            k: self.k,
            filter: self.filter.filter(),
            rerank: self.rerank,
            budget: self.budget,
            sample: self.sample.options(),
        };
        let zoo = context.read(&self.zoo)?;
        let source = DatasetSource::parse(&self.dataset);
        let report = zoo.query(&source, &options, &mut context.output.progress())?;
        context.output.skipped(&report.skipped);
        for (model, reason) in &report.unprobed {
            context.output.note(&format!("{model} was not probed: {reason}"));
        }
        if context.output.json {
            report.hits.iter().try_for_each(|hit| context.output.object(hit))?;
        } else if !report.hits.is_empty() {
            show(context, &report)?;
        }
        if report.zoo_is_empty {
            context.output.note("the zoo holds no model yet; `tans ingest` takes some in");
        } else if report.hits.is_empty() {
            context.output.note("no model matches the filter");
        }
        self.filter.remark(context, report.hits.len() < self.k);
        remark(context, &report);
        Ok(true)
    }
}

fn show(context: &Context, report: &QueryReport) -> Result<()> {
    let probed = report.hits.iter().any(|hit| hit.probed_accuracy.is_some());
    let mut header = vec![
        ">rank",
        "model",
        ">cosine",
        ">predicted",
        "90 % interval",
        "source task",
        ">params",
        ">MACs",
        "license",
    ];
    let measured = report.hits.iter().any(|hit| !hit.measured.is_empty());
    if probed {
        header.insert(5, ">probed");
    }
    if measured {
        header.insert(5, "measured here");
    }
    // Only what can be fine-tuned at once needs no word.
    let marked = report.hits.iter().any(|hit| hit.status != "stored");
    if marked {
        header.push("status");
    }
    let rows = report.hits.iter().map(|hit| {
        let mut row = vec![
            hit.rank.to_string(),
            hit.model.clone(),
            format!("{:.3}", hit.cosine),
            format!("{:.3}", hit.predicted_accuracy),
            format!("{:.2}..{:.2}", hit.interval[0], hit.interval[1]),
            hit.source_tasks.join(", "),
            units::known_count(hit.params),
            units::known_count(hit.macs),
            hit.license.clone().unwrap_or_else(|| "-".into()),
        ];
        if probed {
            let accuracy = hit.probed_accuracy;
            row.insert(5, accuracy.map_or("-".into(), |accuracy| format!("{accuracy:.3}")));
        }
        if measured {
            let known = hit.measured.iter();
            let known = known.map(|one| format!("{:.3} ({})", one.accuracy, one.kind));
            row.insert(5, known.reduce(|all, one| all + ", " + &one).unwrap_or("-".into()));
        }
        if marked {
            let word = hit.status.split(':').next().unwrap_or_default();
            row.push(word.to_owned());
        }
        row
    });
    context.output.table(&header, rows.collect())
}

fn remark(context: &Context, report: &QueryReport) {
    let times = &report.times_ms;
    let similar: Vec<String> =
        report.nearest_tasks.iter().map(|(name, kernel)| format!("{name} ({kernel:.2})")).collect();
    if !similar.is_empty() {
        context.output.note(&format!("most similar tasks: {}", similar.join(", ")));
    }
    if let Some(name) = &report.namesake {
        context.output.note(&format!(
            "task {name} has results on other images than these (another sample, or they have changed), which do not count here"
        ));
    }
    let rerank = match report.probes {
        0 => String::new(),
        probes => format!(", {} {:.1} ms", units::counted(probes, "probe"), times.rerank),
    };
    context.output.note(&format!(
        "backbone {:.1} ms; dataset {:.1} ms, encode {:.2} ms, lookup {:.2} ms{rerank}; generation {} ({})",
        times.backbone,
        times.dataset,
        times.encode,
        times.lookup,
        report.generation,
        report.recipe
    ));
}
