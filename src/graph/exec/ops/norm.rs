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
    // The variance of a single value a channel is undefined and would poison the running
    // statistics.
    let enough = x.numel() as i64 / channels > 1;
    let learn = matches!(call.mode, Mode::Training(_)) && enough;
    Ok(vec![x.f_batch_norm(gamma, beta, mean, variance, learn, MOMENTUM, epsilon, true)?])
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
    Ok(vec![match beta {
        Some(beta) => scaled.f_add(beta)?,
        None => scaled,
    }])
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
    if x.dim() != 4 || size < 1 {
        return Err(Fault::Unsupported(format!("size {size} on {:?}", x.size())));
    }
    let (alpha, beta) = (call.float("alpha", 1e-4), call.float("beta", 0.75));
    let bias = call.float("bias", 1.0);
    let squares = x.f_square()?.f_unsqueeze(1)?;
    let before = (size - 1) / 2;
    let pads = [0, 0, 0, 0, before, size - 1 - before];
    let padded = squares.f_pad(pads, "constant", 0.0)?;
    let mean = padded.f_avg_pool3d([size, 1, 1], [1, 1, 1], [0, 0, 0], false, true, None::<i64>)?;
    let scale = mean.f_squeeze_dim(1)?.f_mul_scalar(alpha)?.f_add_scalar(bias)?;
    Ok(vec![x.f_div(&scale.f_pow_tensor_scalar(beta)?)?])
}

/// Identity in inference. In training the mask comes from our own generator, so that a seed fixes
/// the run.
pub(super) fn dropout(call: &Call<'_>) -> Outputs {
    let x = call.input(0)?;
    if call.node.outputs.len() > 1 && !call.node.outputs[1].is_empty() {
        let mask = x.f_ones_like()?.f_to_kind(Kind::Bool)?;
        return Ok(vec![x.shallow_clone(), mask]);
    }
    let Mode::Training(generator) = call.mode else {
        return Ok(vec![x.shallow_clone()]);
    };
    let ratio = match call.optional(1) {
        Some(ratio) => tensor::to_f32(ratio)?.first().copied().unwrap_or(0.5),
        None => call.float("ratio", 0.5) as f32,
    };
    if !(0.0..1.0).contains(&ratio) {
        return Err(Fault::Failed(format!("expected a ratio in 0..1, found {ratio}")));
    }
    let keep = 1.0 / (1.0 - ratio);
    let mut generator = generator.borrow_mut();
    let draw = |_| if generator.random::<f32>() < ratio { 0.0 } else { keep };
    let mask: Vec<f32> = (0..x.numel()).map(draw).collect();
    Ok(vec![x.f_mul(&tensor::from_f32(&mask, &x.size(), x.device())?)?])
}
