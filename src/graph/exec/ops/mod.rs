//! The operators: what each is called with and answers; `table` has their names.

mod activation;
mod arithmetic;
mod attention;
mod bits;
mod cast;
mod control;
mod conv;
mod index;
mod linear;
mod loss;
mod norm;
mod pool;
mod quantized;
mod recurrent;
mod reduce;
mod resize;
mod scatter;
mod shape;
mod signal;
mod table;
mod vision;

pub(crate) use table::find;
#[cfg(test)]
pub(crate) use table::operators;

use super::budget::Budget;
use super::plan::{Body, Feed};
use super::tensor;
use crate::graph::{Attribute, Dtype, Error, Node};
use rand_chacha::ChaCha8Rng;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use tch::{Kind, Tensor};

/// What an operator can answer instead of tensors.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The operator exists, but not with this attribute or type: the network is not runnable.
    Unsupported(String),
    /// The values do not fit together.
    Failed(String),
    /// The device failed, whatever the values.
    Device(String),
    /// More than a stated limit would be taken.
    Limit {
        /// What is limited.
        what: &'static str,
        /// How much would be taken.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// A node of a subgraph failed.
    Inner(Box<Error>),
}

/// What libtorch says when the device, not the network, is at fault.
const DEVICE_FAULTS: [&str; 5] =
    ["out of memory", "can't allocate memory", "CUDA error", "cuDNN error", "CUBLAS_STATUS"];

impl From<tch::TchError> for Fault {
    fn from(error: tch::TchError) -> Self {
        // libtorch appends its call stack to each message.
        let text = error.to_string();
        Self::of_libtorch(text.lines().next().unwrap_or_default().to_string())
    }
}

impl Fault {
    fn of_libtorch(message: String) -> Self {
        match DEVICE_FAULTS.iter().any(|fault| message.contains(fault)) {
            true => Self::Device(message),
            false => Self::Failed(message),
        }
    }
}

/// Runs what calls libtorch. Where a function that takes a scalar fails, tch 0.24 panics: it frees the
/// scalar before it has read the error and then takes that for one of freeing. Other panics go on.
pub(crate) fn guarded<T>(work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<String>();
        match text.and_then(|text| text.split_once("an `Err` value: Torch(\"")) {
            Some((_, message)) => {
                let line = message.split("\\n").next().unwrap_or_default();
                Err(Fault::of_libtorch(line.replace("\\\"", "\"")))
            }
            None => resume_unwind(payload),
        }
    })
}

/// Tensors of a node, one for each of its outputs.
pub(crate) type Outputs = Result<Vec<Tensor>, Fault>;

/// Executes one operator.
pub(crate) type Run = fn(&Call<'_>) -> Outputs;

/// How a network is run.
pub(crate) enum Mode {
    /// Batch statistics are fixed and nothing is dropped.
    Inference,
    /// Batch-norm learns its statistics; dropout draws from this generator.
    Training(Box<RefCell<ChaCha8Rng>>),
}

/// One operator call.
pub(crate) struct Call<'a> {
    /// The node with its attributes.
    pub node: &'a Node,
    /// Version of the standard operator set.
    pub opset: i64,
    /// Present inputs by position.
    pub inputs: Vec<Option<&'a Tensor>>,
    /// How the network is run.
    pub mode: &'a Mode,
    /// Samples in this run.
    pub batch: i64,
    /// Whether the result is the same for all inputs of the network.
    pub constant: bool,
    /// Subgraphs; what they take from outside follows the node's own inputs in `inputs`.
    pub bodies: &'a [Body],
    /// The type of the first input, if that is an unsigned one of more than 8 bits.
    pub unsigned: Option<Dtype>,
    /// What the run may take.
    pub budget: &'a Budget,
}

impl<'a> Call<'a> {
    /// A required input.
    pub fn input(&self, index: usize) -> Result<&'a Tensor, Fault> {
        self.optional(index).ok_or_else(|| {
            Fault::Failed(format!("expected input {index}, found {}", self.inputs.len()))
        })
    }
    /// An input that may be missing.
    pub fn optional(&self, index: usize) -> Option<&'a Tensor> {
        self.inputs.get(index).copied().flatten()
    }
    /// Numbers of an integer input, if it is there.
    pub fn numbers(&self, index: usize) -> Result<Option<Vec<i64>>, Fault> {
        self.optional(index).map(tensor::to_i64).transpose()
    }
    /// An integer attribute.
    pub fn int(&self, name: &str, default: i64) -> i64 {
        match self.node.attributes.get(name) {
            Some(Attribute::Int(value)) => *value,
            _ => default,
        }
    }
    /// A float attribute.
    pub fn float(&self, name: &str, default: f32) -> f64 {
        match self.node.attributes.get(name) {
            Some(Attribute::Float(value)) => f64::from(*value),
            _ => f64::from(default),
        }
    }
    /// A list of integers, if it is there.
    pub fn ints(&self, name: &str) -> Option<&'a [i64]> {
        match self.node.attributes.get(name) {
            Some(Attribute::Ints(values)) => Some(values),
            _ => None,
        }
    }
    /// A text attribute.
    pub fn text(&self, name: &str, default: &'a str) -> &'a str {
        match self.node.attributes.get(name) {
            Some(Attribute::String(bytes)) => std::str::from_utf8(bytes).unwrap_or(default),
            _ => default,
        }
    }
    /// Refuses a tensor of this shape if the run's limits have no room for it.
    pub fn allow(&self, shape: &[i64], kind: Kind) -> Result<(), Fault> {
        self.budget.allow(shape, kind)
    }
    /// Whether the caller wants output `index`.
    pub fn wants(&self, index: usize) -> bool {
        self.node.outputs.get(index).is_some_and(|name| !name.is_empty())
    }
    /// A subgraph with its weights and what it takes from outside.
    pub fn body(&self, name: &str) -> Result<Subgraph<'_>, Fault> {
        let body = self.bodies.iter().find(|body| body.attribute == name);
        let body = body.ok_or_else(|| Fault::Failed(format!("expected a subgraph {name:?}")))?;
        let device = self.inputs.iter().flatten().map(|x| x.device());
        let device = device.max_by_key(|&device| device != tch::Device::Cpu);
        let weights = body
            .plan
            .load(&body.graph, device.unwrap_or(tch::Device::Cpu))
            .map_err(|error| Fault::Inner(Box::new(error)))?;
        let captured = body.captures.clone().map(|index| Ok(self.input(index)?.shallow_clone()));
        Ok(Subgraph {
            body,
            weights,
            captured: captured.collect::<Result<_, Fault>>()?,
            mode: self.mode,
            budget: self.budget,
        })
    }
    /// Axes from input `index`, or from the attribute of older operator sets.
    pub fn axes(&self, index: usize) -> Result<Option<Vec<i64>>, Fault> {
        match self.numbers(index)? {
            Some(axes) => Ok(Some(axes)),
            None => Ok(self.ints("axes").map(<[i64]>::to_vec)),
        }
    }
}

/// A subgraph that is ready to run, any number of times.
pub(crate) struct Subgraph<'a> {
    body: &'a Body,
    weights: Vec<Tensor>,
    captured: Vec<Tensor>,
    mode: &'a Mode,
    budget: &'a Budget,
}

impl Subgraph<'_> {
    /// Number of its own inputs.
    pub fn input_count(&self) -> usize {
        self.body.graph.inputs.len()
    }
    /// Runs it once.
    pub fn run(&self, mut inputs: Vec<Tensor>) -> Outputs {
        if inputs.len() != self.input_count() {
            let (expected, found) = (self.input_count(), inputs.len());
            return Err(Fault::Failed(format!(
                "expected a subgraph of {found} inputs, found one of {expected}"
            )));
        }
        inputs.extend(self.captured.iter().map(Tensor::shallow_clone));
        let feed = Feed { weights: &self.weights, inputs, mode: self.mode, budget: self.budget };
        let outputs = self.body.plan.run(&self.body.program, feed, &mut |_, _, _| Ok(()));
        outputs.map_err(|error| Fault::Inner(Box::new(error)))
    }
}

/// An axis as an index into `rank` dimensions.
fn axis(axis: i64, rank: usize) -> Result<usize, Fault> {
    let rank = rank as i64;
    let index = if axis < 0 { axis.saturating_add(rank) } else { axis };
    if (0..rank).contains(&index) {
        return Ok(index as usize);
    }
    Err(Fault::Failed(format!("expected an axis in {}..{rank}, found {axis}", -rank)))
}

/// `list` if it has `rank` entries, `default` repeated if it is missing.
fn spatial(list: Option<&[i64]>, rank: usize, default: i64) -> Result<Vec<i64>, Fault> {
    match list {
        None => Ok(vec![default; rank]),
        Some(values) if values.len() == rank => Ok(values.to_vec()),
        Some(values) => Err(Fault::Failed(format!(
            "expected {rank} numbers, found {}: {values:?}",
            values.len()
        ))),
    }
}

/// The shape that two shapes broadcast to, if they fit.
fn broadcast(a: &[i64], b: &[i64]) -> Vec<i64> {
    let (mut long, short) = if a.len() >= b.len() { (a.to_vec(), b) } else { (b.to_vec(), a) };
    let first = long.len() - short.len();
    long[first..].iter_mut().zip(short).for_each(|(side, &other)| *side = (*side).max(other));
    long
}

/// A tensor's slices along a dimension. Each takes some hundred bytes whatever its size.
fn unbound(call: &Call<'_>, x: &Tensor, dim: usize) -> Outputs {
    call.allow(&[x.size()[dim], 64], Kind::Int64)?;
    Ok(x.f_unbind(dim as i64)?)
}

/// Both tensors on the device of the one that is not on the CPU.
fn together(a: &Tensor, b: &Tensor) -> Result<(Tensor, Tensor), Fault> {
    let device = if a.device() == tch::Device::Cpu { b.device() } else { a.device() };
    Ok((a.f_to_device(device)?, b.f_to_device(device)?))
}

/// Whether a tensor holds floating-point numbers.
fn is_float(tensor: &Tensor) -> Result<bool, Fault> {
    Ok(matches!(tensor.f_kind()?, Kind::Float | Kind::Double | Kind::Half | Kind::BFloat16))
}

#[cfg(test)]
mod tests;
