//! From what is on disk to the generation that answers queries.

use super::{Encoded, Generation};
use crate::encoder::Encoders;
use crate::{Error, Result};
use std::collections::BTreeSet;
use std::sync::RwLock;
use tans_index::{Attributes, Delta, Embedding, Segment};
use tans_storage::{GenerationRecord, ModelRecord, Operation, Store};

/// Segments up to this size are proven when they are opened, larger ones later: reading them takes a second a gigabyte.
const PROVEN_AT_OPEN: usize = 64 << 20;

/// Loads the current generation. A damaged segment is left aside: every vector is then served from the delta.
pub fn load(store: &Store) -> Result<Generation> {
    load_as(store, current(store)?)
}

/// As `load`, of a generation that is about to be installed; its encoders are stored.
pub fn load_as(store: &Store, record: GenerationRecord) -> Result<Generation> {
    load_with(store, record, &|record, fingerprint| {
        open_segment(store, record, fingerprint, &proven)
    })
}

/// As `load`, for a caller that proves the segment itself, or wants no proof of it.
pub fn load_unproven(store: &Store) -> Result<Generation> {
    let open = |record: &_, fingerprint| open_segment(store, record, fingerprint, &Ok);
    load_with(store, current(store)?, &open)
}

/// Loads the current generation without its segment.
pub fn load_without_segment(store: &Store) -> Result<Generation> {
    load_with(store, current(store)?, &|_, _| None)
}

/// Whether a generation's segment is proven by its size alone.
pub fn is_proven_at_open(segment: &Segment) -> bool {
    segment.byte_len() <= PROVEN_AT_OPEN
}

/// How a generation's segment is found from its record and the fingerprint of its encoders.
type Opening<'a> = &'a dyn Fn(&GenerationRecord, [u8; 32]) -> Option<Segment>;

fn current(store: &Store) -> Result<GenerationRecord> {
    store.generation()?.ok_or_else(|| missing(store, "an installed generation"))
}

fn missing(store: &Store, what: &str) -> Error {
    Error::Storage(tans_storage::Error::Corrupt {
        file: store.path().display().to_string(),
        offset: "generation".into(),
        what: format!("expected {what}, found none"),
    })
}

fn load_with(store: &Store, record: GenerationRecord, open: Opening<'_>) -> Result<Generation> {
    let encoder = store
        .encoder(record.encoder)?
        .ok_or_else(|| missing(store, "the generation's encoders"))?;
    let blob = store.tensor(encoder.blob)?;
    let encoders: Encoders = tans_storage::decode("encoders", blob.as_ref())?;
    let segment = open(&record, encoder.fingerprint);
    let delta = load_delta(store, &record, &encoders, segment.as_ref())?;
    Ok(Generation {
        record,
        encoders,
        fingerprint: encoder.fingerprint,
        segment,
        delta: RwLock::new(delta),
        encoded: Encoded::default(),
        lost_tasks: 0,
    })
}

fn open_segment(
    store: &Store,
    record: &GenerationRecord,
    fingerprint: [u8; 32],
    prove: &dyn Fn(Segment) -> tans_index::Result<Segment>,
) -> Option<Segment> {
    let path = store.segment_path(record.segment.as_ref()?);
    match Segment::open(&path).and_then(prove) {
        Ok(segment) if segment.fingerprint() == fingerprint => Some(segment),
        Ok(_) => {
            tracing::warn!(
                "{}: vectors of other encoders, left aside; run reindex",
                path.display()
            );
            None
        }
        Err(error) => {
            tracing::warn!("{error}; left aside, run reindex");
            None
        }
    }
}

fn proven(segment: Segment) -> tans_index::Result<Segment> {
    match is_proven_at_open(&segment) {
        true => segment.verify().map(|()| segment),
        false => Ok(segment),
    }
}

fn load_delta(
    store: &Store,
    record: &GenerationRecord,
    encoders: &Encoders,
    segment: Option<&Segment>,
) -> Result<Delta> {
    let mut delta = Delta::new(encoders.dim());
    if segment.is_none() {
        for embedding in store.embeddings(record.encoder)? {
            let (row, vector) = embedding?;
            if let Some(model) = store.model(row)? {
                insert_model(&mut delta, &model, vector)?;
            }
        }
        return Ok(delta);
    }
    follow(store, record.encoder, &mut delta, changes(store, record.sequence)?.rows)?;
    Ok(delta)
}

/// What has happened since a moment.
pub struct Changes {
    /// Rows of models that were added, changed, measured or removed.
    pub rows: BTreeSet<u64>,
    /// Whether another generation was installed.
    pub installed: bool,
    /// The last of them without one missing before it.
    pub until: u64,
}

/// Reads the op log after `sequence`.
pub fn changes(store: &Store, sequence: u64) -> Result<Changes> {
    let mut changes = Changes { rows: BTreeSet::new(), installed: false, until: sequence };
    for (number, operation) in store.operations_after(sequence)? {
        if number != changes.until + 1 {
            break;
        }
        changes.until = number;
        match operation {
            Operation::ModelAdded { row }
            | Operation::ModelEdited { row }
            | Operation::ModelRemoved { row } => {
                changes.rows.insert(row);
            }
            Operation::PairRecorded { model, .. } => {
                changes.rows.insert(model);
            }
            Operation::GenerationInstalled { .. } => changes.installed = true,
            Operation::TaskAdded { .. } | Operation::TaskRemoved { .. } => {}
        }
    }
    Ok(changes)
}

/// Brings a delta up to what the store holds of these rows.
pub fn follow(store: &Store, encoder: u32, delta: &mut Delta, rows: BTreeSet<u64>) -> Result<()> {
    for row in rows {
        match (store.model(row)?, store.embedding(encoder, row)?) {
            (Some(model), Some(vector)) => insert_model(delta, &model, vector)?,
            (Some(_), None) | (None, _) => delta.remove(row),
        }
    }
    Ok(())
}

/// Adds a model's vector and what filters ask about it.
pub fn insert_model(delta: &mut Delta, model: &ModelRecord, vector: Vec<f32>) -> Result<()> {
    let dim = vector.len();
    Ok(delta.insert(model.row, &Embedding::new(vector, dim)?, attributes(model))?)
}

/// What filters can ask about a model.
pub fn attributes(model: &ModelRecord) -> Attributes {
    let known = |value: u64| (model.graph.is_some() || value > 0).then_some(value);
    // A network that cannot run was never traced, so its cost in operations is unknown, not zero.
    let traced = |value: u64| if model.not_runnable.is_some() { None } else { known(value) };
    Attributes {
        params: known(model.cost.params),
        macs: traced(model.cost.macs),
        latency_ms: model.cost.latency.as_ref().map(|latency| latency.median_ms),
        license: model.license.clone(),
        tags: model.tags.iter().map(|(key, value)| format!("{key}={value}")).collect(),
    }
}
