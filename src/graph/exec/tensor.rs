//! Moves weights and values between bytes and libtorch tensors.

use super::ops::Fault;
use crate::graph::{Dtype, Weight};
use tch::{Device, Kind, Tensor};

/// How values of an element type are held. 16-bit floats are computed as f32. libtorch knows little
/// of unsigned types above 8 bits: they are held as the next wider signed type, u64 as i64.
pub(super) fn kind_of(dtype: Dtype) -> Option<Kind> {
    Some(match dtype {
        Dtype::F32 | Dtype::F16 | Dtype::BF16 => Kind::Float,
        Dtype::F64 => Kind::Double,
        Dtype::I64 | Dtype::U32 | Dtype::U64 => Kind::Int64,
        Dtype::I32 | Dtype::U16 => Kind::Int,
        Dtype::I16 => Kind::Int16,
        Dtype::I8 => Kind::Int8,
        Dtype::U8 => Kind::Uint8,
        Dtype::BOOL => Kind::Bool,
        Dtype::F8_E4M3 => Kind::Float8e4m3fn,
        Dtype::F8_E4M3FNUZ => Kind::Float8e4m3fnuz,
        Dtype::F8_E5M2 => Kind::Float8e5m2,
        Dtype::F8_E5M2FNUZ => Kind::Float8e5m2fnuz,
        _ => return None,
    })
}

/// A weight as a tensor of `kind_of` its type.
///
/// Integers stay on the CPU: they are shapes and indices, which operators read as numbers.
pub(super) fn from_weight(weight: &Weight, device: Device) -> Result<Tensor, Fault> {
    let target = kind_of(weight.dtype)
        .ok_or_else(|| Fault::Unsupported(format!("element type {:?}", weight.dtype)))?;
    let kind = match weight.dtype {
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::U32 => Kind::Int,
        Dtype::U16 => Kind::Int16,
        _ => target,
    };
    let bytes: &[u8] = (*weight.bytes).as_ref();
    let elements = weight.shape.iter().try_fold(1_usize, |n, &side| n.checked_mul(side));
    let size = elements.and_then(|n| n.checked_mul(kind.elt_size_in_bytes()));
    if size != Some(bytes.len()) {
        return Err(Fault::Failed(format!(
            "expected a weight of shape {:?}, found {} bytes",
            weight.shape,
            bytes.len()
        )));
    }
    let shape: Vec<i64> = weight.shape.iter().map(|&side| side as i64).collect();
    let tensor = Tensor::f_from_data_size(bytes, &shape, kind)?.f_to_kind(target)?;
    let tensor = match weight.dtype {
        Dtype::U16 => tensor.f_bitwise_and(0xffff)?,
        Dtype::U32 => tensor.f_bitwise_and(0xffff_ffff)?,
        Dtype::U64 if tensor.f_lt(0)?.f_any()?.f_int64_value(&[])? != 0 => {
            return Err(Fault::Unsupported("an unsigned number of 64 bits above 2^63".to_string()));
        }
        _ => tensor,
    };
    Ok(if matches!(target, Kind::Float | Kind::Double) {
        tensor.f_to_device(device)?
    } else {
        tensor
    })
}

/// Values of a tensor as f32, row-major.
pub(super) fn to_f32(tensor: &Tensor) -> Result<Vec<f32>, Fault> {
    let flat = tensor.f_detach()?.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?;
    Ok(Vec::<f32>::try_from(&flat.f_contiguous()?.f_reshape([-1])?)?)
}

/// Values of an integer tensor.
pub(super) fn to_i64(tensor: &Tensor) -> Result<Vec<i64>, Fault> {
    let flat = tensor.f_detach()?.f_to_device(Device::Cpu)?.f_to_kind(Kind::Int64)?;
    Ok(Vec::<i64>::try_from(&flat.f_contiguous()?.f_reshape([-1])?)?)
}

/// A tensor of the given shape on a device.
pub(super) fn from_f32(values: &[f32], shape: &[i64], device: Device) -> Result<Tensor, Fault> {
    Ok(Tensor::f_from_slice(values)?.f_reshape(shape)?.f_to_device(device)?)
}

/// Whether every value is finite.
pub(super) fn is_finite(tensor: &Tensor) -> Result<bool, Fault> {
    Ok(tensor.f_isfinite()?.f_all()?.f_int64_value(&[])? != 0)
}
