//! Convolutions over one to three spatial dimensions.

use super::{Call, Fault, Outputs, spatial};
use tch::Tensor;

/// Geometry of a sliding window.
pub(super) struct Window {
    pub kernel: Vec<i64>,
    pub stride: Vec<i64>,
    pub dilation: Vec<i64>,
    /// Cells before each spatial dimension.
    pub before: Vec<i64>,
    /// Cells after each spatial dimension.
    pub after: Vec<i64>,
}

impl Window {
    /// Reads the attributes; `auto_pad` is resolved against the input's size.
    pub fn read(call: &Call<'_>, size: &[i64], kernel: Vec<i64>) -> Result<Self, Fault> {
        let rank = kernel.len();
        let stride = spatial(call.ints("strides"), rank, 1)?;
        let dilation = spatial(call.ints("dilations"), rank, 1)?;
        if kernel.iter().chain(&stride).chain(&dilation).any(|&side| !(1..=1 << 20).contains(&side))
        {
            return Err(Fault::Failed(format!(
                "expected kernel, strides and dilations of at least 1, \
                 found {kernel:?}, {stride:?}, {dilation:?}"
            )));
        }
        let mut window = Self { kernel, stride, dilation, before: Vec::new(), after: Vec::new() };
        match call.text("auto_pad", "NOTSET") {
            "NOTSET" | "" => {
                let pads = spatial(call.ints("pads"), 2 * rank, 0)?;
                window.before = pads[..rank].to_vec();
                window.after = pads[rank..].to_vec();
            }
            "VALID" => {
                window.before = vec![0; rank];
                window.after = vec![0; rank];
            }
            "SAME_UPPER" => window.pad_same(size, false),
            "SAME_LOWER" => window.pad_same(size, true),
            other => return Err(Fault::Unsupported(format!("auto_pad {other:?}"))),
        }
        Ok(window)
    }

    /// The output has ceil(input / stride) cells; an odd cell of padding goes to the end, or to the
    /// start if `lower`.
    fn pad_same(&mut self, size: &[i64], lower: bool) {
        for (index, &side) in size.iter().enumerate() {
            let stride = self.stride[index];
            let reach = (self.kernel[index] - 1) * self.dilation[index] + 1;
            let total = ((side + stride - 1) / stride - 1) * stride + reach - side;
            let total = total.max(0);
            let small = total / 2;
            let (before, after) =
                if lower { (total - small, small) } else { (small, total - small) };
            self.before.push(before);
            self.after.push(after);
        }
    }

    /// Whether both sides of each dimension are padded alike, as libtorch wants it.
    pub fn is_symmetric(&self) -> bool {
        self.before == self.after && self.before.iter().all(|&pad| pad >= 0)
    }

    /// Whether it is one point wide and only leaves points out.
    fn takes_every_nth_point(&self) -> bool {
        let is_all = |values: &[i64], wanted: i64| values.iter().all(|&value| value == wanted);
        is_all(&self.kernel, 1)
            && is_all(&self.before, 0)
            && is_all(&self.after, 0)
            && !is_all(&self.stride, 1)
    }

    /// Whether the limits leave room for the padded input and an output of `channels`.
    pub fn allow(&self, call: &Call<'_>, x: &Tensor, channels: i64) -> Result<(), Fault> {
        let size = x.size();
        let mut shape = vec![size[0], size[1].max(channels)];
        for (index, &side) in size[2..].iter().enumerate() {
            shape.push((side + self.before[index] + self.after[index]).max(0));
        }
        call.allow(&shape, x.f_kind()?)
    }

    /// Pads explicitly, last dimension first as libtorch counts.
    pub fn pad(&self, x: &Tensor, value: f64) -> Result<Tensor, Fault> {
        let pads = self.before.iter().zip(&self.after).rev();
        let pads: Vec<i64> = pads.flat_map(|(&before, &after)| [before, after]).collect();
        Ok(x.f_pad(&pads, "constant", value)?)
    }
}

/// Sizes after batch and channels; at least one, at most three.
pub(super) fn spatial_size(x: &Tensor) -> Result<Vec<i64>, Fault> {
    let size = x.size();
    if !(3..=5).contains(&size.len()) {
        return Err(Fault::Failed(format!("expected [n, c, spatial...], found {size:?}")));
    }
    Ok(size[2..].to_vec())
}

pub(super) fn conv(call: &Call<'_>) -> Outputs {
    let y = convolve(call, call.input(0)?, call.input(1)?, call.optional(2))?;
    Ok(vec![y])
}

/// Convolution by the node's attributes, of tensors that need not be its inputs.
pub(super) fn convolve(
    call: &Call<'_>,
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
) -> Result<Tensor, Fault> {
    let size = spatial_size(x)?;
    let kernel = spatial_size(weight)?;
    if kernel.len() != size.len() {
        return Err(Fault::Failed(format!("weight {:?} for input {:?}", weight.size(), x.size())));
    }
    let window = Window::read(call, &size, kernel)?;
    window.allow(call, x, weight.size()[0])?;
    let zero = vec![0; size.len()];
    let groups = call.int("group", 1);
    let (stride, dilation) = (&window.stride, &window.dilation);
    let y = if window.takes_every_nth_point() {
        // oneDNN writes past its workspace in the backward pass of such a convolution with fewer channels than a vector
        // holds (oneDNN issue 6035, in PyTorch 2.11): it is asked for the points themselves.
        let x = every_nth(x, stride)?;
        let ones = vec![1; size.len()];
        x.f_convolution(weight, bias, &ones, &zero, &ones, false, &zero, groups)?
    } else if window.is_symmetric() {
        x.f_convolution(weight, bias, stride, &window.before, dilation, false, &zero, groups)?
    } else {
        let x = window.pad(x, 0.0)?;
        x.f_convolution(weight, bias, stride, &zero, dilation, false, &zero, groups)?
    };
    Ok(y)
}

/// Every n-th point of each spatial dimension, from the first one on.
fn every_nth(x: &Tensor, stride: &[i64]) -> Result<Tensor, Fault> {
    let mut out = x.shallow_clone();
    for (index, &step) in stride.iter().enumerate() {
        out = out.f_slice(2 + index as i64, None, None, step)?;
    }
    Ok(out)
}

pub(super) fn conv_transpose(call: &Call<'_>) -> Outputs {
    let (x, weight, bias) = (call.input(0)?, call.input(1)?, call.optional(2));
    let size = spatial_size(x)?;
    let rank = size.len();
    let kernel = spatial_size(weight)?;
    if kernel.len() != rank {
        return Err(Fault::Failed(format!("weight {:?} for input {:?}", weight.size(), x.size())));
    }
    let mut window = Window::read(call, &size, kernel)?;
    let extra = spatial(call.ints("output_padding"), rank, 0)?;
    let shape = call.ints("output_shape");
    let auto = call.text("auto_pad", "NOTSET");
    if auto.starts_with("SAME") || shape.is_some() {
        for index in 0..rank {
            let wanted = match shape {
                Some(shape) if shape.len() == rank => shape[index],
                Some(shape) => return Err(Fault::Failed(format!("output_shape {shape:?}"))),
                None => size[index] * window.stride[index],
            };
            let reach = (window.kernel[index] - 1) * window.dilation[index] + 1;
            let total = (size[index] - 1) * window.stride[index] + extra[index] + reach - wanted;
            if total < 0 {
                // What the output has too many lies at its end.
                (window.before[index], window.after[index]) = (0, total);
                continue;
            }
            let (small, large) = (total / 2, total - total / 2);
            let upper = auto == "SAME_UPPER";
            window.before[index] = if upper { small } else { large };
            window.after[index] = if upper { large } else { small };
        }
    }
    let whole = (0..rank).map(|index| {
        let reach = (window.kernel[index] - 1) * window.dilation[index] + 1;
        (size[index] - 1).saturating_mul(window.stride[index]).saturating_add(reach + extra[index])
    });
    let channels = weight.size()[1].saturating_mul(call.int("group", 1).max(1));
    call.allow(&[vec![x.size()[0], channels], whole.collect()].concat(), x.f_kind()?)?;
    // The whole output is computed and then cropped: padding may differ between the sides.
    let zero = vec![0; rank];
    let groups = call.int("group", 1);
    let (stride, dilation) = (&window.stride, &window.dilation);
    let full = x.f_convolution(weight, bias, stride, &zero, dilation, true, &zero, groups)?;
    let crop: Vec<i64> = (0..rank)
        .rev()
        .flat_map(|index| [-window.before[index], extra[index] - window.after[index]])
        .collect();
    Ok(vec![full.f_pad(&crop, "constant", 0.0)?])
}
