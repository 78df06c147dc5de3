//! The frozen network that turns one sample into a feature row: EfficientNet-Lite0, compiled in.

use super::Error;
use crate::graph::exec::{Device, Network};
use crate::graph::input::InputContract;
use crate::graph::{Graph, formats::safetensors, spaces};
use crate::rows::Rows;
use crate::sample::Image;
use std::ops::ControlFlow;

/// Numbers in a feature row.
pub const FEATURE_DIM: usize = 1280;

/// What names the built-in backbone where a network file could stand.
pub const SPEC: &str = "backbone:efficientnet-lite0";

/// Changes whenever the same weights would give other rows (resampling, normalisation, pooling).
const VERSION: u32 = 1;

const WEIGHTS: &[u8] = include_bytes!("../../assets/backbone/efficientnet-lite0.safetensors");

const ARCHITECTURE: &str = "efficientnet_lite:lite0";

/// Images between two calls of `progress`.
const BLOCK: usize = 32;

/// The backbone on a device.
pub struct Backbone {
    network: Network,
}

impl Backbone {
    /// Loads the built-in backbone.
    ///
    /// # Errors
    /// `Error::Graph` if the device cannot be used.
    pub fn load(device: Device) -> Result<Self, Error> {
        let (graph, input) = network()?;
        Ok(Self { network: Network::new(&graph, &input, device)? })
    }

    /// Feature rows `[n, 1280]`. `progress(done, total)`; `Break` cancels.
    ///
    /// # Errors
    /// `Error::Cancelled` after `Break`; `Error::Graph` if libtorch fails.
    pub fn rows(
        &self,
        images: &[Image],
        progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<Rows, Error> {
        let mut values = Vec::with_capacity(images.len() * FEATURE_DIM);
        let mut done = 0;
        for block in images.chunks(BLOCK) {
            if progress(done, images.len()).is_break() {
                return Err(Error::Cancelled);
            }
            values.extend_from_slice(self.network.features(block)?.values());
            done += block.len();
        }
        if progress(done, images.len()).is_break() {
            return Err(Error::Cancelled);
        }
        Rows::new(FEATURE_DIM, values).ok_or_else(|| Error::Input {
            what: "backbone rows",
            expected: format!("{FEATURE_DIM} numbers an image"),
            found: "another length".to_string(),
        })
    }

    /// ImageNet logits `[n, 1000]`.
    ///
    /// # Errors
    /// `Error::Graph` if libtorch fails.
    #[cfg(test)]
    pub fn logits(&self, images: &[Image]) -> Result<Rows, Error> {
        Ok(self.network.logits(images)?)
    }
}

/// The backbone as a network of its own: graph, weights (widened to f32) and input contract.
///
/// # Errors
/// `Error::Graph` if the compiled-in weights do not fit the architecture.
pub fn network() -> Result<(Graph, InputContract), Error> {
    let (state, _) = safetensors::read(WEIGHTS)?;
    let network = spaces::pretrained(ARCHITECTURE, state)?.network;
    Ok((network.graph, network.input))
}

/// Identifies what made a feature row: rows with different fingerprints must not be compared.
pub fn fingerprint() -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"tans backbone");
    hasher.update(&VERSION.to_le_bytes());
    hasher.update(WEIGHTS);
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests;
