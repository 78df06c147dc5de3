//! Shapes, indices and constants.

use super::{Call, Fault, Outputs, axis};
use crate::graph::exec::tensor;
use crate::graph::{Attribute, Weight};
use tch::{Device, Kind, Tensor};

pub(super) fn identity(call: &Call<'_>) -> Outputs {
    Ok(vec![call.input(0)?.shallow_clone()])
}

pub(super) fn flatten(call: &Call<'_>) -> Outputs {
    let x = call.input(0)?;
    let size = x.size();
    let wanted = call.int("axis", 1);
    // Unlike elsewhere the axis may equal the rank.
    let at = if wanted == size.len() as i64 { size.len() } else { axis(wanted, size.len())? };
    let outer: i64 = size[..at].iter().product();
    let inner: i64 = size[at..].iter().product();
    Ok(vec![x.f_reshape([outer, inner])?])
}

/// A leading 1 stands for the batch where an exporter wrote down the batch size it had traced with.
pub(super) fn reshape(call: &Call<'_>) -> Outputs {
    let x = call.input(0)?;
    let size = x.size();
    let mut shape = match call.numbers(1)? {
        Some(shape) => shape,
        None => call.ints("shape").unwrap_or_default().to_vec(),
    };
    let keep_zero = call.int("allowzero", 0) != 0;
    for (index, side) in shape.iter_mut().enumerate() {
        if *side == 0 && !keep_zero {
            *side = *size.get(index).ok_or_else(|| {
                Fault::Failed(format!("expected a dimension {index} to copy in {size:?}"))
            })?;
        }
    }
    let baked = shape.len() > 1 && shape[0] == 1;
    if baked && !call.constant && call.batch > 1 && size.first() == Some(&call.batch) {
        shape[0] = call.batch;
    }
    Ok(vec![x.f_reshape(&shape)?])
}

pub(super) fn transpose(call: &Call<'_>) -> Outputs {
    let x = call.input(0)?;
    let rank = x.dim() as i64;
    let order = call.ints("perm").map_or_else(|| (0..rank).rev().collect(), <[i64]>::to_vec);
    Ok(vec![x.f_permute(&order)?])
}

pub(super) fn squeeze(call: &Call<'_>) -> Outputs {
    let x = call.input(0)?;
    let size = x.size();
    let drop: Vec<usize> = match call.axes(1)? {
        Some(axes) => axes.iter().map(|&at| axis(at, size.len())).collect::<Result<_, _>>()?,
        None => (0..size.len()).filter(|&at| size[at] == 1).collect(),
    };
    if let Some(&at) = drop.iter().find(|&&at| size[at] != 1) {
        return Err(Fault::Failed(format!("expected 1 at axis {at}, found {size:?}")));
    }
    let kept = size.iter().enumerate().filter(|(at, _)| !drop.contains(at));
    let kept: Vec<i64> = kept.map(|(_, &side)| side).collect();
    Ok(vec![x.f_reshape(&kept)?])
}

pub(super) fn unsqueeze(call: &Call<'_>) -> Outputs {
    let x = call.input(0)?;
    let axes = call.axes(1)?.unwrap_or_default();
    let rank = x.dim() + axes.len();
    let at: Vec<usize> = axes.iter().map(|&at| axis(at, rank)).collect::<Result<_, _>>()?;
    let mut old = x.size().into_iter();
    let shape: Vec<i64> = (0..rank)
        .map(|index| if at.contains(&index) { Some(1) } else { old.next() })
        .collect::<Option<_>>()
        .ok_or_else(|| Fault::Failed(format!("expected distinct axes, found {axes:?}")))?;
    Ok(vec![x.f_reshape(&shape)?])
}

pub(super) fn concat(call: &Call<'_>) -> Outputs {
    let inputs = (0..call.inputs.len()).map(|index| call.input(index));
    let inputs = inputs.collect::<Result<Vec<_>, _>>()?;
    Ok(vec![Tensor::f_cat(&inputs, call.int("axis", 1))?])
}

pub(super) fn split(call: &Call<'_>) -> Outputs {
    let x = call.input(0)?;
    let dim = axis(call.int("axis", 0), x.dim())?;
    let side = x.size()[dim];
    let parts = match call.numbers(1)? {
        Some(parts) => parts,
        None => match call.ints("split") {
            Some(parts) => parts.to_vec(),
            None => even_parts(side, call.int("num_outputs", call.node.outputs.len() as i64))?,
        },
    };
    if parts.len() != call.node.outputs.len() {
        let (expected, found) = (call.node.outputs.len(), parts.len());
        return Err(Fault::Failed(format!("expected {expected} parts, found {found}")));
    }
    Ok(x.f_split_with_sizes(&parts, dim as i64)?)
}

/// All parts alike, the last one smaller if need be.
fn even_parts(side: i64, count: i64) -> Result<Vec<i64>, Fault> {
    if count < 1 || count > side {
        return Err(Fault::Failed(format!("expected 1..={side} parts, found {count}")));
    }
    let part = (side + count - 1) / count;
    let mut parts = vec![part; count as usize - 1];
    parts.push(side - part * (count - 1));
    Ok(parts)
}

pub(super) fn slice(call: &Call<'_>) -> Outputs {
    let x = call.input(0)?;
    let list = |index, name: &str| -> Result<Option<Vec<i64>>, Fault> {
        let numbers = call.numbers(index)?;
        Ok(numbers.or_else(|| call.ints(name).map(<[i64]>::to_vec)))
    };
    let starts = list(1, "starts")?.unwrap_or_default();
    let ends = list(2, "ends")?.unwrap_or_default();
    let axes = list(3, "axes")?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = list(4, "steps")?.unwrap_or_else(|| vec![1; starts.len()]);
    if [ends.len(), axes.len(), steps.len()].iter().any(|&length| length != starts.len()) {
        return Err(Fault::Failed("starts, ends, axes and steps differ in length".to_string()));
    }
    let mut y = x.shallow_clone();
    for index in 0..starts.len() {
        let dim = axis(axes[index], y.dim())?;
        y = slice_one(&y, dim, [starts[index], ends[index], steps[index]])?;
    }
    Ok(vec![y])
}

/// A negative step walks backwards; libtorch only knows forward steps.
fn slice_one(x: &Tensor, dim: usize, [start, end, step]: [i64; 3]) -> Result<Tensor, Fault> {
    let side = x.size()[dim];
    let at = |index: i64| if index < 0 { index.saturating_add(side) } else { index };
    if step > 0 {
        let (start, end) = (at(start).clamp(0, side), at(end).clamp(0, side));
        return Ok(x.f_slice(dim as i64, start, end.max(start), step)?);
    }
    if step == 0 {
        return Err(Fault::Failed("expected a step other than 0".to_string()));
    }
    let first = at(start).clamp(-1, side - 1);
    let stop = at(end).clamp(-1, side - 1);
    let walk = std::iter::successors(Some(first), |index| index.checked_add(step));
    let indices: Vec<i64> = walk.take_while(|&index| index > stop && index >= 0).collect();
    let indices = Tensor::f_from_slice(&indices)?.f_to_device(x.device())?;
    Ok(x.f_index_select(dim as i64, &indices)?)
}

pub(super) fn shape(call: &Call<'_>) -> Outputs {
    let size = call.input(0)?.size();
    let rank = size.len() as i64;
    let at = |index: i64| (if index < 0 { index + rank } else { index }).clamp(0, rank) as usize;
    let (start, end) = (at(call.int("start", 0)), at(call.int("end", rank)));
    Ok(vec![Tensor::f_from_slice(&size[start..end.max(start)])?])
}

pub(super) fn constant(call: &Call<'_>) -> Outputs {
    let attributes = &call.node.attributes;
    let find = |name: &str| attributes.get(name);
    let weight = match find("value") {
        Some(Attribute::Tensor(weight)) => weight.clone(),
        _ => match ["value_float", "value_floats", "value_int", "value_ints"]
            .into_iter()
            .find_map(find)
        {
            Some(Attribute::Float(value)) => Weight::from_f32(&[], &[*value]),
            Some(Attribute::Floats(values)) => Weight::from_f32(&[values.len()], values),
            Some(Attribute::Int(value)) => Weight::from_i64(&[], &[*value]),
            Some(Attribute::Ints(values)) => Weight::from_i64(&[values.len()], values),
            _ => return Err(Fault::Unsupported("a constant that is not numeric".to_string())),
        },
    };
    Ok(vec![tensor::from_weight(&weight, Device::Cpu)?])
}

pub(super) fn constant_of_shape(call: &Call<'_>) -> Outputs {
    let shape = tensor::to_i64(call.input(0)?)?;
    let value = match call.node.attributes.get("value") {
        Some(Attribute::Tensor(weight)) => tensor::from_weight(weight, Device::Cpu)?,
        _ => Tensor::f_zeros([1], (Kind::Float, Device::Cpu))?,
    };
    call.allow(&shape, value.f_kind()?)?;
    Ok(vec![value.f_reshape([1])?.f_expand(&shape, false)?.f_contiguous()?])
}

/// Broadcasting in both directions, unlike libtorch's expand.
pub(super) fn expand(call: &Call<'_>) -> Outputs {
    let x = call.input(0)?;
    let wanted = tensor::to_i64(call.input(1)?)?;
    let size = x.size();
    let rank = size.len().max(wanted.len());
    let side = |list: &[i64], index: usize| {
        (index + list.len()).checked_sub(rank).map_or(1, |at| list[at])
    };
    let shape: Vec<i64> = (0..rank)
        .map(|index| match (side(&size, index), side(&wanted, index)) {
            (own, 1) => own,
            (_, other) => other,
        })
        .collect();
    call.allow(&shape, x.f_kind()?)?;
    Ok(vec![x.f_expand(&shape, false)?])
}

pub(super) fn tile(call: &Call<'_>) -> Outputs {
    let x = call.input(0)?;
    let repeats = tensor::to_i64(call.input(1)?)?;
    let grown = x.size().into_iter().zip(&repeats);
    let grown: Vec<i64> = grown.map(|(side, &times)| side.saturating_mul(times)).collect();
    if repeats.len() != x.dim() {
        return Err(Fault::Failed(format!("repeats {repeats:?} for {:?}", x.size())));
    }
    call.allow(&grown, x.f_kind()?)?;
    Ok(vec![x.f_repeat(&repeats)?])
}

pub(super) fn range(call: &Call<'_>) -> Outputs {
    let (start, limit, delta) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let one = |x: &Tensor| -> Result<f64, Fault> { Ok(x.f_reshape([-1])?.f_double_value(&[0])?) };
    let (from, to, step) = (one(start)?, one(limit)?, one(delta)?);
    let count = ((to - from) / step).ceil().max(0.0);
    if !count.is_finite() {
        return Err(Fault::Failed(format!("range from {from} to {to} by {step}")));
    }
    call.allow(&[count as i64], Kind::Double)?;
    let options = (Kind::Double, Device::Cpu);
    let line = Tensor::f_arange(count as i64, options)?.f_mul_scalar(step)?.f_add_scalar(from)?;
    Ok(vec![line.f_to_kind(start.f_kind()?)?])
}

pub(super) fn pad(call: &Call<'_>) -> Outputs {
    let x = call.input(0)?;
    let rank = x.dim();
    let old = call.ints("pads").or_else(|| call.ints("paddings")).unwrap_or_default().to_vec();
    let pads = call.numbers(1)?.unwrap_or(old);
    let axes: Vec<usize> = match call.numbers(3)? {
        Some(axes) => axes.iter().map(|&at| axis(at, rank)).collect::<Result<_, _>>()?,
        None => (0..rank).collect(),
    };
    if pads.len() != 2 * axes.len() {
        return Err(Fault::Failed(format!("expected {} pads, found {pads:?}", 2 * axes.len())));
    }
    let mut sides = vec![[0_i64; 2]; rank];
    for (index, &at) in axes.iter().enumerate() {
        sides[at] = [pads[index], pads[index + axes.len()]];
    }
    let grown = x.size().into_iter().zip(&sides);
    let grown = grown.map(|(side, pads)| side.saturating_add(pads[0]).saturating_add(pads[1]));
    call.allow(&grown.collect::<Vec<i64>>(), x.f_kind()?)?;
    let mode = call.text("mode", "constant");
    if mode == "constant" {
        let flat: Vec<i64> = sides.iter().rev().flatten().copied().collect();
        let value = match call.optional(2) {
            Some(value) => tensor::to_f32(value)?.first().copied().unwrap_or(0.0).into(),
            None => call.float("value", 0.0),
        };
        return Ok(vec![x.f_pad(&flat, "constant", value)?]);
    }
    // An unknown mode is an error even where nothing is padded.
    source(0, 1, mode)?;
    let mut y = x.shallow_clone();
    for (dim, &pads) in sides.iter().enumerate().filter(|(_, pads)| **pads != [0, 0]) {
        let side = x.size()[dim];
        let indices = (-pads[0]..side + pads[1]).map(|at| source(at, side, mode));
        let indices = Tensor::f_from_slice(&indices.collect::<Result<Vec<i64>, _>>()?)?;
        y = y.f_index_select(dim as i64, &indices.f_to_device(x.device())?)?;
    }
    Ok(vec![y])
}

/// The cell of `0..side` that stands at `at` when the line is continued on both sides.
fn source(at: i64, side: i64, mode: &str) -> Result<i64, Fault> {
    if side < 1 {
        return Err(Fault::Failed("an empty side cannot be continued".to_string()));
    }
    Ok(match mode {
        "edge" => at.clamp(0, side - 1),
        "wrap" => at.rem_euclid(side),
        "reflect" if side == 1 => 0,
        "reflect" => {
            let period = 2 * (side - 1);
            let at = at.rem_euclid(period);
            at.min(period - at)
        }
        other => return Err(Fault::Unsupported(format!("mode {other:?}"))),
    })
}

pub(super) fn depth_to_space(call: &Call<'_>) -> Outputs {
    let x = call.input(0)?;
    let (n, c, h, w) = x.size4()?;
    let block = call.int("blocksize", 1);
    let cells = block.checked_mul(block).filter(|&cells| cells > 0 && c % cells == 0);
    let cells = cells.ok_or_else(|| Fault::Failed(format!("blocksize {block} on {c} channels")))?;
    let depth = c / cells;
    let (shape, order) = match call.text("mode", "DCR") {
        "DCR" => ([n, block, block, depth, h, w], [0, 3, 4, 1, 5, 2]),
        "CRD" => ([n, depth, block, block, h, w], [0, 1, 4, 2, 5, 3]),
        other => return Err(Fault::Unsupported(format!("mode {other:?}"))),
    };
    let y = x.f_reshape(shape)?.f_permute(order)?;
    Ok(vec![y.f_reshape([n, depth, h * block, w * block])?])
}

pub(super) fn space_to_depth(call: &Call<'_>) -> Outputs {
    let x = call.input(0)?;
    let (n, c, h, w) = x.size4()?;
    let block = call.int("blocksize", 1);
    if block < 1 || h % block != 0 || w % block != 0 {
        return Err(Fault::Failed(format!("blocksize {block} on {:?}", x.size())));
    }
    let (rows, columns) = (h / block, w / block);
    let cells = x.f_reshape([n, c, rows, block, columns, block])?;
    let y = match call.text("mode", "DCR") {
        "DCR" => cells.f_permute([0, 3, 5, 1, 2, 4])?,
        "CRD" => cells.f_permute([0, 1, 3, 5, 2, 4])?,
        other => return Err(Fault::Unsupported(format!("mode {other:?}"))),
    };
    Ok(vec![y.f_reshape([n, c * block * block, rows, columns])?])
}

pub(super) fn size(call: &Call<'_>) -> Outputs {
    let count = call.input(0)?.numel() as i64;
    Ok(vec![Tensor::f_full([0_i64; 0], count, (Kind::Int64, Device::Cpu))?])
}
