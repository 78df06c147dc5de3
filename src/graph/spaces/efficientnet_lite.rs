//! EfficientNet-Lite 0 to 4 (Tan & Le 2019, without squeeze-excite, with ReLU6): the backbone's
//! architecture.
//!
//! Weights have the names of the PyTorch state dict: `_conv_stem.weight`,
//! `_blocks.3._bn1.running_var`, `_fc.bias`.

use super::builder::{Activation, Builder, Conv, Map};
use crate::graph::input::InputContract;
use crate::graph::{Error, Graph, Weight};

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

    /// RGB with the mean and spread of ImageNet, as the package of the weights documents it.
    pub fn input(self) -> InputContract {
        super::imagenet(self.side())
    }
}

/// Builds a variant with the given number of classes. A weight that `weights` does not have is
/// drawn with `seed`.
///
/// Weights keep their element type. The input is `input: [batch, 3, side, side]`, the penultimate
/// activations are `features: [batch, 1280]`, the output is `logits: [batch, classes]`.
///
/// # Errors
/// `Error::Contract` if a given weight has another shape than its place.
pub fn graph(
    variant: Variant,
    classes: usize,
    seed: u64,
    weights: &dyn Fn(&str) -> Option<Weight>,
) -> Result<Graph, Error> {
    let mut build = Builder::new(seed, weights).epsilon(1e-3);
    let x = build.input(variant.side());
    let stem = Conv::dense(STEM_CHANNELS, 3, 2).same();
    let mut x = conv_bn(&mut build, &x, ("_conv_stem", "_bn0"), stem)?;
    x = build.activate(&x, Activation::Relu6);
    for (index, block) in blocks(variant).enumerate() {
        x = inverted_residual(&mut build, &x, &format!("_blocks.{index}"), block)?;
    }
    let head = Conv::dense(HEAD_CHANNELS, 1, 1).same();
    x = conv_bn(&mut build, &x, ("_conv_head", "_bn1"), head)?;
    x = build.activate(&x, Activation::Relu6);
    x = build.average(&x, "_avg_pooling");
    build.head(&x, "_fc", classes)
}

/// Builds a variant whose weights all come from `weights`.
///
/// # Errors
/// `Error::Contract` naming the first weight that is missing or has another shape.
pub fn pretrained(
    variant: Variant,
    classes: usize,
    weights: &dyn Fn(&str) -> Option<Weight>,
) -> Result<Graph, Error> {
    let missing = std::cell::RefCell::new(None);
    let supply = |name: &str| {
        let weight = weights(name);
        if weight.is_none() {
            missing.borrow_mut().get_or_insert_with(|| name.to_owned());
        }
        weight
    };
    let graph = graph(variant, classes, 0, &supply)?;
    match missing.into_inner() {
        Some(name) => Err(Error::Contract(format!("weight {name} is missing"))),
        None => Ok(graph),
    }
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

fn conv_bn(
    build: &mut Builder,
    x: &Map,
    (conv_name, norm_name): (&str, &str),
    conv: Conv,
) -> Result<Map, Error> {
    let x = build.conv(x, conv_name, conv)?;
    build.batch_norm(&x, norm_name)
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
        x = conv_bn(build, &x, (&part("_expand_conv"), &part("_bn0")), conv)?;
        x = build.activate(&x, Activation::Relu6);
    }
    let depthwise = Conv::depthwise(wide, kernel, stride).same();
    x = conv_bn(build, &x, (&part("_depthwise_conv"), &part("_bn1")), depthwise)?;
    x = build.activate(&x, Activation::Relu6);
    let project = Conv::dense(out, 1, 1).same();
    x = conv_bn(build, &x, (&part("_project_conv"), &part("_bn2")), project)?;
    if stride == 1 && input.channels == out {
        x = build.add(&x, input);
    }
    Ok(x)
}
