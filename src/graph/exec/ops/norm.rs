//! Normalisation and dropout.

use super::{Call, Fault, Mode, Outputs, axis};
use crate::graph::exec::tensor;
use rand::Rng;
use tch::{Kind, Tensor};

/// libtorch weights the new statistics by this share; ONNX's `momentum` weights the old ones.
const MOMENTUM: f64 = 0.1;

/// In training it normalises by the batch and updates the running statistics in place.
pub(super) fn batch(call: &Call<'_>) -> Outputs {
    let x = call.input(0)?;
    let (gamma, beta) = (Some(call.input(1)?), Some(call.input(2)?));
    let (mean, variance) = (Some(call.input(3)?), Some(call.input(4)?));
    let epsilon = call.float("epsilon", 1e-5);
    let channels = x.size().get(1).copied().unwrap_or(1).max(1);
    if call.int("training_mode", 0) != 0 && matches!(call.mode, Mode::Inference) {
        return by_batch(call, x);
    }
    // The variance of a single value a channel is undefined and would poison the running
    // statistics.
    let enough = x.numel() as i64 / channels > 1;
    let learn = matches!(call.mode, Mode::Training(_)) && enough;
    Ok(vec![x.f_batch_norm(gamma, beta, mean, variance, learn, MOMENTUM, epsilon, true)?])
}

/// What a file that is still in training mode asks for: the batch's own statistics, and the running
/// ones moved towards them.
fn by_batch(call: &Call<'_>, x: &Tensor) -> Outputs {
    let dims: Vec<i64> = (0..x.dim() as i64).filter(|&dim| dim != 1).collect();
    let mean = x.f_mean_dim(Some(&dims[..]), false, None::<Kind>)?;
    let variance = x.f_var_dim(Some(&dims[..]), false, false)?;
    let (gamma, beta) = (Some(call.input(1)?), Some(call.input(2)?));
    let epsilon = call.float("epsilon", 1e-5);
    let none = None::<&Tensor>;
    let y = x.f_batch_norm(gamma, beta, none, none, true, MOMENTUM, epsilon, true)?;
    let momentum = call.float("momentum", 0.9);
    let moved = |old: &Tensor, new: &Tensor| -> Result<Tensor, Fault> {
        Ok(old.f_mul_scalar(momentum)?.f_add(&new.f_mul_scalar(1.0 - momentum)?)?)
    };
    Ok(vec![y, moved(call.input(3)?, &mean)?, moved(call.input(4)?, &variance)?])
}

pub(super) fn instance(call: &Call<'_>) -> Outputs {
    let x = call.input(0)?;
    let (gamma, beta) = (Some(call.input(1)?), Some(call.input(2)?));
    let epsilon = call.float("epsilon", 1e-5);
    let none = None::<&Tensor>;
    Ok(vec![x.f_instance_norm(gamma, beta, none, none, true, MOMENTUM, epsilon, true)?])
}

pub(super) fn layer(call: &Call<'_>) -> Outputs {
    let x = call.input(0)?;
    let size = x.size();
    let first = axis(call.int("axis", -1), size.len())?;
    let (gamma, beta) = (call.input(1)?, call.optional(2));
    let epsilon = call.float("epsilon", 1e-5);
    let plain = x.f_layer_norm(&size[first..], None::<&Tensor>, None, epsilon, true)?;
    let scaled = plain.f_mul(gamma)?;
    let y = match beta {
        Some(beta) => scaled.f_add(beta)?,
        None => scaled,
    };
    if !call.wants(1) && !call.wants(2) {
        return Ok(vec![y]);
    }
    let dims: Vec<i64> = (first as i64..size.len() as i64).collect();
    let mean = x.f_mean_dim(Some(&dims[..]), true, None::<Kind>)?;
    let variance = x.f_var_dim(Some(&dims[..]), false, true)?;
    Ok(vec![y, mean, variance.f_add_scalar(epsilon)?.f_rsqrt()?])
}

/// `x / sqrt(mean(x^2) + epsilon) * scale`.
pub(super) fn root_mean_square(call: &Call<'_>) -> Outputs {
    let (x, scale) = (call.input(0)?, call.input(1)?);
    let first = axis(call.int("axis", -1), x.dim())? as i64;
    let dims: Vec<i64> = (first..x.dim() as i64).collect();
    let mean = x.f_square()?.f_mean_dim(Some(&dims[..]), true, None::<Kind>)?;
    let inverse = mean.f_add_scalar(call.float("epsilon", 1e-5))?.f_rsqrt()?;
    Ok(vec![x.f_mul(&inverse)?.f_mul(scale)?])
}

/// Divides by the norm along an axis; zeros stay zeros.
pub(super) fn by_norm(call: &Call<'_>) -> Outputs {
    let x = call.input(0)?;
    let dim = axis(call.int("axis", -1), x.dim())? as i64;
    let norm = match call.int("p", 2) {
        1 => x.f_abs()?.f_sum_dim_intlist(Some(&[dim][..]), true, None::<Kind>)?,
        2 => x.f_square()?.f_sum_dim_intlist(Some(&[dim][..]), true, None::<Kind>)?.f_sqrt()?,
        other => return Err(Fault::Unsupported(format!("p {other}"))),
    };
    Ok(vec![x.f_div(&norm.f_masked_fill(&norm.f_eq(0.0)?, 1.0)?)?])
}

/// Zero mean and unit variance over the axes.
pub(super) fn mean_variance(call: &Call<'_>) -> Outputs {
    let x = call.input(0)?;
    let wanted = call.ints("axes").unwrap_or(&[0, 2, 3]);
    let dims = wanted.iter().map(|&at| Ok(axis(at, x.dim())? as i64));
    let dims = dims.collect::<Result<Vec<i64>, Fault>>()?;
    let centred = x.f_sub(&x.f_mean_dim(Some(&dims[..]), true, None::<Kind>)?)?;
    let variance = centred.f_square()?.f_mean_dim(Some(&dims[..]), true, None::<Kind>)?;
    Ok(vec![centred.f_div(&variance.f_sqrt()?.f_add_scalar(1e-9)?)?])
}

/// Scale and bias are per group before opset 21, per channel from then on.
pub(super) fn group(call: &Call<'_>) -> Outputs {
    let x = call.input(0)?;
    let groups = call.int("num_groups", 1);
    let channels = x.size().get(1).copied().unwrap_or(0);
    if groups < 1 || channels % groups != 0 {
        return Err(Fault::Failed(format!(
            "expected groups that divide {channels}, found {groups}"
        )));
    }
    let per_channel = |weight: &Tensor| -> Result<Tensor, Fault> {
        if weight.numel() as i64 == channels {
            return Ok(weight.shallow_clone());
        }
        let spread = weight.f_reshape([-1, 1])?.f_expand([-1, channels / groups], false)?;
        Ok(spread.f_reshape([-1])?)
    };
    let gamma = per_channel(call.input(1)?)?;
    let beta = per_channel(call.input(2)?)?;
    let epsilon = call.float("epsilon", 1e-5);
    Ok(vec![x.f_group_norm(groups, Some(&gamma), Some(&beta), epsilon, true)?])
}

/// Local response normalisation across channels.
pub(super) fn local_response(call: &Call<'_>) -> Outputs {
    let x = call.input(0)?;
    let size = call.int("size", 0);
    let shape = x.size();
    if shape.len() < 3 || !(1..=1 << 16).contains(&size) {
        return Err(Fault::Unsupported(format!("size {size} on {shape:?}")));
    }
    let (alpha, beta) = (call.float("alpha", 1e-4), call.float("beta", 0.75));
    let bias = call.float("bias", 1.0);
    let squares = x.f_square()?.f_reshape([shape[0], 1, shape[1], -1])?;
    let before = (size - 1) / 2;
    let padded = squares.f_pad([0, 0, before, size - 1 - before], "constant", 0.0)?;
    let mean = padded.f_avg_pool2d([size, 1], [1, 1], [0, 0], false, true, None::<i64>)?;
    let scale = mean.f_reshape(&shape)?.f_mul_scalar(alpha)?.f_add_scalar(bias)?;
    Ok(vec![x.f_div(&scale.f_pow_tensor_scalar(beta)?)?])
}

/// Identity in inference. In training the mask comes from our own generator, so that a seed fixes
/// the run.
pub(super) fn dropout(call: &Call<'_>) -> Outputs {
    let x = call.input(0)?;
    let ratio = match call.optional(1) {
        Some(ratio) => tensor::to_f32(ratio)?.first().copied().unwrap_or(0.5),
        None => call.float("ratio", 0.5) as f32,
    };
    let Mode::Training(generator) = call.mode else {
        let drops = call.numbers(2)?.is_some_and(|mode| mode.first().is_some_and(|&on| on != 0));
        if drops && ratio != 0.0 {
            return Err(Fault::Unsupported("training_mode: its result is random".to_string()));
        }
        return Ok(vec![x.shallow_clone(), x.f_ones_like()?.f_to_kind(Kind::Bool)?]);
    };
    if !(0.0..1.0).contains(&ratio) {
        return Err(Fault::Failed(format!("expected a ratio in 0..1, found {ratio}")));
    }
    let keep = 1.0 / (1.0 - ratio);
    let mut generator = generator.borrow_mut();
    let draw = |_| if generator.random::<f32>() < ratio { 0.0 } else { keep };
    let mask: Vec<f32> = (0..x.numel()).map(draw).collect();
    let mask = tensor::from_f32(&mask, &x.size(), x.device())?;
    Ok(vec![x.f_mul(&mask)?, mask.f_to_kind(Kind::Bool)?])
}
