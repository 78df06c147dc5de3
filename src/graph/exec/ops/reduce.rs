//! Reductions over axes.

use super::{Call, Fault, Outputs, axis, is_float};
use tch::{Kind, TchError, Tensor};

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
    reduce(call, |x, dims, keep| {
        let kind = x.f_kind()?;
        let wide = if is_float(x)? { kind } else { Kind::Double };
        Ok(x.f_mean_dim(Some(dims), keep, wide)?.f_to_kind(kind)?)
    })
}

pub(super) fn sum(call: &Call<'_>) -> Outputs {
    reduce(call, total)
}

/// Integers keep their type, in which they may wrap.
fn total(x: &Tensor, dims: &[i64], keep: bool) -> Result<Tensor, Fault> {
    Ok(x.f_sum_dim_intlist(Some(dims), keep, x.f_kind()?)?)
}

pub(super) fn max(call: &Call<'_>) -> Outputs {
    reduce(call, |x, dims, keep| extreme(x, dims, keep, f64::NEG_INFINITY))
}

pub(super) fn min(call: &Call<'_>) -> Outputs {
    reduce(call, |x, dims, keep| extreme(x, dims, keep, f64::INFINITY))
}

/// The largest value, or the smallest; that of nothing is the infinity that any value replaces.
fn extreme(x: &Tensor, dims: &[i64], keep: bool, of_nothing: f64) -> Result<Tensor, Fault> {
    let size = x.size();
    if dims.iter().all(|&dim| size[dim as usize] > 0) {
        return Ok(if of_nothing < 0.0 { x.f_amax(dims, keep)? } else { x.f_amin(dims, keep)? });
    }
    if !is_float(x)? {
        return Err(Fault::Unsupported("the extreme of no integers".to_string()));
    }
    Ok(total(x, dims, keep)?.f_fill(of_nothing)?)
}

pub(super) fn prod(call: &Call<'_>) -> Outputs {
    reduce(call, |x, dims, keep| {
        let mut y = x.shallow_clone();
        for &dim in dims.iter().rev() {
            y = y.f_prod_dim_int(dim, keep, x.f_kind()?)?;
        }
        Ok(y)
    })
}

pub(super) fn l1(call: &Call<'_>) -> Outputs {
    reduce(call, |x, dims, keep| total(&x.f_abs()?, dims, keep))
}

pub(super) fn l2(call: &Call<'_>) -> Outputs {
    reduce(call, |x, dims, keep| {
        let root = total(&x.f_square()?, dims, keep)?.f_sqrt()?;
        Ok(root.f_to_kind(x.f_kind()?)?)
    })
}

pub(super) fn sum_square(call: &Call<'_>) -> Outputs {
    reduce(call, |x, dims, keep| total(&x.f_square()?, dims, keep))
}

pub(super) fn log_sum(call: &Call<'_>) -> Outputs {
    reduce(call, |x, dims, keep| Ok(total(x, dims, keep)?.f_log()?.f_to_kind(x.f_kind()?)?))
}

pub(super) fn log_sum_exp(call: &Call<'_>) -> Outputs {
    reduce(call, |x, dims, keep| match x.numel() {
        0 => Ok(total(&x.f_exp()?, dims, keep)?.f_log()?),
        _ => Ok(x.f_logsumexp(dims, keep)?.f_to_kind(x.f_kind()?)?),
    })
}

pub(super) fn cumulative_sum(call: &Call<'_>) -> Outputs {
    cumulative(call, 0, |x, dim| x.f_cumsum(dim, x.f_kind()?))
}

pub(super) fn cumulative_product(call: &Call<'_>) -> Outputs {
    cumulative(call, 1, |x, dim| x.f_cumprod(dim, x.f_kind()?))
}

/// Running results along an axis; an exclusive one starts with `neutral` and leaves out the last.
fn cumulative(
    call: &Call<'_>,
    neutral: i64,
    f: fn(&Tensor, i64) -> Result<Tensor, TchError>,
) -> Outputs {
    let x = call.input(0)?;
    let wanted = call.numbers(1)?.and_then(|axis| axis.first().copied()).unwrap_or(0);
    let dim = axis(wanted, x.dim())?;
    let (side, along) = (x.size()[dim], dim as i64);
    let reversed = call.int("reverse", 0) != 0;
    let x = if reversed { x.f_flip([along])? } else { x.shallow_clone() };
    let y = if call.int("exclusive", 0) != 0 && side > 0 {
        let first = x.f_narrow(along, 0, 1)?.f_full_like(neutral)?;
        f(&Tensor::f_cat(&[first, x.f_narrow(along, 0, side - 1)?], along)?, along)?
    } else {
        f(&x, along)?
    };
    Ok(vec![if reversed { y.f_flip([along])? } else { y }])
}
