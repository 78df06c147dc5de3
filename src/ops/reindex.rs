//! Completes what a model's vector is made of, embeds every model again with the running encoders and builds the
//! segment anew.

use crate::state::State;
use crate::steps::generation;
use crate::{Observer, Result};
use serde::Serialize;

/// What `reindex` did.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ReindexReport {
    /// Number of the installed generation.
    pub generation: u64,
    /// Vectors in it.
    pub models: usize,
    /// Models whose signature or latency was missing and is measured now.
    pub measured: usize,
}

/// Runs the networks that have no signature of this version or no latency, as those from a starter bundle.
pub(crate) fn run(state: &State, observer: Observer<'_>) -> Result<ReindexReport> {
    state.require_writer()?;
    let measured = complete(state, &mut *observer)?;
    let _alone = state.lock_merges();
    let encoders = state.generation().encoders.clone();
    let candidate = generation::Candidate { encoders, notes: "reindex".to_owned() };
    let prepared = generation::prepare(&state.store, candidate, &mut *observer)?;
    let _ordered = state.lock_commits();
    let installed = generation::install(&state.store, prepared)?;
    let (generation, models) = (installed.record.number, installed.vector_count());
    state.install(installed);
    Ok(ReindexReport { generation, models, measured })
}

#[cfg(feature = "torch")]
fn complete(state: &State, observer: Observer<'_>) -> Result<usize> {
    use crate::ErrorKind;
    use crate::steps::{admit, benchmark, stored_signature, summary};
    let mut incomplete = Vec::new();
    for model in state.store.models()? {
        let model = model?;
        let known =
            model.cost.latency.is_some() && stored_signature(&state.store, model.row)?.is_some();
        if summary::is_runnable(&model) && !known {
            incomplete.push(model);
        }
    }
    let probe_images = benchmark::probe_images()?;
    let (total, mut measured) = (incomplete.len(), 0);
    for (done, model) in incomplete.iter().enumerate() {
        crate::progress::report(observer, "measuring networks", &model.name, done, total)?;
        match admit::complete(state, model, &probe_images) {
            Ok(()) => measured += 1,
            // The others and the index can still be had.
            Err(error) if error.kind() == ErrorKind::Damaged => {
                tracing::warn!("{}: {error}; it stays as it is", model.name);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(measured)
}

#[cfg(not(feature = "torch"))]
fn complete(_: &State, _: Observer<'_>) -> Result<usize> {
    Ok(0)
}
