//! `tans list`

use super::filter::FilterFlags;
use super::{Context, units};
use anyhow::Result;
use std::path::PathBuf;
use tans::{ListOptions, SortBy};

/// Show the models
#[derive(clap::Args)]
pub struct List {
    /// The zoo's directory
    zoo: PathBuf,
    #[command(flatten)]
    filter: FilterFlags,
    /// Order: added, name, params or macs
    #[arg(long, default_value = "added")]
    sort: SortBy,
}

impl List {
    pub fn run(&self, context: &Context) -> Result<bool> {
        let options = ListOptions { filter: self.filter.filter(), sort: self.sort };
        let models = context.read(&self.zoo)?.list(&options)?;
        self.filter.remark(context, models.is_empty());
        if context.output.json {
            models.iter().try_for_each(|model| context.output.object(model))?;
            return Ok(true);
        }
        if models.is_empty() {
            context.output.note("no model matches");
            return Ok(true);
        }
        let rows = models.iter().map(|model| {
            vec![
                model.model.clone(),
                units::known_count(model.params),
                units::known_count(model.macs),
                model.source_tasks.join(", "),
                model.license.clone().unwrap_or_else(|| "-".into()),
                model.status.clone(),
            ]
        });
        let header = ["model", ">params", ">MACs", "source task", "license", "status"];
        context.output.table(&header, rows.collect())?;
        Ok(true)
    }
}
