//! Which network of a generated space to train on which dataset next, so that the best accuracy within every number of
//! parameters rises most (the zoo's construction: Jeong et al. 2021).

use super::dataset::Samples;
use crate::encoder::staircase::{self, Staircase};
use crate::encoder::surrogate::{Distances, Field, Observation, Surrogate};
use crate::encoder::{SCALARS, TaskSample, basis::Standardiser, tans2021::topology_row};
use crate::graph::exec::{Device, Network};
use crate::graph::formats::Limits;
use crate::graph::spaces::{self, Selection};
use crate::graph::{cost, head, topology};
use crate::state::State;
use crate::{Error, Observer, Result};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, HashSet, VecDeque};
use tans_storage::{ModelRecord, PairKind, TaskId};

/// At most so many networks of a space are candidates; of a larger one a sample.
const CANDIDATES_MAX: usize = 300;

/// At most so many results are learned from: those on the datasets first, the latest of both.
const RESULTS_MAX: usize = 300;

/// Classes of the networks whose costs are compared.
const CLASSES: usize = 10;

/// Gains that differ by less than this share are equal, and the cheaper network wins.
const TIE: f64 = 1e-9;

/// A network of the space that may be trained.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// `SPACE:CONFIG@SIDE`.
    pub spec: String,
    /// Multiply-accumulate operations of one sample, with ten classes.
    pub macs: u64,
    /// With `CLASSES` classes.
    params: u64,
    /// What each class more adds.
    params_per_class: u64,
    described: Described,
}

impl Candidate {
    /// Parameters with a head of that many classes.
    pub fn params(&self, classes: usize) -> u64 {
        let body = self.params.saturating_sub(self.params_per_class * CLASSES as u64);
        body + self.params_per_class * classes as u64
    }
}

/// What is known of a network without training it.
#[derive(Clone, Debug)]
struct Described {
    /// ln parameters, ln MACs.
    cost: Vec<f32>,
    /// The space's own numbers and the summary of the graph.
    topology: Vec<Option<f32>>,
}

impl Described {
    fn new(numbers: &[f32], summary: &[f32], (params, macs): (u64, u64)) -> Self {
        let log = |count: u64| (count.max(1) as f32).ln();
        let len = crate::encoder::tans2021::NUMBERS + topology::SUMMARY_LEN;
        let topology = topology_row(numbers, summary, len);
        Self { cost: vec![log(params), log(macs)], topology }
    }
}

/// The candidates of a space, each with what it costs; nothing is trained and no weight is drawn.
///
/// # Errors
/// `Error::Graph` for a device that fails; `Error::Cancelled`.
pub fn candidates(
    selection: &Selection,
    seed: u64,
    device: Device,
    observer: Observer<'_>,
) -> Result<Vec<Candidate>> {
    let specs = selection.members(CANDIDATES_MAX, seed);
    let total = specs.len();
    let describe = |(done, spec): (usize, String)| {
        crate::progress::report(&mut *observer, "costs of networks", &spec, done, total)?;
        candidate(spec, device)
    };
    specs.into_iter().enumerate().map(describe).collect()
}

fn candidate(spec: String, device: Device) -> Result<Candidate> {
    let made = spaces::outline(&spec, CLASSES)?;
    let network = Network::new(&made.graph, &made.input, device)?;
    let cost = cost::cost(&made.graph, &network.trace(&Limits::default())?);
    let summary = topology::summary(&made.graph, &cost);
    let head = head::find_head(&made.graph)
        .ok_or_else(|| Error::input(format!("{spec}: expected a network with a head")))?;
    let params_per_class = head.feature_dim as u64 + u64::from(head.bias.is_some());
    let described = Described::new(&made.numbers, &summary, (cost.params, cost.macs));
    Ok(Candidate { spec, macs: cost.macs, params: cost.params, params_per_class, described })
}

/// A dataset that is grown on.
pub struct Dataset<'a> {
    /// Its images.
    pub samples: &'a Samples,
    /// Its statistics.
    pub sample: TaskSample,
}

/// A network of the space that was trained on a dataset.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// Name in the zoo.
    pub model: String,
    /// `SPACE:CONFIG@SIDE`.
    pub spec: String,
    /// Parameters.
    pub params: u64,
    /// Top-1 accuracy on the test part, 0..=1.
    pub accuracy: f32,
}

/// What to train next, and what is expected of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Proposal {
    /// Number of the dataset.
    pub dataset: usize,
    /// Number of the candidate.
    pub candidate: usize,
    /// Unless it was drawn at random.
    pub expected: Option<Expected>,
}

/// What is expected of a training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Expected {
    /// Mean and standard deviation of the accuracy.
    pub accuracy: (f64, f64),
    /// Mean rise of the dataset's area.
    pub gain: f64,
}

/// What is known of the networks of a space on some datasets.
pub struct Growth {
    /// Networks that may be trained.
    pub candidates: Vec<Candidate>,
    /// Classes of each dataset.
    classes: Vec<usize>,
    /// Datasets first, then tasks of the zoo; candidates first, then other networks.
    field: Field,
    /// On the datasets, the latest last.
    results: Vec<Observation>,
    /// On other tasks.
    elsewhere: Vec<Observation>,
    /// By dataset.
    members: Vec<Vec<Member>>,
    /// (dataset, candidate) that are not to be trained any more.
    closed: HashSet<(usize, usize)>,
}

impl Growth {
    /// Reads what the zoo knows: results of networks of any space that were trained from random weights on one task. Those
    /// of the selection on the datasets are not trained again.
    ///
    /// # Errors
    /// If the store cannot be read, or a task cannot be encoded.
    pub fn load(
        state: &State,
        selection: &Selection,
        candidates: Vec<Candidate>,
        datasets: &[Dataset<'_>],
    ) -> Result<Self> {
        let tasks = Tasks::load(state, datasets)?;
        let mut networks = Networks::of(&candidates);
        let mut members = vec![Vec::new(); datasets.len()];
        let (mut results, mut closed) = (Vec::new(), HashSet::new());
        let mut others: VecDeque<Grown> = VecDeque::new();
        for model in state.store.models()? {
            let model = model?;
            let Some(found) = grown(state, &model, &tasks)? else { continue };
            if found.task >= datasets.len() {
                // Only those that are learned from are numbered: distances take the square of their number.
                if others.len() == RESULTS_MAX {
                    others.pop_front();
                }
                others.push_back(found);
                continue;
            }
            let result = networks.observe(&found);
            let network = result.network;
            results.push(result);
            if selection.holds(&found.space, found.side) {
                closed.insert((found.task, network));
                members[found.task].push(Member {
                    model: model.name,
                    spec: found.spec,
                    params: model.cost.params,
                    accuracy: found.accuracy,
                });
            }
        }
        let elsewhere = others.iter().map(|found| networks.observe(found)).collect();
        let field =
            Field { tasks: tasks.distances, networks: between_networks(&networks.described) };
        let classes = datasets.iter().map(|it| it.samples.class_names.len()).collect();
        Ok(Self { candidates, classes, field, results, elsewhere, members, closed })
    }

    /// Networks of the selection that were trained on a dataset.
    pub fn members(&self, dataset: usize) -> &[Member] {
        &self.members[dataset]
    }

    /// Pairs that are left to train.
    pub fn open(&self) -> usize {
        self.pairs().count()
    }

    /// The best accuracy within a number of parameters on a dataset, the axis from the space's smallest to its largest
    /// network.
    pub fn staircase(&self, dataset: usize) -> Staircase {
        let range = self.range(dataset);
        let members = self.members[dataset].iter();
        Staircase::new(
            members.map(|it| (staircase::place(it.params, range), f64::from(it.accuracy))),
        )
    }

    /// The pair with the largest expected rise of its dataset's area, of equal ones that with the fewest MACs; `None` when
    /// no pair is open.
    ///
    /// # Errors
    /// `Error::Encoder` if the surrogate cannot be learned.
    pub fn propose(&self) -> Result<Option<Proposal>> {
        let latest = self.results.iter().rev().chain(self.elsewhere.iter().rev());
        let results: Vec<Observation> = latest.take(RESULTS_MAX).copied().collect();
        let surrogate = Surrogate::fit(&self.field, &results)?;
        let known: Vec<(Staircase, (u64, u64))> =
            (0..self.classes.len()).map(|it| (self.staircase(it), self.range(it))).collect();
        let mut best: Option<(f64, u64, Proposal)> = None;
        for (dataset, at) in self.pairs() {
            let candidate = &self.candidates[at];
            let (staircase, range) = &known[dataset];
            let accuracy = surrogate.predict(dataset, at);
            let place = staircase::place(candidate.params(self.classes[dataset]), *range);
            let gain = staircase.expected_gain(place, accuracy);
            let is_better = best.as_ref().is_none_or(|&(highest, macs, _)| {
                let margin = highest * TIE;
                gain > highest + margin || (gain >= highest - margin && candidate.macs < macs)
            });
            if is_better {
                let expected = Some(Expected { accuracy, gain });
                let proposal = Proposal { dataset, candidate: at, expected };
                best = Some((gain, candidate.macs, proposal));
            }
        }
        Ok(best.map(|(_, _, proposal)| proposal))
    }

    /// An open pair at random. It depends on the seed and on how many are left, so that a run which was stopped goes on
    /// as it would have.
    pub fn draw(&self, seed: u64) -> Option<Proposal> {
        let open: Vec<(usize, usize)> = self.pairs().collect();
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(open.len() as u64);
        let at = if open.is_empty() { return None } else { random.random_range(0..open.len()) };
        let (dataset, candidate) = open[at];
        Some(Proposal { dataset, candidate, expected: None })
    }

    /// Takes in the result of a proposal.
    pub fn learn(&mut self, proposal: &Proposal, member: Member) {
        let &Proposal { dataset, candidate, .. } = proposal;
        let accuracy = f64::from(member.accuracy);
        self.results.push(Observation { task: dataset, network: candidate, accuracy });
        self.members[dataset].push(member);
        self.close(proposal);
    }

    /// Proposes a pair no more.
    pub fn close(&mut self, proposal: &Proposal) {
        self.closed.insert((proposal.dataset, proposal.candidate));
    }

    fn pairs(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let candidates = self.candidates.len();
        let all =
            (0..self.classes.len() * candidates).map(move |at| (at / candidates, at % candidates));
        all.filter(|pair| !self.closed.contains(pair))
    }

    /// Parameters of the smallest and of the largest candidate with the dataset's classes.
    fn range(&self, dataset: usize) -> (u64, u64) {
        let sizes = self.candidates.iter().map(|it| it.params(self.classes[dataset]));
        sizes.fold((u64::MAX, 0), |(low, high), size| (low.min(size), high.max(size)))
    }
}

/// Tasks by number: the datasets, then those of the zoo.
struct Tasks {
    numbers: BTreeMap<TaskId, usize>,
    distances: Distances,
}

impl Tasks {
    fn load(state: &State, datasets: &[Dataset<'_>]) -> Result<Self> {
        let encoders = &state.generation().encoders;
        let (mut numbers, mut coordinates, mut scalars) = (BTreeMap::new(), Vec::new(), Vec::new());
        let mut include = |id: TaskId, sample: &TaskSample| -> Result<()> {
            let encoding = encoders.encode_task(sample)?;
            numbers.insert(id, coordinates.len());
            // Only one recipe has coordinates; the other has vectors.
            coordinates.push(match encoding.features.is_empty() {
                true => encoding.vector,
                false => encoding.features,
            });
            scalars.push(sample.scalars.to_vec());
            Ok(())
        };
        for dataset in datasets {
            include(dataset.samples.task, &dataset.sample)?;
        }
        for task in state.store.tasks()? {
            if datasets.iter().any(|dataset| dataset.samples.task == task.id) {
                continue;
            }
            if let Some(sample) = super::task_sample(&state.store, &task)? {
                include(task.id, &sample)?;
            }
        }
        let standardiser = Standardiser::fit(&scalars, SCALARS);
        let scalars = scalars.iter().map(|row| standardiser.apply(row)).collect();
        let distances = Distances::between(coordinates.len(), &[coordinates, scalars]);
        Ok(Self { numbers, distances })
    }
}

fn between_networks(described: &[Described]) -> Distances {
    let costs = described.iter().map(|it| it.cost.clone()).collect();
    let rows: Vec<Vec<Option<f32>>> = described.iter().map(|it| it.topology.clone()).collect();
    let standardiser = Standardiser::fit(&rows, rows.first().map_or(0, Vec::len));
    let topology = rows.iter().map(|row| standardiser.apply(row)).collect();
    Distances::between(described.len(), &[costs, topology])
}

/// Networks by number, the candidates first.
struct Networks {
    numbers: BTreeMap<String, usize>,
    described: Vec<Described>,
}

impl Networks {
    fn of(candidates: &[Candidate]) -> Self {
        let numbered = candidates.iter().enumerate();
        Self {
            numbers: numbered.map(|(at, it)| (it.spec.clone(), at)).collect(),
            described: candidates.iter().map(|candidate| candidate.described.clone()).collect(),
        }
    }

    fn observe(&mut self, found: &Grown) -> Observation {
        let network = *self.numbers.entry(found.spec.clone()).or_insert_with(|| {
            self.described.push(found.described.clone());
            self.described.len() - 1
        });
        Observation { task: found.task, network, accuracy: f64::from(found.accuracy) }
    }
}

/// What a stored model tells of its space.
struct Grown {
    spec: String,
    space: String,
    side: usize,
    described: Described,
    task: usize,
    accuracy: f32,
}

/// `None` for a model that comes from no space, was not trained from random weights on one known task alone, or has no
/// result there; a result measured here counts before a reported one.
fn grown(state: &State, model: &ModelRecord, tasks: &Tasks) -> Result<Option<Grown>> {
    let (Some(architecture), None, [seen]) = (&model.architecture, model.parent, &model.seen[..])
    else {
        return Ok(None);
    };
    let Some(&task) = tasks.numbers.get(seen) else { return Ok(None) };
    if model.input.is_empty() {
        return Ok(None);
    }
    let pairs = state.store.pairs_of_model(model.row)?;
    let of_kind = |kind: PairKind| {
        pairs.iter().find(|pair| pair.task == *seen && pair.kind == kind).map(|pair| pair.accuracy)
    };
    let Some(accuracy) = of_kind(PairKind::Finetune).or_else(|| of_kind(PairKind::Reported)) else {
        return Ok(None);
    };
    let side = super::input_contract(model)?.height;
    let cost = (model.cost.params, model.cost.macs);
    Ok(Some(Grown {
        spec: spaces::specification(&architecture.space, &architecture.config, side),
        space: architecture.space.clone(),
        side,
        described: Described::new(&architecture.numbers, &model.topology, cost),
        task,
        accuracy,
    }))
}

#[cfg(test)]
mod tests;
