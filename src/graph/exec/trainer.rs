//! One fine-tuning run's state: parameters, optimiser, batch-norm statistics. The loop over epochs
//! is `steps/fit.rs`.

mod elastic;

use super::budget::Budget;
use super::network::{batch_tensor, channels_last, first_output};
use super::ops::{Fault, Mode};
use super::optim::{State, diverged};
use super::plan::{Feed, Plan, Program, outside};
use super::roles::{Role, replace_head, reset, roles};
use super::{Device, augment, tensor};
use crate::graph::formats::Limits;
use crate::graph::head::{HeadSite, NO_HEAD, find_head};
use crate::graph::spaces::elastic::Freedom;
use crate::graph::{Attribute, Error, Graph, Weight, input::InputContract};
use crate::sample::Image;
pub use elastic::Elastic;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use tch::{Kind, Reduction, Tensor};

/// Optimiser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Optimizer {
    /// SGD with Nesterov momentum 0.9.
    Sgd,
    /// AdamW (Loshchilov & Hutter 2019).
    AdamW,
}

/// Options of a trainer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrainerOptions {
    /// Classes of the new head.
    pub classes: usize,
    /// Replace the head (a new task) or keep it.
    pub new_head: bool,
    /// Train the head only.
    pub head_only: bool,
    /// Draw every weight anew (He initialisation, batch-norm at identity): training from random
    /// initialisation.
    pub from_scratch: bool,
    /// Optimiser.
    pub optimizer: Optimizer,
    /// Weight decay on weights of two or more dimensions.
    pub weight_decay: f32,
    /// Label smoothing in 0..1.
    pub label_smoothing: f32,
    /// Random flips, shifts and brightness chosen by image size.
    pub augment: bool,
    /// Seed of head, augmentation and dropout.
    pub seed: u64,
    /// Where to run.
    pub device: Device,
}

impl TrainerOptions {
    /// For a network that is scored as it is, with its own head.
    pub fn scoring(classes: usize, device: Device) -> Self {
        Self {
            classes,
            new_head: false,
            head_only: false,
            from_scratch: false,
            optimizer: Optimizer::Sgd,
            weight_decay: 0.0,
            label_smoothing: 0.0,
            augment: false,
            seed: 0,
            device,
        }
    }
}

/// Loss and accuracy over a labelled set.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Mean cross-entropy.
    pub loss: f32,
    /// Top-1 accuracy, 0..=1.
    pub accuracy: f32,
}

/// A network in training.
pub struct Trainer {
    graph: Graph,
    input: InputContract,
    options: TrainerOptions,
    plan: Plan,
    logits: Program,
    /// All weights in name order; the learned ones share their memory with `learned`.
    weights: Vec<Tensor>,
    learned: Vec<Tensor>,
    /// Place of each learned tensor among the weights.
    places: Vec<usize>,
    decay: Vec<f64>,
    state: State,
    device: tch::Device,
    /// How a supernet is trained, and what is free at this step.
    elastic: Option<(Elastic, Freedom)>,
}

/// Streams of the seed: 0 the head, 1.. the initialisation, from here on one per step.
const STEP_STREAMS: u64 = 1 << 32;

/// Input values in one batch of an evaluation.
const EVALUATE_VALUES: usize = 64 * 3 * 128 * 128;

impl Trainer {
    /// Prepares a copy of the network with a new head and trainable weights.
    ///
    /// # Errors
    /// `Error::Contract` if no linear head is found, `Error::NotRunnable` as for `Network::new`.
    pub fn new(
        graph: &Graph,
        input: &InputContract,
        options: &TrainerOptions,
    ) -> Result<Self, Error> {
        Plan::new(graph)?;
        let site = check(graph, options)?;
        let device = options.device.resolve()?;
        let mut graph = graph.clone();
        if options.from_scratch {
            reset(&mut graph, options.seed);
        }
        if options.new_head {
            replace_head(&mut graph, &site, options.classes, options.seed)?;
        }
        let head = learned_by_head(&graph, &site);
        let plan = Plan::new(&graph)?;
        let logits = plan.program(&[logits_name(&graph)?])?;
        let weights = plan.load(&graph, device)?;
        let mut weights = weights.iter().map(channels_last).collect::<Result<Vec<_>, _>>()?;
        let roles = roles(&graph);
        let learns = |name: &String| {
            let learned = roles.get(name).copied().is_some_and(Role::is_learned);
            learned && (!options.head_only || head.contains(name))
        };
        let names = plan.weight_names().iter().enumerate();
        let places: Vec<usize> = names.filter(|(_, name)| learns(name)).map(|(at, _)| at).collect();
        let mut learned = Vec::new();
        for &at in &places {
            let leaf = weights[at].f_detach().and_then(|tensor| tensor.f_set_requires_grad(true));
            let leaf = leaf.map_err(|error| outside("weight")(error.into()))?;
            weights[at] = leaf.shallow_clone();
            learned.push(leaf);
        }
        if learned.is_empty() {
            return Err(Error::Contract("expected weights to train, found none".to_string()));
        }
        let decays = |(weight, &at): (&Tensor, &usize)| {
            let role = roles.get(&plan.weight_names()[at]);
            weight.dim() > 1 && role != Some(&Role::Transform)
        };
        let decay = learned.iter().zip(&places);
        let decay = decay.map(|it| if decays(it) { f64::from(options.weight_decay) } else { 0.0 });
        let decay = decay.collect();
        let parameters: Vec<&Tensor> = learned.iter().collect();
        let state = State::new(options.optimizer, &parameters).map_err(outside("optimizer"))?;
        let (input, options) = (input.clone(), *options);
        let trainer = Self {
            graph,
            input,
            options,
            plan,
            logits,
            weights,
            learned,
            places,
            decay,
            state,
            device,
            elastic: None,
        };
        trainer.try_once()?;
        Ok(trainer)
    }

    /// Gives the new head its first weights: row-major `[classes, feature_dim]`, and one number a class. A head
    /// without a bias or of another shape keeps those that were drawn.
    ///
    /// # Errors
    /// `Error::Execution` if libtorch fails.
    pub fn start_head(&mut self, weights: &[f32], bias: &[f32]) -> Result<(), Error> {
        let site = find_head(&self.graph).ok_or_else(|| Error::Contract(NO_HEAD.to_string()))?;
        let Some(bias_name) = &site.bias else { return Ok(()) };
        let (classes, dim) = (site.classes, site.feature_dim);
        if weights.len() != classes * dim || bias.len() != classes {
            return Ok(());
        }
        let in_order: Vec<f32> = match site.transposed {
            true => weights.to_vec(),
            false => {
                (0..classes * dim).map(|at| weights[at % classes * dim + at / classes]).collect()
            }
        };
        let _guard = tch::no_grad_guard();
        for (name, values) in [(&site.weight, &in_order[..]), (bias_name, bias)] {
            let place = self.plan.weight_names().iter().position(|known| known == name);
            let place = place.ok_or_else(|| Error::Contract(format!("no weight {name:?}")))?;
            let mut target = self.weights[place].shallow_clone();
            let mut copy = || -> Result<(), Fault> {
                let source = Tensor::f_from_slice(values)?.f_reshape(target.size())?;
                target.f_copy_(&source)?;
                Ok(())
            };
            copy().map_err(outside("head"))?;
        }
        Ok(())
    }

    /// One optimiser step on a batch at the given learning rate; returns the loss.
    ///
    /// # Errors
    /// `Error::Contract` for labels that do not fit, `Error::Execution` if the loss or a gradient
    /// is not finite; the learned weights are then as before, but running statistics may not be.
    pub fn step(
        &mut self,
        images: &[&Image],
        labels: &[u32],
        learning_rate: f32,
    ) -> Result<f32, Error> {
        self.check_batch(images, labels)?;
        let mut generator = ChaCha8Rng::seed_from_u64(self.options.seed);
        generator.set_stream(STEP_STREAMS + self.state.steps as u64);
        let batch = if self.options.augment {
            let changed: Vec<Image> =
                images.iter().map(|image| augment::augment(image, &mut generator)).collect();
            batch_tensor(&self.input, &changed, self.device)?
        } else {
            batch_tensor(&self.input, images, self.device)?
        };
        // A frozen backbone keeps its statistics, too.
        let mode = match self.options.head_only {
            true => Mode::Inference,
            false => Mode::Training(Box::new(RefCell::new(generator))),
        };
        let logits = self.forward(batch.shallow_clone(), &mode)?;
        let loss = self.loss(&logits, labels, self.options.label_smoothing)?;
        let value = finite(&loss).map_err(outside("training step"))?;
        let mut gradients = self.backward(&loss).map_err(outside("training step"))?;
        if self.elastic.is_some() {
            self.add_subnets(&mut gradients, (&batch, &logits), &mode)?;
        }
        let rate = f64::from(learning_rate);
        let stepped = self.state.step(&mut self.learned, &gradients, &self.decay, rate);
        stepped.map_err(outside("training step"))?;
        Ok(value)
    }

    /// Loss and accuracy with batch-norm in inference mode.
    ///
    /// # Errors
    /// `Error::Contract` for labels that do not fit, `Error::Execution` naming the node that
    /// failed.
    pub fn evaluate(&self, images: &[&Image], labels: &[u32]) -> Result<Evaluation, Error> {
        self.check_batch(images, labels)?;
        let _guard = tch::no_grad_guard();
        let sample: usize = self.input.batch_shape(1).iter().product();
        let size = (EVALUATE_VALUES / sample.max(1)).clamp(1, 256);
        let (mut loss, mut right) = (0.0, 0.0);
        for (images, labels) in images.chunks(size).zip(labels.chunks(size)) {
            let batch = batch_tensor(&self.input, images, self.device)?;
            let logits = self.forward(batch, &Mode::Inference)?;
            let mean = self.loss(&logits, labels, 0.0)?;
            let score = || -> Result<(f64, f64), Fault> {
                let same = logits.f_argmax(1, false)?.f_eq_tensor(&self.targets(labels)?)?;
                let right = same.f_sum(Kind::Int64)?.f_int64_value(&[])?;
                Ok((mean.f_double_value(&[])?, right as f64))
            };
            let (mean, count) = score().map_err(outside("evaluation"))?;
            loss += mean * images.len() as f64;
            right += count;
        }
        let n = images.len() as f64;
        Ok(Evaluation { loss: (loss / n) as f32, accuracy: (right / n) as f32 })
    }

    /// Named tensors of the whole state (weights, optimiser moments, step counter) as a safetensors
    /// blob.
    ///
    /// # Errors
    /// `Error::Execution` if a tensor cannot be read.
    pub fn checkpoint(&self) -> Result<Vec<u8>, Error> {
        let mut parts: BTreeMap<String, (Vec<usize>, Vec<u8>)> = BTreeMap::new();
        for (name, tensor) in self.saved() {
            let values = tensor::to_f32(tensor).map_err(outside("checkpoint"))?;
            let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            parts.insert(name, (sizes(tensor), bytes));
        }
        let steps = self.state.steps.to_le_bytes();
        let mut views = Vec::new();
        for (name, (shape, bytes)) in &parts {
            let view = TensorView::new(Dtype::F32, shape.clone(), bytes).map_err(unreadable)?;
            views.push((name.as_str(), view));
        }
        views.push(("steps", TensorView::new(Dtype::I64, vec![], &steps).map_err(unreadable)?));
        safetensors::serialize(views, None).map_err(unreadable)
    }

    /// Restores a checkpoint of the same network and options.
    ///
    /// # Errors
    /// `Error::Malformed` if it is damaged or of another network; the state is then as before.
    pub fn restore(&mut self, checkpoint: &[u8]) -> Result<(), Error> {
        let file = SafeTensors::deserialize(checkpoint).map_err(unreadable)?;
        let foreign = |what: String| Error::Malformed { format: "checkpoint", what };
        let steps = file.tensor("steps").map_err(unreadable)?;
        let steps: [u8; 8] = steps.data().try_into().map_err(|_| foreign("steps".to_string()))?;
        let mut pairs = Vec::new();
        for (name, target) in self.saved() {
            let view = file.tensor(&name).map_err(unreadable)?;
            if view.dtype() != Dtype::F32 || view.shape() != sizes(target) {
                let (expected, found) = (sizes(target), view.shape());
                return Err(foreign(format!("{name}: expected f32 {expected:?}, found {found:?}")));
            }
            let values = Weight {
                dtype: Dtype::F32,
                shape: view.shape().to_vec(),
                bytes: std::sync::Arc::new(view.data().to_vec()),
            };
            let source =
                tensor::from_weight(&values, self.device).map_err(outside("checkpoint"))?;
            pairs.push((target.shallow_clone(), source));
        }
        if file.len() != pairs.len() + 1 {
            let (expected, found) = (pairs.len() + 1, file.len());
            return Err(foreign(format!("expected {expected} tensors, found {found}")));
        }
        let _guard = tch::no_grad_guard();
        for (mut target, source) in pairs {
            target.f_copy_(&source).map_err(|error| outside("checkpoint")(error.into()))?;
        }
        self.state.steps = i64::from_le_bytes(steps);
        Ok(())
    }

    /// The network as it is now, weights f32.
    ///
    /// # Errors
    /// `Error::Execution` if a tensor cannot be read.
    pub fn graph(&self) -> Result<Graph, Error> {
        let mut graph = self.graph.clone();
        for (name, tensor) in self.float_weights() {
            let values = tensor::to_f32(tensor).map_err(outside("weight"))?;
            graph.weights.insert(name.clone(), Weight::from_f32(&sizes(tensor), &values));
        }
        // With f32 weights nothing may ask for half precision any more.
        let half = [Dtype::F16, Dtype::BF16].map(Some);
        for value in graph.inputs.iter_mut().chain(&mut graph.outputs) {
            if half.contains(&value.dtype) {
                value.dtype = Some(Dtype::F32);
            }
        }
        for node in graph.nodes.iter_mut().filter(|node| node.op == "Cast") {
            if let Some(Attribute::Int(to @ (10 | 16))) = node.attributes.get_mut("to") {
                *to = 1;
            }
        }
        Ok(graph)
    }

    fn float_weights(&self) -> impl Iterator<Item = (&String, &Tensor)> {
        let all = self.plan.weight_names().iter().zip(&self.weights);
        all.filter(|(_, tensor)| tensor.f_kind().is_ok_and(|kind| kind == Kind::Float))
    }

    /// Every tensor of the state under its name in a checkpoint.
    fn saved(&self) -> Vec<(String, &Tensor)> {
        let weights = self.float_weights().map(|(name, tensor)| (format!("weight.{name}"), tensor));
        let names = self.plan.weight_names();
        let moments = |prefix: &'static str, list: &'_ [Tensor]| -> Vec<(String, usize)> {
            let places = self.places.iter().take(list.len()).enumerate();
            places.map(|(index, &at)| (format!("{prefix}.{}", names[at]), index)).collect()
        };
        let first = moments("first", &self.state.first).into_iter();
        let second = moments("second", &self.state.second).into_iter();
        let first = first.map(|(name, index)| (name, &self.state.first[index]));
        let second = second.map(|(name, index)| (name, &self.state.second[index]));
        weights.chain(first).chain(second).collect()
    }

    /// `[n, classes]`.
    fn forward(&self, input: Tensor, mode: &Mode) -> Result<Tensor, Error> {
        self.forward_by(&self.plan, &self.logits, (&self.weights, input), mode)
    }

    /// `[n, classes]` of a network with the same head.
    fn forward_by(
        &self,
        plan: &Plan,
        logits: &Program,
        (weights, input): (&[Tensor], Tensor),
        mode: &Mode,
    ) -> Result<Tensor, Error> {
        let n = input.size()[0];
        let budget = Budget::new(&Limits::default());
        let feed = Feed { weights, inputs: vec![input], mode, budget: &budget };
        let outputs = plan.run(logits, feed, &mut |_, _, _| Ok(()))?;
        let classes = self.options.classes as i64;
        let output = &outputs[0];
        if output.numel() as i64 != n * classes {
            return Err(Error::Contract(format!(
                "expected {n} x {classes} logits, found shape {:?}",
                output.size()
            )));
        }
        output.f_reshape([n, classes]).map_err(|error| outside("logits")(error.into()))
    }

    /// A network that cannot take this head or a batch is refused before anyone trains it for
    /// hours.
    fn try_once(&self) -> Result<(), Error> {
        let _guard = tch::no_grad_guard();
        let shape = self.input.batch_shape(2).map(|side| side as i64);
        let input = Tensor::f_zeros(shape, (Kind::Float, self.device));
        let input = input.map_err(|error| outside("input")(error.into()))?;
        self.forward(input, &Mode::Inference).map(|_| ())
    }

    fn targets(&self, labels: &[u32]) -> Result<Tensor, Fault> {
        let labels: Vec<i64> = labels.iter().map(|&label| i64::from(label)).collect();
        Ok(Tensor::f_from_slice(&labels)?.f_to_device(self.device)?)
    }

    fn loss(&self, logits: &Tensor, labels: &[u32], smoothing: f32) -> Result<Tensor, Error> {
        let loss = || -> Result<Tensor, Fault> {
            let targets = self.targets(labels)?;
            let none = None::<&Tensor>;
            let smoothing = f64::from(smoothing);
            Ok(logits.f_cross_entropy_loss(&targets, none, Reduction::Mean, -100, smoothing)?)
        };
        loss().map_err(outside("loss"))
    }

    /// By each learned tensor; undefined for one that the loss does not depend on.
    fn backward(&self, loss: &Tensor) -> Result<Vec<Tensor>, Fault> {
        Ok(Tensor::f_run_backward(&[loss], &self.learned, false, false)?)
    }

    fn check_batch(&self, images: &[&Image], labels: &[u32]) -> Result<(), Error> {
        if images.is_empty() || images.len() != labels.len() {
            return Err(Error::Contract(format!(
                "expected one label for each of one or more images, found {} images and {} labels",
                images.len(),
                labels.len()
            )));
        }
        let classes = self.options.classes;
        match labels.iter().find(|&&label| label as usize >= classes) {
            Some(label) => {
                Err(Error::Contract(format!("expected labels below {classes}, found {label}")))
            }
            None => Ok(()),
        }
    }
}

/// The value of a loss.
fn finite(loss: &Tensor) -> Result<f32, Fault> {
    let value = loss.f_double_value(&[])? as f32;
    if value.is_finite() { Ok(value) } else { Err(diverged("loss", f64::from(value))) }
}

fn check(graph: &Graph, options: &TrainerOptions) -> Result<HeadSite, Error> {
    let site = find_head(graph).ok_or_else(|| Error::Contract(NO_HEAD.to_string()))?;
    let smoothing = (0.0..1.0).contains(&options.label_smoothing);
    let decay = options.weight_decay.is_finite() && options.weight_decay >= 0.0;
    if options.classes == 0 || !smoothing || !decay {
        return Err(Error::Contract(format!(
            "expected one or more classes, label smoothing in 0..1 and weight decay from 0, \
             found {}, {} and {}",
            options.classes, options.label_smoothing, options.weight_decay
        )));
    }
    if !options.new_head && options.classes != site.classes {
        return Err(Error::Contract(format!(
            "expected {} classes, as the head that is kept has, found {}",
            site.classes, options.classes
        )));
    }
    Ok(site)
}

/// Names of the weights that the head's own nodes read.
fn learned_by_head(graph: &Graph, site: &HeadSite) -> Vec<String> {
    let nodes = [Some(site.node), site.bias_node].into_iter().flatten();
    nodes.flat_map(|node| graph.nodes[node].inputs.clone()).collect()
}

/// The value that the loss takes: what enters a softmax or sigmoid at the end, else the first
/// output.
fn logits_name(graph: &Graph) -> Result<&str, Error> {
    let output = first_output(graph)?;
    let producers: HashMap<&str, &crate::graph::Node> = graph
        .nodes
        .iter()
        .flat_map(|node| node.outputs.iter().map(move |name| (name.as_str(), node)))
        .collect();
    let mut name = output;
    for _ in 0..graph.nodes.len() {
        let Some(node) = producers.get(name) else { break };
        let Some(input) = node.inputs.first() else { break };
        match node.op.as_str() {
            "Softmax" | "LogSoftmax" | "Sigmoid" => return Ok(input),
            "Identity" | "Reshape" | "Flatten" | "Squeeze" | "Cast" => name = input,
            _ => break,
        }
    }
    Ok(output)
}

fn sizes(tensor: &Tensor) -> Vec<usize> {
    tensor.size().iter().map(|&side| side as usize).collect()
}

fn unreadable(error: safetensors::SafeTensorError) -> Error {
    Error::Malformed { format: "checkpoint", what: error.to_string() }
}

#[cfg(test)]
mod tests;
