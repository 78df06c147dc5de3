//! Picking elements: gathers, sorting, masks.

use super::{Call, Fault, Outputs, axis, unbound};
use crate::graph::exec::tensor;
use std::collections::BTreeMap;
use tch::{Kind, Tensor};

/// Indices as non-negative i64 on the device of `x`; each must lie inside `side`.
pub(super) fn wrapped(indices: &Tensor, side: i64, x: &Tensor) -> Result<Tensor, Fault> {
    let wanted = tensor::to_i64(indices)?;
    let flat = wanted.iter().map(|&index| inside(index, side)).collect::<Result<Vec<_>, _>>()?;
    Ok(Tensor::f_from_slice(&flat)?.f_reshape(indices.size())?.f_to_device(x.device())?)
}

/// An index counted from the end if negative.
fn inside(index: i64, side: i64) -> Result<i64, Fault> {
    if index < -side || index >= side {
        let message = format!("expected an index in {}..{side}, found {index}", -side);
        return Err(Fault::Failed(message));
    }
    Ok(if index < 0 { index + side } else { index })
}

pub(super) fn gather(call: &Call<'_>) -> Outputs {
    let (x, indices) = (call.input(0)?, call.input(1)?);
    let dim = axis(call.int("axis", 0), x.dim())?;
    let size = x.size();
    let flat = wrapped(indices, size[dim], x)?.f_reshape([-1])?;
    let shape = [&size[..dim], &indices.size(), &size[dim + 1..]].concat();
    call.allow(&shape, x.f_kind()?)?;
    Ok(vec![x.f_index_select(dim as i64, &flat)?.f_reshape(&shape)?])
}

pub(super) fn gather_elements(call: &Call<'_>) -> Outputs {
    let (x, indices) = (call.input(0)?, call.input(1)?);
    let dim = axis(call.int("axis", 0), x.dim())?;
    let indices = wrapped(indices, x.size()[dim], x)?;
    Ok(vec![x.f_gather(dim as i64, &indices, false)?])
}

/// Row numbers in a tensor whose first dimensions are `dims`, from rows of `dims.len()` indices.
pub(super) fn rows(dims: &[i64], indices: &[i64]) -> Result<Vec<i64>, Fault> {
    let flat = |row: &[i64]| {
        row.iter().zip(dims).try_fold(0, |at, (&index, &side)| Ok(at * side + inside(index, side)?))
    };
    indices.chunks_exact(dims.len().max(1)).map(flat).collect()
}

/// Each row of the last dimension of the indices names a slice of the data.
pub(super) fn gather_nd(call: &Call<'_>) -> Outputs {
    let (x, indices) = (call.input(0)?, call.input(1)?);
    let (size, wanted) = (x.size(), indices.size());
    let batch = usize::try_from(call.int("batch_dims", 0)).unwrap_or(usize::MAX);
    let depth = wanted.last().map_or(0, |&depth| depth.max(0) as usize);
    let reach = batch.saturating_add(depth);
    if depth == 0 || batch >= wanted.len() || reach > size.len() || size[..batch] != wanted[..batch]
    {
        let message = format!("indices {wanted:?} for {size:?} with batch_dims {batch}");
        return Err(Fault::Failed(message));
    }
    let numbers = tensor::to_i64(indices)?;
    let groups: i64 = size[..batch].iter().product();
    let inner: i64 = size[batch..reach].iter().product();
    let mut flat = Vec::with_capacity(numbers.len() / depth);
    let per_group = (numbers.len() / groups.max(1) as usize).max(1);
    for (group, chunk) in numbers.chunks(per_group).enumerate() {
        let chunk = rows(&size[batch..reach], chunk)?;
        flat.extend(chunk.into_iter().map(|row| group as i64 * inner + row));
    }
    let flat = Tensor::f_from_slice(&flat)?.f_to_device(x.device())?;
    let shape = [&wanted[..wanted.len() - 1], &size[reach..]].concat();
    call.allow(&shape, x.f_kind()?)?;
    let table = x.f_reshape([&[groups * inner], &size[reach..]].concat())?;
    Ok(vec![table.f_index_select(0, &flat)?.f_reshape(&shape)?])
}

pub(super) fn arg_max(call: &Call<'_>) -> Outputs {
    extreme(call, |x, dim, keep| Ok(x.f_argmax(dim, keep)?))
}

pub(super) fn arg_min(call: &Call<'_>) -> Outputs {
    extreme(call, |x, dim, keep| Ok(x.f_argmin(dim, keep)?))
}

fn extreme(call: &Call<'_>, f: fn(&Tensor, i64, bool) -> Result<Tensor, Fault>) -> Outputs {
    let x = call.input(0)?;
    let dim = axis(call.int("axis", 0), x.dim())? as i64;
    let keep = call.int("keepdims", 1) != 0;
    if call.int("select_last_index", 0) == 0 {
        return Ok(vec![f(x, dim, keep)?]);
    }
    let last = x.size()[dim as usize] - 1;
    let from_end = f(&x.f_flip([dim])?, dim, keep)?;
    Ok(vec![from_end.f_neg()?.f_add_scalar(last)?])
}

/// Among equal values the one of the lower index comes first.
pub(super) fn top_k(call: &Call<'_>) -> Outputs {
    let x = call.input(0)?;
    let dim = axis(call.int("axis", -1), x.dim())?;
    let k = match call.numbers(1)? {
        Some(k) => k.first().copied().unwrap_or(0),
        None => call.int("k", 0),
    };
    if k < 0 || k > x.size()[dim] {
        return Err(Fault::Failed(format!("expected a k in 0..={}, found {k}", x.size()[dim])));
    }
    let (values, indices) = x.f_sort_stable(true, dim as i64, call.int("largest", 1) != 0)?;
    Ok(vec![values.f_narrow(dim as i64, 0, k)?, indices.f_narrow(dim as i64, 0, k)?])
}

pub(super) fn non_zero(call: &Call<'_>) -> Outputs {
    Ok(vec![call.input(0)?.f_nonzero()?.f_swapaxes(0, 1)?])
}

pub(super) fn one_hot(call: &Call<'_>) -> Outputs {
    let (indices, values) = (call.input(0)?, call.input(2)?);
    let depth = call.numbers(1)?.and_then(|depth| depth.first().copied()).unwrap_or(0);
    let rank = indices.dim() + 1;
    let dim = axis(call.int("axis", -1), rank)?;
    let mut shape = indices.size();
    shape.insert(dim, depth);
    call.allow(&shape, values.f_kind()?)?;
    let indices = indices.f_to_kind(Kind::Int64)?.f_unsqueeze(dim as i64)?;
    let indices = indices.f_where_self(&indices.f_ge(0)?, &indices.f_add_scalar(depth)?)?;
    let mut line = vec![1; rank];
    line[dim] = depth;
    let classes = Tensor::f_arange(depth, (Kind::Int64, indices.device()))?.f_reshape(&line)?;
    let hot = indices.f_eq_tensor(&classes)?;
    let values = values.f_reshape([2])?.f_to_device(indices.device())?;
    Ok(vec![values.f_select(0, 1)?.f_where_self(&hot, &values.f_select(0, 0)?)?])
}

pub(super) fn compress(call: &Call<'_>) -> Outputs {
    let x = call.input(0)?;
    let (x, dim) = match call.node.attributes.contains_key("axis") {
        true => (x.shallow_clone(), axis(call.int("axis", 0), x.dim())?),
        false => (x.f_reshape([-1])?, 0),
    };
    let side = x.size().get(dim).copied().unwrap_or(0);
    let kept = tensor::to_i64(call.input(1)?)?.into_iter().zip(0..side);
    let kept: Vec<i64> = kept.filter(|&(keep, _)| keep != 0).map(|(_, index)| index).collect();
    let kept = Tensor::f_from_slice(&kept)?.f_to_device(x.device())?;
    Ok(vec![x.f_index_select(dim as i64, &kept)?])
}

/// Distinct slices, sorted or in order of first appearance, with first indices, inverse and counts.
pub(super) fn unique(call: &Call<'_>) -> Outputs {
    let x = call.input(0)?;
    let (x, dim) = match call.node.attributes.contains_key("axis") {
        true => (x.shallow_clone(), axis(call.int("axis", 0), x.dim())? as i64),
        false => (x.f_reshape([-1])?, 0),
    };
    let (values, inverse, _) = x.f_unique_dim(dim, true, true, true)?;
    let inverse = tensor::to_i64(&inverse)?;
    // (first index, count) by group, in sorted order of the groups.
    let mut groups: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
    for (index, &group) in inverse.iter().enumerate() {
        groups.entry(group).or_insert((index as i64, 0)).1 += 1;
    }
    let mut order: Vec<i64> = groups.keys().copied().collect();
    if call.int("sorted", 1) == 0 {
        order.sort_by_key(|group| groups[group].0);
    }
    let place: BTreeMap<i64, i64> =
        order.iter().enumerate().map(|(place, &group)| (group, place as i64)).collect();
    let first: Vec<i64> = order.iter().map(|group| groups[group].0).collect();
    let count: Vec<i64> = order.iter().map(|group| groups[group].1).collect();
    let inverse: Vec<i64> = inverse.iter().map(|group| place[group]).collect();
    let picked = Tensor::f_from_slice(&order)?.f_to_device(x.device())?;
    let mut outputs = vec![values.f_index_select(dim, &picked)?];
    for list in [first, inverse, count] {
        outputs.push(Tensor::f_from_slice(&list)?);
    }
    Ok(outputs)
}

/// Reverses the first `sequence_lens[b]` entries of each sample.
pub(super) fn reverse_sequence(call: &Call<'_>) -> Outputs {
    let x = call.input(0)?;
    let lengths = tensor::to_i64(call.input(1)?)?;
    let batch_axis = axis(call.int("batch_axis", 1), x.dim())?;
    let time_axis = axis(call.int("time_axis", 0), x.dim())?;
    let samples = unbound(call, x, batch_axis)?;
    if batch_axis == time_axis || lengths.len() != samples.len() {
        return Err(Fault::Failed(format!("{} lengths for {:?}", lengths.len(), x.size())));
    }
    let time = (if time_axis > batch_axis { time_axis - 1 } else { time_axis }) as i64;
    let side = x.size()[time_axis];
    let reversed = samples.iter().zip(lengths).map(|(sample, length)| {
        let length = length.clamp(0, side);
        let head = sample.f_narrow(time, 0, length)?.f_flip([time])?;
        Tensor::f_cat(&[head, sample.f_narrow(time, length, side - length)?], time)
    });
    Ok(vec![Tensor::f_stack(&reversed.collect::<Result<Vec<_>, _>>()?, batch_axis as i64)?])
}

/// `Trilu`: the upper or lower triangle, zero elsewhere.
pub(super) fn triangle(call: &Call<'_>) -> Outputs {
    let x = call.input(0)?;
    let k = call.numbers(1)?.and_then(|k| k.first().copied()).unwrap_or(0);
    let k = k.clamp(-(1 << 40), 1 << 40);
    Ok(vec![if call.int("upper", 1) != 0 { x.f_triu(k)? } else { x.f_tril(k)? }])
}

pub(super) fn eye_like(call: &Call<'_>) -> Outputs {
    let x = call.input(0)?;
    let (rows, columns) = x.size2()?;
    let kind = match call.int("dtype", 0) {
        0 => x.f_kind()?,
        code => super::cast::kind_of_code(code)?,
    };
    let k = call.int("k", 0);
    let row = Tensor::f_arange(rows, (Kind::Int64, x.device()))?.f_add_scalar(k)?;
    let column = Tensor::f_arange(columns, (Kind::Int64, x.device()))?;
    Ok(vec![row.f_unsqueeze(1)?.f_eq_tensor(&column)?.f_to_kind(kind)?])
}
