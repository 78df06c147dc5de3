//! Small networks for images of 32 to 64 px: ResNet-8, plain CNNs and MobileNet-like inverted
//! residuals.
//!
//! A configuration is `FAMILY-wWIDTH`: `resnet8-w16`, `cnn-w24`, `mobile-w16`.

use super::builder::{Activation, Builder, Conv, Map, Source};
use crate::graph::{Error, Graph};
use std::fmt;

/// Sides of the input that the family is made for.
pub const SIDES: [usize; 2] = [32, 64];

/// (family, narrowest, widest): together about 30 to 200 thousand parameters.
const FAMILIES: [(&str, usize, usize); 3] =
    [("resnet8", 12, 24), ("cnn", 16, 32), ("mobile", 12, 24)];

const ALLOWED: &str = "small:resnet8-w12..w24, small:cnn-w16..w32 or \
    small:mobile-w12..w24 (even widths), at @32 or @64 (3 channels)";

/// Every configuration, such as `cnn-w24`: even widths of each family.
#[cfg(any(test, feature = "torch"))]
pub fn configs() -> impl Iterator<Item = String> {
    FAMILIES.into_iter().flat_map(|(family, low, high)| {
        (low..=high).step_by(2).map(move |width| format!("{family}-w{width}"))
    })
}

/// One network of the space.
#[derive(Clone, Debug)]
pub struct Config {
    family: &'static str,
    width: usize,
    pub(super) side: usize,
}

impl Config {
    /// Parses the notation of the module's documentation, for images of `side` x `side`.
    ///
    /// # Errors
    /// `Error::Contract` with what is allowed.
    pub fn parse(text: &str, side: usize) -> Result<Self, Error> {
        let parts = text.split_once("-w").and_then(|(family, width)| {
            let &(family, low, high) = FAMILIES.iter().find(|(name, _, _)| *name == family)?;
            let width: usize = width.parse().ok()?;
            let allowed = (low..=high).contains(&width) && width.is_multiple_of(2);
            (allowed && SIDES.contains(&side)).then_some(Self { family, width, side })
        });
        parts.ok_or_else(|| {
            Error::Contract(format!("expected {ALLOWED}; found configuration {text:?} at {side}"))
        })
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { family, width, side: _ } = self;
        write!(f, "{family}-w{width}")
    }
}

/// Builds a configuration.
///
/// # Errors
/// `Error::Contract` if a given weight has another shape than its place.
pub(super) fn graph(config: &Config, classes: usize, source: Source<'_>) -> Result<Graph, Error> {
    let &Config { family, width, side } = config;
    let mut build = Builder::new(source);
    let x = build.input(side);
    let x = match family {
        "resnet8" => resnet8(&mut build, x, width)?,
        "cnn" => cnn(&mut build, x, width)?,
        _ => mobile(&mut build, x, width)?,
    };
    let x = build.average(&x, "pool");
    build.head(&x, "head", classes)
}

/// Three stages of one residual block each, as for CIFAR (He et al. 2016); the stem halves images
/// of 64 px.
fn resnet8(build: &mut Builder, x: Map, width: usize) -> Result<Map, Error> {
    let mut x = stem(build, &x, width)?;
    for (index, (out, stride)) in
        [(width, 1), (2 * width, 2), (4 * width, 2)].into_iter().enumerate()
    {
        let name = format!("stage{index}");
        let y = conv_bn(build, &x, &format!("{name}.conv1"), Conv::dense(out, 3, stride))?;
        let y = build.activate(&y, Activation::Relu);
        let y = conv_bn(build, &y, &format!("{name}.conv2"), Conv::dense(out, 3, 1))?;
        let skip = if stride == 1 && x.channels == out {
            x
        } else {
            conv_bn(build, &x, &format!("{name}.skip"), Conv::dense(out, 1, stride))?
        };
        let sum = build.add(&y, &skip);
        x = build.activate(&sum, Activation::Relu);
    }
    Ok(x)
}

/// Four plain convolutions after the stem, each stage at half the side and up to four times the
/// width.
fn cnn(build: &mut Builder, x: Map, width: usize) -> Result<Map, Error> {
    let mut x = stem(build, &x, width)?;
    let layers = [(width, 2), (2 * width, 1), (2 * width, 2), (4 * width, 2)];
    for (index, (out, stride)) in layers.into_iter().enumerate() {
        x = conv_bn(build, &x, &format!("layer{index}"), Conv::dense(out, 3, stride))?;
        x = build.activate(&x, Activation::Relu);
    }
    Ok(x)
}

/// Inverted residuals with expansion 4 (Sandler et al. 2018) and a final 1x1 convolution.
fn mobile(build: &mut Builder, x: Map, width: usize) -> Result<Map, Error> {
    let mut x = stem(build, &x, width)?;
    let blocks = [
        (width, 1),
        (2 * width, 2),
        (2 * width, 1),
        (3 * width, 2),
        (3 * width, 1),
        (4 * width, 1),
    ];
    for (index, (out, stride)) in blocks.into_iter().enumerate() {
        x = inverted_residual(build, x, &format!("block{index}"), (out, stride))?;
    }
    let x = conv_bn(build, &x, "last", Conv::dense(8 * width, 1, 1))?;
    Ok(build.activate(&x, Activation::Relu6))
}

fn inverted_residual(
    build: &mut Builder,
    x: Map,
    name: &str,
    (out, stride): (usize, usize),
) -> Result<Map, Error> {
    let wide = 4 * x.channels;
    let y = conv_bn(build, &x, &format!("{name}.expand"), Conv::dense(wide, 1, 1))?;
    let y = build.activate(&y, Activation::Relu6);
    let y = conv_bn(build, &y, &format!("{name}.depthwise"), Conv::depthwise(wide, 3, stride))?;
    let y = build.activate(&y, Activation::Relu6);
    let y = conv_bn(build, &y, &format!("{name}.project"), Conv::dense(out, 1, 1))?;
    Ok(if stride == 1 && x.channels == out { build.add(&y, &x) } else { y })
}

fn stem(build: &mut Builder, x: &Map, width: usize) -> Result<Map, Error> {
    let stride = if x.side > 32 { 2 } else { 1 };
    let x = conv_bn(build, x, "stem", Conv::dense(width, 3, stride))?;
    Ok(build.activate(&x, Activation::Relu))
}

fn conv_bn(build: &mut Builder, x: &Map, name: &str, conv: Conv) -> Result<Map, Error> {
    build.conv_bn(x, (name, &format!("{name}.bn")), conv)
}
