//! Plans a commit: turns changes into the puts and deletes of one write. Nothing is written here.

use super::batch::Change;
use super::record::{
    self, SYS_GENERATION, SYS_NEXT_ROW, SYS_SEQUENCE, tensors_of_encoder, tensors_of_model,
    tensors_of_task,
};
use super::staging::Staged;
use crate::codec::Bytes;
use crate::keys::{self, EmbeddingKey, NameKey, PairKey};
use crate::records::{Place, TensorRecord};
use crate::rocks::{Db, Family, Write};
use crate::{
    EncoderRecord, Error, GenerationRecord, ModelRecord, Operation, PairKind, Result, TaskId,
    TaskRecord, TensorId, codec,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// Larger values do not belong into RocksDB.
const VALUE_BYTES_MAX: usize = 1_000_000;

/// Names are keys, and keys stay short.
const NAME_BYTES_MAX: usize = 1024;

/// What a commit writes and what is true afterwards.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) write: Write,
    /// Newest op-log sequence number.
    pub(super) sequence: u64,
    /// No row at or above this was ever used.
    pub(super) next_row: u64,
    /// Tensors whose record is stored from now on.
    pub(super) tensors: Vec<TensorId>,
    /// Where those of them lie that were put for this commit, which may not be durable yet.
    pub(super) staged: Vec<Place>,
}

/// Plans a commit on top of what is stored, whose newest op-log number is `sequence`.
///
/// # Errors
/// `Error::Invalid` when a change contradicts what is stored or cannot be encoded; `Error::Corrupt` when what is stored
/// is damaged.
pub(super) fn plan(db: &Db, sequence: u64, staged: &Staged, changes: Vec<Change>) -> Result<Plan> {
    let next_row = record::require(db, Family::Sys, SYS_NEXT_ROW)?;
    let so_far = Plan { sequence, next_row, ..Plan::default() };
    let mut planner = Planner { db, references: BTreeMap::new(), so_far };
    for change in changes {
        planner.apply(change)?;
    }
    planner.require_targets()?;
    planner.require_generation()?;
    planner.count_references(staged)?;
    let (newest_sequence, newest_row) = (planner.so_far.sequence, planner.so_far.next_row);
    if newest_sequence != sequence {
        planner.put(Family::Sys, SYS_SEQUENCE.to_vec(), &newest_sequence)?;
    }
    if newest_row != next_row {
        planner.put(Family::Sys, SYS_NEXT_ROW.to_vec(), &newest_row)?;
    }
    Ok(planner.so_far)
}

struct Planner<'a> {
    db: &'a Db,
    /// Change of each tensor's reference count.
    references: BTreeMap<TensorId, i64>,
    so_far: Plan,
}

impl Planner<'_> {
    fn apply(&mut self, change: Change) -> Result<()> {
        match change {
            Change::PutModel(model) => self.put_model(&model),
            Change::RemoveModel(row) => self.remove_model(row),
            Change::PutTask(task) => self.put_task(&task),
            Change::RemoveTask(task) => self.remove_task(task),
            Change::PutPair { task, model, kind, accuracy } => {
                self.put_pair(task, model, kind, accuracy)
            }
            Change::PutSignature { row, bytes } => {
                self.put(Family::Signature, keys::of_row(row), &Bytes(bytes))
            }
            Change::PutEmbedding { encoder, row, bytes } => {
                let key = EmbeddingKey { encoder, row };
                self.put(Family::Embedding, key.to_bytes(), &Bytes(bytes))
            }
            Change::PutEncoder(encoder) => self.put_encoder(&encoder),
            Change::RemoveEncoder(number) => self.remove_encoder(number),
            Change::InstallGeneration(generation) => self.install_generation(&generation),
            Change::PutJob(key, job) => self.put(Family::Job, key.into_bytes(), &job),
        }
    }

    fn put_model(&mut self, model: &ModelRecord) -> Result<()> {
        require_name("model", &model.name)?;
        let row = model.row;
        let name = NameKey::Model(model.name.clone()).to_bytes();
        if let Some(user) = self.get::<u64>(Family::Name, &name)?.filter(|user| *user != row) {
            return Err(Error::Invalid(format!(
                "the name {} is in use by the model with row {user}: choose another name",
                model.name
            )));
        }
        let id = NameKey::ModelId(model.id).to_bytes();
        if let Some(user) = self.get::<u64>(Family::Name, &id)?.filter(|user| *user != row) {
            return Err(Error::Invalid(format!(
                "the model {} is already stored with row {user}",
                model.id
            )));
        }
        let replaced: Option<ModelRecord> = self.get(Family::Model, &keys::of_row(row))?;
        if let Some(replaced) = &replaced {
            self.forget_model(replaced);
        }
        self.refer(tensors_of_model(model), 1);
        self.put(Family::Name, name, &row)?;
        self.put(Family::Name, id, &row)?;
        self.put(Family::Model, keys::of_row(row), model)?;
        let Some(next_row) = row.checked_add(1) else {
            return Err(Error::Invalid(format!("expected a row from next_row, found {row}")));
        };
        self.so_far.next_row = self.so_far.next_row.max(next_row);
        self.log(match replaced {
            Some(_) => Operation::ModelEdited { row },
            None => Operation::ModelAdded { row },
        })?;
        Ok(())
    }

    fn remove_model(&mut self, row: u64) -> Result<()> {
        let key = keys::of_row(row);
        let Some(model) = self.get::<ModelRecord>(Family::Model, &key)? else {
            return Err(Error::Invalid(format!("there is no model with row {row} to remove")));
        };
        self.forget_model(&model);
        self.delete(Family::Model, key.clone());
        self.delete(Family::Signature, key);
        self.remove_pairs(&PairKey::of_model(row))?;
        for encoder in self.encoders_with_embeddings()? {
            self.delete(Family::Embedding, EmbeddingKey { encoder, row }.to_bytes());
        }
        self.log(Operation::ModelRemoved { row })?;
        Ok(())
    }

    fn put_task(&mut self, task: &TaskRecord) -> Result<()> {
        require_name("task", &task.name)?;
        let name = NameKey::Task(task.name.clone()).to_bytes();
        if let Some(user) = self.get::<TaskId>(Family::Name, &name)?.filter(|id| *id != task.id) {
            return Err(Error::Invalid(format!(
                "the name {} is in use by task {user}: choose another name",
                task.name
            )));
        }
        if let Some(replaced) = self.get::<TaskRecord>(Family::Task, &task.id.0)? {
            self.forget_task(&replaced);
        }
        self.refer(tensors_of_task(task), 1);
        self.put(Family::Name, name, &task.id)?;
        self.put(Family::Task, task.id.0.to_vec(), task)?;
        self.log(Operation::TaskAdded { task: task.id })?;
        Ok(())
    }

    fn remove_task(&mut self, id: TaskId) -> Result<()> {
        let Some(task) = self.get::<TaskRecord>(Family::Task, &id.0)? else {
            return Err(Error::Invalid(format!("there is no task {id} to remove")));
        };
        self.forget_task(&task);
        self.delete(Family::Task, id.0.to_vec());
        self.remove_pairs(&PairKey::of_task(id))?;
        self.log(Operation::TaskRemoved { task: id })?;
        Ok(())
    }

    fn put_pair(&mut self, task: TaskId, model: u64, kind: PairKind, accuracy: f32) -> Result<()> {
        if !(0.0..=1.0).contains(&accuracy) {
            return Err(Error::Invalid(format!(
                "expected an accuracy in 0..=1, found {accuracy} (model row {model}, task {task})"
            )));
        }
        let sequence = self.log(Operation::PairRecorded { task, model })?;
        let key = PairKey { task, model, kind, sequence };
        self.put(Family::Pair, key.by_task(), &accuracy)?;
        self.put(Family::Pair, key.by_model(), &accuracy)
    }

    fn put_encoder(&mut self, encoder: &EncoderRecord) -> Result<()> {
        let key = keys::of_number(encoder.number);
        if let Some(replaced) = self.get::<EncoderRecord>(Family::Encoder, &key)? {
            self.refer(tensors_of_encoder(&replaced), -1);
        }
        self.refer(tensors_of_encoder(encoder), 1);
        self.put(Family::Encoder, key, encoder)
    }

    /// Embeddings may be there before the record of their encoder is, so a missing record is fine.
    fn remove_encoder(&mut self, number: u32) -> Result<()> {
        let key = keys::of_number(number);
        if let Some(removed) = self.get::<EncoderRecord>(Family::Encoder, &key)? {
            self.refer(tensors_of_encoder(&removed), -1);
            self.delete(Family::Encoder, key.clone());
        }
        let planned = self.planned(Family::Embedding, &key);
        for embedding in planned {
            self.so_far.write.entries.remove(&(Family::Embedding, embedding));
        }
        self.so_far.write.cleared.push((Family::Embedding, key));
        Ok(())
    }

    fn install_generation(&mut self, generation: &GenerationRecord) -> Result<()> {
        self.put(Family::Sys, SYS_GENERATION.to_vec(), generation)?;
        self.log(Operation::GenerationInstalled { number: generation.number })?;
        Ok(())
    }

    fn forget_model(&mut self, model: &ModelRecord) {
        self.refer(tensors_of_model(model), -1);
        self.delete(Family::Name, NameKey::Model(model.name.clone()).to_bytes());
        self.delete(Family::Name, NameKey::ModelId(model.id).to_bytes());
    }

    fn forget_task(&mut self, task: &TaskRecord) {
        self.refer(tensors_of_task(task), -1);
        self.delete(Family::Name, NameKey::Task(task.name.clone()).to_bytes());
    }

    /// Removes the pairs of one key space's prefix from both key spaces.
    fn remove_pairs(&mut self, prefix: &[u8]) -> Result<()> {
        let mut found = self.planned(Family::Pair, prefix);
        for entry in self.db.scan(Family::Pair, prefix, prefix)? {
            found.push(entry?.0.into_vec());
        }
        for key in found {
            let (pair, _) =
                PairKey::parse(&key).ok_or_else(|| record::bad_key(Family::Pair, &key))?;
            self.delete(Family::Pair, pair.by_task());
            self.delete(Family::Pair, pair.by_model());
        }
        Ok(())
    }

    /// Numbers of the encoders that have any embedding, found by jumping from one to the next.
    fn encoders_with_embeddings(&self) -> Result<BTreeSet<u32>> {
        let mut encoders = BTreeSet::new();
        for key in self.planned(Family::Embedding, &[]) {
            encoders.extend(EmbeddingKey::parse(&key).map(|key| key.encoder));
        }
        let mut from = Some(0u32);
        while let Some(number) = from {
            let start = keys::of_number(number);
            let Some(entry) = self.db.scan(Family::Embedding, &[], &start)?.next() else {
                break;
            };
            let (key, _) = entry?;
            let found = EmbeddingKey::parse(&key)
                .ok_or_else(|| record::bad_key(Family::Embedding, &key))?;
            encoders.insert(found.encoder);
            from = found.encoder.checked_add(1);
        }
        Ok(encoders)
    }

    /// Every pair, signature and embedding of the batch belongs to a model and task that exist.
    fn require_targets(&self) -> Result<()> {
        let mut rows = HashSet::new();
        let mut tasks = HashSet::new();
        for ((family, key), value) in &self.so_far.write.entries {
            if value.is_none() {
                continue;
            }
            match family {
                Family::Signature => rows.extend(keys::row(key)),
                Family::Embedding => rows.extend(EmbeddingKey::parse(key).map(|key| key.row)),
                Family::Pair => {
                    let pair = PairKey::parse(key).map(|(pair, _)| pair);
                    rows.extend(pair.map(|pair| pair.model));
                    tasks.extend(pair.map(|pair| pair.task));
                }
                Family::Model
                | Family::Name
                | Family::Task
                | Family::Encoder
                | Family::Tensor
                | Family::Oplog
                | Family::Job
                | Family::Sys => {}
            }
        }
        for row in rows {
            if !self.exists(Family::Model, &keys::of_row(row))? {
                return Err(Error::Invalid(format!("there is no model with row {row}")));
            }
        }
        for task in tasks {
            if !self.exists(Family::Task, &task.0)? {
                return Err(Error::Invalid(format!("there is no task {task}: add it first")));
            }
        }
        Ok(())
    }

    /// The current generation's encoder exists.
    fn require_generation(&self) -> Result<()> {
        let Some(generation) = self.get::<GenerationRecord>(Family::Sys, SYS_GENERATION)? else {
            return Ok(());
        };
        if self.exists(Family::Encoder, &keys::of_number(generation.encoder))? {
            return Ok(());
        }
        Err(Error::Invalid(format!(
            "generation {} needs encoder {}, which is not stored",
            generation.number, generation.encoder
        )))
    }

    /// Writes the records of the tensors whose reference count or place changes.
    fn count_references(&mut self, staged: &Staged) -> Result<()> {
        for (id, change) in std::mem::take(&mut self.references) {
            let stored = self.get::<TensorRecord>(Family::Tensor, &id.0)?;
            let Some(mut tensor) = stored.clone().or_else(|| staged.get(id).cloned()) else {
                return Err(Error::Invalid(format!(
                    "a record names tensor {id}, which is not stored: put it first"
                )));
            };
            if let Some(staged) = staged.get(id) {
                // It was put again elsewhere, because its bytes are damaged where they lie.
                tensor.place = staged.place.clone();
                self.so_far.staged.push(staged.place.clone());
            }
            tensor.references = tensor.references.checked_add_signed(change).ok_or_else(|| {
                let what = format!(
                    "expected at least {} references, found {}",
                    change.unsigned_abs(),
                    tensor.references
                );
                record::corrupt(Family::Tensor, &id.0, &what)
            })?;
            if stored.as_ref() != Some(&tensor) {
                self.put(Family::Tensor, id.0.to_vec(), &tensor)?;
            }
            self.so_far.tensors.push(id);
        }
        Ok(())
    }

    fn refer(&mut self, tensors: impl Iterator<Item = TensorId>, change: i64) {
        for id in tensors {
            *self.references.entry(id).or_insert(0) += change;
        }
    }

    fn log(&mut self, operation: Operation) -> Result<u64> {
        self.so_far.sequence += 1;
        self.put(Family::Oplog, keys::of_row(self.so_far.sequence), &operation)?;
        Ok(self.so_far.sequence)
    }

    fn put<T: Serialize>(&mut self, family: Family, key: Vec<u8>, value: &T) -> Result<()> {
        let bytes = codec::encode(value)?;
        if bytes.len() > VALUE_BYTES_MAX {
            return Err(Error::Invalid(format!(
                "expected at most {VALUE_BYTES_MAX} bytes in a record of {}, found {} ({}): \
                 store large parts as blobs",
                family.name(),
                bytes.len(),
                record::describe_key(family, &key),
            )));
        }
        self.so_far.write.entries.insert((family, key), Some(bytes));
        Ok(())
    }

    fn delete(&mut self, family: Family, key: Vec<u8>) {
        self.so_far.write.entries.insert((family, key), None);
    }

    /// Reads through the planned changes.
    fn get<T: DeserializeOwned>(&self, family: Family, key: &[u8]) -> Result<Option<T>> {
        match self.so_far.write.entries.get(&(family, key.to_vec())) {
            Some(Some(value)) => record::decode(family, key, value).map(Some),
            Some(None) => Ok(None),
            None => record::get(self.db, family, key),
        }
    }

    fn exists(&self, family: Family, key: &[u8]) -> Result<bool> {
        match self.so_far.write.entries.get(&(family, key.to_vec())) {
            Some(value) => Ok(value.is_some()),
            None => Ok(self.db.get(family, key)?.is_some()),
        }
    }

    /// Keys with a planned value that start with `prefix`.
    fn planned(&self, family: Family, prefix: &[u8]) -> Vec<Vec<u8>> {
        self.so_far
            .write
            .entries
            .range((family, prefix.to_vec())..)
            .take_while(|((found, key), _)| *found == family && key.starts_with(prefix))
            .filter(|(_, value)| value.is_some())
            .map(|((_, key), _)| key.clone())
            .collect()
    }
}

fn require_name(what: &str, name: &str) -> Result<()> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(Error::Invalid(format!(
            "expected a {what} name of 1 to {NAME_BYTES_MAX} bytes, found {}",
            name.len()
        )));
    }
    Ok(())
}
