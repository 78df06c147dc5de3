//! Spectra and windows.

use super::{Call, Fault, Outputs, axis};
use tch::{Device, Kind, Tensor};

/// A window `sum a[k] cos(2 pi k i / n)`.
fn window(call: &Call<'_>, cosines: &[f64]) -> Outputs {
    let size = call.numbers(0)?.and_then(|size| size.first().copied()).unwrap_or(0);
    call.allow(&[size], Kind::Double)?;
    let period = if call.int("periodic", 1) != 0 { size } else { size - 1 };
    let options = (Kind::Double, Device::Cpu);
    let angle = Tensor::f_arange(size, options)?
        .f_mul_scalar(std::f64::consts::TAU / period.max(1) as f64)?;
    let mut sum = Tensor::f_zeros([size], options)?;
    for (k, weight) in cosines.iter().enumerate() {
        sum = sum.f_add(&angle.f_mul_scalar(k as f64)?.f_cos()?.f_mul_scalar(*weight)?)?;
    }
    Ok(vec![sum.f_to_kind(super::cast::kind_of_code(call.int("output_datatype", 1))?)?])
}

pub(super) fn hann(call: &Call<'_>) -> Outputs {
    window(call, &[0.5, -0.5])
}

pub(super) fn hamming(call: &Call<'_>) -> Outputs {
    window(call, &[25.0 / 46.0, -21.0 / 46.0])
}

pub(super) fn blackman(call: &Call<'_>) -> Outputs {
    window(call, &[0.42, -0.5, 0.08])
}

/// Complex numbers from a last dimension of one (real) or two entries.
fn complex(x: &Tensor) -> Result<Tensor, Fault> {
    let last = x.dim() as i64 - 1;
    match x.size().last() {
        Some(1) => Ok(x.f_squeeze_dim(last)?),
        Some(2) => Ok(x.f_contiguous()?.f_view_as_complex()?),
        _ => Err(Fault::Failed(format!("expected 1 or 2 in the end of {:?}", x.size()))),
    }
}

fn real_pairs(x: &Tensor) -> Result<Tensor, Fault> {
    let is_real = matches!(x.f_kind()?, Kind::Float | Kind::Double);
    Ok(if is_real { x.f_unsqueeze(-1)? } else { x.f_view_as_real()? })
}

pub(super) fn dft(call: &Call<'_>) -> Outputs {
    let x = call.input(0)?;
    let wanted = match call.numbers(2)?.and_then(|axis| axis.first().copied()) {
        Some(axis) => axis,
        None => call.int("axis", if call.opset < 20 { 1 } else { -2 }),
    };
    let dim = axis(wanted, x.dim())? as i64;
    let (inverse, onesided) = (call.int("inverse", 0) != 0, call.int("onesided", 0) != 0);
    let length = call.numbers(1)?.and_then(|length| length.first().copied());
    if let Some(length) = length {
        call.allow(&[length, x.numel() as i64], Kind::ComplexFloat)?;
    }
    let x = complex(x)?;
    let y = match (inverse, onesided) {
        (true, true) => x.f_fft_irfft(length, dim, "backward")?,
        (true, false) => x.f_fft_ifft(length, dim, "backward")?,
        (false, _) => x.f_fft_fft(length, dim, "backward")?,
    };
    let y = if onesided && !inverse { half(&y, dim)? } else { y };
    Ok(vec![real_pairs(&y)?])
}

/// The other half of a real signal's spectrum mirrors this one.
fn half(y: &Tensor, dim: i64) -> Result<Tensor, Fault> {
    Ok(y.f_narrow(dim, 0, y.size()[dim as usize] / 2 + 1)?)
}

pub(super) fn stft(call: &Call<'_>) -> Outputs {
    let x = complex(call.input(0)?)?;
    let first = |index| -> Result<Option<i64>, Fault> {
        Ok(call.numbers(index)?.and_then(|list| list.first().copied()))
    };
    let step = first(1)?.unwrap_or(1);
    let window = call.optional(2);
    let length = match (first(3)?, window) {
        (Some(length), _) => length,
        (None, Some(window)) => window.size1()?,
        (None, None) => return Err(Fault::Failed("expected a window or a length".to_string())),
    };
    if step < 1 || length < 1 {
        return Err(Fault::Failed(format!("step {step} and length {length}")));
    }
    let frames = x.f_unfold(1, length, step)?;
    call.allow(&frames.size(), Kind::ComplexFloat)?;
    let frames = match window {
        Some(window) => frames.f_mul(window)?,
        None => frames,
    };
    let y = frames.f_fft_fft(None, -1, "backward")?;
    let y = if call.int("onesided", 1) != 0 { half(&y, 2)? } else { y };
    Ok(vec![real_pairs(&y)?])
}
