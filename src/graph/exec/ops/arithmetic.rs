//! Elementwise arithmetic, comparison and logic, with NumPy broadcasting.

use super::{Call, Fault, Outputs, axis, is_float, together};
use tch::{Kind, TchError, Tensor};

type Binary = fn(&Tensor, &Tensor) -> Result<Tensor, TchError>;
type Unary = fn(&Tensor) -> Result<Tensor, TchError>;

fn binary(call: &Call<'_>, f: Binary) -> Outputs {
    let (a, b) = together(call.input(0)?, call.input(1)?)?;
    let b = legacy_broadcast(call, &a, b)?;
    Ok(vec![f(&a, &b)?])
}

/// Before opset 7 the second operand was aligned at an attribute `axis` instead of at the end.
fn legacy_broadcast(call: &Call<'_>, a: &Tensor, b: Tensor) -> Result<Tensor, Fault> {
    if call.opset >= 7 || call.int("broadcast", 0) == 0 || call.ints("axis").is_some() {
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
    if is_float(call.input(0)?)? {
        return binary(call, Tensor::f_div);
    }
    let divisor = call.input(1)?;
    if !is_float(divisor)? && divisor.f_eq(0)?.f_any()?.f_int64_value(&[])? != 0 {
        return Err(Fault::Failed("integer division by zero".to_string()));
    }
    binary(call, |a, b| a.f_div_tensor_mode(b, "trunc"))
}

pub(super) fn pow(call: &Call<'_>) -> Outputs {
    let (a, b) = together(call.input(0)?, call.input(1)?)?;
    if b.numel() == 1 && is_float(&a)? {
        // The scalar form has cheap special cases (squares, roots) that the tensor form lacks.
        let exponent = b.f_reshape([-1])?.f_double_value(&[0])?;
        let size = if b.dim() > a.dim() { b.size() } else { a.size() };
        return Ok(vec![a.f_pow_tensor_scalar(exponent)?.f_reshape(&size)?]);
    }
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
    Ok(vec![a.f_where_self(&condition, &b)?])
}
