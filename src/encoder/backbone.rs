//! The frozen network that turns one sample into a feature row: EfficientNet-Lite0, compiled in.

use super::Error;
use crate::graph::exec::Device;
use crate::rows::Rows;
use crate::sample::Image;

/// The backbone on a device.
pub struct Backbone {}

impl Backbone {
    /// Loads the built-in backbone.
    pub fn load(_device: Device) -> Result<Self, Error> {
        todo!()
    }
    /// Feature rows `[n, 1280]`. `progress(done, total)`; `Break` cancels.
    pub fn rows(
        &self,
        _images: &[Image],
        _progress: &mut dyn FnMut(usize, usize) -> std::ops::ControlFlow<()>,
    ) -> Result<Rows, Error> {
        todo!()
    }
    /// ImageNet logits `[n, 1000]`.
    pub fn logits(&self, _images: &[Image]) -> Result<Rows, Error> {
        todo!()
    }
}
