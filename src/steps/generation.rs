//! Loads, builds and installs generations.

use super::embed;
use crate::encoder::Encoders;
use crate::state::Generation;
use crate::{Error, Result};
use std::collections::BTreeSet;
use std::sync::RwLock;
use tans_index::{BuildOptions, Delta, Embedding, Entry, Segment};
use tans_storage::{
    Batch, Dtype, EncoderRecord, GenerationRecord, ModelRecord, NewTensor, Operation, Store,
};

/// Below this many vectors an exact scan of the delta answers at once, and no segment is built.
pub const SEGMENT_MIN: usize = 2_000;

/// Encoders and vectors that are ready to be installed.
pub struct Candidate {
    /// The new encoders.
    pub encoders: Encoders,
    /// Recipe and gate figures, for display.
    pub notes: String,
}

/// Loads the current generation. A damaged segment is left aside: every vector is then served from the delta.
pub fn load(store: &Store) -> Result<Generation> {
    let missing = |what: &str| {
        Error::Storage(tans_storage::Error::Corrupt {
            file: store.path().display().to_string(),
            offset: "generation".into(),
            what: format!("expected {what}, found none"),
        })
    };
    let record = store.generation()?.ok_or_else(|| missing("an installed generation"))?;
    let encoder = store.encoder(record.encoder)?.ok_or_else(|| missing("the generation's encoders"))?;
    let blob = store.tensor(encoder.blob)?;
    let encoders: Encoders = tans_storage::decode("encoders", blob.as_ref())?;
    let segment = open_segment(store, &record, encoder.fingerprint);
    let delta = load_delta(store, &record, &encoders, segment.as_ref())?;
    Ok(Generation {
        record,
        encoders,
        fingerprint: encoder.fingerprint,
        segment,
        delta: RwLock::new(delta),
    })
}

fn open_segment(store: &Store, record: &GenerationRecord, fingerprint: [u8; 32]) -> Option<Segment> {
    let path = store.segment_path(record.segment.as_ref()?);
    match Segment::open(&path) {
        Ok(segment) if segment.fingerprint() == fingerprint => Some(segment),
        Ok(_) => {
            tracing::warn!("{}: vectors of other encoders, left aside; run reindex", path.display());
            None
        }
        Err(error) => {
            tracing::warn!("{error}; left aside, run reindex");
            None
        }
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
                insert(&mut delta, &model, vector)?;
            }
        }
        return Ok(delta);
    }
    for row in changed_rows(store, record.sequence)? {
        match (store.model(row)?, store.embedding(record.encoder, row)?) {
            (Some(model), Some(vector)) => insert(&mut delta, &model, vector)?,
            (Some(_), None) | (None, _) => delta.remove(row),
        }
    }
    Ok(delta)
}

/// Rows of models that were added, changed, measured or removed after `sequence`.
pub fn changed_rows(store: &Store, sequence: u64) -> Result<BTreeSet<u64>> {
    let mut rows = BTreeSet::new();
    for (_, operation) in store.operations_after(sequence)? {
        match operation {
            Operation::ModelAdded { row }
            | Operation::ModelEdited { row }
            | Operation::ModelRemoved { row } => {
                rows.insert(row);
            }
            Operation::PairRecorded { model, .. } => {
                rows.insert(model);
            }
            Operation::TaskAdded { .. }
            | Operation::TaskRemoved { .. }
            | Operation::GenerationInstalled { .. } => {}
        }
    }
    Ok(rows)
}

/// Puts one model's vector into a delta.
pub fn insert(delta: &mut Delta, model: &ModelRecord, vector: Vec<f32>) -> Result<()> {
    let dim = vector.len();
    Ok(delta.insert(model.row, &Embedding::new(vector, dim)?, embed::attributes(model))?)
}

/// Installs encoders: embeds every model with them, builds the segment, names all of it by one commit.
///
/// The caller holds the commit lock, so nothing is added meanwhile.
pub fn install(store: &Store, candidate: Candidate) -> Result<Generation> {
    let Candidate { encoders, notes } = candidate;
    let previous = store.generation()?;
    let number = previous.as_ref().map_or(0, |generation| generation.number + 1);
    let encoder = previous.as_ref().map_or(0, |generation| generation.encoder + 1);
    let bytes = tans_storage::encode(&encoders)?;
    let fingerprint = *blake3::hash(&bytes).as_bytes();
    let blob = NewTensor { dtype: Dtype::U8, shape: &[bytes.len()], bytes: &bytes };
    let blob = store.put_tensors(&[blob])?[0];

    let mut batch = Batch::new();
    let entries = embed_all(store, &encoders, encoder, &mut batch)?;
    let segment = write_segment(store, number, fingerprint, &entries)?;
    batch.put_encoder(&EncoderRecord {
        number: encoder,
        fingerprint,
        blob,
        recipe: encoders.recipe().to_owned(),
        notes,
        created: super::unix_seconds(),
    });
    batch.install_generation(&GenerationRecord {
        number,
        encoder,
        segment,
        sequence: store.sequence()?,
    });
    if let Some(previous) = &previous {
        batch.remove_encoder(previous.encoder);
    }
    store.commit(batch)?;
    if let Some(name) = previous.and_then(|generation| generation.segment) {
        // A reader may still map it; on Linux its pages live until it lets go.
        let _ = std::fs::remove_file(store.segment_path(&name));
    }
    load(store)
}

fn embed_all(store: &Store, encoders: &Encoders, number: u32, batch: &mut Batch) -> Result<Vec<Entry>> {
    let context = embed::Context::load(store, encoders)?;
    let mut entries = Vec::new();
    for model in store.models()? {
        let model = model?;
        let vector = context.embed(store, &model, &[])?;
        batch.put_embedding(number, model.row, &vector);
        let dim = vector.len();
        entries.push(Entry {
            key: model.row,
            vector: Embedding::new(vector, dim)?,
            attributes: embed::attributes(&model),
        });
    }
    Ok(entries)
}

/// Writes a segment when there are enough vectors; its file name, else `None`.
fn write_segment(
    store: &Store,
    number: u64,
    fingerprint: [u8; 32],
    entries: &[Entry],
) -> Result<Option<String>> {
    if entries.len() < SEGMENT_MIN {
        return Ok(None);
    }
    let name = format!("{number:010}.segment");
    let mut built = Ok(());
    tans_storage::install_file(&store.segment_path(&name), |file| {
        let mut out = std::io::BufWriter::new(file);
        let options = BuildOptions::default();
        let mut go_on = |_, _| std::ops::ControlFlow::Continue(());
        built = tans_index::build_segment(entries, fingerprint, &options, &mut out, &mut go_on)
            .map(|_| ());
        std::io::Write::flush(&mut out)
    })?;
    built?;
    Ok(Some(name))
}
