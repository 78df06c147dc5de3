//! Takes one network into the zoo: identity, cost, signature, benchmark, embedding, commit.

use super::benchmark::{self, Benchmark};
use super::dataset::Samples;
use super::{admit_name, embed, probe, results};
use crate::encoder::signature;
use crate::graph::cost::{self, GraphCost};
use crate::graph::exec::{Device, Network, device};
use crate::graph::formats::{Limits, onnx};
use crate::graph::input::InputContract;
use crate::graph::{Graph, topology};
use crate::state::State;
use crate::{Error, Observer, Result};
use std::collections::BTreeMap;
use tans_storage::{
    Architecture, Cost, Dtype, Latency, ModelId, ModelRecord, NewTensor, PairKind, TaskId,
    TaskRecord, TensorId, WeightRef,
};

/// What is known of a network before it is measured.
#[derive(Clone, Debug, Default)]
pub struct NewModel {
    /// Unique name.
    pub name: String,
    /// Parent, when it was fine-tuned from a stored model.
    pub parent: Option<ModelId>,
    /// Tasks it was trained on, its ancestors' included.
    pub seen: Vec<TaskId>,
    /// SPDX expression.
    pub license: Option<String>,
    /// Labels.
    pub tags: BTreeMap<String, String>,
    /// Where it comes from in a generated space.
    pub architecture: Option<Architecture>,
    /// By logit.
    pub class_names: Vec<String>,
    /// How many benchmark tasks to measure it on.
    pub benchmark: Benchmark,
    /// What its first run may take.
    pub limits: Limits,
    /// Tasks that are new with it.
    pub tasks: Vec<TaskRecord>,
    /// Results known beforehand, recorded with the model.
    pub results: Vec<embed::Known>,
}

/// Benchmark tasks and probe images, decoded once for many networks.
pub struct Bench {
    probe_images: Vec<crate::sample::Image>,
    tasks: Vec<(TaskId, Samples)>,
}

impl Bench {
    /// Decodes the built-in images; only tasks that the zoo still holds are used.
    pub fn load(state: &State) -> Result<Self> {
        // A device that is not there says nothing about the networks that are to run on it.
        device::check(state.options.device)?;
        let mut tasks = Vec::new();
        for (name, samples) in benchmark::images()? {
            if let Some(task) = state.store.task_by_name(&name)? {
                tasks.push((task.id, samples));
            }
        }
        Ok(Self { probe_images: benchmark::probe_images()?, tasks })
    }
}

/// What admission found.
pub enum Admitted {
    /// The network is new.
    Stored(ModelRecord),
    /// The very same network is stored already, under its first name.
    AlreadyStored(ModelRecord),
}

/// Single-sample runs whose median is a network's latency.
const LATENCY_RUNS: usize = 9;

/// Measurements of one network.
struct Measured {
    cost: GraphCost,
    latency: Option<Latency>,
    not_runnable: Option<String>,
    signature: Option<Vec<f32>>,
    probes: Vec<embed::Known>,
}

/// Stores a network with everything that is measured of it, by one commit.
///
/// # Errors
/// `Error::Graph` for NaN weights or a graph that contradicts itself, `Error::Input` if the name is taken. A missing
/// operator is no error: the model is stored and marked as not runnable.
pub fn admit(
    state: &State,
    bench: &Bench,
    graph: &Graph,
    input: &InputContract,
    new: NewModel,
    observer: Observer<'_>,
) -> Result<Admitted> {
    graph.check_finite()?;
    let canonical = onnx::canonical(graph)?;
    let contract = tans_storage::encode(input)?;
    let id = identity(&canonical, &contract);
    if let Some(stored) = state.store.model_by_id(id)? {
        return Ok(Admitted::AlreadyStored(stored));
    }
    admit_name::refuse_taken(&state.store, &new.name)?;
    let measured = measure(state, bench, graph, input, &new, observer)?;
    let mut record = record(id, &canonical, contract, graph, &measured, &new);
    let known: Vec<embed::Known> = measured.probes.iter().chain(&new.results).copied().collect();
    let signature = measured.signature;

    let _ordered = state.lock_commits();
    let graph_shape = [canonical.graph.len()];
    let mut tensors =
        vec![NewTensor { dtype: Dtype::U8, shape: &graph_shape, bytes: &canonical.graph }];
    tensors.extend(canonical.weights.iter().map(|(_, weight)| NewTensor {
        dtype: weight.dtype,
        shape: &weight.shape,
        bytes: (*weight.bytes).as_ref(),
    }));
    state.store.put_tensors(&tensors)?;
    results::commit_new(state, &mut record, signature.as_deref(), &known, &new.tasks)?;
    Ok(Admitted::Stored(record))
}

fn identity(canonical: &onnx::Canonical, contract: &[u8]) -> ModelId {
    let tensors: Vec<TensorId> = canonical
        .weights
        .iter()
        .map(|(_, weight)| TensorId::of(weight.dtype, &weight.shape, (*weight.bytes).as_ref()))
        .collect();
    ModelId::of_network(&canonical.graph, &tensors, contract)
}

fn record(
    id: ModelId,
    canonical: &onnx::Canonical,
    input: Vec<u8>,
    graph: &Graph,
    measured: &Measured,
    new: &NewModel,
) -> ModelRecord {
    let graph_shape = [canonical.graph.len()];
    ModelRecord {
        id,
        row: 0,
        name: new.name.clone(),
        parent: new.parent,
        seen: new.seen.clone(),
        license: new.license.clone(),
        tags: new.tags.clone(),
        uri: None,
        graph: Some(TensorId::of(Dtype::U8, &graph_shape, &canonical.graph)),
        weights: canonical
            .weights
            .iter()
            .map(|(name, weight)| WeightRef {
                name: name.clone(),
                tensor: TensorId::of(weight.dtype, &weight.shape, (*weight.bytes).as_ref()),
            })
            .collect(),
        input,
        cost: Cost {
            params: measured.cost.params,
            macs: measured.cost.macs,
            peak_activation_bytes: measured.cost.peak_activation_bytes,
            latency: measured.latency.clone(),
        },
        not_runnable: measured.not_runnable.clone(),
        architecture: new.architecture.clone(),
        topology: topology::summary(graph, &measured.cost),
        class_names: new.class_names.clone(),
        created: super::unix_seconds(),
    }
}

fn measure(
    state: &State,
    bench: &Bench,
    graph: &Graph,
    input: &InputContract,
    new: &NewModel,
    observer: Observer<'_>,
) -> Result<Measured> {
    let unmeasured = |why: String| Measured {
        cost: GraphCost { params: cost::params(graph), ..GraphCost::default() },
        latency: None,
        not_runnable: Some(why),
        signature: None,
        probes: Vec::new(),
    };
    let (network, sizes) = match runnable(graph, input, state.options.device, &new.limits) {
        Ok(ready) => ready,
        Err(crate::graph::Error::Malformed { format, what }) => {
            return Err(crate::graph::Error::Malformed { format, what }.into());
        }
        Err(reason) => return Ok(unmeasured(reason.to_string())),
    };
    let features = match network.features(&bench.probe_images) {
        Ok(features) => features,
        Err(reason) => return Ok(unmeasured(reason.to_string())),
    };
    // Constant features carry no signature; the network can still be probed.
    let signature = signature::signature(&features).ok();
    let probes = match new.benchmark {
        Benchmark::None => Vec::new(),
        Benchmark::Quick => probe_all(bench, &network, observer)?,
    };
    let cost = cost::cost(graph, &sizes);
    let latency = Some(Latency {
        median_ms: network.latency_ms(LATENCY_RUNS)?,
        device: network.device_name(),
        threads: device::threads(),
    });
    Ok(Measured { cost, latency, not_runnable: None, signature, probes })
}

type Sizes = BTreeMap<String, cost::ValueSize>;

fn runnable(
    graph: &Graph,
    input: &InputContract,
    device: Device,
    limits: &Limits,
) -> std::result::Result<(Network, Sizes), crate::graph::Error> {
    let network = Network::new(graph, input, device)?;
    let sizes = network.trace(limits)?;
    Ok((network, sizes))
}

fn probe_all(
    bench: &Bench,
    network: &Network,
    observer: Observer<'_>,
) -> Result<Vec<embed::Known>> {
    let mut probes = Vec::new();
    for (done, (task, samples)) in bench.tasks.iter().enumerate() {
        let total = bench.tasks.len();
        crate::progress::report(observer, "benchmark tasks", &samples.name, done, total)?;
        let classes = samples.class_names.len();
        let probed = probe::probe(network, classes, &samples.train, &samples.test)?;
        probes.push((*task, PairKind::Probe, probed.test_accuracy));
    }
    Ok(probes)
}

/// Reads a stored network back: its graph on mapped weights, and its input contract.
pub fn load_network(state: &State, model: &ModelRecord) -> Result<(Graph, InputContract)> {
    let graph = super::stored_graph(&state.store, model)?;
    let input = super::input_contract(model)?;
    Ok((graph, input))
}

/// A stored network, ready to run.
pub fn load_runnable(state: &State, model: &ModelRecord) -> Result<Network> {
    if let Some(reason) = &model.not_runnable {
        return Err(Error::input(format!("{} cannot be run: {reason}", model.name)));
    }
    let (graph, input) = load_network(state, model)?;
    Ok(Network::new(&graph, &input, state.options.device)?)
}
