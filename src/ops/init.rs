//! Makes a zoo: the benchmark tasks, a starter bundle where one is given, generation 0. It is a zoo when all of it is
//! there: killed before, the next `init` begins anew.

use crate::state::{Generation, State};
use crate::steps::{benchmark, bundle, generation, training_set};
use crate::train::{self, FitOptions};
use crate::{Error, OpenOptions, Result};
use serde::Serialize;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use tans_storage::Store;

/// Options of `init`.
#[derive(Clone, Debug, Default)]
pub struct InitOptions {
    /// Bundles made by `export --starter`, read in this order.
    pub starters: Vec<PathBuf>,
}

/// What `init` made.
#[derive(Clone, Debug, Serialize)]
pub struct InitReport {
    /// The zoo.
    pub zoo: PathBuf,
    /// Models that it holds.
    pub models: usize,
    /// Tasks, the built-in benchmark tasks included.
    pub tasks: usize,
    /// Results, of each kind the latest.
    pub pairs: usize,
}

pub(crate) fn run(
    path: &Path,
    options: &InitOptions,
    open: OpenOptions,
) -> Result<(State, InitReport)> {
    // Everything that can be wrong with the input is found before the directory is made.
    let starters =
        options.starters.iter().map(|starter| open_starter(starter)).collect::<Result<Vec<_>>>()?;
    let existed = path.exists();
    let store = Store::begin(path, crate::encoder::BACKBONE_FINGERPRINT)?;
    let filled = fill(&store, path, options, starters)
        .and_then(|filled| store.finish().map(|()| filled).map_err(Error::from));
    match filled {
        Ok((current, report)) => Ok((State::new(store, current, open)?, report)),
        Err(error) => {
            store.abandon();
            if !existed {
                // Empty now, unless something there is not ours.
                let _ = std::fs::remove_dir(path);
            }
            Err(error)
        }
    }
}

fn fill(
    store: &Store,
    path: &Path,
    options: &InitOptions,
    starters: Vec<std::fs::File>,
) -> Result<(Generation, InitReport)> {
    let built_in = Path::new("built-in benchmark tasks");
    bundle::import(store, Cursor::new(benchmark::TASKS), built_in)?;
    for (file, origin) in starters.into_iter().zip(&options.starters) {
        bundle::import(store, file, origin)?;
    }
    let set = training_set::load(store)?;
    let mut go_on = |_, _, _| std::ops::ControlFlow::Continue(());
    let encoders = train::fit(&set, &FitOptions::default(), &mut go_on)?;
    let notes = format!("{} tasks, {} pairs", set.tasks.len(), set.pairs.len());
    let candidate = generation::Candidate { encoders, notes };
    let prepared = generation::prepare(store, candidate, &mut crate::unobserved)?;
    let current = generation::install(store, prepared)?;
    // Counted in the zoo: bundles may share models and results.
    let report = InitReport {
        zoo: path.to_path_buf(),
        models: store.models()?.count(),
        tasks: store.tasks()?.len(),
        pairs: store.pairs()?.len(),
    };
    Ok((current, report))
}

fn open_starter(path: &Path) -> Result<std::fs::File> {
    std::fs::File::open(path).map_err(|error| Error::file("cannot read", path, error))
}
