//! Changes what users say of a model: its name, license and tags.

use crate::state::State;
use crate::steps::{self, admit_name, search};
use crate::{Error, Result};
use tans_storage::Batch;

/// Options of `edit`; `None` leaves a field as it is.
#[derive(Clone, Debug, Default)]
pub struct EditOptions {
    /// New name.
    pub name: Option<String>,
    /// New license (SPDX); an empty one removes it.
    pub license: Option<String>,
    /// Tags to set; an empty value removes the tag.
    pub tags: Vec<(String, String)>,
}

pub(crate) fn run(state: &State, model: &str, options: &EditOptions) -> Result<()> {
    if options.name.is_none() && options.license.is_none() && options.tags.is_empty() {
        return Err(Error::input("expected a new name, license or tag, found none of them"));
    }
    state.commit(|_| apply(state, model, options))
}

fn apply(state: &State, model: &str, options: &EditOptions) -> Result<()> {
    let mut record = steps::model(&state.store, model)?;
    if let Some(name) = options.name.as_ref().filter(|name| **name != record.name) {
        admit_name::refuse_taken(&state.store, name)?;
        record.name.clone_from(name);
    }
    if let Some(license) = &options.license {
        record.license = (!license.is_empty()).then(|| license.clone());
    }
    for (key, value) in &options.tags {
        if value.is_empty() {
            record.tags.remove(key);
        } else {
            record.tags.insert(key.clone(), value.clone());
        }
    }
    let mut batch = Batch::new();
    batch.put_model(&record);
    state.store.apply(batch)?;
    // A model's vector comes from its graph, signature, training and results (`embed::Context::embed_with`), none of
    // which is edited: the stored one stays true, and the index is told the new license and tags beside it.
    let generation = state.generation();
    match state.store.embedding(generation.record.encoder, record.row)? {
        Some(vector) => search::refresh_delta(&generation, &record, vector),
        None => Ok(()),
    }
}
