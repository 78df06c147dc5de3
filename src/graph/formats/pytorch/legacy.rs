//! The format of before PyTorch 1.6: five pickles (magic number, protocol, byte sizes, the object, the
//! storage keys), then for each key an eight-byte count and raw values.

use super::pickle::{self, Value};
use super::{ADVICE, Raw, malformed, shown, state};
use crate::graph::Error;
use crate::graph::formats::{Limits, StateDict};
use std::collections::HashMap;

/// 0x1950a86a20f9469cfc6c, little-endian.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
const PROTOCOL: i64 = 1001;

pub(super) fn read(bytes: &[u8], limits: &Limits) -> Result<StateDict, Error> {
    let mut at = 0;
    let mut next = || {
        let loaded = pickle::load(&bytes[at..], limits)?;
        at += loaded.length;
        Ok::<_, Error>(loaded)
    };
    let magic = next()?;
    if !matches!(magic.root, Value::Long(found) if found == MAGIC) {
        return Err(Error::Contract(format!(
            "expected the magic number of torch.save, found a pickle of something else; {ADVICE}"
        )));
    }
    let protocol = next()?.root;
    if !matches!(protocol, Value::Int(PROTOCOL)) {
        return Err(malformed(format!("expected file protocol {PROTOCOL}, found {protocol:?}")));
    }
    let _sizes = next()?;
    let loaded = next()?;
    state::state_dict(&loaded)?;
    let keys = next()?;
    let Value::Sequence(list) = keys.root else {
        return Err(malformed("expected a list of storage keys"));
    };
    let kinds = state::storage_kinds(&loaded.heap)?;
    let mut rest = &bytes[at..];
    let mut storages = HashMap::new();
    for key in &keys.heap.sequences[list] {
        let &Value::Text(key) = key else {
            return Err(malformed(format!("expected a storage key, found {key:?}")));
        };
        let &dtype = kinds
            .get(key)
            .ok_or_else(|| malformed(format!("storage {} belongs to no tensor", shown(key))))?;
        let (count, values) = rest.split_first_chunk::<8>().ok_or_else(|| {
            malformed(format!("storage {}: expected its size, found the end", shown(key)))
        })?;
        let count = u64::from_le_bytes(*count);
        let length = usize::try_from(count).ok().and_then(|n| n.checked_mul(state::width(dtype)));
        let Some((values, after)) = length.and_then(|length| values.split_at_checked(length))
        else {
            return Err(malformed(format!(
                "storage {}: expected {count} values of {dtype:?}, found {} bytes",
                shown(key),
                values.len()
            )));
        };
        rest = after;
        storages.insert(key, Raw { dtype, bytes: values });
    }
    let raw = |key: &str| {
        let raw = storages.get(key).copied();
        raw.ok_or_else(|| malformed(format!("expected a storage {}, found none", shown(key))))
    };
    state::weights(&loaded, &raw, bytes.len(), limits)
}
