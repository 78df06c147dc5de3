//! Matrix products.

use super::{Call, Fault, Outputs};
use tch::Tensor;

pub(super) fn gemm(call: &Call<'_>) -> Outputs {
    let (a, b) = (call.input(0)?, call.input(1)?);
    let a = if call.int("transA", 0) != 0 { a.f_swapaxes(0, 1)? } else { a.shallow_clone() };
    let b = if call.int("transB", 0) != 0 { b.f_swapaxes(0, 1)? } else { b.shallow_clone() };
    let (alpha, beta) = (call.float("alpha", 1.0), call.float("beta", 1.0));
    let bias = match call.optional(2) {
        Some(bias) if beta != 1.0 => Some(bias.f_mul_scalar(beta)?),
        Some(bias) => Some(bias.shallow_clone()),
        None => None,
    };
    let y = match bias {
        Some(bias) if alpha == 1.0 => bias.f_addmm(&a, &b)?,
        Some(bias) => a.f_mm(&b)?.f_mul_scalar(alpha)?.f_add(&bias)?,
        None => a.f_mm(&b)?.f_mul_scalar(alpha)?,
    };
    Ok(vec![y])
}

pub(super) fn mat_mul(call: &Call<'_>) -> Outputs {
    let (a, b) = (call.input(0)?, call.input(1)?);
    // A product of two thin matrices may be far larger than both.
    let (rows, columns) = (a.numel() as i64, b.numel() as i64);
    let depth = a.size().last().copied().unwrap_or(1).max(1);
    if a.dim() <= 2 && b.dim() <= 2 {
        call.allow(&[rows / depth, columns / depth], a.f_kind()?)?;
    }
    Ok(vec![a.f_matmul(b)?])
}

/// A sum of products by the letters of its dimensions.
pub(super) fn einsum(call: &Call<'_>) -> Outputs {
    let equation: String = call.text("equation", "").split_whitespace().collect();
    let known = |letter: char| letter.is_ascii_alphabetic() || ",->.".contains(letter);
    if equation.is_empty() || !equation.chars().all(known) {
        return Err(Fault::Failed(format!("equation {equation:?}")));
    }
    let inputs = (0..call.inputs.len()).map(|index| call.input(index));
    let inputs = inputs.collect::<Result<Vec<_>, _>>()?;
    Ok(vec![Tensor::f_einsum(&equation, &inputs, None::<i64>)?])
}

pub(super) fn determinant(call: &Call<'_>) -> Outputs {
    Ok(vec![Tensor::f_linalg_det(call.input(0)?)?])
}
