//! Geometry of images and boxes.

use super::conv::spatial_size;
use super::{Call, Fault, Outputs, axis, spatial};
use crate::graph::exec::tensor;
use tch::{Kind, Tensor};

pub(super) fn grid_sample(call: &Call<'_>) -> Outputs {
    let (x, grid) = (call.input(0)?, call.input(1)?);
    let mode = match call.text("mode", "linear") {
        "linear" | "bilinear" => 0,
        "nearest" => 1,
        "cubic" | "bicubic" => 2,
        other => return Err(Fault::Unsupported(format!("mode {other:?}"))),
    };
    let padding = match call.text("padding_mode", "zeros") {
        "zeros" => 0,
        "border" => 1,
        "reflection" => 2,
        other => return Err(Fault::Unsupported(format!("padding_mode {other:?}"))),
    };
    let corners = call.int("align_corners", 0) != 0;
    Ok(vec![x.f_grid_sampler(grid, mode, padding, corners)?])
}

pub(super) fn affine_grid(call: &Call<'_>) -> Outputs {
    let size = tensor::to_i64(call.input(1)?)?;
    call.allow(&size, Kind::Double)?;
    let corners = call.int("align_corners", 0) != 0;
    Ok(vec![Tensor::f_affine_grid_generator(call.input(0)?, &size, corners)?])
}

/// Crops what is too long and pads what is too short, around the centre.
pub(super) fn center_crop_pad(call: &Call<'_>) -> Outputs {
    let x = call.input(0)?;
    let wanted = tensor::to_i64(call.input(1)?)?;
    let axes = match call.ints("axes") {
        Some(axes) => axes.to_vec(),
        None => (0..x.dim() as i64).collect(),
    };
    if axes.len() != wanted.len() {
        return Err(Fault::Failed(format!("{wanted:?} for axes {axes:?}")));
    }
    let mut y = x.shallow_clone();
    for (at, &target) in axes.iter().zip(&wanted) {
        let dim = axis(*at, x.dim())?;
        let mut size = y.size();
        let side = std::mem::replace(&mut size[dim], target);
        call.allow(&size, y.f_kind()?)?;
        if target <= side {
            y = y.f_narrow(dim as i64, (side - target) / 2, target)?;
            continue;
        }
        let before = (target - side) / 2;
        let mut pads = vec![0; 2 * (x.dim() - dim)];
        let last = pads.len();
        pads[last - 2] = before;
        pads[last - 1] = target - side - before;
        y = y.f_pad(&pads, "constant", 0.0)?;
    }
    Ok(vec![y])
}

/// Adds up blocks where they overlap: the reverse of cutting an image into columns.
pub(super) fn col2im(call: &Call<'_>) -> Outputs {
    let x = call.input(0)?;
    let image = tensor::to_i64(call.input(1)?)?;
    let block = tensor::to_i64(call.input(2)?)?;
    let rank = image.len();
    let stride = spatial(call.ints("strides"), rank, 1)?;
    let dilation = spatial(call.ints("dilations"), rank, 1)?;
    let pads = spatial(call.ints("pads"), 2 * rank, 0)?;
    let cells: i64 = block.iter().fold(1, |cells, &side| cells.saturating_mul(side.max(0)));
    let (n, rows, _) = x.size3()?;
    let numbers = [&image[..], &block, &stride, &dilation, &pads].concat();
    if block.len() != rank || cells < 1 || rows % cells != 0 || numbers.iter().any(|&v| v < 0) {
        return Err(Fault::Failed(format!(
            "image {image:?} and block {block:?} for {:?}",
            x.size()
        )));
    }
    let padded: Vec<i64> = (0..rank).map(|d| image[d] + pads[d] + pads[d + rank]).collect();
    let places: Vec<i64> = (0..rank)
        .map(|d| (padded[d] - dilation[d] * (block[d] - 1) - 1).div_euclid(stride[d].max(1)) + 1)
        .collect();
    if places.iter().any(|&count| count < 1) {
        return Err(Fault::Failed(format!("block {block:?} in image {image:?}")));
    }
    call.allow(&[&[n, rows / cells], &padded[..]].concat(), x.f_kind()?)?;
    let columns = x.f_reshape([&[n, rows / cells, cells], &places[..]].concat())?;
    let y = Tensor::f_zeros([&[n, rows / cells], &padded[..]].concat(), (x.f_kind()?, x.device()))?;
    for cell in 0..cells {
        let mut view = y.shallow_clone();
        let mut rest = cell;
        for d in (0..rank).rev() {
            let start = rest % block[d] * dilation[d];
            rest /= block[d];
            let end = start + (places[d] - 1) * stride[d] + 1;
            view = view.f_slice(d as i64 + 2, start, end, stride[d].max(1))?;
        }
        _ = view.f_add_(&columns.f_select(2, cell)?)?;
    }
    let mut cut = y;
    for d in 0..rank {
        cut = cut.f_narrow(d as i64 + 2, pads[d], image[d])?;
    }
    Ok(vec![cut])
}

/// Puts pooled values back where they came from.
pub(super) fn max_unpool(call: &Call<'_>) -> Outputs {
    let (x, indices) = (call.input(0)?, call.input(1)?);
    let sides = spatial_size(x)?;
    let rank = sides.len();
    let kernel = spatial(call.ints("kernel_shape"), rank, 1)?;
    let stride = spatial(call.ints("strides"), rank, 1)?;
    let pads = spatial(call.ints("pads"), 2 * rank, 0)?;
    let mut size = x.size();
    for d in 0..rank {
        size[d + 2] =
            (sides[d] - 1).saturating_mul(stride[d]) - pads[d] - pads[d + rank] + kernel[d];
    }
    call.allow(&size, x.f_kind()?)?;
    let total: i64 = size.iter().product();
    let indices = super::index::wrapped(&indices.f_reshape([-1])?, total, x)?;
    let flat = Tensor::f_zeros([total], (x.f_kind()?, x.device()))?;
    let y = flat.f_index_copy(0, &indices, &x.f_reshape([-1])?)?.f_reshape(&size)?;
    let Some(shape) = call.numbers(2)? else { return Ok(vec![y]) };
    if shape.len() != size.len() {
        return Err(Fault::Failed(format!("output_shape {shape:?} for {size:?}")));
    }
    call.allow(&shape, x.f_kind()?)?;
    let grow = shape.iter().zip(&size).rev().flat_map(|(wanted, own)| [0, wanted - own]);
    Ok(vec![y.f_pad(grow.collect::<Vec<i64>>(), "constant", 0.0)?])
}

/// Boxes by falling score, each dropped that overlaps a kept one of its class too much.
pub(super) fn non_max_suppression(call: &Call<'_>) -> Outputs {
    let (boxes, scores) = (call.input(0)?, call.input(1)?);
    let (batch, classes, count) = scores.size3()?;
    if boxes.size() != [batch, count, 4] {
        return Err(Fault::Failed(format!("boxes {:?} for {:?}", boxes.size(), scores.size())));
    }
    let number = |index: usize| -> Result<Option<f32>, Fault> {
        let list = call.optional(index).map(tensor::to_f32).transpose()?;
        Ok(list.and_then(|list| list.first().copied()))
    };
    let most = call.numbers(2)?.and_then(|most| most.first().copied()).unwrap_or(0);
    let (overlap_max, score_min) = (number(3)?.unwrap_or(0.0), number(4)?);
    let center = call.int("center_point_box", 0) != 0;
    let (boxes, scores) = (tensor::to_f32(boxes)?, tensor::to_f32(scores)?);
    let boxes: Vec<[f32; 4]> = boxes.as_chunks().0.iter().map(|b| corners(*b, center)).collect();
    let mut found: Vec<i64> = Vec::new();
    for (row, scores) in scores.chunks(count.max(1) as usize).enumerate() {
        let (sample, class) = (row as i64 / classes.max(1), row as i64 % classes.max(1));
        let boxes = &boxes[(sample * count) as usize..];
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.retain(|&index| score_min.is_none_or(|min| scores[index] > min));
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        let mut kept: Vec<usize> = Vec::new();
        for index in order {
            if kept.len() as i64 >= most {
                break;
            }
            // One step for so many comparisons.
            (0..=kept.len() / 64).try_for_each(|_| call.budget.step(false))?;
            if kept.iter().all(|&other| overlap(boxes[index], boxes[other]) <= overlap_max) {
                kept.push(index);
            }
        }
        found.extend(kept.iter().flat_map(|&index| [sample, class, index as i64]));
    }
    Ok(vec![Tensor::f_from_slice(&found)?.f_reshape([-1, 3])?])
}

/// (top, left, bottom, right), whichever diagonal was given.
fn corners(b: [f32; 4], center: bool) -> [f32; 4] {
    if center {
        let (x, y, width, height) = (b[0], b[1], b[2] / 2.0, b[3] / 2.0);
        return [y - height, x - width, y + height, x + width];
    }
    [b[0].min(b[2]), b[1].min(b[3]), b[0].max(b[2]), b[1].max(b[3])]
}

/// Intersection over union.
fn overlap(a: [f32; 4], b: [f32; 4]) -> f32 {
    let side = |low: usize| (a[low + 2].min(b[low + 2]) - a[low].max(b[low])).max(0.0);
    let shared = side(0) * side(1);
    let area = |b: [f32; 4]| (b[2] - b[0]) * (b[3] - b[1]);
    let union = area(a) + area(b) - shared;
    if union > 0.0 { shared / union } else { 0.0 }
}
