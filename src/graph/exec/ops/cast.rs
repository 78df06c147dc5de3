//! Changing the element type.

use super::{Call, Fault, Outputs, is_float};
use crate::graph::exec::tensor;
use crate::graph::formats::onnx::dtype_of;
use tch::{Kind, Tensor};

/// How values of an ONNX type code are held.
pub(super) fn kind_of_code(code: i64) -> Result<Kind, Fault> {
    let dtype = i32::try_from(code).ok().and_then(dtype_of);
    dtype
        .and_then(tensor::kind_of)
        .ok_or_else(|| Fault::Unsupported(format!("element type {code}")))
}

/// Values that a narrower type cannot hold are rounded or cut as that type would.
pub(super) fn cast(call: &Call<'_>) -> Outputs {
    let x = call.input(0)?;
    let code = call.int("to", 0);
    let kind = kind_of_code(code)?;
    Ok(vec![match code {
        10 => x.f_to_kind(Kind::Half)?.f_to_kind(kind)?,
        16 => x.f_to_kind(Kind::BFloat16)?.f_to_kind(kind)?,
        4 => x.f_to_kind(Kind::Int64)?.f_bitwise_and(0xffff)?.f_to_kind(kind)?,
        12 => x.f_to_kind(Kind::Int64)?.f_bitwise_and(0xffff_ffff)?,
        _ => to_kind(x, kind, call.int("saturate", 1) != 0)?,
    }])
}

pub(super) fn cast_like(call: &Call<'_>) -> Outputs {
    let saturate = call.int("saturate", 1) != 0;
    Ok(vec![to_kind(call.input(0)?, call.input(1)?.f_kind()?, saturate)?])
}

/// Largest value of an 8-bit float.
pub(super) fn float8_max(kind: Kind) -> Option<f64> {
    match kind {
        Kind::Float8e4m3fn => Some(448.0),
        Kind::Float8e4m3fnuz => Some(240.0),
        Kind::Float8e5m2 | Kind::Float8e5m2fnuz => Some(57344.0),
        _ => None,
    }
}

/// 8-bit floats take their largest value for what is larger if `saturate`.
pub(super) fn to_kind(x: &Tensor, kind: Kind, saturate: bool) -> Result<Tensor, Fault> {
    let Some(max) = float8_max(kind) else { return Ok(x.f_to_kind(kind)?) };
    let x = if is_float(x)? { x.shallow_clone() } else { x.f_to_kind(Kind::Float)? };
    let x = if saturate { x.f_clamp(-max, max)? } else { x };
    Ok(x.f_to_kind(kind)?)
}
