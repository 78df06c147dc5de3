//! MobileNetV3 as in Once-for-all (Cai et al. 2020; Howard et al. 2019): five stages of two to four
//! inverted residuals, each with its own kernel and expansion.
//!
//! A configuration is `dDEPTHS-kKERNELS-eEXPANSIONS[-w1.2]`. Depths are one number or one for each
//! of the five stages; kernels and expansions one number, one for each stage, or one for each of
//! the 20 possible blocks, joined by dots: `d2-k3-e4`, `d2.3.4.4.2-k3.5.3.7.7-e6-w1.2`. Blocks
//! beyond a stage's depth are written 0.

use super::builder::{Activation, Builder, Conv, Map, SIDES, Source};
use crate::graph::{Error, Graph};
use std::fmt;

/// Stages whose depth is free.
const STAGES: usize = 5;
/// Blocks of a stage at most.
const BLOCKS: usize = 4;

const DEPTHS: [usize; 3] = [2, 3, 4];
const KERNELS: [usize; 3] = [3, 5, 7];
const EXPANSIONS: [usize; 3] = [3, 4, 6];

/// (channels, stride, activation, squeeze-excite) of the stages at width 1.
const STAGE_SHAPES: [(usize, usize, Activation, bool); STAGES] = [
    (24, 2, Activation::Relu, false),
    (40, 2, Activation::Relu, true),
    (80, 2, Activation::HardSwish, false),
    (112, 1, Activation::HardSwish, true),
    (160, 2, Activation::HardSwish, true),
];

const STEM_CHANNELS: usize = 16;
const FINAL_CHANNELS: usize = 960;
const FEATURE_CHANNELS: usize = 1280;

const ALLOWED: &str = "mobilenetv3:dDEPTHS-kKERNELS-eEXPANSIONS[-w1.0|-w1.2]@SIDE with \
    depths of 2, 3, 4 (1 or 5 numbers joined by dots), kernels of 3, 5, 7 and \
    expansions of 3, 4, 6 (1, 5 or 20 numbers), SIDE 32 to 512, such as \
    mobilenetv3:d2-k3-e4@224";

/// One network of the space.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    depths: [usize; STAGES],
    /// 0 beyond a stage's depth.
    kernels: [usize; STAGES * BLOCKS],
    /// 0 beyond a stage's depth.
    expansions: [usize; STAGES * BLOCKS],
    wide: bool,
}

impl Config {
    /// Parses the notation of the module's documentation.
    ///
    /// # Errors
    /// `Error::Contract` with what is allowed.
    pub fn parse(text: &str) -> Result<Self, Error> {
        Self::parse_parts(text).ok_or_else(|| refused(text))
    }

    /// The 45 topology numbers: 5 depths, 20 kernels, 20 expansions; 0 for blocks that are not
    /// there.
    pub fn numbers(&self) -> Vec<f32> {
        let all = self.depths.iter().chain(&self.kernels).chain(&self.expansions);
        all.map(|&number| number as f32).collect()
    }

    /// 1.0 or 1.2.
    pub fn width(&self) -> f32 {
        if self.wide { 1.2 } else { 1.0 }
    }

    fn parse_parts(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let mut numbers = |prefix: char| -> Option<Vec<usize>> {
            let list = parts.next()?.strip_prefix(prefix)?;
            list.split('.').map(|number| number.parse().ok()).collect()
        };
        let (depths, kernels, expansions) = (numbers('d')?, numbers('k')?, numbers('e')?);
        let wide = match parts.next() {
            None | Some("w1.0" | "w1") => false,
            Some("w1.2") => true,
            Some(_) => return None,
        };
        let depths = match depths.as_slice() {
            &[depth] => [depth; STAGES],
            depths => depths.try_into().ok()?,
        };
        let known = parts.next().is_none() && depths.iter().all(|depth| DEPTHS.contains(depth));
        known.then_some(())?;
        let kernels = spread(&kernels, &depths, &KERNELS)?;
        let expansions = spread(&expansions, &depths, &EXPANSIONS)?;
        Some(Self { depths, kernels, expansions, wide })
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { depths, kernels, expansions, wide } = self;
        write!(f, "d{}-k{}-e{}", joined(depths), joined(kernels), joined(expansions))?;
        if *wide { f.write_str("-w1.2") } else { Ok(()) }
    }
}

/// Builds a configuration for images of `side` x `side` x 3.
///
/// # Errors
/// `Error::Contract` if the side is outside 32..=512, or a given weight has another shape than its
/// place.
pub(super) fn graph(
    config: &Config,
    side: usize,
    classes: usize,
    source: Source<'_>,
) -> Result<Graph, Error> {
    if !SIDES.contains(&side) {
        return Err(refused(&format!("{config}@{side}")));
    }
    let scale = |channels: usize| scaled(channels, config.width());
    let mut build = Builder::new(source);
    let x = build.input(side);
    let stem = conv_bn(&mut build, &x, "first_conv", Conv::dense(scale(STEM_CHANNELS), 3, 2))?;
    let mut x = build.activate(&stem, Activation::HardSwish);
    let first = Block {
        kernel: 3,
        stride: 1,
        expansion: 1,
        out: scale(STEM_CHANNELS),
        activation: Activation::Relu,
        squeeze: false,
    };
    x = inverted_residual(&mut build, x, "blocks.0", first)?;
    for (index, block) in blocks(config).enumerate() {
        x = inverted_residual(&mut build, x, &format!("blocks.{}", index + 1), block)?;
    }
    x = conv_bn(&mut build, &x, "final_expand", Conv::dense(scale(FINAL_CHANNELS), 1, 1))?;
    x = build.activate(&x, Activation::HardSwish);
    x = build.average(&x, "pool");
    x = build.conv(&x, "feature_mix", Conv::dense(scale(FEATURE_CHANNELS), 1, 1))?;
    x = build.activate(&x, Activation::HardSwish);
    build.head(&x, "classifier", classes)
}

#[derive(Clone, Copy)]
struct Block {
    kernel: usize,
    stride: usize,
    expansion: usize,
    out: usize,
    activation: Activation,
    squeeze: bool,
}

fn blocks(config: &Config) -> impl Iterator<Item = Block> {
    (0..STAGES * BLOCKS).filter(|&at| at % BLOCKS < config.depths[at / BLOCKS]).map(|at| {
        let (channels, stride, activation, squeeze) = STAGE_SHAPES[at / BLOCKS];
        Block {
            kernel: config.kernels[at],
            stride: if at.is_multiple_of(BLOCKS) { stride } else { 1 },
            expansion: config.expansions[at],
            out: scaled(channels, config.width()),
            activation,
            squeeze,
        }
    })
}

fn inverted_residual(
    build: &mut Builder,
    input: Map,
    name: &str,
    block: Block,
) -> Result<Map, Error> {
    let Block { kernel, stride, expansion, out, activation, squeeze } = block;
    let wide = nearest_eight(input.channels * expansion);
    let mut x = input.clone();
    if expansion != 1 {
        x = conv_bn(build, &x, &format!("{name}.expand"), Conv::dense(wide, 1, 1))?;
        x = build.activate(&x, activation);
    }
    let depthwise = Conv::depthwise(wide, kernel, stride);
    x = conv_bn(build, &x, &format!("{name}.depthwise"), depthwise)?;
    x = build.activate(&x, activation);
    if squeeze {
        x = build.squeeze_excite(&x, &format!("{name}.se"), nearest_eight(wide / 4))?;
    }
    x = conv_bn(build, &x, &format!("{name}.project"), Conv::dense(out, 1, 1))?;
    Ok(if stride == 1 && input.channels == out { build.add(&x, &input) } else { x })
}

fn conv_bn(build: &mut Builder, x: &Map, name: &str, conv: Conv) -> Result<Map, Error> {
    build.conv_bn(x, (&format!("{name}.conv"), &format!("{name}.bn")), conv)
}

/// One number per possible block, 0 beyond the depths; `None` if a block that is there has a number
/// that is not allowed.
fn spread(
    given: &[usize],
    depths: &[usize; STAGES],
    allowed: &[usize],
) -> Option<[usize; STAGES * BLOCKS]> {
    let at = |index: usize| match given.len() {
        1 => given.first(),
        STAGES => given.get(index / BLOCKS),
        20 => given.get(index),
        _ => None,
    };
    let mut numbers = [0; STAGES * BLOCKS];
    for (index, number) in numbers.iter_mut().enumerate() {
        let given = *at(index)?;
        let present = index % BLOCKS < depths[index / BLOCKS];
        if !allowed.contains(&given) && (present || given != 0) {
            return None;
        }
        *number = if present { given } else { 0 };
    }
    Some(numbers)
}

/// A single number if all that count are equal, else all of them.
fn joined(numbers: &[usize]) -> String {
    let mut present = numbers.iter().filter(|&&number| number != 0);
    let first = present.next().copied().unwrap_or_default();
    if present.all(|&number| number == first) {
        return first.to_string();
    }
    let all: Vec<String> = numbers.iter().map(usize::to_string).collect();
    all.join(".")
}

fn scaled(channels: usize, width: f32) -> usize {
    nearest_eight((channels as f32 * width) as usize)
}

/// The nearest multiple of eight, never below 90 %.
fn nearest_eight(channels: usize) -> usize {
    let rounded = ((channels + 4) / 8 * 8).max(8);
    if rounded * 10 < channels * 9 { rounded + 8 } else { rounded }
}

fn refused(found: &str) -> Error {
    Error::Contract(format!("expected {ALLOWED}; found {found:?}"))
}
