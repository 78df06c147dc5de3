//! One file per operation: its options, its report and `run`.

pub mod check;
pub mod edit;
#[cfg(feature = "torch")]
pub mod encode;
pub mod evaluate;
pub mod explain;
pub mod export;
#[cfg(feature = "torch")]
pub mod finetune;
#[cfg(feature = "torch")]
pub mod ingest;
pub mod init;
pub mod list;
#[cfg(feature = "torch")]
pub mod measure;
pub mod query;
pub mod record;
pub mod reindex;
pub mod remove;
pub mod repair;
pub mod show;
pub mod stats;
pub mod task;
pub mod train;
