//! Names of models are unique.

use crate::{Error, Result};
use tans_storage::Store;

/// Refuses an empty name and one that belongs to another model.
pub fn refuse_taken(store: &Store, name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::input("expected a model name, found an empty one"));
    }
    match store.model_by_name(name)? {
        Some(other) => Err(Error::input(format!(
            "the name {name:?} belongs to another model ({}); choose another with --name",
            other.id
        ))),
        None => Ok(()),
    }
}
