//! Reading records.

use super::Store;
use super::record::{self, SYS_GENERATION};
use crate::codec::Bytes;
use crate::keys::{self, EmbeddingKey, NameKey, PairKey};
use crate::records::{Place, TensorRecord};
use crate::rocks::{Entry, Family};
use crate::{
    EncoderRecord, Error, GenerationRecord, JobRecord, MappedTensor, ModelId, ModelRecord,
    Operation, Pair, Result, TaskId, TaskRecord, TensorId, dtype,
};
use std::sync::{PoisonError, RwLockReadGuard};

/// Row ids with their vectors.
type RowIterator<'a> = Box<dyn Iterator<Item = Result<(u64, Vec<f32>)>> + 'a>;

impl Store {
    /// A stored tensor, memory-mapped. It is hashed when this process reads it for the first time.
    ///
    /// # Errors
    /// `Error::Invalid` when there is no such tensor; `Error::Corrupt` when its pack is damaged.
    pub fn tensor(&self, id: TensorId) -> Result<MappedTensor> {
        let record = self.tensor_record(id)?;
        let found = self.packs.proven(id, &record);
        let collected = match record.place {
            Place::Pack { pack, .. } => found.is_err() && !self.packs.exists(pack),
            Place::Inline(_) => false,
        };
        if !collected {
            return found;
        }
        // Since the record was read the tensor has moved to another pack, and the old one is gone.
        self.refresh()?;
        let newer = self.tensor_record(id)?;
        if newer == record { found } else { self.packs.proven(id, &newer) }
    }

    /// Length of a stored tensor in bytes, without reading it.
    ///
    /// # Errors
    /// `Error::Invalid` when there is no such tensor; `Error::Corrupt` when its record is damaged.
    pub fn tensor_bytes(&self, id: TensorId) -> Result<u64> {
        let TensorRecord { dtype, shape, .. } = self.tensor_record(id)?;
        dtype::byte_len(dtype, &shape).ok_or_else(|| {
            let what = format!("expected a known element type and a finite size, found {shape:?}");
            record::corrupt(Family::Tensor, &id.0, &what)
        })
    }

    pub(super) fn tensor_record(&self, id: TensorId) -> Result<TensorRecord> {
        let stored = || record::get::<TensorRecord>(&self.db, Family::Tensor, &id.0);
        if let Some(record) = stored()? {
            return Ok(record);
        }
        if let Some(record) = self.staged().get(id).cloned() {
            return Ok(record);
        }
        // Between the two looks a commit may have stored it.
        stored()?.ok_or_else(|| Error::Invalid(format!("there is no tensor {id} in the zoo")))
    }

    /// A model by row id.
    ///
    /// # Errors
    /// `Error::Corrupt` when the record is damaged.
    pub fn model(&self, row: u64) -> Result<Option<ModelRecord>> {
        record::get(&self.db, Family::Model, &keys::of_row(row))
    }

    /// A model by name.
    ///
    /// # Errors
    /// `Error::Corrupt` when a record is damaged.
    pub fn model_by_name(&self, name: &str) -> Result<Option<ModelRecord>> {
        self.model_by_key(&NameKey::Model(name.to_owned()))
    }

    /// A model by content address.
    ///
    /// # Errors
    /// `Error::Corrupt` when a record is damaged.
    pub fn model_by_id(&self, id: ModelId) -> Result<Option<ModelRecord>> {
        self.model_by_key(&NameKey::ModelId(id))
    }

    /// All models by ascending row id, as they are now.
    ///
    /// # Errors
    /// `Error::Corrupt`, also as an item, when a record is damaged.
    pub fn models(&self) -> Result<Box<dyn Iterator<Item = Result<ModelRecord>> + '_>> {
        let entries = self.db.scan(Family::Model, &[], &[])?;
        Ok(Box::new(entries.map(|entry| {
            let (key, value) = entry?;
            record::decode(Family::Model, &key, &value)
        })))
    }

    /// A task by id.
    ///
    /// # Errors
    /// `Error::Corrupt` when the record is damaged.
    pub fn task(&self, id: TaskId) -> Result<Option<TaskRecord>> {
        record::get(&self.db, Family::Task, &id.0)
    }

    /// A task by name.
    ///
    /// # Errors
    /// `Error::Corrupt` when a record is damaged.
    pub fn task_by_name(&self, name: &str) -> Result<Option<TaskRecord>> {
        let _still = self.not_catching_up();
        let key = NameKey::Task(name.to_owned()).to_bytes();
        match record::get::<TaskId>(&self.db, Family::Name, &key)? {
            Some(id) => self.task(id),
            None => Ok(None),
        }
    }

    /// All tasks, by id.
    ///
    /// # Errors
    /// `Error::Corrupt` when a record is damaged.
    pub fn tasks(&self) -> Result<Vec<TaskRecord>> {
        self.db
            .scan(Family::Task, &[], &[])?
            .map(|entry| {
                let (key, value) = entry?;
                record::decode(Family::Task, &key, &value)
            })
            .collect()
    }

    /// Latest accuracy per (task, kind) of one model.
    ///
    /// # Errors
    /// `Error::Corrupt` when a record is damaged.
    pub fn pairs_of_model(&self, row: u64) -> Result<Vec<Pair>> {
        self.latest_pairs(&PairKey::of_model(row))
    }

    /// All that was ever recorded of one model, superseded accuracies included: by task and kind, older ones first.
    ///
    /// # Errors
    /// `Error::Corrupt` when a record is damaged.
    pub fn history_of_model(&self, row: u64) -> Result<Vec<Pair>> {
        self.all_pairs(&PairKey::of_model(row))
    }

    /// Latest accuracy per (model, kind) on one task.
    ///
    /// # Errors
    /// `Error::Corrupt` when a record is damaged.
    pub fn pairs_of_task(&self, task: TaskId) -> Result<Vec<Pair>> {
        self.latest_pairs(&PairKey::of_task(task))
    }

    /// Latest accuracy per (task, model, kind) of the whole zoo, in this order.
    ///
    /// # Errors
    /// `Error::Corrupt` when a record is damaged.
    pub fn pairs(&self) -> Result<Vec<Pair>> {
        self.latest_pairs(&PairKey::all())
    }

    /// A model's signature (f16 bits).
    ///
    /// # Errors
    /// `Error::Corrupt` when the record is damaged.
    pub fn signature(&self, row: u64) -> Result<Option<Vec<u16>>> {
        let key = keys::of_row(row);
        let Some(Bytes(bytes)) = record::get(&self.db, Family::Signature, &key)? else {
            return Ok(None);
        };
        halves(&bytes).map(Some).ok_or_else(|| odd_length(Family::Signature, &key))
    }

    /// A model's embedding under an encoder version.
    ///
    /// # Errors
    /// `Error::Corrupt` when the record is damaged.
    pub fn embedding(&self, encoder: u32, row: u64) -> Result<Option<Vec<f32>>> {
        let key = EmbeddingKey { encoder, row }.to_bytes();
        let Some(Bytes(bytes)) = record::get(&self.db, Family::Embedding, &key)? else {
            return Ok(None);
        };
        floats(&bytes).map(Some).ok_or_else(|| odd_length(Family::Embedding, &key))
    }

    /// All embeddings of an encoder version by ascending row id, as they are now.
    ///
    /// # Errors
    /// `Error::Corrupt`, also as an item, when a record is damaged.
    pub fn embeddings(&self, encoder: u32) -> Result<RowIterator<'_>> {
        let entries = self.db.scan(Family::Embedding, &keys::of_number(encoder), &[])?;
        Ok(Box::new(entries.map(|entry| embedding_of(entry?))))
    }

    /// An encoder version.
    ///
    /// # Errors
    /// `Error::Corrupt` when the record is damaged.
    pub fn encoder(&self, number: u32) -> Result<Option<EncoderRecord>> {
        record::get(&self.db, Family::Encoder, &keys::of_number(number))
    }

    /// The current generation; `None` only before the first is installed.
    ///
    /// # Errors
    /// `Error::Corrupt` when the record is damaged.
    pub fn generation(&self) -> Result<Option<GenerationRecord>> {
        record::get(&self.db, Family::Sys, SYS_GENERATION)
    }

    /// The op log from `after` (exclusive) on.
    ///
    /// # Errors
    /// `Error::Corrupt` when a record is damaged.
    pub fn operations_after(&self, after: u64) -> Result<Vec<(u64, Operation)>> {
        let Some(first) = after.checked_add(1) else {
            return Ok(Vec::new());
        };
        self.db
            .scan(Family::Oplog, &[], &keys::of_row(first))?
            .map(|entry| {
                let (key, value) = entry?;
                let sequence =
                    keys::row(&key).ok_or_else(|| record::bad_key(Family::Oplog, &key))?;
                Ok((sequence, record::decode(Family::Oplog, &key, &value)?))
            })
            .collect()
    }

    /// Newest sequence number of the op log; 0 before the first commit.
    ///
    /// # Errors
    /// `Error::Corrupt` when the op log is damaged.
    pub fn sequence(&self) -> Result<u64> {
        match self.db.last_key(Family::Oplog)? {
            None => Ok(0),
            Some(key) => keys::row(&key).ok_or_else(|| record::bad_key(Family::Oplog, &key)),
        }
    }

    /// A job's resumable state.
    ///
    /// # Errors
    /// `Error::Corrupt` when the record is damaged.
    pub fn job(&self, key: &str) -> Result<Option<JobRecord>> {
        record::get(&self.db, Family::Job, key.as_bytes())
    }

    /// Keeps `refresh` out while several reads must agree with each other.
    pub(super) fn not_catching_up(&self) -> RwLockReadGuard<'_, ()> {
        self.catching_up.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn model_by_key(&self, key: &NameKey) -> Result<Option<ModelRecord>> {
        let _still = self.not_catching_up();
        match record::get(&self.db, Family::Name, &key.to_bytes())? {
            Some(row) => self.model(row),
            None => Ok(None),
        }
    }

    fn latest_pairs(&self, prefix: &[u8]) -> Result<Vec<Pair>> {
        let mut pairs = self.all_pairs(prefix)?;
        // The first of each run that `dedup_by` looks at stays, so the newest has to come first.
        pairs.reverse();
        pairs.dedup_by_key(|pair| (pair.task, pair.model, pair.kind));
        pairs.reverse();
        Ok(pairs)
    }

    /// Keys end with the sequence number, so a newer pair directly follows the older one.
    fn all_pairs(&self, prefix: &[u8]) -> Result<Vec<Pair>> {
        let mut pairs: Vec<Pair> = Vec::new();
        for entry in self.db.scan(Family::Pair, prefix, prefix)? {
            let (key, value) = entry?;
            let (pair, _) =
                PairKey::parse(&key).ok_or_else(|| record::bad_key(Family::Pair, &key))?;
            let PairKey { task, model, kind, sequence } = pair;
            let accuracy = record::decode(Family::Pair, &key, &value)?;
            pairs.push(Pair { task, model, kind, accuracy, sequence });
        }
        Ok(pairs)
    }
}

fn embedding_of((key, value): Entry) -> Result<(u64, Vec<f32>)> {
    let parsed =
        EmbeddingKey::parse(&key).ok_or_else(|| record::bad_key(Family::Embedding, &key))?;
    let Bytes(bytes) = record::decode(Family::Embedding, &key, &value)?;
    let vector = floats(&bytes).ok_or_else(|| odd_length(Family::Embedding, &key))?;
    Ok((parsed.row, vector))
}

/// Little-endian u16; `None` when a byte is left over.
pub(super) fn halves(bytes: &[u8]) -> Option<Vec<u16>> {
    let (chunks, rest) = bytes.as_chunks::<2>();
    rest.is_empty().then(|| chunks.iter().map(|chunk| u16::from_le_bytes(*chunk)).collect())
}

/// Little-endian f32; `None` when bytes are left over.
pub(super) fn floats(bytes: &[u8]) -> Option<Vec<f32>> {
    let (chunks, rest) = bytes.as_chunks::<4>();
    rest.is_empty().then(|| chunks.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect())
}

fn odd_length(family: Family, key: &[u8]) -> Error {
    record::corrupt(family, key, "expected whole numbers, found bytes left over")
}
