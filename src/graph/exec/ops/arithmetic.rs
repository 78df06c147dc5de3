//! Elementwise arithmetic, comparison and logic, with NumPy broadcasting.

use super::{Call, Fault, Outputs, axis, broadcast, is_float, together};
use tch::{Kind, TchError, Tensor};

pub(super) type Binary = fn(&Tensor, &Tensor) -> Result<Tensor, TchError>;
pub(super) type Unary = fn(&Tensor) -> Result<Tensor, TchError>;

pub(super) fn binary(call: &Call<'_>, f: Binary) -> Outputs {
    let (a, b) = operands(call)?;
    Ok(vec![f(&a, &b)?])
}

/// Both operands on one device; the limits have room for what they broadcast to.
fn operands(call: &Call<'_>) -> Result<(Tensor, Tensor), Fault> {
    let (a, b) = together(call.input(0)?, call.input(1)?)?;
    let b = legacy_broadcast(call, &a, b)?;
    allow_broadcast(call, &a, &b)?;
    Ok((a, b))
}

fn allow_broadcast(call: &Call<'_>, a: &Tensor, b: &Tensor) -> Result<(), Fault> {
    let shape = broadcast(&a.size(), &b.size());
    call.allow(&shape, a.f_kind()?)
}

/// Before opset 7 the second operand was aligned at an attribute `axis` instead of at the end.
fn legacy_broadcast(call: &Call<'_>, a: &Tensor, b: Tensor) -> Result<Tensor, Fault> {
    if call.opset >= 7
        || call.int("broadcast", 0) == 0
        || b.dim() == 0
        || call.ints("axis").is_some()
    {
        return Ok(b);
    }
    let start = call.int("axis", a.dim() as i64 - b.dim() as i64);
    let start = if a.dim() == 0 { 0 } else { axis(start, a.dim())? };
    let mut size = b.size();
    let trailing = a.dim().checked_sub(start + size.len()).ok_or_else(|| {
        Fault::Failed(format!("expected {size:?} to fit {:?} at axis {start}", a.size()))
    })?;
    size.extend(std::iter::repeat_n(1, trailing));
    Ok(b.f_reshape(&size)?)
}

fn unary(call: &Call<'_>, f: Unary) -> Outputs {
    Ok(vec![f(call.input(0)?)?])
}

/// Any number of operands, folded from the left.
fn fold(call: &Call<'_>, f: Binary) -> Outputs {
    let mut total = call.input(0)?.shallow_clone();
    for index in 1..call.inputs.len() {
        let (a, b) = together(&total, call.input(index)?)?;
        allow_broadcast(call, &a, &b)?;
        total = f(&a, &b)?;
    }
    Ok(vec![total])
}

pub(super) fn add(call: &Call<'_>) -> Outputs {
    binary(call, Tensor::f_add)
}

pub(super) fn sub(call: &Call<'_>) -> Outputs {
    binary(call, Tensor::f_sub)
}

pub(super) fn mul(call: &Call<'_>) -> Outputs {
    binary(call, Tensor::f_mul)
}

/// Integers divide towards zero, as in C.
pub(super) fn div(call: &Call<'_>) -> Outputs {
    let (a, b) = operands(call)?;
    if is_float(&a)? {
        return Ok(vec![a.f_div(&b)?]);
    }
    // The processor traps on the smallest integer divided by -1.
    let minus = b.f_eq(-1)?;
    let quotient = a.f_div_tensor_mode(&plain_divisor(&b)?, "trunc")?;
    Ok(vec![a.f_neg()?.f_where_self(&minus, &quotient)?])
}

/// An integer divisor with 1 in place of -1; 0 is refused.
fn plain_divisor(b: &Tensor) -> Result<Tensor, Fault> {
    if b.f_eq(0)?.f_any()?.f_int64_value(&[])? != 0 {
        return Err(Fault::Failed("integer division by zero".to_string()));
    }
    Ok(b.f_masked_fill(&b.f_eq(-1)?, 1)?)
}

/// The remainder has the sign of the divisor, or of the dividend if `fmod`.
pub(super) fn modulo(call: &Call<'_>) -> Outputs {
    let (a, b) = operands(call)?;
    let b = if is_float(&b)? { b } else { plain_divisor(&b)? };
    Ok(vec![match call.int("fmod", 0) {
        0 => a.f_remainder_tensor(&b)?,
        _ => a.f_fmod_tensor(&b)?,
    }])
}

pub(super) fn pow(call: &Call<'_>) -> Outputs {
    let (a, b) = together(call.input(0)?, call.input(1)?)?;
    if b.numel() == 1 && is_float(&a)? {
        // The scalar form has cheap special cases (squares, roots) that the tensor form lacks.
        let exponent = b.f_reshape([-1])?.f_double_value(&[0])?;
        let more = b.dim().saturating_sub(a.dim());
        let size: Vec<i64> = std::iter::repeat_n(1, more).chain(a.size()).collect();
        return Ok(vec![a.f_pow_tensor_scalar(exponent)?.f_reshape(&size)?]);
    }
    allow_broadcast(call, &a, &b)?;
    Ok(vec![a.f_pow(&b)?.f_to_kind(a.f_kind()?)?])
}

pub(super) fn sqrt(call: &Call<'_>) -> Outputs {
    unary(call, Tensor::f_sqrt)
}

pub(super) fn exp(call: &Call<'_>) -> Outputs {
    unary(call, Tensor::f_exp)
}

pub(super) fn log(call: &Call<'_>) -> Outputs {
    unary(call, Tensor::f_log)
}

pub(super) fn abs(call: &Call<'_>) -> Outputs {
    unary(call, Tensor::f_abs)
}

pub(super) fn neg(call: &Call<'_>) -> Outputs {
    unary(call, Tensor::f_neg)
}

pub(super) fn sign(call: &Call<'_>) -> Outputs {
    unary(call, Tensor::f_sign)
}

pub(super) fn sin(call: &Call<'_>) -> Outputs {
    unary(call, Tensor::f_sin)
}

pub(super) fn cos(call: &Call<'_>) -> Outputs {
    unary(call, Tensor::f_cos)
}

pub(super) fn floor(call: &Call<'_>) -> Outputs {
    unary(call, Tensor::f_floor)
}

pub(super) fn ceil(call: &Call<'_>) -> Outputs {
    unary(call, Tensor::f_ceil)
}

/// Halves go to the even neighbour.
pub(super) fn round(call: &Call<'_>) -> Outputs {
    unary(call, Tensor::f_round)
}

pub(super) fn reciprocal(call: &Call<'_>) -> Outputs {
    unary(call, Tensor::f_reciprocal)
}

pub(super) fn min(call: &Call<'_>) -> Outputs {
    fold(call, Tensor::f_minimum)
}

pub(super) fn max(call: &Call<'_>) -> Outputs {
    fold(call, Tensor::f_maximum)
}

pub(super) fn sum(call: &Call<'_>) -> Outputs {
    fold(call, Tensor::f_add)
}

pub(super) fn mean(call: &Call<'_>) -> Outputs {
    let total = fold(call, Tensor::f_add)?;
    let scale = 1.0 / call.inputs.len() as f64;
    total.iter().map(|tensor| Ok(tensor.f_mul_scalar(scale)?)).collect()
}

pub(super) fn equal(call: &Call<'_>) -> Outputs {
    binary(call, Tensor::f_eq_tensor)
}

pub(super) fn greater(call: &Call<'_>) -> Outputs {
    binary(call, Tensor::f_gt_tensor)
}

pub(super) fn greater_or_equal(call: &Call<'_>) -> Outputs {
    binary(call, Tensor::f_ge_tensor)
}

pub(super) fn less(call: &Call<'_>) -> Outputs {
    binary(call, Tensor::f_lt_tensor)
}

pub(super) fn less_or_equal(call: &Call<'_>) -> Outputs {
    binary(call, Tensor::f_le_tensor)
}

pub(super) fn and(call: &Call<'_>) -> Outputs {
    binary(call, Tensor::f_logical_and)
}

pub(super) fn or(call: &Call<'_>) -> Outputs {
    binary(call, Tensor::f_logical_or)
}

pub(super) fn xor(call: &Call<'_>) -> Outputs {
    binary(call, Tensor::f_logical_xor)
}

pub(super) fn not(call: &Call<'_>) -> Outputs {
    unary(call, Tensor::f_logical_not)
}

/// `Where`: the second input where the first holds, else the third.
pub(super) fn select(call: &Call<'_>) -> Outputs {
    let (a, b) = together(call.input(1)?, call.input(2)?)?;
    let condition = call.input(0)?.f_to_kind(Kind::Bool)?.f_to_device(a.device())?;
    allow_broadcast(call, &a, &b)?;
    allow_broadcast(call, &a, &condition)?;
    Ok(vec![a.f_where_self(&condition, &b)?])
}

pub(super) fn tan(call: &Call<'_>) -> Outputs {
    unary(call, Tensor::f_tan)
}

pub(super) fn asin(call: &Call<'_>) -> Outputs {
    unary(call, Tensor::f_asin)
}

pub(super) fn acos(call: &Call<'_>) -> Outputs {
    unary(call, Tensor::f_acos)
}

pub(super) fn atan(call: &Call<'_>) -> Outputs {
    unary(call, Tensor::f_atan)
}

pub(super) fn sinh(call: &Call<'_>) -> Outputs {
    unary(call, Tensor::f_sinh)
}

pub(super) fn cosh(call: &Call<'_>) -> Outputs {
    unary(call, Tensor::f_cosh)
}

pub(super) fn asinh(call: &Call<'_>) -> Outputs {
    unary(call, Tensor::f_asinh)
}

pub(super) fn acosh(call: &Call<'_>) -> Outputs {
    unary(call, Tensor::f_acosh)
}

pub(super) fn atanh(call: &Call<'_>) -> Outputs {
    unary(call, Tensor::f_atanh)
}

pub(super) fn is_nan(call: &Call<'_>) -> Outputs {
    unary(call, Tensor::f_isnan)
}

pub(super) fn is_inf(call: &Call<'_>) -> Outputs {
    let x = call.input(0)?;
    let mut found = x.f_isinf()?;
    if call.int("detect_positive", 1) == 0 {
        found = found.f_logical_and(&x.f_lt(0.0)?)?;
    }
    if call.int("detect_negative", 1) == 0 {
        found = found.f_logical_and(&x.f_gt(0.0)?)?;
    }
    Ok(vec![found])
}
