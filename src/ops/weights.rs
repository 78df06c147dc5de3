//! A model's weights where they lie.

use crate::state::State;
use crate::steps;
use crate::{Error, Result};
use tans_storage::MappedTensor;

/// Named slices of the mapped packs, in the order of the graph.
pub(crate) fn run(state: &State, name: &str) -> Result<Vec<(String, MappedTensor)>> {
    state.refresh()?;
    let model = steps::model(&state.store, name)?;
    if model.graph.is_none() {
        return Err(Error::input(format!(
            "{name} is a reference: expected a model with stored weights"
        )));
    }
    let mut weights = Vec::with_capacity(model.weights.len());
    for weight in model.weights {
        weights.push((weight.name, state.store.tensor(weight.tensor)?));
    }
    Ok(weights)
}
