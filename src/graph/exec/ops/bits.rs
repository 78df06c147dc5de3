//! Integers as bits.

use super::arithmetic::{Binary, binary};
use super::{Call, Fault, Outputs};
use crate::graph::Dtype;
use tch::{Kind, Tensor};

pub(super) fn and(call: &Call<'_>) -> Outputs {
    binary(call, Tensor::f_bitwise_and_tensor)
}

pub(super) fn or(call: &Call<'_>) -> Outputs {
    binary(call, Tensor::f_bitwise_or_tensor)
}

pub(super) fn xor(call: &Call<'_>) -> Outputs {
    binary(call, Tensor::f_bitwise_xor_tensor)
}

pub(super) fn not(call: &Call<'_>) -> Outputs {
    Ok(vec![call.input(0)?.f_bitwise_not()?])
}

pub(super) fn shift(call: &Call<'_>) -> Outputs {
    let shift: Binary = match call.text("direction", "") {
        "LEFT" => Tensor::f_bitwise_left_shift,
        "RIGHT" => Tensor::f_bitwise_right_shift,
        other => return Err(Fault::Failed(format!("expected LEFT or RIGHT, found {other:?}"))),
    };
    binary(call, shift)
}

/// The same bits as another type of the same width.
pub(super) fn cast(call: &Call<'_>) -> Outputs {
    let x = call.input(0)?;
    let code = call.int("to", 0);
    // What is held in a wider type than it has does not show its bits.
    if matches!(code, 4 | 10 | 12 | 16) {
        return Err(Fault::Unsupported(format!("to type {code}")));
    }
    let kind = super::cast::kind_of_code(code)?;
    let x = match call.unsigned {
        Some(Dtype::U16) => x.f_to_kind(Kind::Int16)?,
        Some(Dtype::U32) => x.f_to_kind(Kind::Int)?,
        _ => x.shallow_clone(),
    };
    let (from, to) = (x.f_kind()?.elt_size_in_bytes(), kind.elt_size_in_bytes());
    if from != to {
        return Err(Fault::Failed(format!("expected a type of {from} bytes, found {to}")));
    }
    Ok(vec![x.f_contiguous()?.f_view_dtype(kind)?])
}
