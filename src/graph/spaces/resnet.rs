//! ResNet for images of 32 to 512 px (He et al. 2016, the stride of a bottleneck in its 3 x 3 convolution).
//!
//! A configuration is `DEPTH[-dA.B.C.D][-wWIDTH]`: depth 18 or 34 (basic blocks) or 50 (bottlenecks),
//! other numbers of blocks in the four stages, a factor of all widths: `18`, `18-w0.5`,
//! `50-d2.2.2.2-w0.25`.
//!
//! Weights have the names of torchvision: `layer1.0.conv1.weight`, `layer2.0.downsample.1.running_var`,
//! `fc.bias`.

use super::builder::{Activation, Builder, Conv, Map, SIDES, Source};
use crate::graph::{Error, Graph};
use std::fmt;

/// (depth, blocks of the stages, whether they are bottlenecks).
const DEPTHS: [(usize, [usize; 4], bool); 3] =
    [(18, [2, 2, 2, 2], false), (34, [3, 4, 6, 3], false), (50, [3, 4, 6, 3], true)];

const STEM_CHANNELS: usize = 64;

/// A bottleneck's outputs for each of its inner channels.
const EXPANSION: usize = 4;

const BLOCKS_MAX: usize = 16;

const ALLOWED: &str = "resnet:18, resnet:34 or resnet:50, with -dA.B.C.D for other numbers of blocks (1 to 16 in \
    each of the four stages), -wWIDTH for a factor of all widths (0.125 to 2), and @SIDE (32 to 512), such as \
    resnet:18-w0.5@224";

/// One network of the space.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Config {
    depth: usize,
    blocks: [usize; 4],
    bottleneck: bool,
    width: f32,
}

impl Config {
    /// Parses the notation of the module's documentation.
    ///
    /// # Errors
    /// `Error::Contract` with what is allowed.
    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        Self::parse_parts(text).ok_or_else(|| refused(text))
    }

    fn parse_parts(text: &str) -> Option<Self> {
        let mut parts = text.split('-').peekable();
        let depth = parts.next()?.parse().ok()?;
        let &(_, mut blocks, bottleneck) = DEPTHS.iter().find(|(known, ..)| *known == depth)?;
        if let Some(list) = parts.peek().and_then(|part| part.strip_prefix('d')) {
            let list: Option<Vec<usize>> =
                list.split('.').map(|count| count.parse().ok()).collect();
            blocks = list?.try_into().ok()?;
            parts.next();
        }
        let width = match parts.next() {
            Some(part) => part.strip_prefix('w')?.parse().ok()?,
            None => 1.0,
        };
        let allowed = parts.next().is_none()
            && (0.125..=2.0).contains(&width)
            && blocks.iter().all(|count| (1..=BLOCKS_MAX).contains(count));
        allowed.then_some(Self { depth, blocks, bottleneck, width })
    }

    /// A width at the factor: a multiple of eight.
    fn scaled(&self, channels: usize) -> usize {
        ((channels as f32 * self.width / 8.0).round() as usize).max(1) * 8
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { depth, blocks, bottleneck: _, width } = self;
        write!(f, "{depth}")?;
        if !DEPTHS.iter().any(|(known, usual, _)| known == depth && usual == blocks) {
            let [a, b, c, d] = blocks;
            write!(f, "-d{a}.{b}.{c}.{d}")?;
        }
        // An exact comparison: 1 is what the notation leaves out.
        if width.to_bits() == 1.0_f32.to_bits() { Ok(()) } else { write!(f, "-w{width}") }
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
    let mut build = Builder::new(source);
    let x = build.input(side);
    let stem = Conv::dense(config.scaled(STEM_CHANNELS), 7, 2);
    let x = build.conv_bn(&x, ("conv1", "bn1"), stem)?;
    let x = build.activate(&x, Activation::Relu);
    let mut x = build.max_pool(&x, "maxpool");
    for (stage, &count) in config.blocks.iter().enumerate() {
        let inner = config.scaled(STEM_CHANNELS << stage);
        for index in 0..count {
            let stride = if stage > 0 && index == 0 { 2 } else { 1 };
            let block = Block { inner, stride, bottleneck: config.bottleneck };
            x = residual(&mut build, &x, &format!("layer{}.{index}", stage + 1), block)?;
        }
    }
    let x = build.average(&x, "avgpool");
    build.head(&x, "fc", classes)
}

#[derive(Clone, Copy)]
struct Block {
    inner: usize,
    stride: usize,
    bottleneck: bool,
}

fn residual(build: &mut Builder, input: &Map, name: &str, block: Block) -> Result<Map, Error> {
    let Block { inner, stride, bottleneck } = block;
    let (out, convs) = if bottleneck {
        let out = EXPANSION * inner;
        let convs =
            [Conv::dense(inner, 1, 1), Conv::dense(inner, 3, stride), Conv::dense(out, 1, 1)];
        (out, convs.to_vec())
    } else {
        (inner, vec![Conv::dense(inner, 3, stride), Conv::dense(inner, 3, 1)])
    };
    let mut x = input.clone();
    for (index, &conv) in convs.iter().enumerate() {
        let number = index + 1;
        let names = (format!("{name}.conv{number}"), format!("{name}.bn{number}"));
        x = build.conv_bn(&x, (&names.0, &names.1), conv)?;
        if number < convs.len() {
            x = build.activate(&x, Activation::Relu);
        }
    }
    let skip = if stride == 1 && input.channels == out {
        input.clone()
    } else {
        let names = (format!("{name}.downsample.0"), format!("{name}.downsample.1"));
        build.conv_bn(input, (&names.0, &names.1), Conv::dense(out, 1, stride))?
    };
    let sum = build.add(&x, &skip);
    Ok(build.activate(&sum, Activation::Relu))
}

fn refused(found: &str) -> Error {
    Error::Contract(format!("expected {ALLOWED}; found {found:?}"))
}
