//! Names of models and tasks: what may be one, and that models' names are unique.

use crate::{Error, Result};
use tans_storage::Store;

/// Names are keys in the store, and keys stay short.
const NAME_BYTES_MAX: usize = 1024;

/// Refuses what cannot be the name of a model or task (`what`): nothing, blanks at an end, a very long text, control
/// characters.
pub fn check(what: &str, name: &str) -> Result<()> {
    let found = match name {
        "" => "an empty one".to_owned(),
        blank if blank.trim().is_empty() => "nothing but blanks".to_owned(),
        loose if loose.trim() != loose => format!("blanks at an end of {loose:?}"),
        long if long.len() > NAME_BYTES_MAX => format!("{} bytes", long.len()),
        odd if odd.chars().any(char::is_control) => format!("control characters in {odd:?}"),
        _ => return Ok(()),
    };
    Err(Error::input(format!(
        "expected a {what} name of 1 to {NAME_BYTES_MAX} bytes of plain text, found {found}"
    )))
}

/// The name that is wanted, with a number when it is taken.
pub fn free(wanted: &str, is_taken: impl Fn(&str) -> Result<bool>) -> Result<String> {
    let mut name = wanted.to_owned();
    let mut number = 2;
    while is_taken(&name)? {
        name = format!("{wanted}-{number}");
        number += 1;
    }
    Ok(name)
}

/// Refuses what cannot be a model's name, and a name that belongs to another model.
pub fn refuse_taken(store: &Store, name: &str) -> Result<()> {
    check("model", name)?;
    match store.model_by_name(name)? {
        Some(other) => Err(Error::input(format!(
            "the name {name:?} belongs to another model ({}); choose another name, or free it by `tans remove` or \
            `tans edit --name`; several networks at once are named by their paths if they come by a manifest or by the \
            folder above them",
            other.id
        ))),
        None => Ok(()),
    }
}
