//! Subnets of a supernet (Once-for-all, Cai et al. 2020, sections 3.2 and 3.3): a stage keeps its first blocks, a block the
//! first channels of its middle, and a kernel its centre, multiplied by a matrix that was learned for each size.
//!
//! A supernet is the largest network of `mobilenetv3` or `mobilenetv3_tiny`, its configuration `supernet`. What is cut from
//! it is a network of the same space, with the names and shapes that `generate` gives it.

use super::mobilenetv3::{BLOCKS, Config, DEPTHS, EXPANSIONS, Family, KERNELS, STAGES};
use super::pretrained::blueprint;
use super::{Generated, Member, Source, split_side};
use crate::graph::{Error, Graph, Weight};
use rand::Rng;
use rand::seq::IndexedRandom;
use std::collections::HashMap;

/// A supernet's architecture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Supernet {
    family: Family,
    side: usize,
}

/// A network that can be cut from a supernet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Subnet {
    config: Config,
    side: usize,
}

/// Which dimensions of a supernet are free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Freedom {
    /// None: there is the largest network only.
    Whole,
    /// The kernels.
    Kernel,
    /// Kernels and depths.
    Depth,
    /// Kernels, depths and expansions.
    Expansion,
}

/// How one weight of a subnet lies in its supernet.
#[derive(Clone, Debug, PartialEq)]
pub struct Piece {
    /// In the subnet.
    pub name: String,
    /// In the supernet.
    pub source: String,
    /// In the subnet; no side is longer than the source's.
    pub shape: Vec<usize>,
}

/// One step from a larger kernel to the next smaller one.
#[derive(Clone, Debug, PartialEq)]
pub struct KernelStep {
    /// Side of the larger kernel.
    pub from: usize,
    /// Side of the smaller one.
    pub to: usize,
    /// The supernet's weight `[to * to, to * to]` that the flattened centre is multiplied by.
    pub matrix: String,
}

/// Channels in a new order along one axis of one weight.
pub struct Permutation {
    /// The weight.
    pub name: String,
    /// Its axis.
    pub axis: usize,
    /// The old index of each channel.
    pub order: Vec<usize>,
}

impl Supernet {
    /// The supernet that `SPACE:CONFIG[@SIDE]` names.
    ///
    /// # Errors
    /// `Error::Contract` for any other architecture.
    pub fn parse(spec: &str) -> Result<Self, Error> {
        match Member::parse(spec)? {
            Member::MobileNetV3 { config, side } if config.is_supernet => {
                Ok(Self { family: config.family, side })
            }
            _ => Err(Error::Contract(format!(
                "expected a supernet (mobilenetv3:supernet, mobilenetv3:supernet-w1.2 or mobilenetv3_tiny:supernet), \
                found {spec}"
            ))),
        }
    }

    /// The subnet of a configuration such as `d2-k3-e4`, or of 45 numbers joined by commas: 5 depths, 20 kernels and 20
    /// expansions, 0 for blocks that are not there.
    ///
    /// # Errors
    /// `Error::Contract` with what is allowed.
    pub fn subnet(&self, code: &str) -> Result<Subnet, Error> {
        let (code, side) = split_side(code)?;
        if let Some(found) = side.filter(|&side| side != self.side) {
            let expected = self.side;
            return Err(Error::Contract(format!(
                "expected a subnet for images of {expected} px, as its supernet takes, found {found}"
            )));
        }
        let config = if code.contains(',') {
            let numbers: Option<Vec<usize>> =
                code.split(',').map(|number| number.trim().parse().ok()).collect();
            Config::from_numbers(self.family, &numbers.unwrap_or_default())?
        } else {
            Config::of(self.family, code)?
        };
        if config.is_supernet || config.family != self.family {
            return Err(Error::Contract(format!(
                "expected a subnet of {}, found {code}",
                self.spec()
            )));
        }
        Ok(Subnet { config, side: self.side })
    }

    /// `SPACE:CONFIG@SIDE`.
    pub fn spec(&self) -> String {
        let suffix = if self.family == Family::Wide { "-w1.2" } else { "" };
        format!("{}:supernet{suffix}@{}", self.family.space(), self.side)
    }

    /// The smallest subnet within a freedom.
    pub fn smallest(&self, freedom: Freedom) -> Subnet {
        self.choose(freedom, &mut |choices| choices[0])
    }

    /// The largest subnet: the supernet without its matrices.
    pub fn largest(&self) -> Subnet {
        self.choose(Freedom::Whole, &mut |choices| choices[0])
    }

    /// A subnet at random: each free depth, kernel and expansion is drawn uniformly, as Once-for-all draws them.
    pub fn draw(&self, freedom: Freedom, random: &mut impl Rng) -> Subnet {
        self.choose(freedom, &mut |choices| *choices.choose(random).unwrap_or(&choices[0]))
    }

    /// A subnet at random of any size: how many of its numbers are the least is drawn first, so that small networks come
    /// as often as others.
    pub fn draw_any(&self, random: &mut impl Rng) -> Subnet {
        let share: f64 = random.random();
        self.choose(Freedom::Expansion, &mut |choices| match random.random_bool(share) {
            true => choices[0],
            false => *choices.choose(random).unwrap_or(&choices[0]),
        })
    }

    fn choose(&self, freedom: Freedom, pick: &mut dyn FnMut(&[usize]) -> usize) -> Subnet {
        let mut among = |choices: &[usize; 3], least| {
            if freedom >= least { pick(choices) } else { choices[2] }
        };
        let mut config = Config {
            family: self.family,
            is_supernet: false,
            depths: [0; STAGES],
            kernels: [0; STAGES * BLOCKS],
            expansions: [0; STAGES * BLOCKS],
        };
        config.depths.iter_mut().for_each(|depth| *depth = among(&DEPTHS, Freedom::Depth));
        let present: Vec<usize> = config.present().collect();
        for at in present {
            config.kernels[at] = among(&KERNELS, Freedom::Kernel);
            config.expansions[at] = among(&EXPANSIONS, Freedom::Expansion);
        }
        Subnet { config, side: self.side }
    }
}

impl Subnet {
    /// `SPACE:CONFIG@SIDE`, as for `generate`.
    pub fn spec(&self) -> String {
        format!("{}:{}@{}", self.config.family.space(), self.config, self.side)
    }

    /// The configuration, such as `d2-k3-e4`.
    pub fn code(&self) -> String {
        self.config.to_string()
    }

    /// The network without values: its nodes, and weights of the right shapes that hold nothing; and how each weight lies
    /// in the supernet, in the order of the layers.
    ///
    /// # Errors
    /// `Error::Contract` for a number of classes that no head may have.
    pub fn outline(&self, classes: usize) -> Result<(Graph, Vec<Piece>), Error> {
        let present: Vec<usize> = self.config.present().collect();
        let source = |name: &str| {
            let rest = name.strip_prefix("blocks.").and_then(|rest| rest.split_once('.'));
            let (number, rest) =
                rest.and_then(|(number, rest)| Some((number.parse().ok()?, rest)))?;
            let place = present.get(usize::checked_sub(number, 1)?)?;
            Some(format!("blocks.{}.{rest}", place + 1))
        };
        let blueprint = blueprint(&self.member(), classes)?;
        let piece = |place: super::pretrained::Place| Piece {
            source: source(&place.name).unwrap_or_else(|| place.name.clone()),
            name: place.name,
            shape: place.shape,
        };
        Ok((blueprint.graph, blueprint.places.into_iter().map(piece).collect()))
    }

    /// Cuts the subnet out of its supernet's weights. Channels are taken as they stand: `sort_channels` brings those of a
    /// network that was not trained for it into the order of their importance.
    ///
    /// # Errors
    /// `Error::Contract` if the graph is not that of a supernet of this space.
    pub fn cut(&self, supernet: &Graph) -> Result<Generated, Error> {
        let classes = supernet.weights.get("classifier.weight");
        let classes =
            classes.and_then(|weight| weight.shape.first().copied()).ok_or_else(|| {
                Error::Contract(
                    "expected a supernet with a head classifier.weight, found none".into(),
                )
            })?;
        let mut weights = HashMap::new();
        for piece in self.outline(classes)?.1 {
            let weight = cut_piece(supernet, &piece)?;
            weights.insert(piece.name, weight);
        }
        let supply = |name: &str, _: &[usize]| weights.get(name).cloned();
        self.member().generate(classes, Source { seed: 0, supply: &supply })
    }

    fn member(&self) -> Member {
        Member::MobileNetV3 { config: Box::new(self.config), side: self.side }
    }
}

/// The steps from the kernel of `source` (a weight of the supernet, of `shape`) to one of side `to`; none for a weight that
/// is no kernel, or stays as large as it is.
pub fn kernel_steps(source: &str, shape: &[usize], to: usize) -> Vec<KernelStep> {
    let (Some(block), &[_, _, rows, _]) = (source.strip_suffix(".conv.weight"), shape) else {
        return Vec::new();
    };
    let steps = KERNELS.windows(2).rev().filter(|step| step[1] <= rows && step[0] >= to);
    let step = |step: &[usize]| {
        let (to, from) = (step[0], step[1]);
        KernelStep { from, to, matrix: format!("{block}.{from}to{to}.weight") }
    };
    steps.map(step).collect()
}

fn cut_piece(supernet: &Graph, piece: &Piece) -> Result<Weight, Error> {
    let Piece { name: _, source, shape } = piece;
    let (found, values) = floats(supernet, source)?;
    let fits = found.len() == shape.len() && found.iter().zip(shape).all(|(a, b)| a >= b);
    if !fits {
        return Err(Error::Contract(format!(
            "weight {source}: expected a supernet's of at least {shape:?}, found {found:?}"
        )));
    }
    let kept = match shape[..] {
        [out, inputs, _, _] => vec![out, inputs, found[2], found[3]],
        _ => shape.clone(),
    };
    let mut values = first(&values, &found, &kept);
    let to = shape.get(2).copied().unwrap_or_default();
    for KernelStep { from, to, matrix } in kernel_steps(source, &found, to) {
        let (sides, matrix_values) = floats(supernet, &matrix)?;
        if sides != [to * to, to * to] {
            return Err(Error::Contract(format!(
                "weight {matrix}: expected {} x {} numbers, found {sides:?}",
                to * to,
                to * to
            )));
        }
        values = shrink(&values, (from, to), &matrix_values);
    }
    Ok(Weight::from_f32(shape, &values))
}

fn floats(graph: &Graph, name: &str) -> Result<(Vec<usize>, Vec<f32>), Error> {
    let weight = graph.weights.get(name);
    let values = weight.and_then(|weight| Some((weight.shape.clone(), weight.floats()?)));
    values.ok_or_else(|| {
        Error::Contract(format!(
            "expected a supernet with floating-point values {name}, found none"
        ))
    })
}

/// The first of each side.
fn first(values: &[f32], sides: &[usize], kept: &[usize]) -> Vec<f32> {
    let ([side, inner @ ..], [count, kept @ ..]) = (sides, kept) else { return values.to_vec() };
    let rows = values.chunks_exact((values.len() / (*side).max(1)).max(1));
    rows.take(*count).flat_map(|row| first(row, inner, kept)).collect()
}

/// The centres of kernels of side `from`, each flattened by rows and multiplied by the matrix: `[n, to * to]`.
fn shrink(values: &[f32], (from, to): (usize, usize), matrix: &[f32]) -> Vec<f32> {
    let margin = (from - to) / 2;
    let kernels = values.chunks_exact(from * from);
    let shrunk = kernels.flat_map(|kernel| {
        let rows = kernel.chunks_exact(from).skip(margin).take(to);
        let centre: Vec<f32> = rows.flat_map(|row| row[margin..margin + to].to_vec()).collect();
        let product = |row: &[f32]| row.iter().zip(&centre).map(|(a, b)| a * b).sum::<f32>();
        matrix.chunks_exact(to * to).map(product).collect::<Vec<f32>>()
    });
    shrunk.collect()
}

/// Brings the middle channels of every block into the order of their importance, the greatest first: the sum of the
/// absolute weights by which the block's last convolution takes a channel in; within squeeze and excitation that of its
/// second convolution. What the whole network computes stays the same.
///
/// # Errors
/// `Error::Contract` if the graph is not that of a supernet.
pub fn sort_channels(graph: &mut Graph) -> Result<(), Error> {
    for Permutation { name, axis, order } in importance_order(graph)? {
        let (shape, values) = floats(graph, &name)?;
        let inner: usize = shape[axis + 1..].iter().product();
        let outer = values.chunks_exact(shape[axis] * inner);
        let sorted: Vec<f32> = outer
            .flat_map(|block| order.iter().flat_map(|&at| &block[at * inner..(at + 1) * inner]))
            .copied()
            .collect();
        graph.weights.insert(name, Weight::from_f32(&shape, &sorted));
    }
    Ok(())
}

/// What `sort_channels` does to each weight; the orders hold for the graph as it is, one after the other.
///
/// # Errors
/// `Error::Contract` if the graph is not that of a supernet.
pub fn importance_order(graph: &Graph) -> Result<Vec<Permutation>, Error> {
    let mut all = Vec::new();
    let mut add = |block: &str, names: &[(&str, usize)], order: &[usize]| {
        for &(name, axis) in names {
            let name = format!("{block}.{name}");
            if graph.weights.get(&name).is_some_and(|weight| weight.shape.len() > axis) {
                all.push(Permutation { name, axis, order: order.to_vec() });
            }
        }
    };
    for at in 1..=STAGES * BLOCKS {
        let block = format!("blocks.{at}");
        let order = order(graph, &format!("{block}.project.conv.weight"))?;
        add(&block, &MIDDLE, &order);
        let gate = format!("{block}.se.expand.weight");
        if graph.weights.contains_key(&gate) {
            add(&block, &SQUEEZED, &self::order(graph, &gate)?);
        }
    }
    Ok(all)
}

/// Weights along whose axis the middle channels of a block lie.
const MIDDLE: [(&str, usize); 14] = [
    ("expand.conv.weight", 0),
    ("expand.bn.weight", 0),
    ("expand.bn.bias", 0),
    ("expand.bn.running_mean", 0),
    ("expand.bn.running_var", 0),
    ("depthwise.conv.weight", 0),
    ("depthwise.bn.weight", 0),
    ("depthwise.bn.bias", 0),
    ("depthwise.bn.running_mean", 0),
    ("depthwise.bn.running_var", 0),
    ("se.reduce.weight", 1),
    ("se.expand.weight", 0),
    ("se.expand.bias", 0),
    ("project.conv.weight", 1),
];

/// Weights along whose axis the channels between the two convolutions of squeeze and excitation lie.
const SQUEEZED: [(&str, usize); 3] =
    [("se.reduce.weight", 0), ("se.reduce.bias", 0), ("se.expand.weight", 1)];

/// Input channels of a 1x1 convolution by the sum of its absolute weights, the greatest first.
fn order(graph: &Graph, name: &str) -> Result<Vec<usize>, Error> {
    let (shape, values) = floats(graph, name)?;
    let &[_, inputs, 1, 1] = &shape[..] else {
        return Err(Error::Contract(format!("{name}: expected a 1x1 kernel, found {shape:?}")));
    };
    let mut sums = vec![0.0_f32; inputs];
    for row in values.chunks_exact(inputs.max(1)) {
        sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value.abs());
    }
    let mut order: Vec<usize> = (0..inputs).collect();
    order.sort_by(|&a, &b| sums[b].total_cmp(&sums[a]));
    Ok(order)
}

/// The name that a weight of a published Once-for-all checkpoint has here; `None` if it is not one of them.
///
/// Both the names of the files (`blocks.3.mobile_inverted_conv.depth_conv.conv.conv.weight`) and those of the modules that
/// are saved today (`blocks.3.conv.depth_conv.conv.conv.weight`) are known.
pub(super) fn from_published(name: &str) -> Option<String> {
    let (rest, leaf) = name.rsplit_once('.')?;
    let outer = [
        ("first_conv.", "first_conv"),
        ("final_expand_layer.", "final_expand"),
        ("feature_mix_layer.", "feature_mix"),
    ];
    for (published, own) in outer {
        if let Some(part) = rest.strip_prefix(published) {
            let part = part.rsplit('.').next().unwrap_or(part);
            return Some(match (own, part) {
                ("feature_mix", "conv") => format!("{own}.{leaf}"),
                _ => format!("{own}.{part}.{leaf}"),
            });
        }
    }
    if rest.starts_with("classifier.") {
        return Some(format!("classifier.{leaf}"));
    }
    let (number, rest) = rest.strip_prefix("blocks.")?.split_once('.')?;
    let rest = rest.strip_prefix("mobile_inverted_conv.").or(rest.strip_prefix("conv."))?;
    let (layer, part) = rest.split_once('.')?;
    let own = match layer {
        "inverted_bottleneck" => "expand",
        "depth_conv" => "depthwise",
        "point_linear" => "project",
        _ => return None,
    };
    let block = format!("blocks.{number}");
    Some(match (part, leaf.strip_suffix("_matrix")) {
        ("conv", Some(step)) => format!("{block}.{own}.{step}.weight"),
        ("se.fc.reduce", _) => format!("{block}.se.reduce.{leaf}"),
        ("se.fc.expand", _) => format!("{block}.se.expand.{leaf}"),
        ("conv" | "conv.conv", None) => format!("{block}.{own}.conv.{leaf}"),
        ("bn" | "bn.bn", None) => format!("{block}.{own}.bn.{leaf}"),
        _ => return None,
    })
}

/// The matrices of a supernet whose file has none, so that a smaller kernel is the centre of the larger one.
pub(super) fn is_matrix(name: &str) -> bool {
    KERNELS.windows(2).any(|step| name.ends_with(&format!(".{}to{}.weight", step[1], step[0])))
}

#[cfg(all(test, feature = "torch"))]
#[expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]
mod tests;
