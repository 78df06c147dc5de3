//! The state dict inside a pickle, and its tensors' values.

use super::pickle::{Heap, Loaded, TensorView, Value};
use super::{ADVICE, Raw, malformed, shown};
use crate::graph::formats::{Limits, StateDict};
use crate::graph::{Dtype, Error, Weight};
use std::collections::HashSet;
use std::sync::Arc;

/// Where training scripts put the weights, the likelier first.
const KEYS: [&str; 8] = [
    "state_dict",
    "model_state_dict",
    "model",
    "model_state",
    "net",
    "network",
    "weights",
    "params",
];

/// How often the file's own size its tensors may take: weights that two names share, or that are stored
/// transposed, are copied.
const COPIES: u64 = 2;

/// The weights of a pickle in its order. `raw` gives a storage's values by its key.
///
/// # Errors
/// `Error::Contract` if there is no state dict, `Error::Malformed` if tensors reach beyond their
/// storages, `Error::Limit` beyond `limits` or twice `file_bytes`.
pub(super) fn weights<'a>(
    loaded: &Loaded<'a>,
    raw: &dyn Fn(&str) -> Result<Raw<'a>, Error>,
    file_bytes: usize,
    limits: &Limits,
) -> Result<StateDict, Error> {
    let heap = &loaded.heap;
    let limit = limits.weight_bytes_max.min((file_bytes as u64).saturating_mul(COPIES));
    let (mut total, mut names) = (0, HashSet::new());
    let mut entries = Vec::new();
    for &(key, value) in state_dict(loaded)? {
        let (Value::Text(name), Value::Tensor(at)) = (key, value) else { continue };
        if !names.insert(name) {
            return Err(malformed(format!("tensor {} is there twice", shown(name))));
        }
        let place = |error| match error {
            Error::Malformed { format, what } => {
                Error::Malformed { format, what: format!("tensor {}: {what}", shown(name)) }
            }
            other => other,
        };
        let view = &heap.tensors[at];
        let storage = heap.storages[view.storage];
        let raw = raw(storage.key).map_err(place)?;
        let expected = storage.elements.checked_mul(width(storage.dtype));
        if raw.dtype != storage.dtype || expected != Some(raw.bytes.len()) {
            return Err(place(malformed(format!(
                "expected a storage of {} values of {:?}, found {} bytes of {:?}",
                storage.elements,
                storage.dtype,
                raw.bytes.len(),
                raw.dtype
            ))));
        }
        let window = Window::new(view, storage.elements).map_err(place)?;
        total += window.elements as u64 * width(storage.dtype) as u64;
        if total > limit {
            let what = "memory for the tensors of the state dict (bytes)".into();
            return Err(Error::Limit { what, found: total, limit });
        }
        let bytes = Arc::new(window.copy(raw));
        let weight = Weight { dtype: storage.dtype, shape: view.shape.clone(), bytes };
        entries.push((name.to_owned(), weight));
    }
    Ok(StateDict { entries, is_ordered: true })
}

/// The pairs of the state dict: the root, or what lies under a usual key.
///
/// # Errors
/// `Error::Contract` if there is none.
pub(super) fn state_dict<'l, 'a>(
    loaded: &'l Loaded<'a>,
) -> Result<&'l [(Value<'a>, Value<'a>)], Error> {
    let Loaded { root, heap, length: _ } = loaded;
    let Value::Dict(root) = *root else {
        return Err(Error::Contract(format!("expected a state dict, found {root:?}; {ADVICE}")));
    };
    let pairs = &heap.dicts[root];
    if holds_tensors(pairs) {
        return Ok(pairs);
    }
    let under = |wanted: &str| {
        pairs.iter().find_map(|(key, value)| match (key, value) {
            (Value::Text(key), &Value::Dict(at)) if *key == wanted => Some(&heap.dicts[at]),
            _ => None,
        })
    };
    let found = KEYS.into_iter().filter_map(under).find(|pairs| holds_tensors(pairs));
    found.map(Vec::as_slice).ok_or_else(|| {
        let keys: Vec<String> = pairs.iter().filter_map(|(key, _)| text(key)).take(8).collect();
        Error::Contract(format!(
            "expected a state dict, or one under {}; found the keys [{}]; {ADVICE}",
            KEYS.join(", "),
            keys.join(", ")
        ))
    })
}

fn text(value: &Value<'_>) -> Option<String> {
    match value {
        Value::Text(text) => Some(shown(text)),
        _ => None,
    }
}

fn holds_tensors(pairs: &[(Value<'_>, Value<'_>)]) -> bool {
    pairs.iter().any(|(key, value)| matches!((key, value), (Value::Text(_), Value::Tensor(_))))
}

/// Bytes of an element.
pub(super) fn width(dtype: Dtype) -> usize {
    dtype.bitsize() / 8
}

/// Every storage that a pickle names, by key.
///
/// # Errors
/// `Error::Malformed` if one key has two types.
pub(super) fn storage_kinds<'a>(
    heap: &Heap<'a>,
) -> Result<std::collections::HashMap<&'a str, Dtype>, Error> {
    let mut kinds = std::collections::HashMap::new();
    for storage in &heap.storages {
        if *kinds.entry(storage.key).or_insert(storage.dtype) != storage.dtype {
            return Err(malformed(format!("storage {} has two types", shown(storage.key))));
        }
    }
    Ok(kinds)
}

/// A tensor that was found to lie within its storage.
struct Window<'v> {
    view: &'v TensorView,
    elements: usize,
    is_contiguous: bool,
}

impl<'v> Window<'v> {
    fn new(view: &'v TensorView, storage_elements: usize) -> Result<Self, Error> {
        let TensorView { storage: _, offset, shape, stride } = view;
        if shape.len() != stride.len() {
            return Err(malformed(format!(
                "expected one stride a dimension, found shape {shape:?} with strides {stride:?}"
            )));
        }
        let beyond = || {
            malformed(format!(
                "expected a window within its storage of {storage_elements} values, found shape {shape:?}, \
                strides {stride:?}, offset {offset}"
            ))
        };
        let elements = shape.iter().try_fold(1_usize, |product, &side| product.checked_mul(side));
        let elements = elements.ok_or_else(beyond)?;
        let mut last = Some(*offset);
        let (mut is_contiguous, mut step) = (true, Some(1_usize));
        for (&side, &stride) in shape.iter().zip(stride).rev() {
            let reach = side.saturating_sub(1).checked_mul(stride);
            last = last.zip(reach).and_then(|(last, reach)| last.checked_add(reach));
            is_contiguous &= side <= 1 || Some(stride) == step;
            step = step.and_then(|step| step.checked_mul(side));
        }
        let fits = last.is_some_and(|last| last < storage_elements);
        // Strides of 0 would make much of little.
        if elements > storage_elements || (elements > 0 && !fits) {
            return Err(beyond());
        }
        Ok(Self { view, elements, is_contiguous })
    }

    /// Its values, row-major.
    fn copy(&self, raw: Raw<'_>) -> Vec<u8> {
        let TensorView { storage: _, offset, shape, stride } = self.view;
        let width = width(raw.dtype);
        if self.elements == 0 {
            return Vec::new();
        }
        if self.is_contiguous {
            return raw.bytes[offset * width..(offset + self.elements) * width].to_vec();
        }
        let mut bytes = Vec::with_capacity(self.elements * width);
        let mut index = vec![0; shape.len()];
        let mut at = *offset;
        for _ in 0..self.elements {
            bytes.extend_from_slice(&raw.bytes[at * width..(at + 1) * width]);
            for axis in (0..shape.len()).rev() {
                index[axis] += 1;
                at += stride[axis];
                if index[axis] < shape[axis] {
                    break;
                }
                at -= stride[axis] * shape[axis];
                index[axis] = 0;
            }
        }
        bytes
    }
}
