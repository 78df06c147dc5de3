//! Resizing: every mode is a weighted sum of input cells along one dimension after the other.

use super::{Call, Fault, Outputs, axis};
use crate::graph::exec::tensor;
use tch::{Kind, Tensor};

/// Largest side of a result.
const SIDE_MAX: i64 = 1 << 16;

pub(super) fn resize(call: &Call<'_>) -> Outputs {
    let x = call.input(0)?;
    let old = call.opset < 11;
    let (scales_at, sizes_at) = if old { (1, usize::MAX) } else { (2, 3) };
    let scales = call.optional(scales_at).map(tensor::to_f32).transpose()?.unwrap_or_default();
    let sizes = call.numbers(sizes_at)?.unwrap_or_default();
    let roi = call.optional(1).filter(|_| !old).map(tensor::to_f32).transpose()?;
    // Before opset 11 pixels were aligned by their corners' own grid.
    let default = if old { "asymmetric" } else { "half_pixel" };
    let rule = Rule {
        mode: call.text("mode", "nearest"),
        coordinates: call.text("coordinate_transformation_mode", default),
        rounding: call.text("nearest_mode", if old { "floor" } else { "round_prefer_floor" }),
        cubic: call.float("cubic_coeff_a", -0.75),
        exclude_outside: call.int("exclude_outside", 0) != 0,
        antialias: call.int("antialias", 0) != 0,
        extrapolation: call.float("extrapolation_value", 0.0),
    };
    resized(call, x, &rule, Target { scales, sizes, roi: roi.unwrap_or_default() })
}

pub(super) fn upsample(call: &Call<'_>) -> Outputs {
    let x = call.input(0)?;
    let scales = match (call.optional(1), call.node.attributes.get("scales")) {
        (Some(scales), _) => tensor::to_f32(scales)?,
        (None, Some(crate::graph::Attribute::Floats(scales))) => scales.clone(),
        _ => return Err(Fault::Failed("expected scales".to_string())),
    };
    let rule = Rule {
        mode: call.text("mode", "nearest"),
        coordinates: "asymmetric",
        rounding: "floor",
        cubic: -0.75,
        exclude_outside: false,
        antialias: false,
        extrapolation: 0.0,
    };
    resized(call, x, &rule, Target { scales, sizes: Vec::new(), roi: Vec::new() })
}

/// How a cell of the result is made.
struct Rule<'a> {
    mode: &'a str,
    coordinates: &'a str,
    rounding: &'a str,
    /// The `a` of the cubic kernel.
    cubic: f64,
    /// Whether cells outside have no weight, rather than that of the nearest edge.
    exclude_outside: bool,
    /// Whether the kernel widens when the result is smaller.
    antialias: bool,
    /// What stands outside of a region that is cut out and resized.
    extrapolation: f64,
}

/// The wanted size: one of both lists is empty.
struct Target {
    scales: Vec<f32>,
    sizes: Vec<i64>,
    roi: Vec<f32>,
}

/// One dimension.
struct Line {
    input: i64,
    output: i64,
    scale: f64,
    /// Start and end of the region, as shares of the input.
    region: [f64; 2],
}

fn resized(call: &Call<'_>, x: &Tensor, rule: &Rule<'_>, target: Target) -> Outputs {
    let mut y = x.f_to_kind(Kind::Float)?;
    for (dim, line) in lines(call, x, &target)? {
        if line.output == line.input && line.scale == 1.0 && line.region == [0.0, 1.0] {
            continue;
        }
        let mut size = y.size();
        size[dim] = line.output;
        call.allow(&size, Kind::Float)?;
        y = along(&y, dim as i64, &line, rule)?;
    }
    Ok(vec![y.f_to_kind(x.f_kind()?)?])
}

/// The dimensions that are resized, with their numbers.
fn lines(call: &Call<'_>, x: &Tensor, target: &Target) -> Result<Vec<(usize, Line)>, Fault> {
    let size = x.size();
    let axes: Vec<usize> = match call.ints("axes") {
        Some(axes) => axes.iter().map(|&at| axis(at, size.len())).collect::<Result<_, _>>()?,
        None => (0..size.len()).collect(),
    };
    let by_size = target.sizes.len() == axes.len() && !axes.is_empty();
    if !by_size && target.scales.len() != axes.len() {
        let count = axes.len();
        return Err(Fault::Failed(format!("expected {count} scales or sizes for {size:?}")));
    }
    let ratios =
        axes.iter().zip(&target.sizes).map(|(&at, &to)| to as f64 / size[at].max(1) as f64);
    let common = match call.text("keep_aspect_ratio_policy", "stretch") {
        "stretch" => None,
        "not_larger" if by_size => ratios.reduce(f64::min),
        "not_smaller" if by_size => ratios.reduce(f64::max),
        other => return Err(Fault::Unsupported(format!("keep_aspect_ratio_policy {other:?}"))),
    };
    let mut lines = Vec::new();
    for (index, &at) in axes.iter().enumerate() {
        let input = size[at];
        let (output, scale) = match (by_size, common) {
            (true, Some(scale)) => ((input as f64 * scale + 0.5).floor() as i64, scale),
            (true, None) => (target.sizes[index], target.sizes[index] as f64 / input.max(1) as f64),
            (false, _) => {
                let scale = f64::from(target.scales[index]);
                ((input as f64 * scale).floor() as i64, scale)
            }
        };
        if !(1..=SIDE_MAX).contains(&output) || input < 1 {
            return Err(Fault::Failed(format!(
                "expected a side in 1..={SIDE_MAX}, found {output}"
            )));
        }
        let bound = |index: usize, open: f32| f64::from(*target.roi.get(index).unwrap_or(&open));
        let cuts = call.text("coordinate_transformation_mode", "") == "tf_crop_and_resize";
        let region =
            if cuts { [bound(index, 0.0), bound(index + axes.len(), 1.0)] } else { [0.0, 1.0] };
        lines.push((at, Line { input, output, scale, region }));
    }
    Ok(lines)
}

/// Resizes one dimension: the same gathers for every mode, and differentiable.
fn along(x: &Tensor, dim: i64, line: &Line, rule: &Rule<'_>) -> Result<Tensor, Fault> {
    let mut cells = Vec::new();
    for cell in 0..line.output {
        cells.push(taps(position(cell as f64, line, rule.coordinates)?, line, rule)?);
    }
    let most = cells.iter().map(Vec::len).max().unwrap_or(0);
    let mut shape = vec![1_i64; x.dim()];
    shape[dim as usize] = line.output;
    let mut sum: Option<Tensor> = None;
    for tap in 0..most {
        let of = |cell: &Vec<(i64, f64)>| cell.get(tap).copied().unwrap_or((0, 0.0));
        let indices: Vec<i64> = cells.iter().map(|cell| of(cell).0).collect();
        let weights: Vec<f32> = cells.iter().map(|cell| of(cell).1 as f32).collect();
        let indices = Tensor::f_from_slice(&indices)?.f_to_device(x.device())?;
        let picked = x.f_index_select(dim, &indices)?;
        let part = match weights.iter().all(|&weight| weight == 1.0) {
            true => picked,
            false => picked.f_mul(&tensor::from_f32(&weights, &shape, x.device())?)?,
        };
        sum = Some(match sum {
            Some(sum) => sum.f_add(&part)?,
            None => part,
        });
    }
    let sum = sum.ok_or_else(|| Fault::Failed("nothing to resize".to_string()))?;
    if rule.coordinates != "tf_crop_and_resize" {
        return Ok(sum);
    }
    let outside = |cell: i64| -> Result<i64, Fault> {
        let at = position(cell as f64, line, rule.coordinates)?;
        Ok(i64::from(at < 0.0 || at > (line.input - 1) as f64))
    };
    let outside = (0..line.output).map(outside).collect::<Result<Vec<i64>, _>>()?;
    let outside = Tensor::f_from_slice(&outside)?.f_to_kind(Kind::Bool)?.f_reshape(&shape)?;
    Ok(sum.f_masked_fill(&outside.f_to_device(x.device())?, rule.extrapolation)?)
}

/// Where a cell of the result lies in the input.
fn position(cell: f64, line: &Line, coordinates: &str) -> Result<f64, Fault> {
    let (input, output, scale) = (line.input as f64, line.output as f64, line.scale);
    Ok(match coordinates {
        "half_pixel" => (cell + 0.5) / scale - 0.5,
        "half_pixel_symmetric" => {
            let adjustment = output / (scale * input);
            input / 2.0 * (1.0 - adjustment) + (cell + 0.5) / scale - 0.5
        }
        "pytorch_half_pixel" if output <= 1.0 => 0.0,
        "pytorch_half_pixel" => (cell + 0.5) / scale - 0.5,
        "align_corners" if output <= 1.0 => 0.0,
        "align_corners" => cell * (input - 1.0) / (output - 1.0),
        "asymmetric" => cell / scale,
        "tf_crop_and_resize" => {
            let [start, end] = line.region;
            match output > 1.0 {
                true => (start + cell * (end - start) / (output - 1.0)) * (input - 1.0),
                false => 0.5 * (start + end) * (input - 1.0),
            }
        }
        other => return Err(Fault::Unsupported(format!("coordinates {other:?}"))),
    })
}

/// The input cells that make up a position, with their weights.
fn taps(at: f64, line: &Line, rule: &Rule<'_>) -> Result<Vec<(i64, f64)>, Fault> {
    let last = line.input - 1;
    let reach = match rule.mode {
        "nearest" => {
            let cell = (nearest(at, rule.rounding)? as i64).clamp(0, last);
            return Ok(vec![(cell, 1.0)]);
        }
        "linear" | "bilinear" => 1.0,
        "cubic" => 2.0,
        other => return Err(Fault::Unsupported(format!("mode {other:?}"))),
    };
    let squeeze = if rule.antialias { line.scale.min(1.0) } else { 1.0 };
    let kernel = |distance: f64| match reach == 1.0 {
        true => (1.0 - distance).max(0.0),
        false => cubic(distance, rule.cubic),
    };
    let (first, end) =
        ((at - reach / squeeze).floor() as i64, (at + reach / squeeze).ceil() as i64);
    let mut taps = Vec::new();
    for cell in first..=end {
        let weight = kernel((cell as f64 - at).abs() * squeeze);
        let outside = cell < 0 || cell > last;
        if weight != 0.0 && !(outside && rule.exclude_outside) {
            taps.push((cell.clamp(0, last), weight));
        }
    }
    let total: f64 = taps.iter().map(|(_, weight)| weight).sum();
    if total != 0.0 {
        taps.iter_mut().for_each(|(_, weight)| *weight /= total);
    }
    Ok(taps)
}

/// The cubic convolution kernel (Keys 1981).
fn cubic(distance: f64, a: f64) -> f64 {
    let d = distance;
    match d {
        _ if d <= 1.0 => ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0,
        _ if d < 2.0 => ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a,
        _ => 0.0,
    }
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
