//! Pooling.

use super::conv::{Window, spatial_size};
use super::{Call, Fault, Outputs, is_float};
use tch::{Kind, Tensor};

pub(super) fn global_average(call: &Call<'_>) -> Outputs {
    let x = call.input(0)?;
    let dims = spatial_dims(x)?;
    Ok(vec![x.f_mean_dim(Some(&dims[..]), true, None::<Kind>)?])
}

pub(super) fn global_max(call: &Call<'_>) -> Outputs {
    let x = call.input(0)?;
    Ok(vec![x.f_amax(spatial_dims(x)?, true)?])
}

fn spatial_dims(x: &Tensor) -> Result<Vec<i64>, Fault> {
    let rank = x.dim() as i64;
    if rank < 3 {
        return Err(Fault::Failed(format!("expected [n, c, spatial...], found {:?}", x.size())));
    }
    Ok((2..rank).collect())
}

fn window(call: &Call<'_>, x: &Tensor) -> Result<Window, Fault> {
    let size = spatial_size(x)?;
    let kernel = call.ints("kernel_shape").map(<[i64]>::to_vec).unwrap_or_default();
    if kernel.len() != size.len() {
        return Err(Fault::Failed(format!(
            "expected a kernel_shape of {} sides, found {kernel:?}",
            size.len()
        )));
    }
    Window::read(call, &size, kernel)
}

/// Cells that `ceil_mode` adds after each dimension so that the last window is whole.
fn ceil_cells(call: &Call<'_>, window: &Window, size: &[i64]) -> Vec<i64> {
    let ceil = call.int("ceil_mode", 0) != 0;
    (0..size.len())
        .map(|index| {
            let stride = window.stride[index];
            let reach = (window.kernel[index] - 1) * window.dilation[index] + 1;
            let padded = size[index] + window.before[index] + window.after[index];
            let rest = (padded - reach).rem_euclid(stride);
            // A window that starts in the added cells is dropped, as ONNX Runtime and libtorch do.
            let starts = padded - rest - reach + stride;
            let inside = starts < size[index] + window.before[index];
            if ceil && padded >= reach && rest > 0 && inside { stride - rest } else { 0 }
        })
        .collect()
}

pub(super) fn max(call: &Call<'_>) -> Outputs {
    let x = call.input(0)?;
    let kind = x.f_kind()?;
    let mut window = window(call, x)?;
    let size = spatial_size(x)?;
    let cells = ceil_cells(call, &window, &size);
    window.after.iter_mut().zip(&cells).for_each(|(after, cell)| *after += cell);
    window.allow(call, x, 0)?;
    // Pooling exists for floating-point numbers only; f32 holds 8-bit integers exactly.
    let real = if is_float(x)? { x.shallow_clone() } else { x.f_to_kind(Kind::Float)? };
    let small = window.before.iter().zip(&window.kernel).all(|(&pad, &side)| pad * 2 <= side);
    let zero = vec![0; size.len()];
    let (kernel, stride, dilation) = (&window.kernel, &window.stride, &window.dilation);
    let (real, pads) = if window.is_symmetric() && small {
        (real, &window.before)
    } else {
        (window.pad(&real, f64::NEG_INFINITY)?, &zero)
    };
    if call.wants(1) {
        let padded = window.pad(&real, f64::NEG_INFINITY)?;
        let real = if std::ptr::eq(pads, &zero) { real } else { padded };
        return with_indices(call, &real, &window, x);
    }
    let y = match size.len() {
        1 => real.f_max_pool1d(kernel, stride, pads, dilation, false)?,
        2 => real.f_max_pool2d(kernel, stride, pads, dilation, false)?,
        _ => real.f_max_pool3d(kernel, stride, pads, dilation, false)?,
    };
    Ok(vec![y.f_to_kind(kind)?])
}

/// The largest values of a padded input, and where in the whole tensor they lie.
fn with_indices(call: &Call<'_>, padded: &Tensor, window: &Window, x: &Tensor) -> Outputs {
    let size = spatial_size(x)?;
    let zero = vec![0; size.len()];
    let (kernel, stride, dilation) = (&window.kernel, &window.stride, &window.dilation);
    let (y, places) = match size.len() {
        1 => padded.f_max_pool1d_with_indices(kernel, stride, &zero, dilation, false)?,
        2 => padded.f_max_pool2d_with_indices(kernel, stride, &zero, dilation, false)?,
        _ => padded.f_max_pool3d_with_indices(kernel, stride, &zero, dilation, false)?,
    };
    let column_major = call.int("storage_order", 0) != 0;
    let sides = spatial_size(padded)?;
    let plane: i64 = size.iter().product();
    let mut rest = places;
    let mut flat = rest.f_zeros_like()?;
    let order: Vec<usize> = (0..size.len()).collect();
    for &d in order.iter().rev() {
        let at = rest.f_remainder(sides[d])?.f_sub_scalar(window.before[d])?;
        rest = rest.f_div_scalar_mode(sides[d], "floor")?;
        let faster = if column_major { &size[..d] } else { &size[d + 1..] };
        flat = flat.f_add(&at.f_mul_scalar(faster.iter().product::<i64>())?)?;
    }
    let (n, c) = (x.size()[0], x.size()[1]);
    let planes = Tensor::f_arange(n * c, (Kind::Int64, x.device()))?.f_mul_scalar(plane)?;
    let mut shape = vec![1; x.dim()];
    (shape[0], shape[1]) = (n, c);
    let flat = flat.f_add(&planes.f_reshape(&shape)?)?;
    Ok(vec![y.f_to_kind(x.f_kind()?)?, flat])
}

pub(super) fn average(call: &Call<'_>) -> Outputs {
    let x = call.input(0)?;
    let mut window = window(call, x)?;
    window.allow(call, x, 0)?;
    let size = spatial_size(x)?;
    let count_pads = call.int("count_include_pad", 0) != 0;
    let cells = ceil_cells(call, &window, &size);
    let padded = cells.iter().chain(&window.before).chain(&window.after).any(|&pad| pad != 0);
    if !padded {
        return Ok(vec![mean_of(x, &window)?]);
    }
    // Sums over zero padding, divided by the share of cells that count: the same for every padding
    // mode.
    let counted =
        Tensor::f_ones(&size, (Kind::Float, x.device()))?.f_unsqueeze(0)?.f_unsqueeze(0)?;
    let counted =
        if count_pads { window.pad(&counted, 1.0)? } else { window.pad(&counted, 0.0)? };
    let x = window.pad(x, 0.0)?;
    window.before.fill(0);
    window.after.copy_from_slice(&cells);
    let (x, counted) = (window.pad(&x, 0.0)?, window.pad(&counted, 0.0)?);
    Ok(vec![mean_of(&x, &window)?.f_div(&mean_of(&counted, &window)?)?])
}

fn mean_of(x: &Tensor, window: &Window) -> Result<Tensor, Fault> {
    let zero = vec![0; window.kernel.len()];
    let (kernel, stride) = (&window.kernel, &window.stride);
    if window.dilation.iter().any(|&step| step != 1) {
        // A convolution of each channel with equal weights.
        let channels = x.size()[1];
        let cells: i64 = kernel.iter().product();
        let options = (x.f_kind()?, x.device());
        let shape = [&[channels, 1], &kernel[..]].concat();
        let weight = Tensor::f_full(shape, 1.0 / cells as f64, options)?;
        let (dilation, none) = (&window.dilation, None::<&Tensor>);
        return Ok(x.f_convolution(&weight, none, stride, &zero, dilation, false, &zero, channels)?);
    }
    Ok(match zero.len() {
        1 => x.f_avg_pool1d(kernel, stride, &zero, false, true)?,
        2 => x.f_avg_pool2d(kernel, stride, &zero, false, true, None::<i64>)?,
        _ => x.f_avg_pool3d(kernel, stride, &zero, false, true, None::<i64>)?,
    })
}

/// `(sum |x|^p)^(1/p)` over each window.
pub(super) fn norm(call: &Call<'_>) -> Outputs {
    let x = call.input(0)?;
    let p = call.float("p", call.int("p", 2) as f32);
    let mut window = window(call, x)?;
    let size = spatial_size(x)?;
    let cells = ceil_cells(call, &window, &size);
    window.after.iter_mut().zip(&cells).for_each(|(after, cell)| *after += cell);
    window.allow(call, x, 0)?;
    let powers = window.pad(&x.f_abs()?.f_pow_tensor_scalar(p)?, 0.0)?;
    let count: i64 = window.kernel.iter().product();
    let sum = mean_of(&powers, &window)?.f_mul_scalar(count as f64)?;
    Ok(vec![sum.f_pow_tensor_scalar(1.0 / p)?])
}

pub(super) fn global_norm(call: &Call<'_>) -> Outputs {
    let x = call.input(0)?;
    let p = call.float("p", call.int("p", 2) as f32);
    let powers = x.f_abs()?.f_pow_tensor_scalar(p)?;
    let sum = powers.f_sum_dim_intlist(Some(&spatial_dims(x)?[..]), true, None::<Kind>)?;
    Ok(vec![sum.f_pow_tensor_scalar(1.0 / p)?])
}
