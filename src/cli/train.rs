//! `tans train`

use super::{Context, units};
use anyhow::Result;
use std::path::PathBuf;
use tans::{Choice, FitOptions, TrainOptions};

/// Learn new encoders from everything the zoo knows, and install them if they are better
#[derive(clap::Args)]
pub struct Train {
    /// The zoo's directory
    zoo: PathBuf,
    /// How encoders are learned; auto takes the better of default and listwise on held-out tasks, and without a word for
    /// it so does a zoo of 300 tasks or more, while a smaller one takes default
    #[arg(long, value_parser = ["default", "tans2021", "listwise", "auto"])]
    recipe: Option<String>,
    /// Epochs of a recipe that iterates
    #[arg(
        long,
        default_value_t = FitOptions::default().epochs,
        value_parser = units::whole::<usize>
    )]
    epochs: usize,
    /// Seed
    #[arg(long, default_value_t = FitOptions::default().seed, value_parser = units::whole::<u64>)]
    seed: u64,
    /// Install even if they are not better
    #[arg(long)]
    force: bool,
}

impl Train {
    pub fn run(&self, context: &Context) -> Result<bool> {
        let (recipe, choice) = Choice::parse(self.recipe.as_deref())?;
        let fit =
            FitOptions { recipe, epochs: self.epochs, seed: self.seed, ..FitOptions::default() };
        let zoo = context.write(&self.zoo)?;
        let options = TrainOptions { fit, choice, force: self.force };
        let report = zoo.train(&options, &mut context.output.progress())?;
        if context.output.json {
            context.output.object(&report)?;
            return Ok(true);
        }
        context.output.line(&format!(
            "generation {} ({}): {}, learned from {} and {}",
            report.generation,
            report.recipe,
            units::counted(report.models, "model"),
            units::counted(report.tasks, "task"),
            units::counted(report.pairs, "result")
        ))?;
        if let Some(gate) = &report.gate {
            context.output.line(&format!(
                "first pick's loss on {}, accuracy points: {:.2} (running recipe {:.2}, static list {:.2})",
                units::counted(gate.tasks, "held-out task"),
                gate.loss,
                gate.running_loss,
                gate.static_loss
            ))?;
            if let Some(rival) = &gate.rival {
                let said =
                    format!("chosen instead of {}, which loses {:.2}", rival.recipe, rival.loss);
                context.output.line(&said)?;
            }
        } else {
            context.output.note("too few tasks have measured models to judge the encoders");
        }
        Ok(true)
    }
}
