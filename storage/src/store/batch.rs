//! Changes that are committed together.

use crate::{
    EncoderRecord, GenerationRecord, JobRecord, ModelRecord, PairKind, TaskId, TaskRecord,
};

/// Changes that become durable together, or not at all; applied in the order of the calls.
#[derive(Default)]
pub struct Batch {
    pub(super) changes: Vec<Change>,
}

/// One change, as it was asked for.
pub(super) enum Change {
    PutModel(Box<ModelRecord>),
    RemoveModel(u64),
    PutTask(Box<TaskRecord>),
    RemoveTask(TaskId),
    PutPair { task: TaskId, model: u64, kind: PairKind, accuracy: f32 },
    PutSignature { row: u64, bytes: Vec<u8> },
    PutEmbedding { encoder: u32, row: u64, bytes: Vec<u8> },
    PutEncoder(EncoderRecord),
    RemoveEncoder(u32),
    InstallGeneration(GenerationRecord),
    PutJob(String, JobRecord),
}

impl Batch {
    /// Starts an empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Adds or replaces a model record (keyed by row id; also writes the `name` and id lookups).
    pub fn put_model(&mut self, model: &ModelRecord) {
        self.changes.push(Change::PutModel(Box::new(model.clone())));
    }

    /// Removes a model, its name, its pairs, signature and embeddings, and drops its references to
    /// tensors.
    pub fn remove_model(&mut self, row: u64) {
        self.changes.push(Change::RemoveModel(row));
    }

    /// Adds or replaces a task record.
    pub fn put_task(&mut self, task: &TaskRecord) {
        self.changes.push(Change::PutTask(Box::new(task.clone())));
    }

    /// Removes a task and its pairs.
    pub fn remove_task(&mut self, task: TaskId) {
        self.changes.push(Change::RemoveTask(task));
    }

    /// Records an accuracy; the store assigns the sequence number at commit.
    pub fn put_pair(&mut self, task: TaskId, model: u64, kind: PairKind, accuracy: f32) {
        self.changes.push(Change::PutPair { task, model, kind, accuracy });
    }

    /// Stores a model's signature (f16 bits).
    pub fn put_signature(&mut self, row: u64, signature: &[u16]) {
        let bytes = signature.iter().flat_map(|bits| bits.to_le_bytes()).collect();
        self.changes.push(Change::PutSignature { row, bytes });
    }

    /// Stores a model's embedding under an encoder version.
    pub fn put_embedding(&mut self, encoder: u32, row: u64, vector: &[f32]) {
        let bytes = vector.iter().flat_map(|scalar| scalar.to_le_bytes()).collect();
        self.changes.push(Change::PutEmbedding { encoder, row, bytes });
    }

    /// Stores an encoder version.
    pub fn put_encoder(&mut self, encoder: &EncoderRecord) {
        self.changes.push(Change::PutEncoder(encoder.clone()));
    }

    /// Removes an encoder version and all its embeddings (one range delete).
    pub fn remove_encoder(&mut self, number: u32) {
        self.changes.push(Change::RemoveEncoder(number));
    }

    /// Makes this the current generation.
    pub fn install_generation(&mut self, generation: &GenerationRecord) {
        self.changes.push(Change::InstallGeneration(generation.clone()));
    }

    /// Stores a job's resumable state.
    pub fn put_job(&mut self, key: &str, job: &JobRecord) {
        self.changes.push(Change::PutJob(key.to_owned(), job.clone()));
    }
}
