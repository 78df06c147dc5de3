//! What a zoo remembers: one struct per kind of record, stored as one value each.

use crate::codec::Bytes;
use crate::{Error, ModelId, TaskId, TensorId};
use safetensors::Dtype;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A network stored in the zoo, or a reference to one that lies elsewhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelRecord {
    /// Content address (see `ModelId`).
    pub id: ModelId,
    /// Dense row id, never reused; the key in the index.
    pub row: u64,
    /// Unique among the models of a zoo.
    pub name: String,
    /// The model this one was fine-tuned from.
    pub parent: Option<ModelId>,
    /// Every task this network was trained on, its ancestors' included.
    pub seen: Vec<TaskId>,
    /// SPDX expression.
    pub license: Option<String>,
    /// Free key = value labels.
    pub tags: BTreeMap<String, String>,
    /// Where a reference model lies; such a model has no graph and no weights here.
    pub uri: Option<String>,
    /// Canonical graph bytes, a blob in a pack.
    pub graph: Option<TensorId>,
    /// The graph's weights in the order of the canonical graph.
    pub weights: Vec<WeightRef>,
    /// The engine's input contract, opaque here.
    pub input: Vec<u8>,
    /// What one forward pass costs.
    pub cost: Cost,
    /// Why the network cannot be executed, if it cannot.
    pub not_runnable: Option<String>,
    /// The generated space it comes from, with its topology numbers.
    pub architecture: Option<Architecture>,
    /// Fixed-length summary of the graph, for the model encoder.
    pub topology: Vec<f32>,
    /// Names of the classes its logits stand for; may be empty.
    pub class_names: Vec<String>,
    /// Unix time in seconds.
    pub created: u64,
}

/// One weight of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightRef {
    /// Name in the network it came from (the canonical graph calls it t0, t1, ...).
    pub name: String,
    /// Where its bytes lie.
    pub tensor: TensorId,
}

/// What one forward pass of one sample costs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Scalars in the weights.
    pub params: u64,
    /// Multiply-accumulate operations of one sample.
    pub macs: u64,
    /// Largest sum of live activations of one sample, in bytes.
    pub peak_activation_bytes: u64,
    /// Measured time of one sample.
    pub latency: Option<Latency>,
}

/// A measured latency with the circumstances that make it comparable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Median of repeated single-sample runs.
    pub median_ms: f32,
    /// Device name, such as `cpu`.
    pub device: String,
    /// Threads that were used.
    pub threads: u32,
}

/// A point of a generated architecture space.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Architecture {
    /// Name of the space, such as `mobilenetv3`.
    pub space: String,
    /// Its configuration in the space's own notation.
    pub config: String,
    /// Topology numbers (45 for the Once-for-all space; empty where the space has none).
    pub numbers: Vec<f32>,
}

/// A dataset as the zoo remembers it, or a name only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskRecord {
    /// Content address (see `TaskId`).
    pub id: TaskId,
    /// Unique among the tasks of a zoo.
    pub name: String,
    /// Tasks of one family share images or sources; they are held out together.
    pub family: Option<String>,
    /// Names of the classes, by label.
    pub class_names: Vec<String>,
    /// Rows and landmarks; `None` for a reference task.
    pub sample: Option<TaskSampleRecord>,
    /// One of the built-in tasks on which new networks are measured.
    pub benchmark: bool,
    /// Unix time in seconds.
    pub created: u64,
}

/// What a zoo keeps of a dataset instead of its samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskSampleRecord {
    /// Fingerprint of the backbone that made the rows.
    pub backbone: [u8; 32],
    /// f16 `[rows, dim]`, at most 200 class-stratified rows of the training split.
    pub rows: TensorId,
    /// Label of each row.
    pub labels: Vec<u32>,
    /// f16 `[classes, dim]`, class means of the full training split.
    pub class_means: TensorId,
    /// Landmark scalars; `None` where one could not be measured.
    pub scalars: [Option<f32>; 10],
    /// u8 `[images, 32]`, blake3 hashes of the images; `None` for bare rows.
    pub image_hashes: Option<TensorId>,
}

/// How an accuracy was obtained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PairKind {
    /// Ridge probe of penultimate features.
    Probe,
    /// Test accuracy after fine-tuning.
    Finetune,
    /// Measured elsewhere and told to the zoo.
    Reported,
}

impl PairKind {
    /// The word for it, which `from_str` reads.
    pub fn name(self) -> &'static str {
        match self {
            Self::Probe => "probe",
            Self::Finetune => "finetune",
            Self::Reported => "reported",
        }
    }
}

impl std::str::FromStr for PairKind {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let all = [Self::Probe, Self::Finetune, Self::Reported];
        all.into_iter().find(|kind| kind.name() == text).ok_or_else(|| {
            Error::Invalid(format!("kind: expected probe, finetune or reported, found {text:?}"))
        })
    }
}

/// One measured accuracy of a model on a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// The task.
    pub task: TaskId,
    /// Row id of the model.
    pub model: u64,
    /// How it was measured.
    pub kind: PairKind,
    /// Fraction in 0..=1.
    pub accuracy: f32,
    /// Op-log sequence number at which it was recorded; the latest counts.
    pub sequence: u64,
}

/// One immutable version of the encoders.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EncoderRecord {
    /// Number of this version; first part of every embedding key.
    pub number: u32,
    /// blake3 of the encoder bytes.
    pub fingerprint: [u8; 32],
    /// The engine's encoders, opaque here: a blob in a pack.
    pub blob: TensorId,
    /// Name of the recipe that made them.
    pub recipe: String,
    /// Options and gate figures as the engine wrote them, for display.
    pub notes: String,
    /// Unix time in seconds.
    pub created: u64,
}

/// What one query sees from start to end, as named on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationRecord {
    /// Number of this generation, from 0.
    pub number: u64,
    /// Encoder version in use.
    pub encoder: u32,
    /// File name under `segments/`; `None` while every vector is in the delta.
    pub segment: Option<String>,
    /// Op-log sequence number up to which the segment is complete.
    pub sequence: u64,
}

/// Resumable state of a long job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRecord {
    /// What kind of job, such as `finetune`.
    pub kind: String,
    /// The engine's state, opaque here.
    pub state: Vec<u8>,
}

/// A stored tensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TensorRecord {
    pub(crate) place: Place,
    /// Element type.
    #[serde(with = "crate::dtype")]
    pub(crate) dtype: Dtype,
    /// Shape; empty for a scalar.
    pub(crate) shape: Vec<u64>,
    /// Number of records that point here.
    pub(crate) references: u64,
}

/// Where a tensor's bytes lie.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Place {
    /// In a pack file.
    Pack {
        /// Its number.
        pack: u32,
        /// Offset of the first byte, a multiple of 64.
        offset: u64,
    },
    /// Here, because a tensor this small would cost more in a pack.
    Inline(Bytes),
}

/// One line of the op log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Operation {
    /// A model was added.
    ModelAdded {
        /// Its row id.
        row: u64,
    },
    /// A model's name, license, tags or measured latency changed.
    ModelEdited {
        /// Its row id.
        row: u64,
    },
    /// A model was removed; its row id is dead.
    ModelRemoved {
        /// Its row id.
        row: u64,
    },
    /// A task was added.
    TaskAdded {
        /// Its id.
        task: TaskId,
    },
    /// A task was removed.
    TaskRemoved {
        /// Its id.
        task: TaskId,
    },
    /// An accuracy was recorded.
    PairRecorded {
        /// The task.
        task: TaskId,
        /// Row id of the model.
        model: u64,
    },
    /// A generation was installed.
    GenerationInstalled {
        /// Its number.
        number: u64,
    },
}
