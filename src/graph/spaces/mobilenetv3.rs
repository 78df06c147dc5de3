//! MobileNetV3 as in Once-for-all (Cai et al. 2020; Howard et al. 2019): five stages of two to four
//! inverted residuals, each with its own kernel and expansion.
//!
//! A configuration is `dDEPTHS-kKERNELS-eEXPANSIONS[-w1.2]`. Depths are one number or one for each
//! of the five stages; kernels and expansions one number, one for each stage, or one for each of
//! the 20 possible blocks, joined by dots: `d2-k3-e4`, `d2.3.4.4.2-k3.5.3.7.7-e6-w1.2`. Blocks
//! beyond a stage's depth are written 0.
//!
//! `supernet[-w1.2]` is the largest network together with the matrices that make its smaller kernels: all others of its
//! width are cut from it (`elastic.rs`).
//!
//! `mobilenetv3_tiny` has the same blocks with fewer channels and strides, for images of 32 to 64 px.

use super::builder::{Activation, Builder, Conv, Map, SIDES, Source};
use crate::graph::{Error, Graph};
use std::fmt;

/// Stages whose depth is free.
pub(super) const STAGES: usize = 5;
/// Blocks of a stage at most.
pub(super) const BLOCKS: usize = 4;

pub(super) const DEPTHS: [usize; 3] = [2, 3, 4];
pub(super) const KERNELS: [usize; 3] = [3, 5, 7];
pub(super) const EXPANSIONS: [usize; 3] = [3, 4, 6];

/// How the configuration of a supernet begins.
pub const SUPERNET: &str = "supernet";

/// Which networks are built of these blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `mobilenetv3`, as published, of width 1.
    Published,
    /// `mobilenetv3`, as published, of width 1.2.
    Wide,
    /// `mobilenetv3_tiny`.
    Tiny,
}

/// Channels and strides of a family.
struct Shapes {
    stem: usize,
    /// (channels, stride, activation, squeeze-excite).
    stages: [(usize, usize, Activation, bool); STAGES],
    last: usize,
    features: usize,
}

const PUBLISHED: Shapes = Shapes {
    stem: 16,
    stages: [
        (24, 2, Activation::Relu, false),
        (40, 2, Activation::Relu, true),
        (80, 2, Activation::HardSwish, false),
        (112, 1, Activation::HardSwish, true),
        (160, 2, Activation::HardSwish, true),
    ],
    last: 960,
    features: 1280,
};

const TINY: Shapes = Shapes {
    stem: 16,
    stages: [
        (16, 2, Activation::Relu, false),
        (24, 2, Activation::Relu, true),
        (40, 2, Activation::HardSwish, false),
        (48, 1, Activation::HardSwish, true),
        (64, 1, Activation::HardSwish, true),
    ],
    last: 256,
    features: 320,
};

/// Largest side whose stem keeps the resolution, in the tiny family.
const TINY_SIDE: usize = 32;

const NUMBERS: &str = "depths of 2, 3, 4 (1 or 5 numbers joined by dots), kernels of 3, 5, 7 and \
    expansions of 3, 4, 6 (1, 5 or 20 numbers)";

impl Family {
    /// Name of the space.
    pub fn space(self) -> &'static str {
        match self {
            Self::Published | Self::Wide => "mobilenetv3",
            Self::Tiny => "mobilenetv3_tiny",
        }
    }

    fn shapes(self) -> &'static Shapes {
        match self {
            Self::Published | Self::Wide => &PUBLISHED,
            Self::Tiny => &TINY,
        }
    }

    fn scaled(self, channels: usize) -> usize {
        let width = if self == Self::Wide { 1.2 } else { 1.0 };
        nearest_eight((channels as f32 * width) as usize)
    }

    fn suffix(self) -> &'static str {
        if self == Self::Wide { "-w1.2" } else { "" }
    }

    fn refused(self, found: &str) -> Error {
        let (space, width, side) = match self {
            Self::Published | Self::Wide => ("mobilenetv3", "[-w1.0|-w1.2]", 224),
            Self::Tiny => ("mobilenetv3_tiny", "", 32),
        };
        Error::Contract(format!(
            "expected {space}:dDEPTHS-kKERNELS-eEXPANSIONS{width}@SIDE with {NUMBERS}, SIDE 32 to 512, such as \
            {space}:d2-k3-e4@{side}, or {space}:{SUPERNET}{width}@SIDE, from which those are cut; found {found:?}"
        ))
    }
}

/// One network of the space.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    pub(super) family: Family,
    /// With the matrices of smaller kernels.
    pub(super) is_supernet: bool,
    pub(super) depths: [usize; STAGES],
    /// 0 beyond a stage's depth.
    pub(super) kernels: [usize; STAGES * BLOCKS],
    /// 0 beyond a stage's depth.
    pub(super) expansions: [usize; STAGES * BLOCKS],
}

impl Config {
    /// Parses the notation of the module's documentation.
    ///
    /// # Errors
    /// `Error::Contract` with what is allowed.
    pub fn parse(text: &str) -> Result<Self, Error> {
        Self::of(Family::Published, text)
    }

    /// Parses the notation in a family; `-w1.2` turns `Published` into `Wide`.
    ///
    /// # Errors
    /// `Error::Contract` with what is allowed.
    pub fn of(family: Family, text: &str) -> Result<Self, Error> {
        Self::parse_parts(family, text).ok_or_else(|| family.refused(text))
    }

    /// Takes the 45 topology numbers.
    ///
    /// # Errors
    /// `Error::Contract` if they are not those of a network of the family.
    pub fn from_numbers(family: Family, numbers: &[usize]) -> Result<Self, Error> {
        let blocks = STAGES * BLOCKS;
        let found = || format!("the numbers {numbers:?}");
        let Some((depths, rest)) = numbers.split_at_checked(STAGES) else {
            return Err(family.refused(&found()));
        };
        let all =
            |numbers: &[usize]| numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(".");
        let (kernels, expansions) = rest.split_at(blocks.min(rest.len()));
        if expansions.len() != blocks {
            return Err(family.refused(&found()));
        }
        let (kernels, expansions) = (all(kernels), all(expansions));
        let text = format!("d{}-k{kernels}-e{expansions}{}", all(depths), family.suffix());
        Self::of(family, &text)
    }

    /// The 45 topology numbers: 5 depths, 20 kernels, 20 expansions; 0 for blocks that are not
    /// there.
    pub fn numbers(&self) -> Vec<f32> {
        let all = self.depths.iter().chain(&self.kernels).chain(&self.expansions);
        all.map(|&number| number as f32).collect()
    }

    /// The places (0 to 19) of the blocks that are there.
    pub(super) fn present(&self) -> impl Iterator<Item = usize> + '_ {
        (0..STAGES * BLOCKS).filter(|&at| at % BLOCKS < self.depths[at / BLOCKS])
    }

    fn parse_parts(family: Family, text: &str) -> Option<Self> {
        let mut parts = text.split('-').peekable();
        let is_supernet = parts.next_if_eq(&SUPERNET).is_some();
        let [depths, kernels, expansions] = if is_supernet {
            [vec![DEPTHS[2]], vec![KERNELS[2]], vec![EXPANSIONS[2]]]
        } else {
            let mut numbers = |prefix: char| -> Option<Vec<usize>> {
                let list = parts.next()?.strip_prefix(prefix)?;
                list.split('.').map(|number| number.parse().ok()).collect()
            };
            [numbers('d')?, numbers('k')?, numbers('e')?]
        };
        let family = match (parts.next(), family) {
            (None, family) => family,
            (Some("w1.0" | "w1"), Family::Published) => Family::Published,
            (Some("w1.2"), Family::Published | Family::Wide) => Family::Wide,
            (Some(_), _) => return None,
        };
        let depths = match depths.as_slice() {
            &[depth] => [depth; STAGES],
            depths => depths.try_into().ok()?,
        };
        let known = parts.next().is_none() && depths.iter().all(|depth| DEPTHS.contains(depth));
        known.then_some(())?;
        let kernels = spread(&kernels, &depths, &KERNELS)?;
        let expansions = spread(&expansions, &depths, &EXPANSIONS)?;
        Some(Self { family, is_supernet, depths, kernels, expansions })
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { family, is_supernet, depths, kernels, expansions } = self;
        if *is_supernet {
            f.write_str(SUPERNET)?;
        } else {
            write!(f, "d{}-k{}-e{}", joined(depths), joined(kernels), joined(expansions))?;
        }
        f.write_str(family.suffix())
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
    let family = config.family;
    if !SIDES.contains(&side) {
        return Err(family.refused(&format!("{config}@{side}")));
    }
    let Shapes { stem, stages: _, last, features } = family.shapes();
    let stride = if family == Family::Tiny && side <= TINY_SIDE { 1 } else { 2 };
    let mut build = Builder::new(source);
    let x = build.input(side);
    let stem_conv = Conv::dense(family.scaled(*stem), 3, stride);
    let x = conv_bn(&mut build, &x, "first_conv", stem_conv)?;
    let mut x = build.activate(&x, Activation::HardSwish);
    let first = Block {
        kernel: 3,
        stride: 1,
        expansion: 1,
        out: family.scaled(*stem),
        activation: Activation::Relu,
        squeeze: false,
    };
    x = inverted_residual(&mut build, x, "blocks.0", first)?;
    for (index, block) in blocks(config).enumerate() {
        let name = format!("blocks.{}", index + 1);
        x = inverted_residual(&mut build, x, &name, block)?;
        if config.is_supernet {
            transforms(&mut build, &name)?;
        }
    }
    x = conv_bn(&mut build, &x, "final_expand", Conv::dense(family.scaled(*last), 1, 1))?;
    x = build.activate(&x, Activation::HardSwish);
    x = build.average(&x, "pool");
    x = build.conv(&x, "feature_mix", Conv::dense(family.scaled(*features), 1, 1))?;
    x = build.activate(&x, Activation::HardSwish);
    build.head(&x, "classifier", classes)
}

/// The matrices that turn the middle of a block's kernel into the next smaller one, at identity.
fn transforms(build: &mut Builder, name: &str) -> Result<(), Error> {
    for step in KERNELS.windows(2).rev() {
        let (to, from) = (step[0], step[1]);
        build.kept_matrix(&format!("{name}.depthwise.{from}to{to}"), to * to)?;
    }
    Ok(())
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
    config.present().map(|at| {
        let (channels, stride, activation, squeeze) = config.family.shapes().stages[at / BLOCKS];
        Block {
            kernel: config.kernels[at],
            stride: if at.is_multiple_of(BLOCKS) { stride } else { 1 },
            expansion: config.expansions[at],
            out: config.family.scaled(channels),
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

/// The nearest multiple of eight, never below 90 %.
fn nearest_eight(channels: usize) -> usize {
    let rounded = ((channels + 4) / 8 * 8).max(8);
    if rounded * 10 < channels * 9 { rounded + 8 } else { rounded }
}
