//! Reading one record, and what records refer to.

use crate::rocks::{Db, Family};
use crate::{EncoderRecord, Error, ModelRecord, Result, TaskRecord, TensorId, codec, keys};
use serde::de::DeserializeOwned;

/// Keys of the family `sys`.
pub(super) const SYS_FORMAT: &[u8] = b"format";
pub(super) const SYS_BACKBONE: &[u8] = b"backbone";
pub(super) const SYS_NEXT_ROW: &[u8] = b"next_row";
pub(super) const SYS_SEQUENCE: &[u8] = b"sequence";
pub(super) const SYS_GENERATION: &[u8] = b"generation";

/// Reads and decodes one record.
pub(super) fn get<T: DeserializeOwned>(db: &Db, family: Family, key: &[u8]) -> Result<Option<T>> {
    db.get(family, key)?.map(|value| decode(family, key, &value)).transpose()
}

/// Reads a record that exists in every zoo.
pub(super) fn require<T: DeserializeOwned>(db: &Db, family: Family, key: &[u8]) -> Result<T> {
    get(db, family, key)?.ok_or_else(|| corrupt(family, key, "expected a record, found none"))
}

/// Decodes one record; an error names the family and the key.
pub(super) fn decode<T: DeserializeOwned>(family: Family, key: &[u8], value: &[u8]) -> Result<T> {
    codec::decode(family.name(), value).map_err(|error| match error {
        Error::Corrupt { file: _, offset, what } => {
            corrupt(family, key, &format!("{offset}: {what}"))
        }
        other => other,
    })
}

/// Damage of one record.
pub(super) fn corrupt(family: Family, key: &[u8], what: &str) -> Error {
    Error::Corrupt {
        file: format!("db/{}", family.name()),
        offset: describe_key(family, key),
        what: what.to_owned(),
    }
}

/// Damage of a key that is none of its family.
pub(super) fn bad_key(family: Family, key: &[u8]) -> Error {
    corrupt(family, key, "expected a key of this family, found another one")
}

/// A key in words.
pub(super) fn describe_key(family: Family, key: &[u8]) -> String {
    let hex = || key.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    match family {
        Family::Model | Family::Signature | Family::Oplog => {
            keys::row(key).map_or_else(hex, |row| format!("key {row}"))
        }
        Family::Encoder => keys::number(key).map_or_else(hex, |number| format!("key {number}")),
        Family::Embedding => keys::EmbeddingKey::parse(key)
            .map_or_else(hex, |key| format!("key (encoder {}, row {})", key.encoder, key.row)),
        Family::Job | Family::Sys => format!("key {}", String::from_utf8_lossy(key)),
        Family::Name => format!("key {:?}", String::from_utf8_lossy(key)),
        Family::Task | Family::Pair | Family::Tensor => format!("key {}", hex()),
    }
}

/// The tensors that a model's record refers to, as often as it does.
pub(super) fn tensors_of_model(model: &ModelRecord) -> impl Iterator<Item = TensorId> + '_ {
    model.graph.into_iter().chain(model.weights.iter().map(|weight| weight.tensor))
}

/// The tensors that a task's record refers to.
pub(super) fn tensors_of_task(task: &TaskRecord) -> impl Iterator<Item = TensorId> + '_ {
    task.sample.iter().flat_map(|sample| {
        [Some(sample.rows), Some(sample.class_means), sample.image_hashes].into_iter().flatten()
    })
}

/// The tensors that an encoder's record refers to.
pub(super) fn tensors_of_encoder(encoder: &EncoderRecord) -> impl Iterator<Item = TensorId> + '_ {
    [encoder.blob].into_iter()
}
