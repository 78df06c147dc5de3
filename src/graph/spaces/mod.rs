//! Generated architectures.

mod builder;
#[cfg(feature = "torch")]
mod catalogue;
mod efficientnet_lite;
pub mod elastic;
mod mobilenetv3;
mod pretrained;
mod resnet;
mod small;
#[cfg(test)]
mod tests;

#[cfg(feature = "torch")]
pub use catalogue::{Selection, specification};
#[cfg(feature = "torch")]
pub use mobilenetv3::SUPERNET;
pub use pretrained::{Pretrained, pretrained};

use self::builder::Source;
use self::mobilenetv3::Family;
#[cfg(feature = "torch")]
use super::Weight;
use super::input::{ChannelOrder, InputContract, Layout};
use super::{Error, Graph};

/// The spaces that `generate` knows.
pub const NAMES: [&str; 5] =
    ["small", "mobilenetv3", "mobilenetv3_tiny", "resnet", "efficientnet_lite"];

/// Largest number of classes that a generated head may have.
const CLASSES_MAX: usize = 100_000;

const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const STD: [f32; 3] = [0.229, 0.224, 0.225];

/// A network of a generated architecture.
pub struct Generated {
    /// The graph with its weights.
    pub graph: Graph,
    /// Its input contract.
    pub input: InputContract,
    /// Space name, such as `mobilenetv3`.
    pub space: String,
    /// Configuration in the space's own notation, such as `resnet8-w16`.
    pub config: String,
    /// The 45 topology numbers for `mobilenetv3` and `mobilenetv3_tiny`, else empty.
    pub numbers: Vec<f32>,
}

/// Generates a network from `space:config@side`, such as `small:resnet8-w16@32`,
/// `mobilenetv3:d2-k3-e4@224`, `resnet:18` or `efficientnet_lite:lite0`, or from the name that a network was published
/// under (`resnet18`, `efficientnet-lite0`). The side may be left out (and may end in `x3`, the number of channels).
///
/// Weights are drawn with `seed` (He initialisation, batch-norm at identity) and depend on nothing
/// else.
///
/// # Errors
/// `Error::Contract` with what is allowed.
pub fn generate(spec: &str, classes: usize, seed: u64) -> Result<Generated, Error> {
    Member::parse(spec)?.generate(classes, Source { seed, supply: &|_, _| None })
}

/// The same graph with zeros for weights, at a fraction of the time: enough to count what a network costs.
///
/// # Errors
/// `Error::Contract` with what is allowed.
#[cfg(feature = "torch")]
pub fn outline(spec: &str, classes: usize) -> Result<Generated, Error> {
    let zeros = |_: &str, shape: &[usize]| {
        Some(Weight::from_f32(shape, &vec![0.0; shape.iter().product()]))
    };
    Member::parse(spec)?.generate(classes, Source { seed: 0, supply: &zeros })
}

/// A published name as the member of its space; anything else as it is.
fn as_member(spec: &str) -> String {
    let begins_with_digit = |rest: &&str| rest.starts_with(|first: char| first.is_ascii_digit());
    if let Some(rest) = spec.strip_prefix("efficientnet-lite").filter(begins_with_digit) {
        return format!("efficientnet_lite:lite{rest}");
    }
    match spec.strip_prefix("resnet").filter(begins_with_digit) {
        Some(rest) => format!("resnet:{rest}"),
        None => spec.to_owned(),
    }
}

/// One architecture of a space.
enum Member {
    Small(small::Config),
    MobileNetV3 { config: Box<mobilenetv3::Config>, side: usize },
    ResNet { config: resnet::Config, side: usize },
    Lite(efficientnet_lite::Variant),
}

impl Member {
    fn parse(spec: &str) -> Result<Self, Error> {
        let written = as_member(spec);
        let (space, rest) = written.split_once(':').unwrap_or((&written, ""));
        let (config, side) = split_side(rest)?;
        match space {
            "small" => small::Config::parse(config, side.unwrap_or(32)).map(Self::Small),
            "mobilenetv3" => {
                let config = Box::new(mobilenetv3::Config::parse(config)?);
                Ok(Self::MobileNetV3 { config, side: side.unwrap_or(224) })
            }
            "mobilenetv3_tiny" => {
                let config = Box::new(mobilenetv3::Config::of(Family::Tiny, config)?);
                Ok(Self::MobileNetV3 { config, side: side.unwrap_or(32) })
            }
            "resnet" => {
                let config = resnet::Config::parse(config)?;
                Ok(Self::ResNet { config, side: side.unwrap_or(224) })
            }
            "efficientnet_lite" => lite(config, side).map(Self::Lite),
            _ => Err(Error::Contract(format!(
                "expected space {} (as in small:resnet8-w16@32), found {spec:?}",
                NAMES.join(", ")
            ))),
        }
    }

    /// Whether networks are cut from it.
    fn is_supernet(&self) -> bool {
        matches!(self, Self::MobileNetV3 { config, .. } if config.is_supernet)
    }

    fn graph(&self, classes: usize, source: Source<'_>) -> Result<Graph, Error> {
        if !(1..=CLASSES_MAX).contains(&classes) {
            return Err(Error::Contract(format!(
                "expected 1 to {CLASSES_MAX} classes, found {classes}"
            )));
        }
        match self {
            Self::Small(config) => small::graph(config, classes, source),
            Self::MobileNetV3 { config, side } => {
                mobilenetv3::graph(config, *side, classes, source)
            }
            Self::ResNet { config, side } => resnet::graph(config, *side, classes, source),
            Self::Lite(variant) => efficientnet_lite::graph(*variant, classes, source),
        }
    }

    fn generate(&self, classes: usize, source: Source<'_>) -> Result<Generated, Error> {
        let graph = self.graph(classes, source)?;
        let (space, config, numbers, side) = match self {
            Self::Small(config) => ("small", config.to_string(), Vec::new(), config.side),
            Self::MobileNetV3 { config, side } => {
                (config.family.space(), config.to_string(), config.numbers(), *side)
            }
            Self::ResNet { config, side } => ("resnet", config.to_string(), Vec::new(), *side),
            Self::Lite(variant) => {
                ("efficientnet_lite", variant.to_string(), Vec::new(), variant.side())
            }
        };
        Ok(Generated { graph, input: imagenet(side), space: space.into(), config, numbers })
    }
}

fn lite(config: &str, side: Option<usize>) -> Result<efficientnet_lite::Variant, Error> {
    let number = config.strip_prefix("lite").and_then(|digits| digits.parse().ok());
    let variant = match number {
        Some(number) => efficientnet_lite::Variant::new(number)?,
        None => {
            return Err(Error::Contract(format!("expected lite0 to lite4, found {config:?}")));
        }
    };
    if side.is_some_and(|side| side != variant.side()) {
        let own = variant.side();
        return Err(Error::Contract(format!(
            "{config} takes images of {own} px: leave the side out"
        )));
    }
    Ok(variant)
}

/// `config@32x3` to (`config`, 32).
fn split_side(text: &str) -> Result<(&str, Option<usize>), Error> {
    let Some((config, size)) = text.split_once('@') else {
        return Ok((text, None));
    };
    let side = size.strip_suffix("x3").unwrap_or(size).parse().ok();
    match side {
        Some(side) => Ok((config, Some(side))),
        None => {
            Err(Error::Contract(format!("expected a side after @, such as 32, found {size:?}")))
        }
    }
}

/// RGB with the mean and spread of ImageNet.
fn imagenet(side: usize) -> InputContract {
    InputContract {
        height: side,
        width: side,
        layout: Layout::Nchw,
        order: ChannelOrder::Rgb,
        scale: 1.0 / 255.0,
        mean: MEAN.to_vec(),
        std: STD.to_vec(),
    }
}
