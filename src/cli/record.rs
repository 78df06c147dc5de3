//! `tans record`

use super::{Context, units};
use anyhow::Result;
use std::path::{Path, PathBuf};

/// Record results that were made elsewhere; unknown models and tasks become references
#[derive(clap::Args)]
pub struct Record {
    /// The zoo's directory
    zoo: PathBuf,
    /// MODEL TASK ACCURACY, or one CSV file with columns model, dataset, accuracy and perhaps params and
    /// kind (probe, finetune or reported)
    #[arg(required = true, num_args = 1..=3, value_name = "MODEL TASK ACCURACY | FILE.csv")]
    what: Vec<String>,
}

impl Record {
    pub fn run(&self, context: &Context) -> Result<bool> {
        let zoo = context.write(&self.zoo)?;
        let report = match &self.what[..] {
            [file] if !Path::new(file).exists() => {
                let message =
                    format!("expected MODEL TASK ACCURACY or one CSV file, found no file {file}");
                return Err(tans::Error::Input(message).into());
            }
            [file] => zoo.record_file(Path::new(file), &mut context.output.progress())?,
            [model, task, accuracy] => {
                let value = accuracy.parse().map_err(|_| {
                    tans::Error::Input(format!(
                        "accuracy: expected a number in 0..1, found {accuracy:?}"
                    ))
                })?;
                zoo.record(model, task, value)?
            }
            other => {
                let found = other.len();
                let message = format!(
                    "expected MODEL TASK ACCURACY or one CSV file, found {found} arguments"
                );
                return Err(tans::Error::Input(message).into());
            }
        };
        if !report.ignored_columns.is_empty() {
            let ignored = report.ignored_columns.join(", ");
            context.output.note(&format!("columns that were not read: {ignored}"));
        }
        if context.output.json {
            context.output.object(&report)?;
        } else {
            let replaced = match report.replaced {
                0 => String::new(),
                count => format!(", {count} in place of another accuracy"),
            };
            context.output.line(&format!(
                "{} recorded{replaced}; new references: {}, {}",
                units::counted(report.pairs, "result"),
                units::counted(report.new_models, "model"),
                units::counted(report.new_tasks, "task")
            ))?;
        }
        context.merge(&zoo)?;
        Ok(true)
    }
}
