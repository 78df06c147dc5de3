//! `tans evaluate`

use super::{Context, units};
use anyhow::Result;
use std::path::PathBuf;
use tans::{Comparison, EvaluateOptions, Evaluation, MethodRow, PairKind};

/// How good the first pick is on tasks that nothing was learned from
#[derive(clap::Args)]
pub struct Evaluate {
    /// The zoo's directory
    zoo: PathBuf,
    /// Hold out this many folds of families; default: one family at a time
    #[arg(long, value_parser = units::whole_from::<usize>(2))]
    folds: Option<usize>,
    /// What each network's probe says of each task, as `measure --json` prints it: a CSV file with columns task, model,
    /// loo and logme (from the training part), and perhaps held_out (accuracy on the test part) and seconds
    #[arg(long, value_name = "FILE.csv")]
    scores: Option<PathBuf>,
    /// Judge by results alone instead, one dataset of this CSV file left out at a time: columns model, dataset,
    /// accuracy, and as far as known params, architecture, source_dataset and logme
    #[arg(long, value_name = "FILE.csv", conflicts_with_all = ["folds", "scores"])]
    records: Option<PathBuf>,
    /// Judge networks by their results of this kind: probe, finetune or reported; default: the first of them that three
    /// networks have
    #[arg(long, value_name = "KIND", conflicts_with = "records")]
    judge: Option<PairKind>,
    /// Rank networks with at most this many parameters, such as 500k; all are learned from
    #[arg(long, value_name = "N", value_parser = units::count, conflicts_with = "records")]
    max_params: Option<u64>,
    /// Leave out the rows for networks of which nothing was measured, which take most of the time
    #[arg(long)]
    no_cold: bool,
    /// Leave out tans2021, which is trained anew for every fold
    #[arg(long)]
    closed_form_only: bool,
    /// Add listwise, which is trained anew for every fold as well
    #[arg(long, conflicts_with_all = ["closed_form_only", "records"])]
    listwise: bool,
    /// Epochs of tans2021 and listwise
    #[arg(
        long,
        default_value_t = EvaluateOptions::default().epochs,
        value_parser = units::whole::<usize>
    )]
    epochs: usize,
    /// Seed
    #[arg(
        long,
        default_value_t = EvaluateOptions::default().seed,
        value_parser = units::whole::<u64>
    )]
    seed: u64,
}

impl Evaluate {
    pub fn run(&self, context: &Context) -> Result<bool> {
        let options = EvaluateOptions {
            folds: self.folds,
            scores: self.scores.clone(),
            records: self.records.clone(),
            judge: self.judge,
            params_max: self.max_params,
            cold: !self.no_cold,
            closed_form_only: self.closed_form_only,
            listwise: self.listwise,
            epochs: self.epochs,
            seed: self.seed,
        };
        let zoo = context.read(&self.zoo)?;
        let evaluation = zoo.evaluate(&options, &mut context.output.progress())?;
        if context.output.json {
            evaluation.rows.iter().try_for_each(|row| context.output.object(row))?;
            context.output.note(&verdict(&evaluation.verdict));
            return Ok(true);
        }
        show(context, &evaluation)
    }
}

fn show(context: &Context, evaluation: &Evaluation) -> Result<bool> {
    context.output.line(&format!(
        "{} held-out tasks; best network {:.3}, mean network {:.3}; losses in accuracy points",
        evaluation.tasks.len(),
        evaluation.best_accuracy,
        evaluation.mean_accuracy
    ))?;
    let header = [
        "method",
        ">loss",
        "90 % interval",
        ">best of 5",
        ">Spearman",
        ">tau",
        ">MAE",
        ">cover",
        ">ms",
        ">against static",
        "90 % interval",
    ];
    context.output.table(&header, evaluation.rows.iter().map(row).collect())?;
    context.output.line(&verdict(&evaluation.verdict))?;
    Ok(true)
}

/// Whose first pick is worse, and whose is not.
fn verdict(compared: &[Comparison]) -> String {
    let names = |better: bool| -> Vec<&str> {
        let those = compared.iter().filter(|one| one.is_better() == better);
        those.map(|one| one.method.as_str()).collect()
    };
    let said = [("better than", names(true)), ("not better than", names(false))];
    let said = said.into_iter().filter(|(_, names)| !names.is_empty());
    let said: Vec<String> =
        said.map(|(words, names)| format!("{words} {}", names.join(", "))).collect();
    format!("verdict: {}", said.join("; "))
}

fn row(row: &MethodRow) -> Vec<String> {
    let optional = |value: Option<f32>| value.map_or("-".into(), |value| format!("{value:.2}"));
    let interval = |[lo, hi]: [f32; 2]| format!("{lo:.2}..{hi:.2}");
    vec![
        row.method.clone(),
        format!("{:.2}", row.loss),
        interval(row.loss_interval),
        format!("{:.2}", row.best5),
        format!("{:.3}", row.spearman),
        format!("{:.3}", row.tau),
        optional(row.mae),
        optional(row.cover),
        optional(row.ms),
        row.against_static.map_or("-".into(), |(difference, _)| format!("{difference:+.2}")),
        row.against_static.map_or("-".into(), |(_, bounds)| interval(bounds)),
    ]
}
