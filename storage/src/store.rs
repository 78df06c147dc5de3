//! The store: one handle on a zoo directory's durable state.

use crate::{
    EncoderRecord, GenerationRecord, JobRecord, MappedTensor, ModelId, ModelRecord, Operation,
    Pair, PairKind, Result, TaskId, TaskRecord, TensorId,
};
use safetensors::Dtype;
use std::path::Path;

/// How a zoo is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The one writer process; takes the writer lock.
    Write,
    /// One of any number of readers.
    Read,
}

/// A tensor (or an opaque blob: dtype U8, one dimension) to be stored. Its id is `TensorId::of`.
pub struct NewTensor<'a> {
    /// Element type.
    pub dtype: Dtype,
    /// Shape.
    pub shape: &'a [usize],
    /// Little-endian, row-major.
    pub bytes: &'a [u8],
}

/// Figures of a store.
#[derive(Clone, Debug, Default)]
pub struct StoreStats {
    /// Models that are not removed.
    pub models: u64,
    /// Tasks.
    pub tasks: u64,
    /// Pairs, superseded ones included.
    pub pairs: u64,
    /// Distinct tensors and blobs.
    pub tensors: u64,
    /// Sum over all references of the bytes they point to.
    pub logical_bytes: u64,
    /// Sum of the distinct tensors' bytes.
    pub distinct_bytes: u64,
    /// Bytes of the whole zoo directory.
    pub disk_bytes: u64,
    /// Newest op-log sequence number.
    pub sequence: u64,
}

/// One finding of `check`.
#[derive(Clone, Debug)]
pub struct Damage {
    /// File or column family.
    pub file: String,
    /// Byte offset, where known.
    pub offset: Option<u64>,
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

/// Changes that become durable together, or not at all.
#[derive(Default)]
pub struct Batch {}

impl Batch {
    /// Starts an empty batch.
    pub fn new() -> Self {
        todo!()
    }
    /// Adds or replaces a model record (keyed by row id; also writes the `name` and id lookups).
    pub fn put_model(&mut self, _model: &ModelRecord) {
        todo!()
    }
    /// Removes a model, its name, its pairs, signature and embeddings, and drops its references to tensors.
    pub fn remove_model(&mut self, _row: u64) {
        todo!()
    }
    /// Adds or replaces a task record.
    pub fn put_task(&mut self, _task: &TaskRecord) {
        todo!()
    }
    /// Removes a task and its pairs.
    pub fn remove_task(&mut self, _task: TaskId) {
        todo!()
    }
    /// Records an accuracy; the store assigns the sequence number at commit.
    pub fn put_pair(&mut self, _task: TaskId, _model: u64, _kind: PairKind, _accuracy: f32) {
        todo!()
    }
    /// Stores a model's signature (f16 bits).
    pub fn put_signature(&mut self, _row: u64, _signature: &[u16]) {
        todo!()
    }
    /// Stores a model's embedding under an encoder version.
    pub fn put_embedding(&mut self, _encoder: u32, _row: u64, _vector: &[f32]) {
        todo!()
    }
    /// Stores an encoder version.
    pub fn put_encoder(&mut self, _encoder: &EncoderRecord) {
        todo!()
    }
    /// Removes an encoder version and all its embeddings (one range delete).
    pub fn remove_encoder(&mut self, _number: u32) {
        todo!()
    }
    /// Makes this the current generation.
    pub fn install_generation(&mut self, _generation: &GenerationRecord) {
        todo!()
    }
    /// Stores a job's resumable state.
    pub fn put_job(&mut self, _key: &str, _job: &JobRecord) {
        todo!()
    }
    /// Forgets a job.
    pub fn remove_job(&mut self, _key: &str) {
        todo!()
    }
}

/// A handle on the durable state of one zoo directory; share it through an `Arc`.
pub struct Store {}

impl Store {
    /// Creates a zoo directory (which must not exist, or be empty) and opens it for writing.
    pub fn create(_path: &Path, _backbone: [u8; 32]) -> Result<Self> {
        todo!()
    }
    /// Opens a zoo directory.
    pub fn open(_path: &Path, _mode: Mode) -> Result<Self> {
        todo!()
    }
    /// The zoo directory.
    pub fn path(&self) -> &Path {
        todo!()
    }
    /// How it was opened.
    pub fn mode(&self) -> Mode {
        todo!()
    }
    /// Fingerprint of the backbone fixed at creation.
    pub fn backbone(&self) -> [u8; 32] {
        todo!()
    }
    /// In `Mode::Read`: catches up with the writer. In `Mode::Write`: does nothing.
    pub fn refresh(&self) -> Result<()> {
        todo!()
    }
    /// Appends tensors that are not stored yet to a pack and makes them durable; returns their ids in order.
    /// They stay unreferenced until a committed record names them.
    pub fn put_tensors(&self, _tensors: &[NewTensor<'_>]) -> Result<Vec<TensorId>> {
        todo!()
    }
    /// Reserves the next dense row id (persisted by the commit that uses it).
    pub fn next_row(&self) -> Result<u64> {
        todo!()
    }
    /// The commit point: one synced RocksDB write. Adjusts tensor references, appends to the op log, returns its newest sequence number.
    pub fn commit(&self, _batch: Batch) -> Result<u64> {
        todo!()
    }
    /// A stored tensor, memory-mapped.
    pub fn tensor(&self, _id: TensorId) -> Result<MappedTensor> {
        todo!()
    }
    /// A model by row id.
    pub fn model(&self, _row: u64) -> Result<Option<ModelRecord>> {
        todo!()
    }
    /// A model by name.
    pub fn model_by_name(&self, _name: &str) -> Result<Option<ModelRecord>> {
        todo!()
    }
    /// A model by content address.
    pub fn model_by_id(&self, _id: ModelId) -> Result<Option<ModelRecord>> {
        todo!()
    }
    /// All models by ascending row id.
    pub fn models(&self) -> Result<Box<dyn Iterator<Item = Result<ModelRecord>> + '_>> {
        todo!()
    }
    /// A task by id.
    pub fn task(&self, _id: TaskId) -> Result<Option<TaskRecord>> {
        todo!()
    }
    /// A task by name.
    pub fn task_by_name(&self, _name: &str) -> Result<Option<TaskRecord>> {
        todo!()
    }
    /// All tasks, by id.
    pub fn tasks(&self) -> Result<Vec<TaskRecord>> {
        todo!()
    }
    /// Latest accuracy per (task, kind) of one model.
    pub fn pairs_of_model(&self, _row: u64) -> Result<Vec<Pair>> {
        todo!()
    }
    /// Latest accuracy per (model, kind) on one task.
    pub fn pairs_of_task(&self, _task: TaskId) -> Result<Vec<Pair>> {
        todo!()
    }
    /// Latest accuracy per (task, model, kind) of the whole zoo.
    pub fn pairs(&self) -> Result<Vec<Pair>> {
        todo!()
    }
    /// A model's signature (f16 bits).
    pub fn signature(&self, _row: u64) -> Result<Option<Vec<u16>>> {
        todo!()
    }
    /// A model's embedding under an encoder version.
    pub fn embedding(&self, _encoder: u32, _row: u64) -> Result<Option<Vec<f32>>> {
        todo!()
    }
    /// All embeddings of an encoder version by ascending row id.
    pub fn embeddings(
        &self,
        _encoder: u32,
    ) -> Result<Box<dyn Iterator<Item = Result<(u64, Vec<f32>)>> + '_>> {
        todo!()
    }
    /// An encoder version.
    pub fn encoder(&self, _number: u32) -> Result<Option<EncoderRecord>> {
        todo!()
    }
    /// The current generation; `None` only before the first is installed.
    pub fn generation(&self) -> Result<Option<GenerationRecord>> {
        todo!()
    }
    /// The op log from `after` (exclusive) on.
    pub fn operations_after(&self, _after: u64) -> Result<Vec<(u64, Operation)>> {
        todo!()
    }
    /// A job's resumable state.
    pub fn job(&self, _key: &str) -> Result<Option<JobRecord>> {
        todo!()
    }
    /// Where the engine keeps a derived file of a generation: `ZOO/segments/NAME`.
    pub fn segment_path(&self, _name: &str) -> std::path::PathBuf {
        todo!()
    }
    /// Proves every checksum, reference and tensor hash.
    pub fn check(&self) -> Result<CheckReport> {
        todo!()
    }
    /// Counts and sizes.
    pub fn stats(&self) -> Result<StoreStats> {
        todo!()
    }
}

/// Replaces `path` by what `write` writes: temporary sibling, sync, rename, sync of the folder. The only rename in the project.
pub fn install_file(
    _path: &Path,
    _write: impl FnOnce(&mut std::fs::File) -> std::io::Result<()>,
) -> Result<()> {
    todo!()
}
