//! An embedded model-zoo database: which stored network should I fine-tune on my dataset?
//!
//! This crate is the engine: it stores networks, embeds networks and datasets in one space, answers queries,
//! fine-tunes and retrains its encoders. It is a library inside the caller's process: it never prints, exits or reads
//! the environment, and it is not a server.

// Without libtorch nothing runs the networks that many parts prepare.
#![cfg_attr(not(feature = "torch"), expect(dead_code, unused_imports))]

mod data;
mod db;
mod encoder;
mod error;
mod graph;
mod ops;
mod options;
mod progress;
mod rows;
mod sample;
mod state;
mod steps;
mod train;
mod upkeep;

pub use data::Error as DataError;
pub use db::Database;
pub use encoder::Error as EncoderError;
pub use error::{Error, ErrorKind, Result};
pub use graph::Error as GraphError;
#[cfg(feature = "torch")]
pub use graph::exec::Evaluation as Validation;
#[cfg(feature = "torch")]
pub use graph::exec::{Device, Optimizer};
pub use graph::formats::Limits;
pub use graph::input::{ChannelOrder, InputHints};
pub use ops::backup::BackupReport;
pub use ops::check::{CheckOptions, CheckReport, Finding};
#[cfg(feature = "torch")]
pub use ops::cut::{CutOptions, CutReport};
pub use ops::edit::EditOptions;
#[cfg(feature = "torch")]
pub use ops::encode::EncodeReport;
pub use ops::evaluate::EvaluateOptions;
pub use ops::explain::{
    CostReport, ExplainOptions, ExplainReport, LatencyReport, ScoreTerm, SimilarTask,
};
pub use ops::export::{ExportReport, StarterOptions};
#[cfg(feature = "torch")]
pub use ops::finetune::{FinetuneOptions, FinetuneReport, TopOptions};
pub use ops::gc::GcReport;
#[cfg(feature = "torch")]
pub use ops::grow::{
    GrowBudget, GrowOptions, GrowReport, GrowReporter, GrowTraining, GrownDataset, GrownModel,
};
#[cfg(feature = "torch")]
pub use ops::ingest::{IngestOptions, Ingested, Reporter};
pub use ops::init::{InitOptions, InitReport};
pub use ops::list::{ListOptions, SortBy};
#[cfg(feature = "torch")]
pub use ops::measure::{MeasureBy, MeasureOptions, MeasureReport, Measurement};
pub use ops::merge::MergeReport;
pub use ops::query::{Hit, MeasuredHere, QueryOptions, QueryReport, QueryTimes};
pub use ops::record::RecordReport;
pub use ops::reindex::ReindexReport;
pub use ops::restore::RestoreReport;
pub use ops::show::ShowReport;
pub use ops::stats::StatsReport;
pub use ops::task::{AddedTask, TaskOptions, TaskSummary};
pub use ops::train::{Choice, Gate, Rival, TrainOptions, TrainReport};
pub use options::{OpenOptions, parse_count, user_cache_dir};
pub use progress::{Observer, Progress, unobserved};
pub use rows::Rows;
pub use sample::Image;
pub use steps::benchmark::Benchmark;
#[cfg(feature = "torch")]
pub use steps::cutting::{Choice as SubnetChoice, Tried};
pub use steps::dataset::{DatasetSource, SampleOptions};
#[cfg(feature = "torch")]
pub use steps::fit::EpochReport;
#[cfg(feature = "torch")]
pub use steps::probe::Estimate;
pub use steps::summary::{KnownResult, ModelSummary};
#[cfg(feature = "torch")]
pub use steps::tuning::{Raced, TuningOptions};
pub use tans_index::{Error as IndexError, Filter, is_license_expression};
pub use tans_storage::{Dtype, Error as StorageError, MappedTensor, PairKind};
pub use train::evaluate::{Comparison, Evaluation, MethodRow};
pub use train::{FitOptions, Recipe};
