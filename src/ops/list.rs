//! The models of a zoo.

use crate::state::State;
use crate::steps::search;
use crate::steps::summary::{self, ModelSummary};
use crate::{Error, Result};
use std::str::FromStr;
use tans_index::Filter;

/// What `list` sorts by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SortBy {
    /// Order of arrival.
    #[default]
    Added,
    /// Name.
    Name,
    /// Parameters, smallest first, unknown ones last.
    Params,
    /// Multiply-accumulate operations, smallest first, unknown ones last.
    Macs,
}

impl FromStr for SortBy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "added" => Ok(Self::Added),
            "name" => Ok(Self::Name),
            "params" => Ok(Self::Params),
            "macs" => Ok(Self::Macs),
            other => Err(Error::input(format!(
                "sort: expected added, name, params or macs, found {other:?}"
            ))),
        }
    }
}

/// Options of `list`.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// Conditions on the models.
    pub filter: Filter,
    /// Order.
    pub sort: SortBy,
}

pub(crate) fn run(zoo: &State, options: &ListOptions) -> Result<Vec<ModelSummary>> {
    zoo.refresh()?;
    let mut models = Vec::new();
    for model in zoo.store.models()? {
        let model = model?;
        if search::permits(&options.filter, &model) {
            models.push(summary::summary(&zoo.store, model)?);
        }
    }
    match options.sort {
        SortBy::Added => {}
        SortBy::Name => models.sort_by(|a, b| a.model.cmp(&b.model)),
        SortBy::Params => models.sort_by_key(|model| (model.params.is_none(), model.params)),
        SortBy::Macs => models.sort_by_key(|model| (model.macs.is_none(), model.macs)),
    }
    Ok(models)
}
