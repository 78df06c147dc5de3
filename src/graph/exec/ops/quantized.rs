//! Quantised operators: integers that stand for `(q - zero_point) * scale`.

use super::conv::{self, convolve};
use super::{Call, Fault, Outputs, axis};
use tch::{Kind, Tensor};

/// So many products of 8-bit values, each at most 255 * 255, add up exactly in f32, which holds every
/// integer up to 2^24.
const EXACT_IN_F32: i64 = 256;

/// A parameter that is one number, one along `axis` of `x`, or one per block along it, made to
/// broadcast against `x`.
fn spread(call: &Call<'_>, parameter: &Tensor, x: &Tensor) -> Result<Tensor, Fault> {
    let rank = x.dim();
    if parameter.dim() == 0 || (parameter.dim() == 1 && parameter.numel() == 1) {
        return Ok(parameter.f_reshape([] as [i64; 0])?);
    }
    let dim = axis(call.int("axis", 1), rank)?;
    let block = call.int("block_size", 0);
    if block > 0 {
        let wide = parameter.f_repeat_interleave_self_int(block, dim as i64, None)?;
        return Ok(wide.f_narrow(dim as i64, 0, x.size()[dim])?);
    }
    let mut shape = vec![1; rank];
    shape[dim] = -1;
    Ok(parameter.f_reshape(&shape)?)
}

/// Smallest and largest value of a quantised type. Where 32 bits are held, 16 unsigned ones are
/// meant: no operator quantises to 32 bits.
fn range(kind: Kind) -> Result<(f64, f64), Fault> {
    match kind {
        Kind::Uint8 => Ok((0.0, 255.0)),
        Kind::Int8 => Ok((-128.0, 127.0)),
        Kind::Int16 => Ok((-32768.0, 32767.0)),
        Kind::Int => Ok((0.0, 65535.0)),
        other => Err(Fault::Unsupported(format!("quantisation to {other:?}"))),
    }
}

/// `saturate(round(real / scale) + zero)`, halves to even.
fn quantized(scaled: &Tensor, zero: Option<&Tensor>, kind: Kind) -> Result<Tensor, Fault> {
    let (low, high) = range(kind)?;
    let rounded = scaled.f_round()?;
    let moved = match zero {
        Some(zero) => rounded.f_add(&zero.f_to_kind(Kind::Float)?)?,
        None => rounded,
    };
    Ok(moved.f_clamp(low, high)?.f_to_kind(kind)?)
}

pub(super) fn quantize(call: &Call<'_>) -> Outputs {
    let (x, scale) = (call.input(0)?.f_to_kind(Kind::Float)?, call.input(1)?);
    let zero = call.optional(2);
    let kind = match (zero, call.int("output_dtype", 0)) {
        (Some(zero), _) => zero.f_kind()?,
        (None, 0) => Kind::Uint8,
        (None, code) => super::cast::kind_of_code(code)?,
    };
    let scaled = x.f_div(&spread(call, scale, &x)?)?;
    let zero = zero.map(|zero| spread(call, zero, &x)).transpose()?;
    if super::cast::float8_max(kind).is_some() {
        let saturate = call.int("saturate", 1) != 0;
        return Ok(vec![super::cast::to_kind(&scaled, kind, saturate)?]);
    }
    Ok(vec![quantized(&scaled, zero.as_ref(), kind)?])
}

pub(super) fn dequantize(call: &Call<'_>) -> Outputs {
    let (x, scale) = (call.input(0)?, call.input(1)?);
    let mut real = x.f_to_kind(Kind::Float)?;
    if let Some(zero) = call.optional(2) {
        real = real.f_sub(&spread(call, &zero.f_to_kind(Kind::Float)?, x)?)?;
    }
    Ok(vec![real.f_mul(&spread(call, scale, x)?)?])
}

pub(super) fn dynamic(call: &Call<'_>) -> Outputs {
    Ok(dynamically(call.input(0)?)?.into())
}

/// 8-bit values with a scale found from them, and a zero point; zero is always representable.
fn dynamically(x: &Tensor) -> Result<[Tensor; 3], Fault> {
    let (low, high) = (x.f_min()?.f_clamp_max(0.0)?, x.f_max()?.f_clamp_min(0.0)?);
    let scale = high.f_sub(&low)?.f_div_scalar(255.0)?;
    let scale = scale.f_where_self(&scale.f_gt(0.0)?, &scale.f_ones_like()?)?;
    let zero = low.f_neg()?.f_div(&scale)?.f_clamp(0.0, 255.0)?.f_round()?;
    let y = quantized(&x.f_div(&scale)?, Some(&zero), Kind::Uint8)?;
    Ok([y, scale, zero.f_to_kind(Kind::Uint8)?])
}

/// `x - zero` in f32.
fn centred(x: &Tensor, zero: Option<&Tensor>) -> Result<Tensor, Fault> {
    let x = x.f_to_kind(Kind::Float)?;
    Ok(match zero {
        Some(zero) => x.f_sub(&zero.f_to_kind(Kind::Float)?)?,
        None => x,
    })
}

/// Exact sums over `depth` from those over blocks of it: f64 alone would be ten times slower.
fn in_blocks(
    depth: i64,
    block: i64,
    sums: impl Fn(i64, i64) -> Result<Tensor, Fault>,
) -> Result<Tensor, Fault> {
    let mut total = sums(0, depth.min(block))?.f_to_kind(Kind::Double)?;
    let mut start = block;
    while start < depth {
        let length = block.min(depth - start);
        total = total.f_add(&sums(start, length)?)?;
        start += length;
    }
    Ok(total)
}

/// A zero point of one number, or of one per output channel of a kernel.
fn per_kernel(zero: Option<&Tensor>, rank: usize) -> Result<Option<Tensor>, Fault> {
    let spread = |zero: &Tensor| {
        let mut shape = vec![1; rank.max(1)];
        shape[0] = -1;
        zero.f_reshape(&shape)
    };
    Ok(zero.map(spread).transpose()?)
}

/// The sums of a convolution of quantised values, as exact floating-point numbers.
fn convolution(
    call: &Call<'_>,
    (x, x_zero): (&Tensor, Option<&Tensor>),
    (w, w_zero): (&Tensor, Option<&Tensor>),
) -> Result<Tensor, Fault> {
    let w_zero = per_kernel(w_zero, w.dim())?;
    let (x, w) = (centred(x, x_zero)?, centred(w, w_zero.as_ref())?);
    let kernel: i64 = w.size().iter().skip(2).product();
    let channels = w.size().get(1).copied().unwrap_or(1);
    if kernel.saturating_mul(channels) <= EXACT_IN_F32 {
        return convolve(call, &x, &w, None);
    }
    if kernel > EXACT_IN_F32 || x.size().get(1) != Some(&channels) {
        // Groups, which need not be cut where blocks end, or a contradiction that libtorch finds.
        return convolve(call, &x.f_to_kind(Kind::Double)?, &w.f_to_kind(Kind::Double)?, None);
    }
    in_blocks(channels, EXACT_IN_F32 / kernel.max(1), |start, length| {
        convolve(call, &x.f_narrow(1, start, length)?, &w.f_narrow(1, start, length)?, None)
    })
}

pub(super) fn conv_integer(call: &Call<'_>) -> Outputs {
    let x = (call.input(0)?, call.optional(2));
    let sums = convolution(call, x, (call.input(1)?, call.optional(3)))?;
    Ok(vec![sums.f_to_kind(Kind::Int)?])
}

pub(super) fn conv(call: &Call<'_>) -> Outputs {
    let (x, w) = (call.input(0)?, call.input(3)?);
    let sums = convolution(call, (x, call.optional(2)), (w, call.optional(5)))?;
    let per_channel = |parameter: &Tensor| -> Result<Tensor, Fault> {
        let mut shape = vec![1; conv::spatial_size(x)?.len() + 2];
        shape[1] = -1;
        Ok(parameter.f_reshape(&shape)?)
    };
    let sums = match call.optional(8) {
        Some(bias) => sums.f_add(&per_channel(bias)?.f_to_kind(sums.f_kind()?)?)?,
        None => sums,
    };
    let scale = per_channel(&call.input(1)?.f_reshape([1])?.f_mul(call.input(4)?)?)?;
    let scaled = sums.f_mul(&scale.f_div(call.input(6)?)?)?.f_to_kind(Kind::Float)?;
    let zero = call.input(7)?;
    Ok(vec![quantized(&scaled, Some(zero), zero.f_kind()?)?])
}

/// A zero point or scale of the rows of a left operand.
fn per_row(parameter: &Tensor, a: &Tensor) -> Result<Tensor, Fault> {
    let rows = a.dim() >= 2 && parameter.dim() == 1 && parameter.numel() > 1;
    Ok(if rows { parameter.f_unsqueeze(-1)? } else { parameter.shallow_clone() })
}

fn product(
    (a, a_zero): (&Tensor, Option<&Tensor>),
    (b, b_zero): (&Tensor, Option<&Tensor>),
) -> Result<Tensor, Fault> {
    let depth = a.size().last().copied().unwrap_or(1);
    let a_zero = a_zero.map(|zero| per_row(zero, a)).transpose()?;
    let (a, b) = (centred(a, a_zero.as_ref())?, centred(b, b_zero)?);
    let rows = if b.dim() > 1 { b.dim() - 2 } else { 0 };
    if depth <= EXACT_IN_F32 || b.size().get(rows) != Some(&depth) {
        return Ok(a.f_matmul(&b)?);
    }
    in_blocks(depth, EXACT_IN_F32, |start, length| {
        let (a, b) = (a.f_narrow(-1, start, length)?, b.f_narrow(rows as i64, start, length)?);
        Ok(a.f_matmul(&b)?)
    })
}

pub(super) fn mat_mul_integer(call: &Call<'_>) -> Outputs {
    let a = (call.input(0)?, call.optional(2));
    let sums = product(a, (call.input(1)?, call.optional(3)))?;
    Ok(vec![sums.f_to_kind(Kind::Int)?])
}

pub(super) fn mat_mul(call: &Call<'_>) -> Outputs {
    let (a, b) = (call.input(0)?, call.input(3)?);
    let sums = product((a, call.optional(2)), (b, call.optional(5)))?;
    let scale = per_row(call.input(1)?, a)?.f_mul(call.input(4)?)?.f_div(call.input(6)?)?;
    let scaled = sums.f_mul(&scale)?.f_to_kind(Kind::Float)?;
    let zero = call.input(7)?;
    Ok(vec![quantized(&scaled, Some(zero), zero.f_kind()?)?])
}

/// `(q - zero) * scale` of the inputs at `first..first + 3`.
fn real(call: &Call<'_>, first: usize) -> Result<Tensor, Fault> {
    let x = centred(call.input(first)?, call.optional(first + 2))?;
    Ok(x.f_mul(call.input(first + 1)?)?)
}

fn requantized(call: &Call<'_>, real: &Tensor, scale_at: usize) -> Outputs {
    let zero = call.optional(scale_at + 1);
    let kind = match zero {
        Some(zero) => zero.f_kind()?,
        None => call.input(0)?.f_kind()?,
    };
    Ok(vec![quantized(&real.f_div(call.input(scale_at)?)?, zero, kind)?])
}

/// Contributed operator of ONNX Runtime.
pub(super) fn add(call: &Call<'_>) -> Outputs {
    requantized(call, &real(call, 0)?.f_add(&real(call, 3)?)?, 6)
}

/// Contributed operator of ONNX Runtime.
pub(super) fn mul(call: &Call<'_>) -> Outputs {
    requantized(call, &real(call, 0)?.f_mul(&real(call, 3)?)?, 6)
}

/// Contributed operator of ONNX Runtime.
pub(super) fn global_average(call: &Call<'_>) -> Outputs {
    if call.int("channels_last", 0) != 0 {
        return Err(Fault::Unsupported("channels_last 1".to_string()));
    }
    let x = real(call, 0)?;
    let dims: Vec<i64> = (2..x.dim() as i64).collect();
    requantized(call, &x.f_mean_dim(Some(&dims[..]), true, None::<Kind>)?, 3)
}

/// Contributed operator of ONNX Runtime: a real left operand, quantised on the way, and a quantised
/// matrix.
pub(super) fn dynamic_mat_mul(call: &Call<'_>) -> Outputs {
    let [a, a_scale, a_zero] = dynamically(call.input(0)?)?;
    let sums = product((&a, Some(&a_zero)), (call.input(1)?, call.optional(3)))?;
    biased(&sums.f_mul(&a_scale.f_mul(call.input(2)?)?)?, call.optional(4))
}

fn biased(y: &Tensor, bias: Option<&Tensor>) -> Outputs {
    let y = y.f_to_kind(Kind::Float)?;
    Ok(vec![match bias {
        Some(bias) => y.f_add(bias)?,
        None => y,
    }])
}

/// Contributed operator of ONNX Runtime: two quantised matrices, a real product.
pub(super) fn mat_mul_to_float(call: &Call<'_>) -> Outputs {
    let (a, b) = (call.input(0)?, call.input(1)?);
    let sums = product((a, call.optional(4)), (b, call.optional(5)))?;
    let scale = per_row(call.input(2)?, a)?.f_mul(call.input(3)?)?;
    biased(&sums.f_mul(&scale)?, call.optional(6))
}
