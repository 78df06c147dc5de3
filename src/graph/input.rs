//! The input contract: how an image becomes the tensor that a network expects.

mod resize;
#[cfg(test)]
mod tests;

use super::{Dtype, Error, Graph, ValueInfo};
use crate::sample::Image;
use serde::{Deserialize, Serialize};

/// Memory layout of the input tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Layout {
    /// batch, channels, height, width.
    Nchw,
    /// batch, height, width, channels.
    Nhwc,
}

/// Order of colour channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChannelOrder {
    /// Red, green, blue.
    #[serde(alias = "rgb")]
    Rgb,
    /// Blue, green, red.
    #[serde(alias = "bgr")]
    Bgr,
    /// One channel of luminance.
    #[serde(alias = "grey")]
    Grey,
}

/// How an image becomes a tensor: resized to `height` x `width`, then `(pixel * scale - mean[c]) /
/// std[c]` with pixels in 0..=255 and channels in the network's own order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InputContract {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Layout.
    pub layout: Layout,
    /// Channel order; `Grey` has one channel.
    pub order: ChannelOrder,
    /// Applied to pixels first: 1/255 for networks that expect 0..1, 1 for 0..255.
    pub scale: f32,
    /// One per channel.
    pub mean: Vec<f32>,
    /// One per channel.
    pub std: Vec<f32>,
}

/// What the user stated about the input; everything else is inferred.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InputHints {
    /// channels, height, width.
    pub shape: Option<(usize, usize, usize)>,
    /// One per channel, in the network's channel order.
    pub mean: Option<Vec<f32>>,
    /// One per channel.
    pub std: Option<Vec<f32>>,
    /// `(pixel * scale - mean) / std`.
    pub scale: Option<f32>,
    /// Channel order.
    pub order: Option<ChannelOrder>,
}

impl InputHints {
    /// `(channels, height, width)` of `CHANNELSxHEIGHTxWIDTH`, such as `3x224x224`.
    ///
    /// # Errors
    /// `Error::Contract` for any other text.
    pub fn parse_shape(text: &str) -> Result<(usize, usize, usize), Error> {
        let sides: Vec<usize> =
            text.split('x').map(str::parse).collect::<Result<_, _>>().unwrap_or_default();
        match sides[..] {
            [channels, height, width] if sides.iter().all(|&side| side > 0) => {
                Ok((channels, height, width))
            }
            _ => Err(Error::Contract(format!(
                "expected CHANNELSxHEIGHTxWIDTH such as 3x224x224, found {text:?}"
            ))),
        }
    }
}

/// Key of the metadata entry that `to_metadata` writes.
const METADATA_KEY: &str = "tans.input";

/// Largest side and area that a contract may state: beyond them a batch would not fit into memory.
const SIDE_MAX: usize = 16_384;
const AREA_MAX: usize = 4096 * 4096;

impl InputContract {
    /// Infers a contract from the graph's declared input, metadata and hints (hints win, then
    /// metadata that `export` wrote).
    ///
    /// What nothing states is taken as RGB, scale 1/255, mean 0 and std 1; a declared input of one
    /// channel is grey.
    ///
    /// # Errors
    /// `Error::Contract` if the size is neither declared nor stated, or numbers do not fit the
    /// channels.
    pub fn infer(
        graph: &Graph,
        metadata: &[(String, String)],
        hints: &InputHints,
    ) -> Result<Self, Error> {
        let Some(input) = graph.inputs.first() else {
            return Err(Error::Contract(
                "the network has no input that an image could enter".into(),
            ));
        };
        refuse_other_order(input, hints)?;
        let base = match stored(metadata)? {
            Some(contract) => contract,
            None => declared(input, hints)?,
        };
        let contract = base.with_hints(hints);
        contract.check()?;
        Ok(contract)
    }

    /// The contract as ONNX metadata entries, read back by `infer`.
    pub fn to_metadata(&self) -> Vec<(String, String)> {
        let value = serde_json::to_value(self).unwrap_or_default();
        vec![(METADATA_KEY.to_owned(), value.to_string())]
    }

    /// Checks what `apply` relies on; contracts read from elsewhere must pass it.
    ///
    /// # Errors
    /// `Error::Contract` if a side is zero or absurd, or a number is not finite or does not fit the
    /// channels.
    pub fn check(&self) -> Result<(), Error> {
        let Self { height, width, layout: _, order: _, scale, mean, std } = self;
        let channels = self.channels();
        if [height, width].into_iter().any(|side| !(1..=SIDE_MAX).contains(side)) {
            return Err(Error::Contract(format!(
                "expected an input of 1 to {SIDE_MAX} rows and columns, found {height}x{width}"
            )));
        }
        if height * width > AREA_MAX {
            return Err(Error::Contract(format!(
                "expected an input of at most {AREA_MAX} pixels, found {height}x{width}"
            )));
        }
        for (what, numbers) in [("mean", mean), ("std", std)] {
            if numbers.len() != channels {
                let found = numbers.len();
                return Err(Error::Contract(format!(
                    "expected {channels} numbers of --{what}, one per channel, found {found}"
                )));
            }
        }
        let finite = mean.iter().chain(std).chain([scale]).all(|number| number.is_finite());
        if !finite || *scale == 0.0 || std.contains(&0.0) {
            return Err(Error::Contract(format!(
                "expected finite numbers, scale and std not 0, found scale {scale}, mean \
                {mean:?}, std {std:?}"
            )));
        }
        Ok(())
    }

    /// 1 or 3.
    pub fn channels(&self) -> usize {
        match self.order {
            ChannelOrder::Rgb | ChannelOrder::Bgr => 3,
            ChannelOrder::Grey => 1,
        }
    }

    /// Shape of a batch of `n`.
    pub fn batch_shape(&self, n: usize) -> [usize; 4] {
        match self.layout {
            Layout::Nchw => [n, self.channels(), self.height, self.width],
            Layout::Nhwc => [n, self.height, self.width, self.channels()],
        }
    }

    /// Appends one image's values to `out` in the contract's layout (bilinear with antialiasing;
    /// grey is repeated to three channels, colour is turned to luminance for one).
    pub fn apply(&self, image: &Image, out: &mut Vec<f32>) {
        let source = image.channels();
        let pixels = resize::resize(image, self.height, self.width);
        let channels = self.channels();
        let start = out.len();
        out.resize(start + channels * self.height * self.width, 0.0);
        let out = &mut out[start..];
        for channel in 0..channels {
            let mix = mixture(self.order, channel, source);
            let (gain, offset) = self.affine(channel);
            let values = pixels.chunks_exact(source).map(|pixel| {
                let value: f32 = pixel.iter().zip(mix).map(|(value, weight)| value * weight).sum();
                value * gain + offset
            });
            let (first, step) = match self.layout {
                Layout::Nchw => (channel * self.height * self.width, 1),
                Layout::Nhwc => (channel, channels),
            };
            out[first..]
                .iter_mut()
                .step_by(step)
                .zip(values)
                .for_each(|(slot, value)| *slot = value);
        }
    }

    /// `(pixel * scale - mean) / std` as one multiplication and one addition.
    fn affine(&self, channel: usize) -> (f32, f32) {
        let (mean, std) = (self.mean[channel], self.std[channel]);
        (self.scale / std, -mean / std)
    }

    fn with_hints(self, hints: &InputHints) -> Self {
        let InputHints { shape, mean, std, scale, order } = hints;
        let stated = shape.map(|(channels, ..)| channels);
        let order = match (order, stated) {
            (Some(order), _) => *order,
            (None, Some(1)) => ChannelOrder::Grey,
            (None, Some(_)) if self.order == ChannelOrder::Grey => ChannelOrder::Rgb,
            (None, _) => self.order,
        };
        let (height, width) =
            shape.map_or((self.height, self.width), |(_, height, width)| (height, width));
        let channels = if order == ChannelOrder::Grey { 1 } else { 3 };
        let fit = |own: Vec<f32>, neutral: f32| {
            if own.len() == channels { own } else { vec![neutral; channels] }
        };
        Self {
            height,
            width,
            layout: self.layout,
            order,
            scale: scale.unwrap_or(self.scale),
            mean: mean.clone().unwrap_or_else(|| fit(self.mean, 0.0)),
            std: std.clone().unwrap_or_else(|| fit(self.std, 1.0)),
        }
    }
}

/// The contract that `to_metadata` wrote, if there is one.
fn stored(metadata: &[(String, String)]) -> Result<Option<InputContract>, Error> {
    let Some((_, text)) = metadata.iter().find(|(key, _)| key == METADATA_KEY) else {
        return Ok(None);
    };
    match serde_json::from_str(text) {
        Ok(contract) => Ok(Some(contract)),
        Err(error) => {
            Err(Error::Contract(format!("metadata entry {METADATA_KEY} is damaged: {error}")))
        }
    }
}

fn is_whole(dtype: Option<Dtype>) -> bool {
    matches!(
        dtype,
        Some(
            Dtype::U8
                | Dtype::I8
                | Dtype::U16
                | Dtype::I16
                | Dtype::U32
                | Dtype::I32
                | Dtype::U64
                | Dtype::I64
        )
    )
}

/// Layout, and channels, rows and columns as far as they are declared.
fn axes(input: &ValueInfo) -> Result<(Layout, [Option<usize>; 3]), Error> {
    let ValueInfo { name, dtype: _, dims } = input;
    let [_, a, b, c] = match dims.as_slice() {
        &[batch, a, b, c] => [batch, a, b, c],
        [] => [None; 4],
        dims => {
            return Err(Error::Contract(format!(
                "expected an image input of 4 dimensions, found {name:?} of {}",
                dims.len()
            )));
        }
    };
    let is_channels = |dim: Option<usize>| matches!(dim, Some(1 | 3));
    Ok(match is_channels(c) && !is_channels(a) {
        true => (Layout::Nhwc, [c, a, b]),
        false => (Layout::Nchw, [a, b, c]),
    })
}

/// Refuses a stated shape that the declared dimensions contradict.
fn refuse_other_shape(input: &ValueInfo, hints: &InputHints) -> Result<(), Error> {
    let (name, (_, axes)) = (&input.name, axes(input)?);
    let stated = hints.shape.map(|(channels, height, width)| [channels, height, width]);
    let named = ["channels", "rows", "columns"].into_iter().zip(axes);
    for ((what, declared), stated) in named.zip(stated.into_iter().flatten()) {
        if let Some(declared) = declared.filter(|&declared| declared != stated) {
            return Err(Error::Contract(format!(
                "input {name:?} declares {declared} {what}, --input states {stated}"
            )));
        }
    }
    Ok(())
}

/// Refuses a stated channel order that the declared channels contradict.
fn refuse_other_order(input: &ValueInfo, hints: &InputHints) -> Result<(), Error> {
    let (name, (_, axes)) = (&input.name, axes(input)?);
    match (hints.order, axes[0]) {
        (Some(order), Some(declared)) if (order == ChannelOrder::Grey) != (declared == 1) => {
            Err(Error::Contract(format!(
                "input {name:?} declares {declared} channels, --channel-order states {}",
                if order == ChannelOrder::Grey { "one" } else { "three" }
            )))
        }
        _ => Ok(()),
    }
}

/// What the declared dimensions say, completed by the stated shape.
fn declared(input: &ValueInfo, hints: &InputHints) -> Result<InputContract, Error> {
    refuse_other_shape(input, hints)?;
    let (name, stated) = (&input.name, hints.shape);
    let (layout, [channels, height, width]) = axes(input)?;
    let channels = stated.map(|shape| shape.0).or(channels).unwrap_or(3);
    let order = match channels {
        1 => ChannelOrder::Grey,
        3 => ChannelOrder::Rgb,
        found => {
            return Err(Error::Contract(format!(
                "expected 1 or 3 input channels, found {found} in {name:?}"
            )));
        }
    };
    let missing = || {
        Error::Contract(format!(
            "input {name:?} declares no image size: state it with --input \
            {channels}xHEIGHTxWIDTH, such as --input {channels}x224x224"
        ))
    };
    Ok(InputContract {
        height: stated.map(|shape| shape.1).or(height).ok_or_else(missing)?,
        width: stated.map(|shape| shape.2).or(width).ok_or_else(missing)?,
        layout,
        order,
        // Whole numbers are pixels as they are.
        scale: if is_whole(input.dtype) { 1.0 } else { 1.0 / 255.0 },
        mean: vec![0.0; channels],
        std: vec![1.0; channels],
    })
}

/// Shares of the image's channels in one channel of the network.
fn mixture(order: ChannelOrder, channel: usize, source: usize) -> &'static [f32] {
    const UNITS: [[f32; 3]; 3] = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
    // Luminance of ITU-R BT.601.
    const LUMINANCE: [f32; 3] = [0.299, 0.587, 0.114];
    match (source, order) {
        (1, _) => &[1.0],
        (_, ChannelOrder::Grey) => &LUMINANCE,
        (_, ChannelOrder::Rgb) => &UNITS[channel],
        (_, ChannelOrder::Bgr) => &UNITS[2 - channel],
    }
}
