//! Generated architectures.

pub mod efficientnet_lite;
pub mod mobilenetv3;
pub mod small;

use super::{Error, Graph, input::InputContract};

/// A freshly generated network with random weights.
pub struct Generated {
    /// The graph with its weights.
    pub graph: Graph,
    /// Its input contract.
    pub input: InputContract,
    /// Space name, such as `mobilenetv3`.
    pub space: String,
    /// Configuration in the space's own notation, such as `resnet8-w16`.
    pub config: String,
    /// The 45 topology numbers for `mobilenetv3`, else empty.
    pub numbers: Vec<f32>,
}

/// Generates a network from `space:config`, such as `small:resnet8-w16@32x3` or `mobilenetv3:d2-k3-e4@224`.
///
/// Weights are drawn with `seed` (He initialisation, batch-norm at identity) and depend on nothing else.
pub fn generate(_spec: &str, _classes: usize, _seed: u64) -> Result<Generated, Error> {
    todo!()
}
