//! EfficientNet-Lite 0 to 4 (Tan & Le 2019, without squeeze-excite, with ReLU6): the backbone's
//! architecture.
//!
//! Weights have the names of the PyTorch state dict: `_conv_stem.weight`,
//! `_blocks.3._bn1.running_var`, `_fc.bias`.

use super::builder::{Activation, Builder, Conv, Map, Source};
use crate::graph::{Error, Graph};

/// A member of the family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variant {
    number: usize,
}

/// (width, depth, side of the input) of Lite0..Lite4.
const SCALES: [(f32, f32, usize); 5] =
    [(1.0, 1.0, 224), (1.0, 1.1, 240), (1.1, 1.2, 260), (1.2, 1.4, 280), (1.4, 1.8, 300)];

/// (repeats, kernel, stride, expansion, channels) of the seven stages of Lite0.
const STAGES: [(usize, usize, usize, usize, usize); 7] = [
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
];

const STEM_CHANNELS: usize = 32;
const HEAD_CHANNELS: usize = 1280;

impl Variant {
    /// Lite0..Lite4 by number.
    ///
    /// # Errors
    /// `Error::Contract` for any other number.
    pub fn new(number: usize) -> Result<Self, Error> {
        match SCALES.get(number) {
            Some(_) => Ok(Self { number }),
            None => Err(Error::Contract(format!("expected lite0 to lite4, found lite{number}"))),
        }
    }

    /// Rows and columns of the input.
    pub fn side(self) -> usize {
        SCALES[self.number].2
    }
}

impl std::fmt::Display for Variant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "lite{}", self.number)
    }
}

/// Builds a variant. Weights keep their element type. The input is `input: [batch, 3, side, side]`,
/// the penultimate activations are `features: [batch, 1280]`, the output is
/// `logits: [batch, classes]`.
///
/// # Errors
/// `Error::Contract` if a given weight has another shape than its place.
pub(super) fn graph(variant: Variant, classes: usize, source: Source<'_>) -> Result<Graph, Error> {
    let mut build = Builder::new(source).epsilon(1e-3);
    let x = build.input(variant.side());
    let stem = Conv::dense(STEM_CHANNELS, 3, 2).same();
    let mut x = build.conv_bn(&x, ("_conv_stem", "_bn0"), stem)?;
    x = build.activate(&x, Activation::Relu6);
    for (index, block) in blocks(variant).enumerate() {
        x = inverted_residual(&mut build, &x, &format!("_blocks.{index}"), block)?;
    }
    let head = Conv::dense(HEAD_CHANNELS, 1, 1).same();
    x = build.conv_bn(&x, ("_conv_head", "_bn1"), head)?;
    x = build.activate(&x, Activation::Relu6);
    x = build.average(&x, "_avg_pooling");
    build.head(&x, "_fc", classes)
}

#[derive(Clone, Copy)]
struct Block {
    kernel: usize,
    stride: usize,
    expansion: usize,
    out: usize,
}

fn blocks(variant: Variant) -> impl Iterator<Item = Block> {
    let (width, depth, _) = SCALES[variant.number];
    let stage = move |(index, stage): (usize, (usize, usize, usize, usize, usize))| {
        let (repeats, kernel, stride, expansion, channels) = stage;
        // Stem, head and the repeats of the first and last stage do not scale in the Lite family.
        let fixed = index == 0 || index == STAGES.len() - 1;
        let repeats = if fixed { repeats } else { (depth * repeats as f32).ceil() as usize };
        let out = round_to_eight(channels, width);
        (0..repeats).map(move |repeat| {
            let stride = if repeat == 0 { stride } else { 1 };
            Block { kernel, stride, expansion, out }
        })
    };
    STAGES.into_iter().enumerate().flat_map(stage)
}

/// Scaled channels to the nearest multiple of eight, but never below 90 %.
fn round_to_eight(channels: usize, width: f32) -> usize {
    let scaled = channels as f32 * width;
    let rounded = ((scaled as usize + 4) / 8 * 8).max(8);
    if (rounded as f32) < 0.9 * scaled { rounded + 8 } else { rounded }
}

fn inverted_residual(
    build: &mut Builder,
    input: &Map,
    name: &str,
    block: Block,
) -> Result<Map, Error> {
    let Block { kernel, stride, expansion, out } = block;
    let part = |part: &str| format!("{name}.{part}");
    let wide = input.channels * expansion;
    let mut x = input.clone();
    if expansion != 1 {
        let conv = Conv::dense(wide, 1, 1).same();
        x = build.conv_bn(&x, (&part("_expand_conv"), &part("_bn0")), conv)?;
        x = build.activate(&x, Activation::Relu6);
    }
    let depthwise = Conv::depthwise(wide, kernel, stride).same();
    x = build.conv_bn(&x, (&part("_depthwise_conv"), &part("_bn1")), depthwise)?;
    x = build.activate(&x, Activation::Relu6);
    let project = Conv::dense(out, 1, 1).same();
    x = build.conv_bn(&x, (&part("_project_conv"), &part("_bn2")), project)?;
    if stride == 1 && input.channels == out {
        x = build.add(&x, input);
    }
    Ok(x)
}
