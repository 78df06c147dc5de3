//! The durable truth of a tans zoo: records, weights, task rows and pairs, on RocksDB and
//! memory-mapped pack files.
//!
//! This crate stores and checks bytes. It knows no network, no floating-point maths and no index:
//! graphs, input contracts and encoders are opaque here, and whoever wants answers to queries uses
//! the `tans` crate on top.

mod backup;
mod codec;
mod dtype;
mod error;
mod failpoint;
mod files;
mod ids;
mod keys;
mod lock;
mod map;
mod owner;
mod pack;
mod packs;
mod readers;
mod records;
mod rocks;
mod rocks_log;
mod rocks_manifest;
mod rocks_wal;
mod schema;
mod store;
mod syncs;

pub use backup::BackupReport;
pub use codec::{decode, encode};
pub use error::{Error, Result};
pub use files::install_file;
pub use ids::{ModelId, TaskId, TensorId};
pub use map::MappedTensor;
pub use records::{
    Architecture, Cost, EncoderRecord, GenerationRecord, JobRecord, Latency, ModelRecord,
    Operation, Pair, PairKind, TaskRecord, TaskSampleRecord, WeightRef,
};
pub use safetensors::Dtype;
pub use schema::FORMAT_VERSION;
pub use store::{
    Batch, CheckReport, Damage, GcReport, HashedTensor, Mode, NewTensor, RestoreReport, Staging,
    Store, StoreStats,
};
