//! `tans task`

use super::sample::SampleFlags;
use super::{Context, units};
use anyhow::Result;
use std::path::PathBuf;
use tans::{DatasetSource, TaskOptions, TaskSummary};

/// Tasks: datasets as the zoo remembers them
#[derive(clap::Subcommand)]
pub enum Task {
    /// Remember a dataset: feature rows, never images
    Add {
        /// The zoo's directory
        zoo: PathBuf,
        /// Name of the task
        name: String,
        /// The dataset
        dataset: String,
        /// Tasks of one family share images or sources and are held out together
        #[arg(long)]
        family: Option<String>,
        /// Store it as a benchmark task
        #[arg(long, hide = true)]
        benchmark: bool,
        #[command(flatten)]
        sample: SampleFlags,
    },
    /// Show the tasks
    List {
        /// The zoo's directory
        zoo: PathBuf,
    },
    /// Forget a task and the results on it
    Remove {
        /// The zoo's directory
        zoo: PathBuf,
        /// Name of the task
        name: String,
    },
}

impl Task {
    pub fn run(&self, context: &Context) -> Result<bool> {
        match self {
            Self::Add { zoo, name, dataset, family, benchmark, sample } => {
                let options = TaskOptions {
                    family: family.clone(),
                    benchmark: *benchmark,
                    sample: sample.options(),
                };
                let zoo = context.write(zoo)?;
                let source = DatasetSource::parse(dataset);
                let progress = &mut context.output.progress();
                let added = zoo.add_task(name, &source, &options, progress)?;
                context.output.skipped(&added.skipped);
                show_added(context, &added)?;
            }
            Self::List { zoo } => show(context, &context.read(zoo)?.tasks()?)?,
            Self::Remove { zoo, name } => {
                let zoo = context.write(zoo)?;
                let task = zoo.tasks()?.into_iter().find(|it| it.task == *name);
                zoo.remove_task(name)?;
                let results = units::counted(task.as_ref().map_or(0, |it| it.pairs), "result");
                let rest = format!(" and {results} on it");
                context.output.changed("task", name, ("removed", &rest))?;
                if task.is_some_and(|it| it.benchmark) {
                    context.output.note(
                        "it was a benchmark task: new networks are not measured on it any more",
                    );
                }
            }
        }
        Ok(true)
    }
}

fn show_added(context: &Context, added: &tans::AddedTask) -> Result<()> {
    if context.output.json {
        return context.output.object(added);
    }
    let stored = &added.summary.task;
    if added.status == "already stored" {
        context.output.line(&format!("already stored as {stored}"))?;
    }
    if added.moved_pairs > 0 {
        let results = units::counted(added.moved_pairs, "result");
        context.output.note(&format!("moved to {stored} from the name alone: {results}"));
    }
    show(context, std::slice::from_ref(&added.summary))
}

fn show(context: &Context, tasks: &[TaskSummary]) -> Result<()> {
    if context.output.json {
        return tasks.iter().try_for_each(|task| context.output.object(task));
    }
    let rows = tasks.iter().map(|task| {
        let kind = match (task.benchmark, task.reference) {
            (true, _) => "benchmark",
            (false, true) => "reference",
            (false, false) => "stored",
        };
        vec![
            task.task.clone(),
            task.family.clone(),
            kind.to_owned(),
            task.classes.to_string(),
            task.rows.to_string(),
            task.pairs.to_string(),
        ]
    });
    let header = ["task", "family", "kind", ">classes", ">rows", ">results"];
    context.output.table(&header, rows.collect())
}
