//! A network on a device, ready to run.

use super::budget::Budget;
use super::ops::Mode;
use super::plan::{Feed, Plan, Program, failed, outside, place};
use super::{Device, fuse, tensor};
use crate::graph::formats::Limits;
use crate::graph::head::find_head;
use crate::graph::{Error, Graph, Node, cost::ValueSize, input::InputContract};
use crate::rows::Rows;
use crate::sample::Image;
use rand::{Rng, SeedableRng};
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::time::Instant;
use tch::{Kind, Tensor};

/// Input values of one batch: 16 colour images of 224 x 224.
const BATCH_VALUES: usize = 16 * 3 * 224 * 224;

/// At most so many images in a batch.
const BATCH_MAX: usize = 32;

/// The last linear layer, found by data flow from the first output.
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    /// Index of its node (Gemm, MatMul or 1x1 Conv).
    pub node: usize,
    /// Name of the value that enters it: the penultimate activations.
    pub features: String,
    /// Dimension of the features.
    pub feature_dim: usize,
    /// Number of logits.
    pub classes: usize,
}

/// A network with its weights on a device. Send, not Sync.
pub struct Network {
    graph: Graph,
    input: InputContract,
    head: Option<Head>,
    plan: Plan,
    logits: Program,
    features: Program,
    weights: Vec<Tensor>,
    device: tch::Device,
    batch: OnceCell<usize>,
}

impl Network {
    /// Loads weights and resolves every operator.
    ///
    /// # Errors
    /// `Error::NotRunnable` for the first operator that is missing.
    pub fn new(graph: &Graph, input: &InputContract, device: Device) -> Result<Self, Error> {
        // Missing operators first, whatever else may be wrong.
        Plan::new(graph)?;
        if graph.inputs.len() != 1 {
            let found = graph.inputs.len();
            return Err(Error::Contract(format!("expected one runtime input, found {found}")));
        }
        let output = first_output(graph)?;
        let head = find_head(graph).map(|site| Head {
            node: site.node,
            features: site.features,
            feature_dim: site.feature_dim,
            classes: site.classes,
        });
        let device = device.resolve()?;
        let features = head.as_ref().map_or(output, |head| head.features.as_str());
        let fused = fuse::batch_norms(graph, &[features]);
        let plan = Plan::new(&fused)?;
        let weights = plan.load(&fused, device)?;
        let weights = weights.iter().map(channels_last).collect::<Result<_, _>>()?;
        Ok(Self {
            logits: plan.program(&[output])?,
            features: plan.program(&[features])?,
            graph: graph.clone(),
            input: input.clone(),
            head,
            plan,
            weights,
            device,
            batch: OnceCell::new(),
        })
    }

    /// The last linear layer, if there is one.
    #[cfg(test)]
    pub fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    /// Sizes of every value in a run of one sample (zeros), for `cost`. This first run is held to
    /// all of `limits`; later ones may make the same constants again.
    ///
    /// # Errors
    /// `Error::NotRunnable` for an attribute that is not supported, `Error::Limit` beyond the
    /// limits, `Error::Execution` if values do not fit together.
    pub fn trace(&self, limits: &Limits) -> Result<BTreeMap<String, ValueSize>, Error> {
        let _guard = tch::no_grad_guard();
        let plan = Plan::new(&self.graph)?;
        let targets: Vec<&str> =
            self.graph.outputs.iter().map(|output| output.name.as_str()).collect();
        let program = plan.program(&targets)?;
        let weights = plan.load(&self.graph, self.device)?;
        let shape = self.shape(1);
        let input = Tensor::f_zeros(&shape, (Kind::Float, self.device))
            .map_err(|error| outside("input")(error.into()))?;
        let mut sizes = BTreeMap::new();
        sizes.insert(self.graph.inputs[0].name.clone(), value_size(&input));
        let budget = Budget::strict(limits, &self.graph);
        let feed = Feed {
            weights: &weights,
            inputs: vec![input],
            mode: &Mode::Inference,
            budget: &budget,
        };
        plan.run(&program, feed, &mut |_, name, value| {
            sizes.insert(name.to_string(), value_size(value));
            Ok(())
        })?;
        Ok(sizes)
    }

    /// First output, flattened to `[n, classes]`; images pass through the input contract, in
    /// batches, without gradients.
    ///
    /// # Errors
    /// `Error::Execution` naming the node that failed.
    #[cfg(test)]
    pub fn logits(&self, images: &[Image]) -> Result<Rows, Error> {
        self.rows(images, &self.logits, None)
    }

    /// Penultimate activations `[n, feature_dim]` (spatial dimensions averaged); without a head,
    /// the flattened first output.
    ///
    /// # Errors
    /// `Error::Execution` naming the node that failed, or whose result was the first that is not
    /// finite.
    pub fn features(&self, images: &[Image]) -> Result<Rows, Error> {
        let dim = self.head.as_ref().map(|head| head.feature_dim);
        let rows = self.rows(images, &self.features, dim)?;
        match rows.values().iter().all(|value| value.is_finite()) {
            true => Ok(rows),
            false => Err(failed("output", "", "it holds NaN or infinity".to_string())),
        }
    }

    /// Where it runs, in the words of `Device`.
    pub fn device_name(&self) -> String {
        match self.device {
            tch::Device::Cuda(ordinal) => Device::Cuda(ordinal).to_string(),
            _ => Device::Cpu.to_string(),
        }
    }

    /// Median milliseconds of repeated single-sample runs.
    ///
    /// # Errors
    /// `Error::Execution` naming the node that failed.
    pub fn latency_ms(&self, runs: usize) -> Result<f32, Error> {
        let _guard = tch::no_grad_guard();
        let input = self.noise(1)?;
        _ = self.run(&self.logits, input.shallow_clone())?;
        let mut times = Vec::new();
        for _ in 0..runs.max(1) {
            let start = Instant::now();
            let output = self.run(&self.logits, input.shallow_clone())?;
            // Reading a value waits for an asynchronous device.
            tensor::is_finite(&output).map_err(outside("output"))?;
            times.push(start.elapsed().as_secs_f32() * 1e3);
        }
        times.sort_by(f32::total_cmp);
        Ok(times[times.len() / 2])
    }

    /// Runs images in batches and joins the rows. `features` is the dimension of penultimate
    /// activations.
    fn rows(
        &self,
        images: &[Image],
        program: &Program,
        features: Option<usize>,
    ) -> Result<Rows, Error> {
        let _guard = tch::no_grad_guard();
        let batch = if images.len() > 1 { self.batch_size()? } else { 1 };
        let mut dim = 0;
        let mut values = Vec::new();
        for chunk in images.chunks(batch) {
            let input = batch_tensor(&self.input, chunk, self.device)?;
            let output = self.run(program, input.shallow_clone())?;
            let rows = flat_rows(&output, chunk.len(), features)?;
            if features.is_some() && !tensor::is_finite(&rows).map_err(outside("output"))? {
                return Err(self.first_not_finite(program, input));
            }
            let width = rows.size()[1] as usize;
            if dim != 0 && dim != width {
                let message = format!("expected rows of {dim} numbers, found {width}");
                return Err(failed("output", "", message));
            }
            dim = width;
            values.extend(tensor::to_f32(&rows).map_err(outside("output"))?);
        }
        if images.is_empty() {
            return Ok(Rows::default());
        }
        Rows::new(dim, values).ok_or_else(|| {
            failed("output", "", "expected at least one number a sample, found none".to_string())
        })
    }

    fn run(&self, program: &Program, input: Tensor) -> Result<Tensor, Error> {
        let mut outputs = self.observed(program, input, &mut |_, _, _| Ok(()))?;
        outputs.pop().ok_or_else(|| failed("output", "", "there is none".to_string()))
    }

    fn observed(
        &self,
        program: &Program,
        input: Tensor,
        observe: &mut dyn FnMut(&Node, &str, &Tensor) -> Result<(), Error>,
    ) -> Result<Vec<Tensor>, Error> {
        let budget = Budget::new(&Limits::default());
        let (weights, mode) = (&self.weights[..], &Mode::Inference);
        let feed = Feed { weights, inputs: vec![input], mode, budget: &budget };
        self.plan.run(program, feed, observe)
    }

    /// Runs once more and stops at the first value that is not finite.
    fn first_not_finite(&self, program: &Program, input: Tensor) -> Error {
        let mut check = |node: &Node, name: &str, value: &Tensor| {
            if tensor::is_finite(value).map_err(outside("output"))? {
                return Ok(());
            }
            Err(failed(&node.op, place(node), format!("value {name:?} holds NaN or infinity")))
        };
        let found = self.observed(program, input, &mut check).err();
        found.unwrap_or_else(|| failed("output", "", "features hold NaN or infinity".to_string()))
    }

    fn shape(&self, n: usize) -> Vec<i64> {
        self.input.batch_shape(n).iter().map(|&side| side as i64).collect()
    }

    /// Random samples: unlike zeros they tell a sample from its neighbour.
    fn noise(&self, n: usize) -> Result<Tensor, Error> {
        let shape = self.shape(n);
        let mut generator = rand_chacha::ChaCha8Rng::seed_from_u64(0);
        let count = shape.iter().product::<i64>();
        let values: Vec<f32> = (0..count).map(|_| generator.random_range(-1.0..1.0)).collect();
        tensor::from_f32(&values, &shape, self.device).map_err(outside("input"))
    }

    /// Samples that one run can take. A graph with the batch size written into it may only take
    /// one: two samples together must give what each gives alone.
    fn batch_size(&self) -> Result<usize, Error> {
        if let Some(&size) = self.batch.get() {
            return Ok(size);
        }
        let sample: usize = self.input.batch_shape(1).iter().product();
        let size = (BATCH_VALUES / sample.max(1)).clamp(1, BATCH_MAX);
        let size = if size > 1 && !self.takes_batches()? { 1 } else { size };
        Ok(*self.batch.get_or_init(|| size))
    }

    fn takes_batches(&self) -> Result<bool, Error> {
        let pair = self.noise(2)?;
        for program in [&self.features, &self.logits] {
            let alone = |index| -> Result<Vec<f32>, Error> {
                let one = pair.f_narrow(0, index, 1).map_err(|e| outside("input")(e.into()))?;
                tensor::to_f32(&self.run(program, one)?).map_err(outside("output"))
            };
            let expected = [alone(0)?, alone(1)?].concat();
            let Ok(both) = self.run(program, pair.shallow_clone()) else { return Ok(false) };
            let found = tensor::to_f32(&both).map_err(outside("output"))?;
            let scale = expected.iter().fold(1e-3_f32, |scale, value| scale.max(value.abs()));
            let alike = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-3 * scale;
            let same = both.size().first() == Some(&2) && expected.len() == found.len();
            if !same || !expected.iter().zip(&found).all(alike) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Name of the first output.
pub(super) fn first_output(graph: &Graph) -> Result<&str, Error> {
    graph.outputs.first().map(|output| output.name.as_str()).ok_or_else(|| {
        Error::Contract("expected a network with at least one output, found none".to_string())
    })
}

/// Images through the input contract as one batch on a device.
pub(super) fn batch_tensor<I: std::borrow::Borrow<Image>>(
    input: &InputContract,
    images: &[I],
    device: tch::Device,
) -> Result<Tensor, Error> {
    let shape = input.batch_shape(images.len()).map(|side| side as i64);
    let mut values = Vec::with_capacity(shape.iter().product::<i64>().max(0) as usize);
    images.iter().for_each(|image| input.apply(image.borrow(), &mut values));
    let batch = tensor::from_f32(&values, &shape, device).map_err(outside("input"))?;
    channels_last(&batch)
}

/// The same values with the channel dimension innermost in memory, which convolutions on a CPU like
/// best.
pub(super) fn channels_last(tensor: &Tensor) -> Result<Tensor, Error> {
    if tensor.dim() != 4 || tensor.device() != tch::Device::Cpu {
        return Ok(tensor.shallow_clone());
    }
    let moved = || -> Result<Tensor, tch::TchError> {
        tensor.f_permute([0, 2, 3, 1])?.f_contiguous()?.f_permute([0, 3, 1, 2])
    };
    moved().map_err(|error| outside("weight")(error.into()))
}

/// `[n, dim]`: what follows the features' dimension (or stands between it and the batch) is
/// averaged.
fn flat_rows(output: &Tensor, n: usize, features: Option<usize>) -> Result<Tensor, Error> {
    let size = output.size();
    let rank = size.len() as i64;
    // Time may stand before a batch of one.
    let width = features.map(|dim| dim as i64);
    let in_time = n == 1 && rank > 1 && size[0] != 1 && size.last().copied() == width;
    if size.first() != Some(&(n as i64)) && !in_time && !(n == 1 && features.is_none()) {
        let message = format!("expected rows of {n} samples, found shape {size:?}");
        return Err(failed("output", "", message));
    }
    let dims: Vec<i64> = match width {
        Some(_) if in_time => (0..rank - 1).collect(),
        Some(dim) if rank > 2 && size[1] == dim => (2..rank).collect(),
        Some(dim) if rank > 2 && size[rank as usize - 1] == dim => (1..rank - 1).collect(),
        _ => Vec::new(),
    };
    let flat = || -> Result<Tensor, tch::TchError> {
        let mean = match dims.is_empty() {
            true => output.shallow_clone(),
            false => output.f_mean_dim(Some(&dims[..]), false, Kind::Float)?,
        };
        mean.f_to_kind(Kind::Float)?.f_reshape([n as i64, -1])
    };
    flat().map_err(|error| outside("output")(error.into()))
}

fn value_size(value: &Tensor) -> ValueSize {
    let shape: Vec<usize> = value.size().iter().map(|&side| side as usize).collect();
    let width = value.f_kind().map_or(4, |kind| kind.elt_size_in_bytes());
    let bytes = shape.iter().product::<usize>() * width;
    ValueSize { shape, bytes }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::{package, photos};
