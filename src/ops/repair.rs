//! Opens a zoo whose encoders are damaged: they are learned, so they can be learned again.

use crate::encoder::Encoders;
use crate::state::{self, State};
use crate::steps::{generation, training_set};
use crate::train::{self, FitOptions};
use crate::{OpenOptions, Result};
use std::ops::ControlFlow;
use std::path::Path;
use tans_storage::{Mode, Store};

/// The same results give the same bytes, and the store would take the damaged ones for these: the interval becomes wider
/// by as many of the smallest steps as there were encoders before.
fn tell_apart(encoders: &mut Encoders, damaged: u32) {
    if let Encoders::Default(form) = encoders {
        let half_width = &mut form.predictor.half_width;
        (0..=damaged).for_each(|_| *half_width = half_width.next_up());
    }
}

/// Installs closed-form encoders if the installed ones cannot be read; `true` if it had to.
pub(crate) fn run(path: &Path, options: OpenOptions) -> Result<(State, bool)> {
    let store = Store::open(path, Mode::Write)?;
    let is_damaged = match state::load(&store) {
        Ok(_) => false,
        Err(crate::Error::Storage(tans_storage::Error::Corrupt { .. })) => true,
        Err(error) => return Err(error),
    };
    if is_damaged {
        let set = training_set::load(&store)?;
        let mut go_on = |_, _, _| ControlFlow::Continue(());
        let mut encoders = train::fit(&set, &FitOptions::default(), &mut go_on)?;
        tell_apart(&mut encoders, store.generation()?.map_or(0, |damaged| damaged.encoder));
        let notes = "learned anew after damage".to_owned();
        generation::install(&store, generation::Candidate { encoders, notes })?;
    }
    Ok((State::from_store(store, options)?, is_damaged))
}
