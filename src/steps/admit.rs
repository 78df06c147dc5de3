//! Takes one network into the zoo: identity, cost, signature, benchmark, embedding, commit.

use super::benchmark::{self, Benchmark};
use super::dataset::Samples;
use super::results::{self, Addition, Difference, Subject, Tasks};
use super::{admit_name, embed, probe};
use crate::encoder::signature;
use crate::graph::cost::{self, GraphCost};
use crate::graph::exec::{Device, Network, device};
use crate::graph::formats::{Limits, onnx};
use crate::graph::input::InputContract;
use crate::graph::spaces::SUPERNET;
use crate::graph::{Graph, topology};
use crate::sample::Image;
use crate::state::{Ordered, State};
use crate::{Error, Observer, Result};
use std::collections::BTreeMap;
use tans_storage::{
    Architecture, Batch, Cost, HashedTensor, Latency, ModelId, ModelRecord, PairKind, TaskId,
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
    /// Leave its latency unknown, because other work would be measured with it.
    pub skip_latency: bool,
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

/// A network and how images become its input.
#[derive(Clone, Copy)]
pub struct NewNetwork<'a> {
    /// The network.
    pub graph: &'a Graph,
    /// How images become its input.
    pub input: &'a InputContract,
}

/// What admission found.
pub struct Admitted {
    /// The model, under its first name.
    pub record: ModelRecord,
    /// Whether the very same network was stored already.
    pub is_known: bool,
    /// Where a result that came with it is not what was stored.
    pub differences: Vec<Difference>,
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

/// Stores a network with everything that is measured of it, by one commit. One that is stored already keeps its record
/// and gains the results and the tasks that it was trained on.
///
/// # Errors
/// `Error::Graph` for NaN weights, a graph that contradicts itself or a device that fails, `Error::Input` if the name is
/// taken. A missing operator or NaN on an image is no error: the model is stored and marked as not runnable.
pub fn admit(
    state: &State,
    bench: &Bench,
    network: NewNetwork<'_>,
    new: NewModel,
    observer: Observer<'_>,
) -> Result<Admitted> {
    let NewNetwork { graph, input } = network;
    graph.check_finite()?;
    let canonical = onnx::canonical(graph)?;
    let shape = [canonical.graph.len()];
    let weights = canonical.weights.iter().map(|(_, weight)| weight);
    let tensors = super::network_tensors(&canonical.graph, &shape, weights);
    let tensors: Vec<HashedTensor<'_>> = tensors.into_iter().map(HashedTensor::new).collect();
    let stored = identity(&canonical, &tensors, tans_storage::encode(input)?);
    let id = stored.id;
    // In this order: the name may belong to this very network, which another thread brings at this moment.
    let is_free = admit_name::refuse_taken(&state.store, &new.name);
    if let Some(known) = state.store.model_by_id(id)? {
        return state.commit(|ordered| add_results(state, ordered, known, new));
    }
    is_free?;
    let measured = measure(state.options.device, bench, network, &new, observer)?;

    // Held until the record is written, so that nothing is collected that another thread's equal network no longer needs.
    let mut staging = state.store.staging();
    staging.put(&tensors)?;
    state.store.sync_tensors()?;
    state.commit(|ordered| {
        if let Some(known) = state.store.model_by_id(id)? {
            // Another thread was faster.
            return add_results(state, ordered, known, new);
        }
        let topology = topology::summary(graph, &measured.cost);
        let record = record(stored, topology, &measured, &new);
        let subject = Subject::New(Box::new(record), measured.signature);
        let results = measured.probes.into_iter().chain(new.results).collect();
        let tasks = Tasks { new: &new.tasks, ..Tasks::default() };
        let addition = Addition { subject, seen: Vec::new(), results };
        let record = results::apply(state, ordered, &tasks, vec![addition])?.remove(0);
        Ok(Admitted { record, is_known: false, differences: Vec::new() })
    })
}

/// Names, labels and licenses of a stored model change by `edit` alone; what is known of its training adds up.
fn add_results(
    state: &State,
    ordered: &Ordered<'_>,
    stored: ModelRecord,
    new: NewModel,
) -> Result<Admitted> {
    let results = results::unheard(&state.store, stored.row, new.results.clone())?;
    let differences = results::differences(&state.store, stored.row, &new.results, &results)?;
    let addition = Addition { subject: Subject::Stored(stored.row), seen: new.seen, results };
    let tasks = Tasks { new: &new.tasks, ..Tasks::default() };
    let record = results::apply(state, ordered, &tasks, vec![addition])?.remove(0);
    Ok(Admitted { record, is_known: true, differences })
}

/// Where a network lies once it is stored.
struct Stored {
    id: ModelId,
    input: Vec<u8>,
    graph: TensorId,
    weights: Vec<WeightRef>,
}

fn identity(canonical: &onnx::Canonical, tensors: &[HashedTensor<'_>], input: Vec<u8>) -> Stored {
    let ids: Vec<TensorId> = tensors.iter().map(HashedTensor::id).collect();
    let (graph, ids) = (ids[0], &ids[1..]);
    let weights = canonical.weights.iter().zip(ids);
    Stored {
        id: ModelId::of_network(&canonical.graph, ids, &input),
        input,
        graph,
        weights: weights
            .map(|((name, _), &tensor)| WeightRef { name: name.clone(), tensor })
            .collect(),
    }
}

fn record(stored: Stored, topology: Vec<f32>, measured: &Measured, new: &NewModel) -> ModelRecord {
    ModelRecord {
        id: stored.id,
        row: 0,
        name: new.name.clone(),
        parent: new.parent,
        seen: new.seen.clone(),
        license: new.license.clone(),
        tags: tags(new),
        uri: None,
        graph: Some(stored.graph),
        weights: stored.weights,
        input: stored.input,
        cost: Cost {
            params: measured.cost.params,
            macs: measured.cost.macs,
            peak_activation_bytes: measured.cost.peak_activation_bytes,
            latency: measured.latency.clone(),
        },
        not_runnable: measured.not_runnable.clone(),
        architecture: new.architecture.clone(),
        topology,
        class_names: new.class_names.clone(),
        created: super::unix_seconds(),
    }
}

/// The user's tags, and that of a supernet, by which a filter finds those that others can be cut from.
fn tags(new: &NewModel) -> BTreeMap<String, String> {
    let mut tags = new.tags.clone();
    let config = new.architecture.as_ref().map_or("", |it| it.config.as_str());
    if config.starts_with(SUPERNET) {
        tags.entry(SUPERNET.to_owned()).or_insert_with(|| "once-for-all".to_owned());
    }
    tags
}

/// A network that cannot be run is measured as far as that goes; what the file or the device fails at is an error.
fn measure(
    device: Device,
    bench: &Bench,
    network: NewNetwork<'_>,
    new: &NewModel,
    observer: Observer<'_>,
) -> Result<Measured> {
    match run(device, bench, network, new, observer) {
        Err(Error::Graph(fault)) if fault.is_of_network() => Ok(Measured {
            cost: GraphCost { params: cost::params(network.graph), ..GraphCost::default() },
            latency: None,
            not_runnable: Some(fault.to_string()),
            signature: None,
            probes: Vec::new(),
        }),
        other => other,
    }
}

fn run(
    device: Device,
    bench: &Bench,
    NewNetwork { graph, input }: NewNetwork<'_>,
    new: &NewModel,
    observer: Observer<'_>,
) -> Result<Measured> {
    let network = Network::new(graph, input, device)?;
    let cost = cost::cost(graph, &network.trace(&new.limits)?);
    let signature = signature_of(&network, &bench.probe_images)?;
    let probes = match new.benchmark {
        Benchmark::None => Vec::new(),
        Benchmark::Quick => probe_all(bench, &network, observer)?,
    };
    let latency = if new.skip_latency { None } else { Some(latency_of(&network)?) };
    Ok(Measured { cost, latency, not_runnable: None, signature, probes })
}

/// `None` for constant features, which carry no signature; the network can still be probed.
fn signature_of(network: &Network, probe_images: &[Image]) -> Result<Option<Vec<f32>>> {
    Ok(signature::signature(&network.features(probe_images)?).ok())
}

fn latency_of(network: &Network) -> Result<Latency> {
    Ok(Latency {
        median_ms: network.latency_ms(LATENCY_RUNS)?,
        device: network.device_name(),
        threads: device::threads(),
    })
}

/// Measures the signature and the latency of a stored model where there is none; its vector is the caller's business.
pub fn complete(state: &State, model: &ModelRecord, probe_images: &[Image]) -> Result<()> {
    let network = load_runnable(state, model)?;
    let signature = match super::stored_signature(&state.store, model.row)? {
        Some(_) => None,
        None => signature_of(&network, probe_images)?,
    };
    let latency = match model.cost.latency {
        Some(_) => None,
        None => Some(latency_of(&network)?),
    };
    state.commit(|_| {
        // Read again, because an edit may have come in between.
        let Some(mut record) = state.store.model(model.row)? else { return Ok(()) };
        record.cost.latency = record.cost.latency.or(latency);
        let mut batch = Batch::new();
        batch.put_model(&record);
        if let Some(signature) = signature {
            batch.put_signature(record.row, &super::signature_bits(&signature));
        }
        state.store.apply(batch)?;
        Ok(())
    })
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
        let probed = probe::probe(network, samples, &samples.resplits())?;
        probes.push((*task, PairKind::Probe, probed.accuracy));
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
