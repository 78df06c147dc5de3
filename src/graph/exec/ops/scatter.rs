//! Writing elements into copies.

use super::index::{rows, wrapped};
use super::{Call, Fault, Outputs, axis};
use crate::graph::exec::tensor;
use tch::{Kind, Tensor};

pub(super) fn elements(call: &Call<'_>) -> Outputs {
    let (x, indices, updates) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let dim = axis(call.int("axis", 0), x.dim())?;
    if indices.dim() != x.dim() {
        let message = format!("indices {:?} for {:?}", indices.size(), x.size());
        return Err(Fault::Failed(message));
    }
    let indices = wrapped(indices, x.size()[dim], x)?;
    let along = dim as i64;
    Ok(vec![match call.text("reduction", "none") {
        "none" => x.f_scatter(along, &indices, updates)?,
        "add" => x.f_scatter_add(along, &indices, updates)?,
        other => {
            let (places, values) = (places(x, &indices, dim)?, updates.f_reshape([-1])?);
            let flat = x.f_reshape([-1])?;
            let flat = flat.f_index_reduce(0, &places, &values, reduction(other)?, true)?;
            flat.f_reshape(x.size())?
        }
    }])
}

/// Where in the flattened `x` the elements lie that `indices` name along `dim`.
fn places(x: &Tensor, indices: &Tensor, dim: usize) -> Result<Tensor, Fault> {
    let (size, rank) = (x.size(), x.dim());
    let mut sum = indices.f_zeros_like()?;
    for d in 0..rank {
        let stride: i64 = size[d + 1..].iter().product();
        let own = if d == dim {
            indices.shallow_clone()
        } else {
            let mut line = vec![1; rank];
            line[d] = indices.size()[d];
            Tensor::f_arange(line[d], (Kind::Int64, x.device()))?.f_reshape(&line)?
        };
        sum = sum.f_add(&own.f_mul_scalar(stride)?)?;
    }
    Ok(sum.f_reshape([-1])?)
}

fn reduction(name: &str) -> Result<&'static str, Fault> {
    match name {
        "mul" => Ok("prod"),
        "max" => Ok("amax"),
        "min" => Ok("amin"),
        other => Err(Fault::Unsupported(format!("reduction {other:?}"))),
    }
}

pub(super) fn nd(call: &Call<'_>) -> Outputs {
    let (x, indices, updates) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let size = x.size();
    let depth = indices.size().last().copied().unwrap_or(0).max(0) as usize;
    if depth == 0 || depth > size.len() {
        let message = format!("indices {:?} for {size:?}", indices.size());
        return Err(Fault::Failed(message));
    }
    let flat = rows(&size[..depth], &tensor::to_i64(indices)?)?;
    let count = flat.len() as i64;
    let flat = Tensor::f_from_slice(&flat)?.f_to_device(x.device())?;
    let outer: i64 = size[..depth].iter().product();
    let table = x.f_reshape([&[outer], &size[depth..]].concat())?;
    let updates = updates.f_reshape([&[count], &size[depth..]].concat())?;
    let written = match call.text("reduction", "none") {
        "none" => table.f_index_copy(0, &flat, &updates)?,
        "add" => table.f_index_add(0, &flat, &updates)?,
        other => table.f_index_reduce(0, &flat, &updates, reduction(other)?, true)?,
    };
    Ok(vec![written.f_reshape(&size)?])
}

/// `TensorScatter`: writes an update into a cache at a position of each sample.
pub(super) fn cache(call: &Call<'_>) -> Outputs {
    let (past, update) = (call.input(0)?, call.input(1)?);
    let dim = axis(call.int("axis", -2), past.dim())?;
    let (side, length) = (past.size()[dim], update.size().get(dim).copied().unwrap_or(0));
    let samples = past.size()[0];
    let starts = call.numbers(2)?.unwrap_or_else(|| vec![0; samples.max(0) as usize]);
    if dim == 0 || starts.len() as i64 != samples || update.size().first() != Some(&samples) {
        let message = format!("update {:?} for {:?}", update.size(), past.size());
        return Err(Fault::Failed(message));
    }
    let circular = call.text("mode", "linear") == "circular";
    let mut written = Vec::new();
    for (sample, &start) in starts.iter().enumerate() {
        let places = Tensor::f_arange(length, (Kind::Int64, past.device()))?.f_add_scalar(start)?;
        let places = if circular { places.f_remainder(side.max(1))? } else { places };
        let places = wrapped(&places, side, past)?;
        let (old, new) = (past.f_select(0, sample as i64)?, update.f_select(0, sample as i64)?);
        written.push(old.f_index_copy(dim as i64 - 1, &places, &new)?);
    }
    Ok(vec![Tensor::f_stack(&written, 0)?])
}
