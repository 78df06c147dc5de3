//! Which configurations a space offers to a search.

use super::builder::SIDES;
use super::mobilenetv3::Family;
use super::{Error, NAMES, efficientnet_lite, mobilenetv3, resnet, small, split_side};
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeSet;

/// Side of the images where a space takes several and none is named.
const SIDE: usize = 224;

/// Blocks of ResNets that are searched.
const RESNETS: [&str; 6] = ["18-d1.1.1.1", "18", "34", "50-d1.1.1.1", "50-d2.2.2.2", "50"];
/// Factors of their widths.
const RESNET_WIDTHS: [&str; 6] = ["0.125", "0.25", "0.375", "0.5", "0.75", "1"];

/// A space, or the part of it that takes images of one side.
#[derive(Clone, Debug, PartialEq)]
pub struct Selection {
    space: &'static str,
    /// Sides of the images, ascending; empty where each network has its own.
    sides: Vec<usize>,
}

impl Selection {
    /// Parses `small` (images of 32 and of 64 px), `small@32`, `mobilenetv3@96` (224 where no side is named), `resnet@64`
    /// or `efficientnet_lite`.
    ///
    /// # Errors
    /// `Error::Contract` with what is allowed.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let (name, side) = split_side(text)?;
        let refuse = |expected: &str| {
            Err(Error::Contract(format!("expected the space {expected}, found {text:?}")))
        };
        let Some(&space) = NAMES.iter().find(|&&known| known == name) else {
            return refuse(&format!("{}, perhaps with a side as in small@32", NAMES.join(", ")));
        };
        let sides = match (space, side) {
            ("small", None) => small::SIDES.to_vec(),
            ("mobilenetv3_tiny", None) => vec![32],
            ("small", Some(side)) if !small::SIDES.contains(&side) => {
                return refuse("small, small@32 or small@64");
            }
            ("efficientnet_lite", None) => Vec::new(),
            ("efficientnet_lite", Some(_)) => {
                return refuse("efficientnet_lite without a side: each variant has its own");
            }
            (_, Some(side)) if !SIDES.contains(&side) => {
                return refuse(&format!("{space} at a side of 32 to 512"));
            }
            (_, side) => vec![side.unwrap_or(SIDE)],
        };
        Ok(Self { space, sides })
    }

    /// Whether a network of this space that takes images of this side belongs to it.
    pub fn holds(&self, space: &str, side: usize) -> bool {
        self.space == space && (self.sides.is_empty() || self.sides.contains(&side))
    }

    /// At most `limit` (at least 2) different networks as `SPACE:CONFIG@SIDE`, each in the notation that `generate` gives
    /// back, sorted; the same for the same seed.
    ///
    /// A space with more is sampled, its smallest and its largest network always among the sample. `mobilenetv3` and
    /// `mobilenetv3_tiny` are sampled with one kernel and one expansion for each stage, `resnet` over its usual depths and widths up to 1.
    pub fn members(&self, limit: usize, seed: u64) -> Vec<String> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let (ends, mut others) = match self.space {
            "small" => (Vec::new(), small::configs().collect()),
            "mobilenetv3" => mobile(Family::Published, limit, &mut random),
            "mobilenetv3_tiny" => mobile(Family::Tiny, limit, &mut random),
            "resnet" => (Vec::new(), resnets()),
            _ => return lites(limit),
        };
        if others.len() * self.sides.len() > limit {
            others.shuffle(&mut random);
        }
        let specified = |config: &String| {
            let of_side = |side: &usize| specification(self.space, config, *side);
            self.sides.iter().map(of_side).collect::<Vec<_>>()
        };
        let all = ends.iter().chain(&others).flat_map(specified);
        let mut members: Vec<String> = all.take(limit).collect();
        members.sort();
        members
    }
}

/// How a network of a space is written: `small:cnn-w16@32`.
pub fn specification(space: &str, config: &str, side: usize) -> String {
    format!("{space}:{config}@{side}")
}

fn lites(limit: usize) -> Vec<String> {
    let variants = (0..).map_while(|number| efficientnet_lite::Variant::new(number).ok());
    let specified = |variant: efficientnet_lite::Variant| {
        specification("efficientnet_lite", &variant.to_string(), variant.side())
    };
    variants.map(specified).take(limit).collect()
}

fn resnets() -> Vec<String> {
    let widths = |blocks: &'static str| RESNET_WIDTHS.map(|width| format!("{blocks}-w{width}"));
    let texts = RESNETS.into_iter().flat_map(widths);
    texts.filter_map(|text| resnet::Config::parse(&text).ok()).map(|it| it.to_string()).collect()
}

/// The smallest and the largest network, and others at random.
fn mobile(family: Family, limit: usize, random: &mut ChaCha8Rng) -> (Vec<String>, Vec<String>) {
    let canonical =
        |text: &str| mobilenetv3::Config::of(family, text).map(|it| it.to_string()).ok();
    let largest = if family == Family::Tiny { "d4-k7-e6" } else { "d4-k7-e6-w1.2" };
    let ends: Vec<String> = ["d2-k3-e3", largest].into_iter().filter_map(canonical).collect();
    let mut found = BTreeSet::new();
    while found.len() + ends.len() < limit {
        let mut five = |from: &[usize]| {
            let drawn = (0..5).filter_map(|_| from.choose(random)).map(usize::to_string);
            drawn.collect::<Vec<_>>().join(".")
        };
        let (depths, kernels, expansions) = (five(&[2, 3, 4]), five(&[3, 5, 7]), five(&[3, 4, 6]));
        let wide = if family != Family::Tiny && random.random() { "-w1.2" } else { "" };
        let drawn = canonical(&format!("d{depths}-k{kernels}-e{expansions}{wide}"));
        found.extend(drawn.filter(|config| !ends.contains(config)));
    }
    (ends, found.into_iter().collect())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]
mod tests {
    use super::*;
    use crate::graph::spaces::generate;

    #[test]
    fn members_are_what_generate_gives_back() {
        for (text, count) in [
            ("small", 46),
            ("small@32", 23),
            ("resnet@32", 36),
            ("mobilenetv3@32", 40),
            ("mobilenetv3_tiny", 40),
            ("efficientnet_lite", 5),
        ] {
            let selection = Selection::parse(text).unwrap();
            let limit = if text.starts_with("mobile") { 40 } else { 300 };
            let members = selection.members(limit, 1);
            assert_eq!(members.len(), count, "{text}");
            assert_eq!(members.iter().collect::<BTreeSet<_>>().len(), count, "{text}");
            assert_eq!(members, selection.members(limit, 1));
            for spec in members.iter().filter(|spec| !spec.starts_with("resnet:50")).step_by(5) {
                let made = generate(spec, 3, 0).unwrap();
                assert_eq!(*spec, specification(&made.space, &made.config, made.input.height));
                assert!(selection.holds(&made.space, made.input.height));
            }
        }
    }

    #[test]
    fn a_sample_depends_on_its_seed_and_holds_the_ends() {
        let mobile = Selection::parse("mobilenetv3@64").unwrap();
        let (one, other) = (mobile.members(20, 1), mobile.members(20, 2));
        assert_ne!(one, other);
        for members in [&one, &other] {
            assert!(members.contains(&"mobilenetv3:d2-k3-e3@64".to_owned()), "{members:?}");
            assert!(members.contains(&"mobilenetv3:d4-k7-e6-w1.2@64".to_owned()), "{members:?}");
        }
        assert_eq!(Selection::parse("small").unwrap().members(10, 1).len(), 10);
    }

    #[test]
    fn other_spaces_and_sides_are_refused() {
        for (text, expected) in [
            ("large", "small, mobilenetv3"),
            ("", "small, mobilenetv3"),
            ("small@48", "small@64"),
            ("small@x", "a side"),
            ("resnet@1024", "32 to 512"),
            ("efficientnet_lite@224", "without a side"),
        ] {
            let error = Selection::parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert!(!Selection::parse("small@32").unwrap().holds("small", 64));
        assert!(!Selection::parse("small@32").unwrap().holds("resnet", 32));
    }
}
