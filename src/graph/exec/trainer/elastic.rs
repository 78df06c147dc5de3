//! Trains a supernet so that its subnets work, too (Once-for-all, Cai et al. 2020, section 3.3).
//!
//! Each step is a sandwich (Yu & Huang 2019): the whole network learns the labels, the smallest subnet and some random ones
//! learn what the whole network answers, and their gradients are averaged. Subnets run on views of the supernet's weights;
//! the matrices that make smaller kernels are learned with them.

use super::{Error, Fault, Mode, Plan, Program, Tensor, Trainer, outside, sizes};
use crate::graph::exec::network::first_output;
use crate::graph::exec::ops::guarded;
use crate::graph::spaces::elastic::{
    Freedom, KernelStep, Piece, Subnet, Supernet, importance_order, kernel_steps,
};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::collections::HashMap;
use tch::Kind;

/// What a supernet's training needs to know.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Elastic {
    /// The architecture.
    pub space: Supernet,
    /// Random subnets a step, beside the whole network and the smallest subnet.
    pub random: usize,
    /// Free the dimensions one after the other, kernel, depth and expansion, after the whole network has learned alone;
    /// else all are free from the first step. For weights that no subnet has learned yet.
    pub is_progressive: bool,
}

/// The shares of a progressive training after which kernels, depths and expansions are free.
const PHASES: [(f64, Freedom); 3] =
    [(0.2, Freedom::Kernel), (0.35, Freedom::Depth), (0.5, Freedom::Expansion)];

/// Streams of the seed that draw subnets, one per step.
const SUBNET_STREAMS: u64 = 1 << 48;

impl Elastic {
    /// What is free at a step of so many.
    fn freedom(&self, step: usize, total: usize) -> Freedom {
        if !self.is_progressive {
            return Freedom::Expansion;
        }
        let share = step as f64 / total.max(1) as f64;
        let begun = PHASES.iter().rev().find(|(start, _)| share >= *start);
        begun.map_or(Freedom::Whole, |(_, freedom)| *freedom)
    }
}

impl Trainer {
    /// Makes the training one of a supernet.
    ///
    /// # Errors
    /// `Error::Contract` if the network is not that supernet.
    pub fn elastic(mut self, elastic: Elastic) -> Result<Self, Error> {
        let (_, pieces) = elastic.space.largest().outline(self.options.classes)?;
        for Piece { name: _, source, shape } in pieces {
            let found = self.graph.weights.get(&source).map(|weight| &weight.shape);
            if found != Some(&shape) {
                return Err(Error::Contract(format!(
                    "expected {}, with {source} of {shape:?}, found {found:?}",
                    elastic.space.spec()
                )));
            }
        }
        let freedom = elastic.freedom(0, 1);
        self.elastic = Some((elastic, freedom));
        Ok(self)
    }

    /// Says which step, of how many, comes next. The freedom of a supernet grows with them; before its expansions become
    /// free its channels are sorted by importance, once. Any other training pays no heed.
    ///
    /// # Errors
    /// `Error::Execution` if libtorch fails.
    pub fn begin(&mut self, step: usize, total: usize) -> Result<(), Error> {
        let Some((elastic, current)) = &mut self.elastic else { return Ok(()) };
        let freedom = elastic.freedom(step, total);
        *current = freedom;
        let before = step.checked_sub(1).map(|step| elastic.freedom(step, total));
        let opens = freedom == Freedom::Expansion && before < Some(Freedom::Expansion);
        if elastic.is_progressive && opens { self.sort_channels() } else { Ok(()) }
    }

    /// Adds the gradients of this step's subnets to those of the whole network, whose answer is `logits`, and averages.
    pub(super) fn add_subnets(
        &self,
        gradients: &mut [Tensor],
        (batch, logits): (&Tensor, &Tensor),
        mode: &Mode,
    ) -> Result<(), Error> {
        let subnets = self.subnets();
        let teacher = logits.f_detach().and_then(|it| it.f_softmax(-1, Kind::Float));
        let teacher = teacher.map_err(|error| outside("distillation")(error.into()))?;
        for subnet in &subnets {
            let ready = Ready::new(subnet, self)?;
            let feed = (&ready.weights[..], batch.shallow_clone());
            let logits = self.forward_by(&ready.plan, &ready.program, feed, mode)?;
            let more = || -> Result<Vec<Tensor>, Fault> {
                let loss = distillation(&teacher, &logits)?;
                self.backward(&loss)
            };
            let more = more().map_err(outside("distillation"))?;
            add(gradients, more).map_err(outside("distillation"))?;
        }
        let share = 1.0 / (subnets.len() + 1) as f64;
        for gradient in gradients.iter_mut().filter(|gradient| gradient.defined()) {
            *gradient =
                gradient.f_mul_scalar(share).map_err(|error| outside("gradient")(error.into()))?;
        }
        Ok(())
    }

    /// The smallest subnet and random ones, the same for the same seed and step.
    fn subnets(&self) -> Vec<Subnet> {
        let Some((elastic, freedom)) = self.elastic else { return Vec::new() };
        if freedom == Freedom::Whole {
            return Vec::new();
        }
        let mut random = ChaCha8Rng::seed_from_u64(self.options.seed);
        random.set_stream(SUBNET_STREAMS + self.state.steps as u64);
        let drawn = (0..elastic.random).map(|_| elastic.space.draw(freedom, &mut random));
        std::iter::once(elastic.space.smallest(freedom)).chain(drawn).collect()
    }

    /// Sorts the channels of weights, statistics and the optimiser's moments alike.
    fn sort_channels(&mut self) -> Result<(), Error> {
        let _guard = tch::no_grad_guard();
        let orders = importance_order(&self.graph()?)?;
        let names = self.plan.weight_names();
        for order in orders {
            let Some(at) = names.iter().position(|name| *name == order.name) else { continue };
            let learned = self.places.iter().position(|&place| place == at);
            let moments = [&self.state.first, &self.state.second]
                .map(|list| learned.and_then(|it| list.get(it)));
            let all = moments.into_iter().flatten().chain([&self.weights[at]]);
            let indices: Vec<i64> = order.order.iter().map(|&index| index as i64).collect();
            let sort = |tensor: &Tensor| -> Result<(), Fault> {
                let indices = Tensor::f_from_slice(&indices)?.f_to_device(self.device)?;
                let sorted = tensor.f_index_select(order.axis as i64, &indices)?;
                let mut place = tensor.shallow_clone();
                place.f_copy_(&sorted)?;
                Ok(())
            };
            for tensor in all {
                sort(tensor).map_err(outside("sorting of channels"))?;
            }
        }
        Ok(())
    }
}

/// A subnet on the supernet's weights.
struct Ready {
    plan: Plan,
    program: Program,
    weights: Vec<Tensor>,
}

impl Ready {
    fn new(subnet: &Subnet, trainer: &Trainer) -> Result<Self, Error> {
        let (graph, pieces) = subnet.outline(trainer.options.classes)?;
        let plan = Plan::new(&graph)?;
        let program = plan.program(&[first_output(&graph)?])?;
        let names = trainer.plan.weight_names().iter().map(String::as_str);
        let whole: HashMap<&str, &Tensor> = names.zip(&trainer.weights).collect();
        let pieces: HashMap<&str, &Piece> =
            pieces.iter().map(|piece| (piece.name.as_str(), piece)).collect();
        let weight = |name: &String| {
            let piece = pieces.get(name.as_str()).ok_or_else(|| {
                Error::Contract(format!("expected weight {name} in the supernet, found none"))
            })?;
            guarded(|| view(&whole, piece)).map_err(outside("subnet"))
        };
        let weights = plan.weight_names().iter().map(weight).collect::<Result<_, _>>()?;
        Ok(Self { plan, program, weights })
    }
}

/// The piece as a function of the supernet's weight, through which gradients flow back.
fn view(whole: &HashMap<&str, &Tensor>, piece: &Piece) -> Result<Tensor, Fault> {
    let of = |name: &str| {
        let found = whole.get(name).map(|tensor| tensor.shallow_clone());
        found.ok_or_else(|| Fault::Failed(format!("expected weight {name}, found none")))
    };
    let mut tensor = of(&piece.source)?;
    for (axis, &side) in piece.shape.iter().enumerate().take(2) {
        if tensor.size()[axis] != side as i64 {
            tensor = tensor.f_narrow(axis as i64, 0, side as i64)?;
        }
    }
    // A subnet normalises by its batch and leaves the running statistics to the whole network.
    if piece.source.contains(".running_") {
        return Ok(tensor.f_detach_copy()?);
    }
    let to = piece.shape.get(2).copied().unwrap_or_default();
    for KernelStep { from, to, matrix } in kernel_steps(&piece.source, &sizes(&tensor), to) {
        let (margin, side) = (((from - to) / 2) as i64, to as i64);
        let channels = tensor.size()[0];
        let centre = tensor.f_narrow(2, margin, side)?.f_narrow(3, margin, side)?;
        let flat = centre.f_reshape([channels, side * side])?;
        tensor = flat.f_matmul(&of(&matrix)?.f_tr()?)?.f_reshape([channels, 1, side, side])?;
    }
    Ok(tensor)
}

/// Mean cross-entropy of the answers against the whole network's.
fn distillation(teacher: &Tensor, logits: &Tensor) -> Result<Tensor, Fault> {
    let each = logits.f_log_softmax(-1, Kind::Float)?.f_mul(teacher)?;
    Ok(each.f_sum(Kind::Float)?.f_div_scalar(-(teacher.size()[0] as f64))?)
}

/// A tensor that only one of both has counts as zero in the other.
fn add(gradients: &mut [Tensor], more: Vec<Tensor>) -> Result<(), Fault> {
    for (gradient, more) in gradients.iter_mut().zip(more) {
        if !gradient.defined() {
            *gradient = more;
        } else if more.defined() {
            *gradient = gradient.f_add(&more)?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]
mod tests {
    use super::*;
    use crate::graph::exec::{Device, TrainerOptions};
    use crate::graph::spaces::generate;
    use crate::sample::Image;
    use rand::Rng;

    const SPEC: &str = "mobilenetv3_tiny:supernet@32";

    fn trainer(is_progressive: bool) -> Trainer {
        let made = generate(SPEC, 3, 1).unwrap();
        let options = TrainerOptions::scoring(3, Device::Cpu);
        let space = Supernet::parse(SPEC).unwrap();
        let trainer = Trainer::new(&made.graph, &made.input, &options).unwrap();
        trainer.elastic(Elastic { space, random: 1, is_progressive }).unwrap()
    }

    fn images() -> (Vec<Image>, Vec<u32>) {
        let mut random = ChaCha8Rng::seed_from_u64(3);
        let mut image = |label: u32| {
            let shade = |at: usize| if at % 3 == label as usize { 200 } else { 40 };
            let pixels = (0..32 * 32 * 3).map(|at| shade(at) + random.random_range(0..40));
            Image::new(32, 32, 3, pixels.collect()).unwrap()
        };
        let labels: Vec<u32> = (0..12).map(|at| at % 3).collect();
        (labels.iter().map(|&label| image(label)).collect(), labels)
    }

    /// A subnet's weights as views are those that are cut out of the graph.
    #[test]
    fn views_are_cuts() {
        let mut trainer = trainer(false);
        let (images, labels) = images();
        let images: Vec<&Image> = images.iter().collect();
        for step in 0..3 {
            trainer.begin(step, 3).unwrap();
            trainer.step(&images, &labels, 0.01).unwrap();
        }
        let (elastic, _) = trainer.elastic.unwrap();
        let graph = trainer.graph().unwrap();
        let matrix = graph.weights["blocks.2.depthwise.7to5.weight"].floats().unwrap();
        assert!(matrix.iter().any(|value| !matches!(*value, 0.0 | 1.0)), "matrices are learned");
        for code in ["d2-k3-e3", "d4-k5-e4", "d2.3.4.3.2-k7-e6"] {
            let subnet = elastic.space.subnet(code).unwrap();
            let ready = Ready::new(&subnet, &trainer).unwrap();
            let cut = subnet.cut(&graph).unwrap().graph;
            for (name, view) in ready.plan.weight_names().iter().zip(&ready.weights) {
                let view = crate::graph::exec::tensor::to_f32(view).unwrap();
                let cut = cut.weights[name].floats().unwrap();
                let most = view.iter().zip(&cut).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(view.len() == cut.len() && most < 1e-5, "{code} {name}: {most}");
            }
        }
    }

    /// Sorting in the midst of a training changes nothing of what the whole network computes.
    #[test]
    fn expansions_open_with_sorted_channels() {
        let mut trainer = trainer(true);
        let (images, labels) = images();
        let images: Vec<&Image> = images.iter().collect();
        let freedoms: Vec<Freedom> =
            (0..10).map(|step| trainer.elastic.unwrap().0.freedom(step, 10)).collect();
        assert!(freedoms.is_sorted());
        assert_eq!((freedoms[0], freedoms[9]), (Freedom::Whole, Freedom::Expansion));
        for step in 0..5 {
            trainer.begin(step, 10).unwrap();
            trainer.step(&images, &labels, 0.01).unwrap();
        }
        let before = trainer.evaluate(&images, &labels).unwrap();
        let graph = trainer.graph().unwrap();
        trainer.begin(5, 10).unwrap();
        let after = trainer.evaluate(&images, &labels).unwrap();
        assert!(
            (before.loss - after.loss).abs() < 1e-4 * before.loss.max(1.0),
            "{before:?} {after:?}"
        );
        let sorted = trainer.graph().unwrap();
        let name = "blocks.9.expand.conv.weight";
        assert_ne!(graph.weights[name].data(), sorted.weights[name].data());
        let mut expected = graph;
        crate::graph::spaces::elastic::sort_channels(&mut expected).unwrap();
        assert_eq!(expected.weights[name].data(), sorted.weights[name].data());
        // It is sorted once.
        trainer.begin(6, 10).unwrap();
        assert_eq!(trainer.graph().unwrap().weights[name].data(), sorted.weights[name].data());
    }

    #[test]
    fn subnets_learn_with_the_whole() {
        let mut trainer = trainer(false);
        let (images, labels) = images();
        let images: Vec<&Image> = images.iter().collect();
        (0..80).for_each(|_| _ = trainer.step(&images, &labels, 0.02).unwrap());
        let graph = trainer.graph().unwrap();
        let (elastic, _) = trainer.elastic.unwrap();
        let middle = elastic.space.subnet("d3-k5-e4").unwrap();
        let smallest = elastic.space.smallest(Freedom::Expansion);
        let accuracies = [elastic.space.largest(), middle, smallest].map(|subnet| {
            let cut = subnet.cut(&graph).unwrap();
            // Of the whole network, too, the running statistics lag behind so few and so large steps.
            let own =
                crate::graph::exec::calibrate(&cut.graph, &cut.input, &images, 12, Device::Cpu);
            let options = TrainerOptions::scoring(3, Device::Cpu);
            let scorer = Trainer::new(&own.unwrap(), &cut.input, &options).unwrap();
            scorer.evaluate(&images, &labels).unwrap().accuracy
        });
        assert!(accuracies.iter().all(|accuracy| *accuracy > 0.9), "{accuracies:?}");
    }

    #[test]
    fn another_network_is_no_supernet() {
        let made = generate("small:cnn-w16", 3, 1).unwrap();
        let options = TrainerOptions::scoring(3, Device::Cpu);
        let trainer = Trainer::new(&made.graph, &made.input, &options).unwrap();
        let space = Supernet::parse(SPEC).unwrap();
        let elastic = Elastic { space, random: 1, is_progressive: false };
        let error = trainer.elastic(elastic).err().unwrap().to_string();
        assert!(error.contains("expected mobilenetv3_tiny:supernet@32"), "{error}");
    }
}
