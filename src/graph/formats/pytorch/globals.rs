//! The globals that a state dict may name, and what each makes of its arguments.

use super::pickle::{Heap, TensorView, Value};
use super::{ADVICE, malformed, shown};
use crate::graph::{Dtype, Error};

/// Most dimensions of a tensor.
const RANK_MAX: usize = 8;

/// A global on the list.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Global {
    OrderedDict,
    /// `torch._utils._rebuild_tensor` and `_rebuild_tensor_v2`.
    Tensor,
    Parameter,
    Size,
    Device,
    /// An element type, such as `torch.float32`.
    Kind,
    Storage(Dtype),
}

const STORAGES: [(&str, Dtype); 11] = [
    ("FloatStorage", Dtype::F32),
    ("DoubleStorage", Dtype::F64),
    ("HalfStorage", Dtype::F16),
    ("BFloat16Storage", Dtype::BF16),
    ("LongStorage", Dtype::I64),
    ("IntStorage", Dtype::I32),
    ("ShortStorage", Dtype::I16),
    ("CharStorage", Dtype::I8),
    ("ByteStorage", Dtype::U8),
    ("BoolStorage", Dtype::BOOL),
    ("UntypedStorage", Dtype::U8),
];

const KINDS: [&str; 11] = [
    "float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8",
    "bool", "float",
];

/// Looks a global up.
///
/// # Errors
/// `Error::Contract` with its name if it is not on the list.
pub(super) fn find(module: &str, name: &str) -> Result<Global, Error> {
    let storage = || STORAGES.iter().find(|(known, _)| *known == name).map(|&(_, dtype)| dtype);
    let found = match (module, name) {
        ("collections", "OrderedDict") => Some(Global::OrderedDict),
        ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Some(Global::Tensor),
        ("torch._utils", "_rebuild_parameter") => Some(Global::Parameter),
        ("torch", "Size") => Some(Global::Size),
        ("torch", "device") => Some(Global::Device),
        ("torch", kind) if KINDS.contains(&kind) => Some(Global::Kind),
        ("torch" | "torch.storage", _) => storage().map(Global::Storage),
        _ => None,
    };
    found.ok_or_else(|| {
        let name = shown(&format!("{module}.{name}"));
        Error::Contract(format!(
            "expected a state dict, found a pickle that names {name}: it is not among the names that tensors \
            need, and nothing of the file was run; {ADVICE}"
        ))
    })
}

/// What calling a global would give.
///
/// # Errors
/// `Error::Malformed` for arguments that PyTorch does not write.
pub(super) fn reduce<'a>(
    global: Global,
    arguments: &[Value<'a>],
    heap: &mut Heap<'a>,
) -> Result<Value<'a>, Error> {
    match (global, arguments) {
        (Global::OrderedDict, []) => Ok(heap.dict(Vec::new())),
        (Global::OrderedDict, &[Value::Sequence(pairs)]) => {
            let pair = |pair: &Value<'a>| match *pair {
                Value::Sequence(at) => match *heap.sequences[at] {
                    [key, value] => Some((key, value)),
                    _ => None,
                },
                _ => None,
            };
            let pairs: Option<Vec<_>> = heap.sequences[pairs].iter().map(pair).collect();
            let pairs = pairs.ok_or_else(|| malformed("expected pairs for an OrderedDict"))?;
            Ok(heap.dict(pairs))
        }
        (Global::Tensor, &[storage, offset, shape, stride, ..]) => {
            let Value::Storage(storage) = storage else {
                return Err(malformed(format!("expected a tensor's storage, found {storage:?}")));
            };
            let view = TensorView {
                storage,
                offset: size(offset)?,
                shape: sizes(shape, heap)?,
                stride: sizes(stride, heap)?,
            };
            heap.tensors.push(view);
            Ok(Value::Tensor(heap.tensors.len() - 1))
        }
        (Global::Parameter, &[tensor @ Value::Tensor(_), ..]) => Ok(tensor),
        (Global::Size, &[sizes @ Value::Sequence(_)]) => Ok(sizes),
        (Global::Device, _) => Ok(Value::Opaque),
        _ => Err(malformed(format!(
            "expected other arguments for {global:?}, found {} of them",
            arguments.len()
        ))),
    }
}

/// A size, offset or stride: PyTorch has no negative ones.
fn size(value: Value<'_>) -> Result<usize, Error> {
    let size = match value {
        Value::Int(number) => usize::try_from(number).ok(),
        _ => None,
    };
    size.ok_or_else(|| {
        malformed(format!("expected a size, stride or offset of at least 0, found {value:?}"))
    })
}

fn sizes(value: Value<'_>, heap: &Heap<'_>) -> Result<Vec<usize>, Error> {
    match value {
        Value::Sequence(at) if heap.sequences[at].len() <= RANK_MAX => {
            heap.sequences[at].iter().map(|&value| size(value)).collect()
        }
        _ => Err(malformed(format!("expected a shape of at most {RANK_MAX} dimensions"))),
    }
}
