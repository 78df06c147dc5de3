//! Generated architectures.

mod builder;
pub mod efficientnet_lite;
pub mod mobilenetv3;
pub mod small;
#[cfg(test)]
mod tests;

use super::input::{ChannelOrder, InputContract, Layout};
use super::{Error, Graph};

/// The spaces that `generate` knows.
pub const NAMES: [&str; 3] = ["small", "mobilenetv3", "efficientnet_lite"];

/// Largest number of classes that a generated head may have.
const CLASSES_MAX: usize = 100_000;

const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const STD: [f32; 3] = [0.229, 0.224, 0.225];

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

/// Generates a network from `space:config@side`, such as `small:resnet8-w16@32`,
/// `mobilenetv3:d2-k3-e4@224` or `efficientnet_lite:lite0`. The side may be left out (and may end
/// in `x3`, the number of channels).
///
/// Weights are drawn with `seed` (He initialisation, batch-norm at identity) and depend on nothing
/// else.
///
/// # Errors
/// `Error::Contract` with what is allowed.
pub fn generate(spec: &str, classes: usize, seed: u64) -> Result<Generated, Error> {
    if !(1..=CLASSES_MAX).contains(&classes) {
        return Err(Error::Contract(format!(
            "expected 1 to {CLASSES_MAX} classes, found {classes}"
        )));
    }
    let (space, rest) = spec.split_once(':').unwrap_or((spec, ""));
    let (config, side) = split_side(rest)?;
    match space {
        "small" => {
            let side = side.unwrap_or(32);
            let graph = small::graph(config, side, classes, seed)?;
            Ok(Generated {
                graph,
                input: imagenet(side),
                space: space.into(),
                config: config.into(),
                numbers: vec![],
            })
        }
        "mobilenetv3" => {
            let side = side.unwrap_or(224);
            let parsed = mobilenetv3::Config::parse(config)?;
            let graph = mobilenetv3::graph(&parsed, side, classes, seed)?;
            let (config, numbers) = (parsed.to_string(), parsed.numbers());
            Ok(Generated { graph, input: imagenet(side), space: space.into(), config, numbers })
        }
        "efficientnet_lite" => lite(config, side, classes, seed),
        _ => Err(Error::Contract(format!(
            "expected space small, mobilenetv3 or efficientnet_lite (as in \
            small:resnet8-w16@32), found {spec:?}"
        ))),
    }
}

fn lite(config: &str, side: Option<usize>, classes: usize, seed: u64) -> Result<Generated, Error> {
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
    Ok(Generated {
        graph: efficientnet_lite::graph(variant, classes, seed, &|_| None)?,
        input: variant.input(),
        space: "efficientnet_lite".into(),
        config: config.into(),
        numbers: Vec::new(),
    })
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
