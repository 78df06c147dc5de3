//! Builds and installs generations.

use super::embed;
use crate::encoder::Encoders;
use crate::state::{self, Encoded, Generation};
use crate::{Observer, Result};
use std::ops::ControlFlow;
use std::sync::RwLock;
use tans_index::{BuildOptions, Delta, Embedding, Entry, Segment};
use tans_storage::{Batch, Dtype, EncoderRecord, GenerationRecord, NewTensor, Store};

/// Below this many vectors an exact scan of the delta answers at once, and no segment is built.
pub const SEGMENT_MIN: usize = 2_000;

/// Models that are embedded between two reports.
const REPORTED: usize = 1024;
/// Vectors that are written at once while a generation is installed.
const CHUNK_BYTES: usize = 4 << 20;

/// Encoders and vectors that are ready to be installed.
pub struct Candidate {
    /// The new encoders.
    pub encoders: Encoders,
    /// Recipe and gate figures, for display.
    pub notes: String,
}

/// A generation that is ready but for what is committed while it was made.
pub struct Prepared {
    candidate: Candidate,
    number: u64,
    encoder: u32,
    /// The encoders as they are stored.
    bytes: Vec<u8>,
    fingerprint: [u8; 32],
    /// The last commit that all vectors know.
    sequence: u64,
    entries: Vec<Entry>,
    segment: Option<String>,
}

/// Embeds every model with these encoders and builds the segment. Takes as long as that does, while others go on
/// writing; only one is prepared and installed at a time.
pub fn prepare(store: &Store, candidate: Candidate, observer: Observer<'_>) -> Result<Prepared> {
    let previous = store.generation()?;
    let number = previous.as_ref().map_or(0, |generation| generation.number + 1);
    let encoder = previous.as_ref().map_or(0, |generation| generation.encoder + 1);
    let bytes = tans_storage::encode(&candidate.encoders)?;
    let fingerprint = *blake3::hash(&bytes).as_bytes();
    let sequence = store.sequence()?;
    let entries = embed_all(store, &candidate.encoders, &mut *observer)?;
    let segment = match entries.len() {
        0..SEGMENT_MIN => None,
        _ => Some(format!("{number:010}.segment")),
    };
    if let Some(name) = &segment {
        write_segment(store, name, &entries, fingerprint, observer)?;
    }
    Ok(Prepared { candidate, number, encoder, bytes, fingerprint, sequence, entries, segment })
}

/// Names all of a prepared generation by one commit, with new vectors of what has changed since.
///
/// The caller holds the commit lock, so nothing is added or removed meanwhile. Vectors that are written before the
/// commit are of encoders that nothing names yet, and make way for those of the next ones if it does not come.
pub fn install(store: &Store, prepared: Prepared) -> Result<Generation> {
    let Prepared { candidate, number, encoder, bytes, fingerprint, sequence, entries, segment } =
        prepared;
    let Candidate { encoders, notes } = candidate;
    let blob = NewTensor { dtype: Dtype::U8, shape: &[bytes.len()], bytes: &bytes };
    let blob = store.put_tensors(&[blob])?[0];
    let mut batch = Batch::new();
    batch.remove_encoder(encoder);
    let mut delta = Delta::new(encoders.dim());
    let changed = state::changes(store, sequence)?.rows;
    let chunk = CHUNK_BYTES / (size_of::<f32>() * encoders.dim().max(1));
    let unchanged = entries.into_iter().filter(|entry| !changed.contains(&entry.key));
    for (count, Entry { key, vector, attributes }) in unchanged.enumerate() {
        if count > 0 && count.is_multiple_of(chunk.max(1)) {
            store.apply(std::mem::take(&mut batch))?;
        }
        batch.put_embedding(encoder, key, vector.as_slice());
        if segment.is_none() {
            delta.insert(key, &vector, attributes)?;
        }
    }
    let encoded = Encoded::default();
    let context = embed::Context::load(store, &encoders, &encoded)?;
    for row in changed {
        let Some(model) = store.model(row)? else {
            delta.remove(row);
            continue;
        };
        let vector = context.embed(store, &model, &[])?;
        batch.put_embedding(encoder, row, &vector);
        state::insert_model(&mut delta, &model, vector)?;
    }
    batch.put_encoder(&EncoderRecord {
        number: encoder,
        fingerprint,
        blob,
        recipe: encoders.recipe().to_owned(),
        notes,
        created: super::unix_seconds(),
    });
    let record = GenerationRecord { number, encoder, segment, sequence };
    batch.install_generation(&record);
    if let Some(previous) = store.generation()? {
        batch.remove_encoder(previous.encoder);
    }
    // Opened first: nothing may fail between the commit and what queries see.
    let segment = record.segment.as_ref().map(|name| Segment::open(&store.segment_path(name)));
    let segment = segment.transpose()?;
    store.commit(batch)?;
    // What a reader may still look for stays until `gc`; a segment that cannot be deleted now, too.
    let _ = store.delete_old_segments();
    let (delta, encoded) = (RwLock::new(delta), Encoded::default());
    Ok(Generation { record, encoders, fingerprint, segment, delta, encoded, lost_tasks: 0 })
}

/// Embeds every model with these encoders without storing anything, for a reader whose generation is damaged. Its
/// fingerprint is that of the encoders, so nothing mistakes it for the stored one.
pub fn in_memory(store: &Store, encoders: Encoders, lost_tasks: usize) -> Result<Generation> {
    let number = store.generation()?.map_or(0, |generation| generation.number);
    let encoder = state::UNSTORED_ENCODER;
    let record = GenerationRecord { number, encoder, segment: None, sequence: store.sequence()? };
    let fingerprint = *blake3::hash(&tans_storage::encode(&encoders)?).as_bytes();
    let mut delta = Delta::new(encoders.dim());
    for Entry { key, vector, attributes } in embed_all(store, &encoders, &mut crate::unobserved)? {
        delta.insert(key, &vector, attributes)?;
    }
    let (segment, delta, encoded) = (None, RwLock::new(delta), Encoded::default());
    Ok(Generation { record, encoders, fingerprint, segment, delta, encoded, lost_tasks })
}

fn embed_all(store: &Store, encoders: &Encoders, observer: Observer<'_>) -> Result<Vec<Entry>> {
    let encoded = Encoded::default();
    let context = embed::Context::load(store, encoders, &encoded)?;
    let mut entries = Vec::new();
    for model in store.models()? {
        let model = model?;
        if entries.len().is_multiple_of(REPORTED) {
            // How many there are is known at the end.
            let done = entries.len();
            crate::progress::report(&mut *observer, "embedding models", &model.name, done, 0)?;
        }
        let vector = context.embed(store, &model, &[])?;
        let dim = vector.len();
        entries.push(Entry {
            key: model.row,
            vector: Embedding::new(vector, dim)?,
            attributes: state::attributes(&model),
        });
    }
    Ok(entries)
}

/// Builds a segment of vectors and the fingerprint of their encoders, and makes it durable under that name.
pub fn write_segment(
    store: &Store,
    name: &str,
    entries: &[Entry],
    fingerprint: [u8; 32],
    observer: Observer<'_>,
) -> Result<()> {
    let mut progress = |done, total| {
        crate::progress::report(&mut *observer, "building the index", "", done, total)
            .map_or(ControlFlow::Break(()), ControlFlow::Continue)
    };
    let mut built = Ok(());
    let installed = tans_storage::install_file(&store.segment_path(name), |file| {
        let mut out = std::io::BufWriter::new(file);
        let options = BuildOptions::default();
        built = tans_index::build_segment(entries, fingerprint, &options, &mut out, &mut progress)
            .map(|_| ());
        if let Err(error) = &built {
            // Nothing may be installed under the segment's name.
            return Err(std::io::Error::other(error.to_string()));
        }
        std::io::Write::flush(&mut out)
    });
    built?;
    Ok(installed?)
}
