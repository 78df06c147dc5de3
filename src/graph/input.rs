//! The input contract: how an image becomes the tensor that a network expects.

use super::{Error, Graph};
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
    Rgb,
    /// Blue, green, red.
    Bgr,
    /// One channel of luminance.
    Grey,
}

/// How an image becomes a tensor: resized to `height` x `width`, then `(pixel * scale - mean[c]) / std[c]`
/// with pixels in 0..=255 and channels in the network's own order.
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

impl InputContract {
    /// Infers a contract from the graph's declared input, metadata and hints (hints win, then metadata that `export` wrote).
    ///
    /// # Errors
    /// `Error::Contract` if the size is neither declared nor stated, or numbers do not fit the channels.
    pub fn infer(
        _graph: &Graph,
        _metadata: &[(String, String)],
        _hints: &InputHints,
    ) -> Result<Self, Error> {
        todo!()
    }
    /// The contract as ONNX metadata entries, read back by `infer`.
    pub fn to_metadata(&self) -> Vec<(String, String)> {
        todo!()
    }
    /// 1 or 3.
    pub fn channels(&self) -> usize {
        todo!()
    }
    /// Shape of a batch of `n`.
    pub fn batch_shape(&self, _n: usize) -> [usize; 4] {
        todo!()
    }
    /// Appends one image's values to `out` in the contract's layout (bilinear with antialiasing; grey is repeated to
    /// three channels, colour is turned to luminance for one).
    pub fn apply(&self, _image: &Image, _out: &mut Vec<f32>) {
        todo!()
    }
}
