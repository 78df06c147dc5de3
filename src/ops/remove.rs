//! Takes models out of a zoo.

use crate::state::State;
use crate::{Result, steps};
use std::collections::HashMap;
use std::sync::PoisonError;
use tans_storage::Batch;

/// Removes all of the named models by one commit, or none of them.
pub(crate) fn run(state: &State, names: &[String]) -> Result<()> {
    state.commit(|_| apply(state, names))
}

fn apply(state: &State, names: &[String]) -> Result<()> {
    let mut rows = Vec::with_capacity(names.len());
    for name in names {
        rows.push(steps::model(&state.store, name)?.row);
    }
    rows.sort_unstable();
    rows.dedup();
    let mut batch = Batch::new();
    for &row in &rows {
        batch.remove_model(row);
    }
    state.store.apply(batch)?;
    let generation = state.generation();
    let mut delta = generation.delta.write().unwrap_or_else(PoisonError::into_inner);
    rows.iter().for_each(|&row| delta.remove(row));
    Ok(())
}

/// For each of the named models, the names of those that were fine-tuned from it and are not named themselves.
pub(crate) fn children(state: &State, names: &[String]) -> Result<Vec<Vec<String>>> {
    let mut places = HashMap::new();
    for (place, name) in names.iter().enumerate() {
        places.insert(steps::model(&state.store, name)?.id, place);
    }
    let mut children = vec![Vec::new(); names.len()];
    for model in state.store.models()? {
        let model = model?;
        let of = model.parent.and_then(|parent| places.get(&parent));
        if let Some(&place) = of.filter(|_| !places.contains_key(&model.id)) {
            children[place].push(model.name);
        }
    }
    Ok(children)
}
