//! Proves a zoo: every record decodes, every pointer leads somewhere, every tensor has its hash.

use super::Store;
use super::read::{floats, halves};
use super::record::{
    self, SYS_BACKBONE, SYS_FORMAT, SYS_GENERATION, SYS_NEXT_ROW, SYS_SEQUENCE, tensors_of_encoder,
    tensors_of_model, tensors_of_task,
};
use crate::codec::Bytes;
use crate::keys::{self, EmbeddingKey, NameKey, PairKey};
use crate::records::{Place, TensorRecord};
use crate::rocks::{Db, Family};
use crate::{
    EncoderRecord, Error, FORMAT_VERSION, GenerationRecord, JobRecord, ModelId, ModelRecord,
    Operation, Result, TaskId, TaskRecord, TensorId, dtype, pack,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::PoisonError;

/// One finding of `check`.
#[derive(Clone, Debug, Serialize)]
pub struct Damage {
    /// File or column family.
    pub file: String,
    /// Byte offset, where known.
    pub offset: Option<u64>,
    /// The tensors whose bytes are damaged or gone.
    pub tensors: Vec<TensorId>,
    /// What was expected and what was found.
    pub what: String,
}

/// Result of `check`.
#[derive(Clone, Debug, Default)]
pub struct CheckReport {
    /// Records decoded.
    pub records: u64,
    /// Tensors re-hashed.
    pub tensors: u64,
    /// What is wrong; empty for a sound zoo.
    pub damages: Vec<Damage>,
}

impl Store {
    /// Proves every checksum, reference and tensor hash. Commits wait while the records are read,
    /// not while the tensors are hashed; a tensor that no record names is not looked for.
    ///
    /// # Errors
    /// `Error::Rocks` when a column family cannot be read at all. Damage is reported, not returned.
    pub fn check(&self) -> Result<CheckReport> {
        self.check_with(hash)
    }

    /// As `check`, but no tensor is hashed: its pack must only be there and be long enough.
    ///
    /// # Errors
    /// As `check`.
    pub fn check_records(&self) -> Result<CheckReport> {
        self.check_with(|store, id, record| store.packs.unproven(id, record).map(|_| ()))
    }

    /// Hashes the tensors that lie in these packs; returns what is damaged. Commits do not wait for it.
    ///
    /// # Errors
    /// `Error::Rocks` when the records of tensors cannot be read at all.
    pub(super) fn prove_packs(&self, packs: &BTreeSet<u32>) -> Result<Vec<Damage>> {
        if packs.is_empty() {
            return Ok(Vec::new());
        }
        let mut check = Check::new(&self.db);
        check.each(Family::Tensor, Check::visit_tensor)?;
        let is_in = |place: &Place| match place {
            Place::Pack { pack, .. } => packs.contains(pack),
            Place::Inline(_) => false,
        };
        check.tensors.retain(|(_, tensor)| is_in(&tensor.place));
        check.prove_tensors(self, hash);
        Ok(check.report.damages)
    }

    fn check_with(
        &self,
        prove: impl Fn(&Self, TensorId, &TensorRecord) -> Result<()>,
    ) -> Result<CheckReport> {
        let mut check = Check::new(&self.db);
        {
            let _still = self.not_catching_up();
            // A failed write is no reason to refuse a check, so this does not ask `writer()`.
            let _no_commit = self
                .writer
                .as_ref()
                .map(|mutex| mutex.lock().unwrap_or_else(PoisonError::into_inner));
            check.check_records()?;
        }
        check.find_cut_packs(self)?;
        check.prove_tensors(self, prove);
        Ok(check.report)
    }
}

struct Check<'a> {
    db: &'a Db,
    report: CheckReport,
    models: BTreeMap<u64, (String, ModelId)>,
    tasks: HashMap<TaskId, String>,
    encoders: BTreeSet<u32>,
    tensors: Vec<(TensorId, TensorRecord)>,
    /// References counted from the records.
    references: HashMap<TensorId, u64>,
    newest_operation: Option<u64>,
}

impl<'a> Check<'a> {
    fn new(db: &'a Db) -> Self {
        Self {
            db,
            report: CheckReport::default(),
            models: BTreeMap::new(),
            tasks: HashMap::new(),
            encoders: BTreeSet::new(),
            tensors: Vec::new(),
            references: HashMap::new(),
            newest_operation: None,
        }
    }

    fn check_records(&mut self) -> Result<()> {
        self.each(Family::Model, Self::visit_model)?;
        self.each(Family::Task, Self::visit_task)?;
        self.each(Family::Encoder, Self::visit_encoder)?;
        self.each(Family::Name, Self::visit_name)?;
        self.each(Family::Pair, Self::visit_pair)?;
        self.each(Family::Signature, Self::visit_signature)?;
        self.each(Family::Embedding, Self::visit_embedding)?;
        self.each(Family::Oplog, Self::visit_operation)?;
        self.each(Family::Job, |check, key, value| {
            check.decode::<JobRecord>(Family::Job, key, value).map(|_| ())
        })?;
        self.each(Family::Sys, Self::visit_sys)?;
        self.each(Family::Tensor, Self::visit_tensor)?;
        self.require_lookups();
        self.require_sys();
        self.require_tensors();
        Ok(())
    }

    /// Visits every record of a family; what a visit returns as damage is reported.
    fn each(
        &mut self,
        family: Family,
        visit: impl Fn(&mut Self, &[u8], &[u8]) -> Result<()>,
    ) -> Result<()> {
        let db = self.db;
        for entry in db.scan(family, &[], &[])? {
            match entry {
                Ok((key, value)) => {
                    if let Err(error) = visit(self, &key, &value) {
                        self.note(error);
                    }
                }
                Err(error) => {
                    // The rest of a family behind a damaged block cannot be reached.
                    self.damage(format!("db/{}", family.name()), None, error.to_string());
                    break;
                }
            }
        }
        Ok(())
    }

    fn visit_model(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let model: ModelRecord = self.decode(Family::Model, key, value)?;
        for id in tensors_of_model(&model) {
            *self.references.entry(id).or_insert(0) += 1;
        }
        if keys::row(key) != Some(model.row) {
            let what = format!("expected the row of the key, found {}", model.row);
            return Err(record::corrupt(Family::Model, key, &what));
        }
        self.models.insert(model.row, (model.name, model.id));
        Ok(())
    }

    fn visit_task(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let task: TaskRecord = self.decode(Family::Task, key, value)?;
        for id in tensors_of_task(&task) {
            *self.references.entry(id).or_insert(0) += 1;
        }
        if key != task.id.0 {
            let what = format!("expected the id of the key, found {}", task.id);
            return Err(record::corrupt(Family::Task, key, &what));
        }
        self.tasks.insert(task.id, task.name);
        Ok(())
    }

    fn visit_encoder(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let encoder: EncoderRecord = self.decode(Family::Encoder, key, value)?;
        for id in tensors_of_encoder(&encoder) {
            *self.references.entry(id).or_insert(0) += 1;
        }
        if keys::number(key) != Some(encoder.number) {
            let what = format!("expected the number of the key, found {}", encoder.number);
            return Err(record::corrupt(Family::Encoder, key, &what));
        }
        self.encoders.insert(encoder.number);
        Ok(())
    }

    fn visit_name(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let parsed = NameKey::parse(key).ok_or_else(|| record::bad_key(Family::Name, key))?;
        let sound = match &parsed {
            NameKey::Model(name) => {
                let row: u64 = self.decode(Family::Name, key, value)?;
                self.models.get(&row).is_some_and(|(found, _)| found == name)
            }
            NameKey::ModelId(id) => {
                let row: u64 = self.decode(Family::Name, key, value)?;
                self.models.get(&row).is_some_and(|(_, found)| found == id)
            }
            NameKey::Task(name) => {
                let id: TaskId = self.decode(Family::Name, key, value)?;
                self.tasks.get(&id) == Some(name)
            }
        };
        if sound {
            return Ok(());
        }
        let what = format!("expected a record with {parsed:?}, found none");
        Err(record::corrupt(Family::Name, key, &what))
    }

    fn visit_pair(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let (pair, by_task) =
            PairKey::parse(key).ok_or_else(|| record::bad_key(Family::Pair, key))?;
        let accuracy: f32 = self.decode(Family::Pair, key, value)?;
        let wrong = |what: String| Err(record::corrupt(Family::Pair, key, &what));
        if !(0.0..=1.0).contains(&accuracy) {
            return wrong(format!("expected an accuracy in 0..=1, found {accuracy}"));
        }
        self.require_row(Family::Pair, key, pair.model)?;
        if !self.tasks.contains_key(&pair.task) {
            return wrong(format!("expected a task {}, found none", pair.task));
        }
        let other = if by_task { pair.by_model() } else { pair.by_task() };
        if self.db.get(Family::Pair, &other)?.as_deref() != Some(value) {
            return wrong("expected the same accuracy in both key spaces".to_owned());
        }
        Ok(())
    }

    fn visit_signature(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let Bytes(bytes) = self.decode(Family::Signature, key, value)?;
        let row = keys::row(key).ok_or_else(|| record::bad_key(Family::Signature, key))?;
        self.require_row(Family::Signature, key, row)?;
        match halves(&bytes) {
            Some(_) => Ok(()),
            None => Err(record::corrupt(Family::Signature, key, "expected f16 numbers")),
        }
    }

    fn visit_embedding(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let Bytes(bytes) = self.decode(Family::Embedding, key, value)?;
        let parsed =
            EmbeddingKey::parse(key).ok_or_else(|| record::bad_key(Family::Embedding, key))?;
        self.require_row(Family::Embedding, key, parsed.row)?;
        match floats(&bytes) {
            Some(_) => Ok(()),
            None => Err(record::corrupt(Family::Embedding, key, "expected f32 numbers")),
        }
    }

    fn visit_operation(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let sequence = keys::row(key).ok_or_else(|| record::bad_key(Family::Oplog, key))?;
        let previous = self.newest_operation.replace(sequence);
        self.decode::<Operation>(Family::Oplog, key, value)?;
        match previous.and_then(|previous| previous.checked_add(1)) {
            Some(expected) if expected != sequence => {
                let what = format!("expected sequence number {expected}, found {sequence}");
                Err(record::corrupt(Family::Oplog, key, &what))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn visit_sys(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        match key {
            SYS_FORMAT => self.decode::<u32>(Family::Sys, key, value).map(|_| ()),
            SYS_BACKBONE => self.decode::<[u8; 32]>(Family::Sys, key, value).map(|_| ()),
            SYS_NEXT_ROW | SYS_SEQUENCE => self.decode::<u64>(Family::Sys, key, value).map(|_| ()),
            SYS_GENERATION => self.decode::<GenerationRecord>(Family::Sys, key, value).map(|_| ()),
            _ => Err(record::bad_key(Family::Sys, key)),
        }
    }

    fn visit_tensor(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let tensor: TensorRecord = self.decode(Family::Tensor, key, value)?;
        let id = key.try_into().map_err(|_| record::bad_key(Family::Tensor, key))?;
        self.tensors.push((TensorId(id), tensor));
        Ok(())
    }

    /// Every model and task is found by its name and id.
    fn require_lookups(&mut self) {
        let models = self.models.iter().flat_map(|(row, (name, id))| {
            let by = [NameKey::Model(name.clone()), NameKey::ModelId(*id)];
            by.map(|key| (key, format!("row {row}")))
        });
        let tasks =
            self.tasks.iter().map(|(id, name)| (NameKey::Task(name.clone()), format!("task {id}")));
        let mut damages = Vec::new();
        for (key, what) in models.chain(tasks) {
            let key = key.to_bytes();
            match self.db.get(Family::Name, &key) {
                Ok(Some(_)) => {}
                Ok(None) => {
                    let what = format!("expected a lookup of {what}, found none");
                    damages.push(record::corrupt(Family::Name, &key, &what));
                }
                Err(error) => damages.push(error),
            }
        }
        damages.into_iter().for_each(|error| self.note(error));
    }

    fn require_sys(&mut self) {
        let newest_row = self.models.keys().next_back().copied();
        let newest_operation = self.newest_operation;
        self.require_number(SYS_FORMAT, |found: u32| found == FORMAT_VERSION);
        self.require_number(SYS_NEXT_ROW, |found: u64| newest_row.is_none_or(|row| row < found));
        self.require_number(SYS_SEQUENCE, |found: u64| {
            newest_operation.is_none_or(|newest| newest == found)
        });
        // Damage of the record itself was found when the family was visited.
        let generation = record::get::<GenerationRecord>(self.db, Family::Sys, SYS_GENERATION);
        if let Ok(Some(generation)) = generation
            && !self.encoders.contains(&generation.encoder)
        {
            let what = format!("expected encoder {}, found none", generation.encoder);
            self.note(record::corrupt(Family::Sys, SYS_GENERATION, &what));
        }
    }

    fn require_number<T: DeserializeOwned + Copy + std::fmt::Display>(
        &mut self,
        key: &[u8],
        sound: impl Fn(T) -> bool,
    ) {
        match record::require::<T>(self.db, Family::Sys, key) {
            Ok(found) if sound(found) => {}
            Ok(found) => {
                let what = format!("expected the number that the records imply, found {found}");
                self.note(record::corrupt(Family::Sys, key, &what));
            }
            Err(error) => self.note(error),
        }
    }

    /// Every referenced tensor has a record, and every record counts its references.
    fn require_tensors(&mut self) {
        let mut counted = self.references.clone();
        let mut damages = Vec::new();
        for (id, tensor) in &self.tensors {
            let expected = counted.remove(id).unwrap_or(0);
            if expected != tensor.references {
                let what = format!("expected {expected} references, found {}", tensor.references);
                damages.push(record::corrupt(Family::Tensor, &id.0, &what));
            }
        }
        for (id, count) in counted {
            let what = format!("expected a tensor that has {count} references, found none");
            damages.push(record::corrupt(Family::Tensor, &id.0, &what));
        }
        damages.into_iter().for_each(|error| self.note(error));
    }

    /// A pack that ends before its tensors do, or is none, is one finding, however many they are.
    fn find_cut_packs(&mut self, store: &Store) -> Result<()> {
        let mut packs: BTreeMap<u32, Result<u64>> = BTreeMap::new();
        let mut lost: BTreeMap<u32, Vec<(TensorId, TensorRecord)>> = BTreeMap::new();
        let mut rest = Vec::with_capacity(self.tensors.len());
        for (id, tensor) in std::mem::take(&mut self.tensors) {
            let end = end_in_pack(&tensor);
            let there = end.map(|(pack, end)| {
                let bytes = packs.entry(pack).or_insert_with(|| store.packs.bytes(pack));
                (pack, bytes.as_ref().is_ok_and(|bytes| end <= *bytes))
            });
            match there {
                Some((pack, false)) => lost.entry(pack).or_default().push((id, tensor)),
                Some((_, true)) | None => rest.push((id, tensor)),
            }
        }
        self.tensors = rest;
        for &pack in packs.keys().filter(|pack| !lost.contains_key(pack)) {
            if let Err(error) = store.packs.check_header(pack) {
                self.note_bad_header(pack, error);
            }
        }
        if !lost.is_empty() {
            store.refresh()?;
        }
        for (pack, tensors) in lost {
            let found = packs.remove(&pack).unwrap_or(Ok(0));
            self.note_cut_pack(pack, found, tensors)?;
        }
        Ok(())
    }

    fn note_bad_header(&mut self, pack: u32, error: Error) {
        let what = match error {
            Error::Corrupt { what, .. } => format!("{what}: gc moves what lies behind it"),
            other => other.to_string(),
        };
        self.damage(pack::pack_name(pack), Some(0), what);
    }

    /// Reports what still lies in that pack; what a collection has moved meanwhile is proven with the others.
    fn note_cut_pack(
        &mut self,
        pack: u32,
        found: Result<u64>,
        tensors: Vec<(TensorId, TensorRecord)>,
    ) -> Result<()> {
        let (mut lost, mut last) = (Vec::new(), 0);
        for (id, tensor) in tensors {
            match record::get::<TensorRecord>(self.db, Family::Tensor, &id.0)? {
                Some(newer) if newer.place != tensor.place => self.tensors.push((id, newer)),
                Some(_) => {
                    lost.push(id);
                    last = end_in_pack(&tensor).map_or(last, |(_, end)| end.max(last));
                }
                None => {}
            }
        }
        if lost.is_empty() {
            return Ok(());
        }
        let (count, file) = (lost.len(), pack::pack_name(pack));
        let offset = found.as_ref().ok().copied();
        let what = match found {
            Ok(bytes) => {
                format!(
                    "expected {last} bytes, found {bytes}: {count} tensors reach beyond the end"
                )
            }
            Err(Error::Corrupt { what, .. }) => format!("{what}: {count} tensors lie there"),
            Err(other) => format!("{other}: {count} tensors lie there"),
        };
        self.report.damages.push(Damage { file, offset, tensors: lost, what });
        Ok(())
    }

    fn prove_tensors(
        &mut self,
        store: &Store,
        prove: impl Fn(&Store, TensorId, &TensorRecord) -> Result<()>,
    ) {
        for (id, record) in std::mem::take(&mut self.tensors) {
            match moved_or(store, id, &record, &prove) {
                Ok(()) => self.report.tensors += 1,
                Err(error) => self.damage_tensor(id, &record, error),
            }
        }
    }

    fn require_row(&self, family: Family, key: &[u8], row: u64) -> Result<()> {
        if self.models.contains_key(&row) {
            return Ok(());
        }
        Err(record::corrupt(family, key, &format!("expected a model with row {row}, found none")))
    }

    fn decode<T: DeserializeOwned>(
        &mut self,
        family: Family,
        key: &[u8],
        value: &[u8],
    ) -> Result<T> {
        let decoded = record::decode(family, key, value)?;
        self.report.records += 1;
        Ok(decoded)
    }

    fn note(&mut self, error: Error) {
        match error {
            Error::Corrupt { file, offset, what } => {
                self.damage(file, None, format!("{offset}: {what}"));
            }
            other => self.damage("db".to_owned(), None, other.to_string()),
        }
    }

    fn damage_tensor(&mut self, id: TensorId, record: &TensorRecord, error: Error) {
        let (file, offset) = match record.place {
            Place::Pack { pack, offset } => (pack::pack_name(pack), Some(offset)),
            Place::Inline(_) => (format!("db/{}", Family::Tensor.name()), None),
        };
        let what = match error {
            Error::Corrupt { file: _, offset: _, what } => what,
            other => other.to_string(),
        };
        self.report.damages.push(Damage { file, offset, tensors: vec![id], what });
    }

    fn damage(&mut self, file: String, offset: Option<u64>, what: String) {
        self.report.damages.push(Damage { file, offset, tensors: Vec::new(), what });
    }
}

/// The pack that a tensor lies in, and where it ends there; `None` for one in its record or of an impossible shape.
fn end_in_pack(tensor: &TensorRecord) -> Option<(u32, u64)> {
    match tensor.place {
        Place::Pack { pack, offset } => {
            let bytes = dtype::byte_len(tensor.dtype, &tensor.shape)?;
            Some((pack, offset.checked_add(bytes)?))
        }
        Place::Inline(_) => None,
    }
}

/// Proves a tensor where its record says that it lies. If a collection has moved or dropped it since
/// the record was read, the record as it is now counts.
fn moved_or(
    store: &Store,
    id: TensorId,
    record: &TensorRecord,
    prove: impl Fn(&Store, TensorId, &TensorRecord) -> Result<()>,
) -> Result<()> {
    let first = prove(store, id, record);
    if first.is_ok() {
        return first;
    }
    store.refresh()?;
    match record::get::<TensorRecord>(&store.db, Family::Tensor, &id.0)? {
        None => Ok(()),
        Some(newer) if newer.place == record.place => first,
        Some(newer) => prove(store, id, &newer),
    }
}

/// Compares the hash of a tensor's bytes with its id.
fn hash(store: &Store, id: TensorId, record: &TensorRecord) -> Result<()> {
    let tensor = store.packs.unproven(id, record)?;
    let found = TensorId::of(tensor.dtype(), tensor.shape(), tensor.bytes());
    if found == id {
        return Ok(());
    }
    let what = format!("expected a tensor with hash {id}, found {found}");
    Err(record::corrupt(Family::Tensor, &id.0, &what))
}
