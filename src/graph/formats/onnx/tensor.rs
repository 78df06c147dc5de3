//! TensorProto to weight and back. Lengths are checked against the shape before anything is
//! allocated.

use super::malformed;
use super::proto::TensorProto;
use crate::graph::{Dtype, Error, Weight};
use prost::bytes::Bytes;
use std::sync::Arc;

const EXTERNAL: i32 = 1;

/// (ONNX TensorProto.DataType, our element type). Strings, complex128 and packed 4-bit types have
/// no weight form.
const DTYPES: [(i32, Dtype); 19] = [
    (1, Dtype::F32),
    (2, Dtype::U8),
    (3, Dtype::I8),
    (4, Dtype::U16),
    (5, Dtype::I16),
    (6, Dtype::I32),
    (7, Dtype::I64),
    (9, Dtype::BOOL),
    (10, Dtype::F16),
    (11, Dtype::F64),
    (12, Dtype::U32),
    (13, Dtype::U64),
    (14, Dtype::C64),
    (16, Dtype::BF16),
    (17, Dtype::F8_E4M3),
    (18, Dtype::F8_E4M3FNUZ),
    (19, Dtype::F8_E5M2),
    (20, Dtype::F8_E5M2FNUZ),
    (24, Dtype::F8_E8M0),
];

/// Hands a weight's own bytes to the encoder without a copy.
struct Shared(crate::graph::Bytes);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        (*self.0).as_ref()
    }
}

/// Element type of an ONNX code, if weights can have it.
pub(crate) fn dtype_of(code: i32) -> Option<Dtype> {
    DTYPES.iter().find(|(known, _)| *known == code).map(|(_, dtype)| *dtype)
}

/// ONNX code of an element type.
pub(super) fn code_of(dtype: Dtype) -> Result<i32, Error> {
    let known = DTYPES.iter().find(|(_, known)| *known == dtype).map(|(code, _)| *code);
    known.ok_or_else(|| Error::Contract(format!("element type {dtype:?} has no ONNX code")))
}

/// Bytes that a tensor of this shape takes; its dimensions are checked.
pub(super) fn shape_of(tensor: &TensorProto) -> Result<(Vec<usize>, Dtype, usize), Error> {
    let name = tensor.name();
    let dtype = dtype_of(tensor.data_type()).ok_or_else(|| {
        let code = tensor.data_type();
        Error::Contract(format!(
            "tensor {name:?} has ONNX element type {code}, which tans cannot \
            store: convert it to a float or integer type"
        ))
    })?;
    let mut shape = Vec::with_capacity(tensor.dims.len());
    let mut bytes = dtype.bitsize() / 8;
    for &dim in &tensor.dims {
        let side = usize::try_from(dim)
            .map_err(|_| malformed(format!("tensor {name:?} has a dimension of {dim}")))?;
        // Zeros are left out of the product, so that no order of the dimensions hides an overflow.
        bytes = bytes
            .checked_mul(side.max(1))
            .filter(|bytes| *bytes <= isize::MAX as usize)
            .ok_or_else(|| {
                malformed(format!("tensor {name:?} of shape {:?} overflows", tensor.dims))
            })?;
        shape.push(side);
    }
    let size = if shape.contains(&0) { 0 } else { bytes };
    Ok((shape, dtype, size))
}

/// Takes a tensor's data out of the message: raw data moves, typed fields are packed.
pub(super) fn to_weight(mut tensor: TensorProto) -> Result<Weight, Error> {
    let (shape, dtype, size) = shape_of(&tensor)?;
    let name = tensor.name().to_owned();
    if tensor.data_location() == EXTERNAL || !tensor.external_data.is_empty() {
        return Err(Error::Contract(format!(
            "weight {name:?} lies in another file; embed it first: in Python \
             onnx.save(onnx.load(\"model.onnx\"), \"embedded.onnx\")"
        )));
    }
    let bytes = match tensor.raw_data.take() {
        Some(raw) if !raw.is_empty() || size == 0 => raw,
        _ => {
            check_count(&tensor, dtype, size)?;
            Bytes::from(pack(&tensor, dtype)?)
        }
    };
    if bytes.len() != size {
        return Err(wrong_length(&name, dtype, &shape, (size, bytes.len())));
    }
    Ok(Weight { dtype, shape, bytes: Arc::new(bytes) })
}

/// A message that shares the weight's bytes.
pub(super) fn from_weight(name: &str, weight: &Weight) -> Result<TensorProto, Error> {
    let data = Bytes::from_owner(Shared(weight.bytes.clone()));
    let tensor = TensorProto { raw_data: Some(data), ..header(name, weight)? };
    let (_, _, size) = shape_of(&tensor)?;
    let found = (*weight.bytes).as_ref().len();
    if size != found {
        return Err(wrong_length(name, weight.dtype, &weight.shape, (size, found)));
    }
    Ok(tensor)
}

/// A message with name, type and shape, but no data.
pub(super) fn header(name: &str, weight: &Weight) -> Result<TensorProto, Error> {
    let side = |&side: &usize| {
        i64::try_from(side)
            .map_err(|_| Error::Contract(format!("a dimension of {side} is too large")))
    };
    Ok(TensorProto {
        dims: weight.shape.iter().map(side).collect::<Result<_, _>>()?,
        data_type: Some(code_of(weight.dtype)?),
        name: Some(name.to_owned()),
        ..TensorProto::default()
    })
}

fn wrong_length(name: &str, dtype: Dtype, shape: &[usize], sizes: (usize, usize)) -> Error {
    let (expected, found) = sizes;
    malformed(format!(
        "tensor {name:?} of type {dtype:?} and shape {shape:?} needs {expected} bytes, found \
        {found}"
    ))
}

fn check_count(tensor: &TensorProto, dtype: Dtype, size: usize) -> Result<(), Error> {
    let scalars = match dtype {
        Dtype::F32 | Dtype::C64 => tensor.float_data.len(),
        Dtype::F64 => tensor.double_data.len(),
        Dtype::I64 => tensor.int64_data.len(),
        Dtype::U32 | Dtype::U64 => tensor.uint64_data.len(),
        _ => tensor.int32_data.len(),
    };
    let width = if dtype == Dtype::C64 { 4 } else { dtype.bitsize() / 8 };
    let found = scalars.saturating_mul(width);
    if found == size {
        return Ok(());
    }
    let shape: Vec<usize> = tensor.dims.iter().map(|&dim| dim as usize).collect();
    Err(wrong_length(tensor.name(), dtype, &shape, (size, found)))
}

fn pack(tensor: &TensorProto, dtype: Dtype) -> Result<Vec<u8>, Error> {
    let narrow = |low: i32, high: i32| narrow(tensor, (low, high));
    Ok(match dtype {
        Dtype::F32 | Dtype::C64 => {
            tensor.float_data.iter().flat_map(|value| value.to_le_bytes()).collect()
        }
        Dtype::F64 => tensor.double_data.iter().flat_map(|value| value.to_le_bytes()).collect(),
        Dtype::I64 => tensor.int64_data.iter().flat_map(|value| value.to_le_bytes()).collect(),
        Dtype::U64 => tensor.uint64_data.iter().flat_map(|value| value.to_le_bytes()).collect(),
        Dtype::I32 => tensor.int32_data.iter().flat_map(|value| value.to_le_bytes()).collect(),
        Dtype::U32 => pack_u32(tensor)?,
        Dtype::BOOL => narrow(0, 1)?.map(|value| value as u8).collect(),
        Dtype::I8 => narrow(-128, 127)?.map(|value| value as u8).collect(),
        Dtype::I16 => {
            narrow(-32768, 32767)?.flat_map(|value| (value as i16).to_le_bytes()).collect()
        }
        // The half types are stored as their bit patterns.
        Dtype::U16 | Dtype::F16 | Dtype::BF16 => {
            narrow(0, 65535)?.flat_map(|value| (value as u16).to_le_bytes()).collect()
        }
        _ => narrow(0, 255)?.map(|value| value as u8).collect(),
    })
}

fn narrow(
    tensor: &TensorProto,
    (low, high): (i32, i32),
) -> Result<impl Iterator<Item = i32> + '_, Error> {
    match tensor.int32_data.iter().find(|value| !(low..=high).contains(*value)) {
        Some(value) => Err(malformed(format!(
            "tensor {:?} holds {value}, outside {low}..={high} of its type",
            tensor.name()
        ))),
        None => Ok(tensor.int32_data.iter().copied()),
    }
}

fn pack_u32(tensor: &TensorProto) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::with_capacity(tensor.uint64_data.len() * 4);
    for &value in &tensor.uint64_data {
        let value = u32::try_from(value).map_err(|_| {
            malformed(format!("tensor {:?} holds {value}, too large for uint32", tensor.name()))
        })?;
        bytes.extend(value.to_le_bytes());
    }
    Ok(bytes)
}
