//! Keys of the column families. Numbers are big-endian, so that order on disk is order of numbers.

use crate::{ModelId, PairKind, TaskId};

/// Key spaces of the family `name`.
const NAME_OF_MODEL: u8 = b'm';
const NAME_OF_TASK: u8 = b't';
const ID_OF_MODEL: u8 = b'i';

/// Key spaces of the family `pair`; both hold every pair.
const PAIR_BY_MODEL: u8 = b'm';
const PAIR_BY_TASK: u8 = b't';

const PAIR_BYTES: usize = 1 + 32 + 8 + 1 + 8;

/// What a key of the family `name` leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NameKey {
    /// A model's name, to its row id.
    Model(String),
    /// A task's name, to its id.
    Task(String),
    /// A model's id, to its row id.
    ModelId(ModelId),
}

impl NameKey {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Model(name) => spaced(NAME_OF_MODEL, name.as_bytes()),
            Self::Task(name) => spaced(NAME_OF_TASK, name.as_bytes()),
            Self::ModelId(id) => spaced(ID_OF_MODEL, &id.0),
        }
    }

    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let (space, rest) = bytes.split_first()?;
        let text = || String::from_utf8(rest.to_vec()).ok();
        match *space {
            NAME_OF_MODEL => Some(Self::Model(text()?)),
            NAME_OF_TASK => Some(Self::Task(text()?)),
            ID_OF_MODEL => Some(Self::ModelId(ModelId(rest.try_into().ok()?))),
            _ => None,
        }
    }
}

/// Key of one measured accuracy, in either key space of the family `pair`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PairKey {
    pub(crate) task: TaskId,
    pub(crate) model: u64,
    pub(crate) kind: PairKind,
    pub(crate) sequence: u64,
}

impl PairKey {
    /// `t`, task, model row, kind, sequence.
    pub(crate) fn by_task(&self) -> Vec<u8> {
        let mut key = Self::of_task(self.task);
        key.extend_from_slice(&self.model.to_be_bytes());
        self.finish(key)
    }

    /// `m`, model row, task, kind, sequence.
    pub(crate) fn by_model(&self) -> Vec<u8> {
        let mut key = Self::of_model(self.model);
        key.extend_from_slice(&self.task.0);
        self.finish(key)
    }

    /// Prefix of every pair in task order.
    pub(crate) fn all() -> Vec<u8> {
        vec![PAIR_BY_TASK]
    }

    /// Prefix of the pairs on one task.
    pub(crate) fn of_task(task: TaskId) -> Vec<u8> {
        spaced(PAIR_BY_TASK, &task.0)
    }

    /// Prefix of the pairs of one model.
    pub(crate) fn of_model(row: u64) -> Vec<u8> {
        spaced(PAIR_BY_MODEL, &row.to_be_bytes())
    }

    /// Parses either key space; the flag tells whether it was the one by task.
    pub(crate) fn parse(bytes: &[u8]) -> Option<(Self, bool)> {
        if bytes.len() != PAIR_BYTES {
            return None;
        }
        let sequence = u64_at(bytes, PAIR_BYTES - 8)?;
        let kind = kind_of(bytes[PAIR_BYTES - 9])?;
        let (task, model, by_task) = match bytes[0] {
            PAIR_BY_TASK => (bytes.get(1..33)?, u64_at(bytes, 33)?, true),
            PAIR_BY_MODEL => (bytes.get(9..41)?, u64_at(bytes, 1)?, false),
            _ => return None,
        };
        let task = TaskId(task.try_into().ok()?);
        Some((Self { task, model, kind, sequence }, by_task))
    }

    fn finish(&self, mut key: Vec<u8>) -> Vec<u8> {
        key.push(code_of(self.kind));
        key.extend_from_slice(&self.sequence.to_be_bytes());
        key
    }
}

/// Key of one embedding: encoder number, row id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EmbeddingKey {
    pub(crate) encoder: u32,
    pub(crate) row: u64,
}

impl EmbeddingKey {
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let mut key = self.encoder.to_be_bytes().to_vec();
        key.extend_from_slice(&self.row.to_be_bytes());
        key
    }

    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != 12 {
            return None;
        }
        Some(Self { encoder: number(&bytes[..4])?, row: u64_at(bytes, 4)? })
    }
}

/// Key of a model, signature or op-log line.
pub(crate) fn of_row(row: u64) -> Vec<u8> {
    row.to_be_bytes().to_vec()
}

/// Parses what `of_row` made.
pub(crate) fn row(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

/// Key of an encoder version, and prefix of its embeddings.
pub(crate) fn of_number(number: u32) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

/// Parses what `of_number` made.
pub(crate) fn number(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

/// The first key after every key that starts with `prefix`; `None` when there is no such key.
pub(crate) fn after(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

fn spaced(space: u8, rest: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(PAIR_BYTES);
    key.push(space);
    key.extend_from_slice(rest);
    key
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    row(bytes.get(offset..offset + 8)?)
}

fn code_of(kind: PairKind) -> u8 {
    match kind {
        PairKind::Probe => 0,
        PairKind::Finetune => 1,
        PairKind::Reported => 2,
    }
}

fn kind_of(code: u8) -> Option<PairKind> {
    match code {
        0 => Some(PairKind::Probe),
        1 => Some(PairKind::Finetune),
        2 => Some(PairKind::Reported),
        _ => None,
    }
}
