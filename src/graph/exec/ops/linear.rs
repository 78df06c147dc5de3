//! Matrix products.

use super::{Call, Outputs};

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
    Ok(vec![call.input(0)?.f_matmul(call.input(1)?)?])
}
