//! Reductions over axes.

use super::{Call, Fault, Outputs, axis};
use tch::{Kind, Tensor};

type Reduce = fn(&Tensor, &[i64], bool) -> Result<Tensor, Fault>;

/// Axes come from an attribute in old operator sets and from an input in new ones; none means all.
fn reduce(call: &Call<'_>, f: Reduce) -> Outputs {
    let x = call.input(0)?;
    let rank = x.dim();
    let axes = call.axes(1)?.unwrap_or_default();
    if axes.is_empty() && call.int("noop_with_empty_axes", 0) != 0 {
        return Ok(vec![x.shallow_clone()]);
    }
    let mut dims = Vec::new();
    for &wanted in &axes {
        dims.push(axis(wanted, rank)? as i64);
    }
    if dims.is_empty() {
        dims = (0..rank as i64).collect();
    }
    dims.sort_unstable();
    dims.dedup();
    Ok(vec![f(x, &dims, call.int("keepdims", 1) != 0)?])
}

pub(super) fn mean(call: &Call<'_>) -> Outputs {
    reduce(call, |x, dims, keep| Ok(x.f_mean_dim(Some(dims), keep, None::<Kind>)?))
}

pub(super) fn sum(call: &Call<'_>) -> Outputs {
    reduce(call, |x, dims, keep| Ok(x.f_sum_dim_intlist(Some(dims), keep, None::<Kind>)?))
}

pub(super) fn max(call: &Call<'_>) -> Outputs {
    reduce(call, |x, dims, keep| Ok(x.f_amax(dims, keep)?))
}

pub(super) fn min(call: &Call<'_>) -> Outputs {
    reduce(call, |x, dims, keep| Ok(x.f_amin(dims, keep)?))
}

pub(super) fn prod(call: &Call<'_>) -> Outputs {
    reduce(call, |x, dims, keep| {
        let mut y = x.shallow_clone();
        for &dim in dims.iter().rev() {
            y = y.f_prod_dim_int(dim, keep, None::<Kind>)?;
        }
        Ok(y)
    })
}

pub(super) fn l2(call: &Call<'_>) -> Outputs {
    reduce(call, |x, dims, keep| {
        Ok(x.f_square()?.f_sum_dim_intlist(Some(dims), keep, None::<Kind>)?.f_sqrt()?)
    })
}

pub(super) fn arg_max(call: &Call<'_>) -> Outputs {
    extreme(call, |x, dim, keep| Ok(x.f_argmax(dim, keep)?))
}

pub(super) fn arg_min(call: &Call<'_>) -> Outputs {
    extreme(call, |x, dim, keep| Ok(x.f_argmin(dim, keep)?))
}

fn extreme(call: &Call<'_>, f: fn(&Tensor, i64, bool) -> Result<Tensor, Fault>) -> Outputs {
    let x = call.input(0)?;
    if call.int("select_last_index", 0) != 0 {
        return Err(Fault::Unsupported("select_last_index 1".to_string()));
    }
    let dim = axis(call.int("axis", 0), x.dim())? as i64;
    Ok(vec![f(x, dim, call.int("keepdims", 1) != 0)?])
}
