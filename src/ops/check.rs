//! Proves that everything in a zoo is as it was written.

use crate::Result;
use crate::state::State;
use crate::steps;
use serde::Serialize;
use tans_index::Segment;
use tans_storage::Damage;

/// One finding.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// File or column family.
    pub file: String,
    /// Byte offset, where known.
    pub offset: Option<u64>,
    /// What was expected and what was found.
    pub what: String,
}

/// Answer of `check`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CheckReport {
    /// Whether nothing is wrong.
    pub sound: bool,
    /// Records decoded.
    pub records: u64,
    /// Tensors hashed again.
    pub tensors: u64,
    /// Networks rebuilt from graph and weights.
    pub networks: u64,
    /// Vectors that the current generation holds.
    pub vectors: usize,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

pub(crate) fn run(state: &State) -> Result<CheckReport> {
    state.refresh()?;
    let stored = state.store.check()?;
    let mut findings: Vec<Finding> = stored.damages.into_iter().map(from_damage).collect();
    let mut networks = 0;
    let mut models = 0;
    for model in state.store.models()? {
        let Ok(model) = model else { continue };
        models += 1;
        if model.graph.is_none() {
            continue;
        }
        networks += 1;
        let rebuilt =
            steps::stored_graph(&state.store, &model).and_then(|_| steps::input_contract(&model));
        if let Err(error) = rebuilt {
            let file = format!("model {}", model.name);
            findings.push(Finding { file, offset: None, what: error.to_string() });
        }
    }
    let generation = state.generation();
    let vectors = generation.vector_count();
    if let Some(segment) = &generation.segment
        && let Err(error) = Segment::verify(segment)
    {
        let file = generation.record.segment.clone().unwrap_or_default();
        findings.push(Finding { file, offset: None, what: error.to_string() });
    }
    if vectors != models {
        findings.push(Finding {
            file: format!("generation {}", generation.record.number),
            offset: None,
            what: format!("expected a vector for each of {models} models, found {vectors}"),
        });
    }
    Ok(CheckReport {
        sound: findings.is_empty(),
        records: stored.records,
        tensors: stored.tensors,
        networks,
        vectors,
        findings,
    })
}

fn from_damage(damage: Damage) -> Finding {
    let Damage { file, offset, what } = damage;
    Finding { file, offset, what }
}
