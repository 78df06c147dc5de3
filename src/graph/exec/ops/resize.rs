//! Resizing of images: nearest and linear.

use super::{Call, Fault, Outputs};
use crate::graph::exec::tensor;
use tch::{Kind, Tensor};

pub(super) fn resize(call: &Call<'_>) -> Outputs {
    let x = call.input(0)?;
    let (scales_at, sizes_at) = if call.opset < 11 { (1, usize::MAX) } else { (2, 3) };
    let scales = call.optional(scales_at).map(tensor::to_f32).transpose()?.unwrap_or_default();
    let sizes = call.numbers(sizes_at)?.unwrap_or_default();
    let policy = call.text("keep_aspect_ratio_policy", "stretch");
    if call.ints("axes").is_some() || policy != "stretch" {
        return Err(Fault::Unsupported("axes or keep_aspect_ratio_policy".to_string()));
    }
    // Before opset 11 pixels were aligned by their corners' own grid.
    let default = if call.opset < 11 { "asymmetric" } else { "half_pixel" };
    let coordinates = call.text("coordinate_transformation_mode", default);
    resized(call, x, Target { scales, sizes, coordinates })
}

pub(super) fn upsample(call: &Call<'_>) -> Outputs {
    let x = call.input(0)?;
    let scales = match (call.optional(1), call.node.attributes.get("scales")) {
        (Some(scales), _) => tensor::to_f32(scales)?,
        (None, Some(crate::graph::Attribute::Floats(scales))) => scales.clone(),
        _ => return Err(Fault::Failed("expected scales".to_string())),
    };
    resized(call, x, Target { scales, sizes: Vec::new(), coordinates: "asymmetric" })
}

struct Target<'a> {
    scales: Vec<f32>,
    sizes: Vec<i64>,
    coordinates: &'a str,
}

fn resized(call: &Call<'_>, x: &Tensor, target: Target<'_>) -> Outputs {
    let size = x.size();
    let rank = size.len();
    let by_size = target.sizes.len() == rank;
    if !by_size && target.scales.len() != rank {
        return Err(Fault::Failed(format!("expected {rank} scales or sizes for {size:?}")));
    }
    let mut y = x.shallow_clone();
    for (dim, &input) in size.iter().enumerate() {
        let (output, scale) = if by_size {
            (target.sizes[dim], target.sizes[dim] as f64 / input.max(1) as f64)
        } else {
            let scale = f64::from(target.scales[dim]);
            ((input as f64 * scale).floor() as i64, scale)
        };
        if !(1..=1 << 16).contains(&output) || input < 1 {
            return Err(Fault::Failed(format!("expected a side in 1..=65536, found {output}")));
        }
        if output == input && scale == 1.0 {
            continue;
        }
        let line = Line { input, output, scale };
        y = along(call, &y, dim as i64, &line, target.coordinates)?;
    }
    Ok(vec![y])
}

struct Line {
    input: i64,
    output: i64,
    scale: f64,
}

/// Resizes one dimension by gathering: the same formula for every mode, and differentiable.
fn along(
    call: &Call<'_>,
    x: &Tensor,
    dim: i64,
    line: &Line,
    coordinates: &str,
) -> Result<Tensor, Fault> {
    let position = positions(line, coordinates)?;
    let last = line.input - 1;
    let pick = |indices: &[i64]| -> Result<Tensor, Fault> {
        let indices = Tensor::f_from_slice(indices)?.f_to_device(x.device())?;
        Ok(x.f_index_select(dim, &indices)?)
    };
    match call.text("mode", "nearest") {
        "nearest" => {
            let rounding = if call.opset < 11 { "floor" } else { "round_prefer_floor" };
            let rounding = call.text("nearest_mode", rounding);
            let mut indices = Vec::new();
            for value in position {
                indices.push((nearest(value, rounding)? as i64).clamp(0, last));
            }
            pick(&indices)
        }
        "linear" | "bilinear" => {
            let value: Vec<f64> = position.iter().map(|v| v.clamp(0.0, last as f64)).collect();
            let low: Vec<i64> = value.iter().map(|v| v.floor() as i64).collect();
            let high: Vec<i64> = low.iter().map(|&v| (v + 1).min(last)).collect();
            let share: Vec<f32> = value.iter().map(|v| (v - v.floor()) as f32).collect();
            let mut shape = vec![1_i64; x.dim()];
            shape[dim as usize] = line.output;
            let share = tensor::from_f32(&share, &shape, x.device())?.f_to_kind(Kind::Float)?;
            let (low, high) = (pick(&low)?, pick(&high)?);
            Ok(low.f_add(&high.f_sub(&low)?.f_mul(&share)?)?)
        }
        other => Err(Fault::Unsupported(format!("mode {other:?}"))),
    }
}

/// Where each output cell lies in the input.
fn positions(line: &Line, coordinates: &str) -> Result<Vec<f64>, Fault> {
    let (input, output, scale) = (line.input as f64, line.output as f64, line.scale);
    (0..line.output)
        .map(|cell| {
            let cell = cell as f64;
            match coordinates {
                "half_pixel" => Ok((cell + 0.5) / scale - 0.5),
                "pytorch_half_pixel" if output <= 1.0 => Ok(0.0),
                "pytorch_half_pixel" => Ok((cell + 0.5) / scale - 0.5),
                "align_corners" if output <= 1.0 => Ok(0.0),
                "align_corners" => Ok(cell * (input - 1.0) / (output - 1.0)),
                "asymmetric" => Ok(cell / scale),
                other => Err(Fault::Unsupported(format!("coordinates {other:?}"))),
            }
        })
        .collect()
}

fn nearest(value: f64, rounding: &str) -> Result<f64, Fault> {
    match rounding {
        "floor" => Ok(value.floor()),
        "ceil" => Ok(value.ceil()),
        "round_prefer_floor" => Ok((value - 0.5).ceil()),
        "round_prefer_ceil" => Ok((value + 0.5).floor()),
        other => Err(Fault::Unsupported(format!("nearest_mode {other:?}"))),
    }
}
