//! Activations.

use super::{Call, Fault, Outputs, axis, is_float};
use crate::graph::exec::tensor;
use tch::{Kind, Scalar, Tensor};

pub(super) fn relu(call: &Call<'_>) -> Outputs {
    Ok(vec![call.input(0)?.f_relu()?])
}

pub(super) fn leaky_relu(call: &Call<'_>) -> Outputs {
    let x = call.input(0)?;
    let slope = call.float("alpha", 0.01);
    // The typed binding has no slope; x = relu(x) - relu(-x).
    let negative = x.f_neg()?.f_relu()?.f_mul_scalar(slope)?;
    Ok(vec![x.f_relu()?.f_sub(&negative)?])
}

pub(super) fn prelu(call: &Call<'_>) -> Outputs {
    let (x, slope) = (call.input(0)?, call.input(1)?);
    // Before opset 7 the slopes were aligned with the channels.
    let old = call.opset < 7 && slope.dim() == 1 && x.dim() > 2;
    let line = [&[-1], &vec![1; x.dim().saturating_sub(2)][..]].concat();
    let slope = if old { slope.f_reshape(&line)? } else { slope.shallow_clone() };
    let negative = x.f_neg()?.f_relu()?.f_mul(&slope)?;
    Ok(vec![x.f_relu()?.f_sub(&negative)?])
}

pub(super) fn clip(call: &Call<'_>) -> Outputs {
    let x = call.input(0)?;
    if call.opset < 11 {
        let bound = |name| Some(call.float(name, f32::NAN)).filter(|bound| !bound.is_nan());
        return clamped(x, bound("min"), bound("max"));
    }
    if is_float(x)? {
        return clamped(x, scalar(call.optional(1))?, scalar(call.optional(2))?);
    }
    let bound = |index| Ok::<_, Fault>(call.numbers(index)?.and_then(|it| it.first().copied()));
    clamped(x, bound(1)?, bound(2)?)
}

fn clamped<S: Into<Scalar>>(x: &Tensor, min: Option<S>, max: Option<S>) -> Outputs {
    let y = match (min, max) {
        (Some(min), Some(max)) => x.f_clamp(min, max)?,
        (Some(min), None) => x.f_clamp_min(min)?,
        (None, Some(max)) => x.f_clamp_max(max)?,
        (None, None) => x.shallow_clone(),
    };
    Ok(vec![y.f_to_kind(x.f_kind()?)?])
}

fn scalar(value: Option<&Tensor>) -> Result<Option<f64>, Fault> {
    let Some(value) = value else { return Ok(None) };
    match tensor::to_f32(value)?.as_slice() {
        [] => Ok(None),
        [number] => Ok(Some(f64::from(*number))),
        more => Err(Fault::Failed(format!("expected one bound, found {}", more.len()))),
    }
}

pub(super) fn hard_sigmoid(call: &Call<'_>) -> Outputs {
    let (alpha, beta) = (call.float("alpha", 0.2), call.float("beta", 0.5));
    let x = call.input(0)?.f_mul_scalar(alpha)?.f_add_scalar(beta)?;
    Ok(vec![x.f_clamp(0.0, 1.0)?])
}

pub(super) fn hard_swish(call: &Call<'_>) -> Outputs {
    Ok(vec![call.input(0)?.f_hardswish()?])
}

pub(super) fn sigmoid(call: &Call<'_>) -> Outputs {
    Ok(vec![call.input(0)?.f_sigmoid()?])
}

pub(super) fn tanh(call: &Call<'_>) -> Outputs {
    Ok(vec![call.input(0)?.f_tanh()?])
}

pub(super) fn softmax(call: &Call<'_>) -> Outputs {
    over_axis(call, |x, dim| Ok(x.f_softmax(dim, None::<Kind>)?))
}

pub(super) fn log_softmax(call: &Call<'_>) -> Outputs {
    over_axis(call, |x, dim| Ok(x.f_log_softmax(dim, None::<Kind>)?))
}

/// Before opset 13 all dimensions from the axis on count as one.
fn over_axis(call: &Call<'_>, f: fn(&Tensor, i64) -> Result<Tensor, Fault>) -> Outputs {
    let x = call.input(0)?;
    let size = x.size();
    let old = call.opset < 13;
    let dim = axis(call.int("axis", if old { 1 } else { -1 }), size.len())?;
    if !old || dim + 1 == size.len() {
        return Ok(vec![f(x, dim as i64)?]);
    }
    let outer: i64 = size[..dim].iter().product();
    let inner: i64 = size[dim..].iter().product();
    Ok(vec![f(&x.f_reshape([outer, inner])?, 1)?.f_reshape(&size)?])
}

pub(super) fn gelu(call: &Call<'_>) -> Outputs {
    Ok(vec![call.input(0)?.f_gelu(call.text("approximate", "none"))?])
}

pub(super) fn erf(call: &Call<'_>) -> Outputs {
    Ok(vec![call.input(0)?.f_erf()?])
}

pub(super) fn elu(call: &Call<'_>) -> Outputs {
    let (x, alpha) = (call.input(0)?, call.float("alpha", 1.0));
    Ok(vec![exponential_tail(x, alpha)?])
}

pub(super) fn selu(call: &Call<'_>) -> Outputs {
    let alpha = call.float("alpha", 1.673_263_2);
    let gamma = call.float("gamma", 1.050_701);
    Ok(vec![exponential_tail(call.input(0)?, alpha)?.f_mul_scalar(gamma)?])
}

/// x for x > 0, else alpha (exp(x) - 1); the exponent is clamped so that no branch overflows in the
/// backward pass.
fn exponential_tail(x: &Tensor, alpha: f64) -> Result<Tensor, Fault> {
    let tail = x.f_clamp_max(0.0)?.f_expm1()?.f_mul_scalar(alpha)?;
    Ok(x.f_relu()?.f_add(&tail)?)
}

pub(super) fn softplus(call: &Call<'_>) -> Outputs {
    Ok(vec![call.input(0)?.f_softplus()?])
}

pub(super) fn mish(call: &Call<'_>) -> Outputs {
    Ok(vec![call.input(0)?.f_mish()?])
}

pub(super) fn celu(call: &Call<'_>) -> Outputs {
    let (x, alpha) = (call.input(0)?, call.float("alpha", 1.0));
    let tail = x.f_clamp_max(0.0)?.f_div_scalar(alpha)?.f_expm1()?.f_mul_scalar(alpha)?;
    Ok(vec![x.f_relu()?.f_add(&tail)?])
}

pub(super) fn softsign(call: &Call<'_>) -> Outputs {
    let x = call.input(0)?;
    Ok(vec![x.f_div(&x.f_abs()?.f_add_scalar(1.0)?)?])
}

pub(super) fn swish(call: &Call<'_>) -> Outputs {
    let (x, alpha) = (call.input(0)?, call.float("alpha", 1.0));
    Ok(vec![x.f_mul(&x.f_mul_scalar(alpha)?.f_sigmoid()?)?])
}

pub(super) fn thresholded_relu(call: &Call<'_>) -> Outputs {
    let (x, alpha) = (call.input(0)?, call.float("alpha", 1.0));
    Ok(vec![x.f_masked_fill(&x.f_le(alpha)?, 0.0)?])
}

/// Values within `lambd` of zero become zero, others move towards it by `bias`.
pub(super) fn shrink(call: &Call<'_>) -> Outputs {
    let x = call.input(0)?;
    let (bias, limit) = (call.float("bias", 0.0), call.float("lambd", 0.5));
    let far = x.f_to_kind(if is_float(x)? { x.f_kind()? } else { Kind::Float })?;
    let moved = far.f_sub(&far.f_sign()?.f_mul_scalar(bias)?)?;
    let near = far.f_abs()?.f_le(limit)?;
    Ok(vec![moved.f_masked_fill(&near, 0.0)?.f_to_kind(x.f_kind()?)?])
}

/// One at the first largest value along the axis, zero elsewhere.
pub(super) fn hardmax(call: &Call<'_>) -> Outputs {
    over_axis(call, |x, dim| {
        let top = x.f_argmax(dim, true)?;
        Ok(x.f_zeros_like()?.f_scatter_value(dim, &top, 1)?)
    })
}
