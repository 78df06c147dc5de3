//! Pooling.

use super::conv::{Window, spatial_size};
use super::{Call, Fault, Outputs};
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
    if call.node.outputs.len() > 1 && !call.node.outputs[1].is_empty() {
        return Err(Fault::Unsupported("second output (indices)".to_string()));
    }
    let mut window = window(call, x)?;
    let size = spatial_size(x)?;
    let cells = ceil_cells(call, &window, &size);
    window.after.iter_mut().zip(&cells).for_each(|(after, cell)| *after += cell);
    let small = window.before.iter().zip(&window.kernel).all(|(&pad, &side)| pad * 2 <= side);
    let zero = vec![0; size.len()];
    let (kernel, stride, dilation) = (&window.kernel, &window.stride, &window.dilation);
    let (x, pads) = if window.is_symmetric() && small {
        (x.shallow_clone(), &window.before)
    } else {
        (window.pad(x, f64::NEG_INFINITY)?, &zero)
    };
    Ok(vec![match size.len() {
        1 => x.f_max_pool1d(kernel, stride, pads, dilation, false)?,
        2 => x.f_max_pool2d(kernel, stride, pads, dilation, false)?,
        _ => x.f_max_pool3d(kernel, stride, pads, dilation, false)?,
    }])
}

pub(super) fn average(call: &Call<'_>) -> Outputs {
    let x = call.input(0)?;
    let mut window = window(call, x)?;
    if window.dilation.iter().any(|&side| side != 1) {
        return Err(Fault::Unsupported(format!("dilations {:?}", window.dilation)));
    }
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
    Ok(match zero.len() {
        1 => x.f_avg_pool1d(kernel, stride, &zero, false, true)?,
        2 => x.f_avg_pool2d(kernel, stride, &zero, false, true, None::<i64>)?,
        _ => x.f_avg_pool3d(kernel, stride, &zero, false, true, None::<i64>)?,
    })
}
