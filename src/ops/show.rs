//! Everything that a zoo knows of one model.

use crate::graph::input::InputContract;
use crate::state::State;
use crate::steps::summary::{self, KnownResult, ModelSummary};
use crate::{Result, steps};
use serde::Serialize;

/// Answer of `show`.
#[derive(Clone, Debug, Serialize)]
pub struct ShowReport {
    /// The summary that `list` shows.
    #[serde(flatten)]
    pub summary: ModelSummary,
    /// Name of the model it was fine-tuned from.
    pub parent: Option<String>,
    /// Where a reference model lies.
    pub uri: Option<String>,
    /// Space and configuration, for generated networks.
    pub architecture: Option<String>,
    /// How images become its input; `None` for references.
    pub input: Option<InputContract>,
    /// Largest sum of live activations of one sample, in bytes; `None` for references.
    pub peak_activation_bytes: Option<u64>,
    /// Bytes of its weights; `None` for references.
    pub weight_bytes: Option<u64>,
    /// By logit; may be empty.
    pub class_names: Vec<String>,
    /// Known results, best first.
    pub results: Vec<KnownResult>,
    /// Unix time in seconds.
    pub created: u64,
}

pub(crate) fn run(state: &State, name: &str) -> Result<ShowReport> {
    state.refresh()?;
    let model = steps::model(&state.store, name)?;
    let parent = match model.parent {
        Some(id) => state.store.model_by_id(id)?.map(|parent| parent.name),
        None => None,
    };
    let input = model.graph.map(|_| steps::input_contract(&model)).transpose()?;
    // Not a byte of them is read: a model whose pack is damaged is shown, too.
    let weight_bytes = model.weights.iter().try_fold(0, |sum: u64, weight| {
        Ok::<_, tans_storage::Error>(sum.saturating_add(state.store.tensor_bytes(weight.tensor)?))
    })?;
    let results = summary::known_results(&state.store, model.row, None)?;
    let architecture =
        model.architecture.as_ref().map(|point| format!("{}:{}", point.space, point.config));
    Ok(ShowReport {
        parent,
        uri: model.uri.clone(),
        architecture,
        input,
        peak_activation_bytes: model.graph.map(|_| model.cost.peak_activation_bytes),
        weight_bytes: model.graph.map(|_| weight_bytes),
        class_names: model.class_names.clone(),
        results,
        created: model.created,
        summary: summary::summary(&state.store, model)?,
    })
}
