//! Moves weights and values between bytes and libtorch tensors.

use super::ops::Fault;
use crate::graph::{Dtype, Weight};
use tch::{Device, Kind, Tensor};

/// A weight as a tensor: all floating types become f32, all integers i64, booleans stay.
///
/// Integers stay on the CPU: they are shapes and indices, which operators read as numbers.
pub(super) fn from_weight(weight: &Weight, device: Device) -> Result<Tensor, Fault> {
    let (kind, target) = match weight.dtype {
        Dtype::F32 => (Kind::Float, Kind::Float),
        Dtype::F16 => (Kind::Half, Kind::Float),
        Dtype::BF16 => (Kind::BFloat16, Kind::Float),
        Dtype::F64 => (Kind::Double, Kind::Float),
        Dtype::I64 => (Kind::Int64, Kind::Int64),
        Dtype::I32 => (Kind::Int, Kind::Int64),
        Dtype::I16 => (Kind::Int16, Kind::Int64),
        Dtype::I8 => (Kind::Int8, Kind::Int64),
        Dtype::U8 => (Kind::Uint8, Kind::Int64),
        Dtype::BOOL => (Kind::Bool, Kind::Bool),
        other => return Err(Fault::Unsupported(format!("element type {other:?}"))),
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
    Ok(if target == Kind::Float { tensor.f_to_device(device)? } else { tensor })
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
