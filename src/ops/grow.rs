//! Grows a zoo: trains networks of a generated space on the user's datasets, each time the pair that promises most.
//!
//! Source: Jeong et al. 2021, Task-Adaptive Neural Network Search with Meta-Contrastive Learning, section on the
//! construction of the model zoo. The predictor of accuracies is a Gaussian process here, and the improvement of the
//! area is expected in closed form.

use crate::encoder::normal::HALF_WIDTH;
use crate::encoder::staircase;
use crate::graph::spaces::Selection;
use crate::state::State;
use crate::steps::admit::Bench;
use crate::steps::benchmark::Benchmark;
use crate::steps::dataset::{self, DatasetSource, SampleOptions, Samples};
use crate::steps::growth::{self, Dataset, Growth, Member, Proposal};
use crate::steps::tuned::{self, Labels, Start, Stored, Trained};
use crate::steps::tuning::{self, Course, Tuned, TuningOptions};
use crate::{Error, Observer, Progress, Result};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// When a growth ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrowBudget {
    /// After so many trainings of this call, at least 1; those that fail count.
    Trainings(usize),
    /// No training begins after so much time; the one that runs is finished.
    Time(Duration),
}

/// Options of `grow`.
#[derive(Clone, Debug)]
pub struct GrowOptions {
    /// The generated space, as `small` (images of 32 and 64 px), `small@32`, `mobilenetv3@96`, `resnet@64` or
    /// `efficientnet_lite`. Of a space with more than 300 networks, 300 are candidates. Default `small`.
    pub space: String,
    /// When it ends. Default: after 20 trainings.
    pub budget: GrowBudget,
    /// Choose pairs at random: what the choice is to be compared with.
    pub random: bool,
    /// How each network is trained; always `from_scratch`, never `head_only`, and `budget` holds for each. Its seed also
    /// draws the sample of a large space and the pairs of `random`.
    pub tuning: TuningOptions,
    /// SPDX expression of the new models.
    pub license: Option<String>,
    /// Labels of the new models.
    pub tags: BTreeMap<String, String>,
    /// Benchmark tasks to measure the new models on.
    pub benchmark: Benchmark,
    /// How much of each dataset is used. Results on another sample of a dataset are not known.
    pub sample: SampleOptions,
}

impl Default for GrowOptions {
    fn default() -> Self {
        Self {
            space: "small".into(),
            budget: GrowBudget::Trainings(20),
            random: false,
            tuning: TuningOptions { from_scratch: true, ..TuningOptions::default() },
            license: None,
            tags: BTreeMap::new(),
            benchmark: Benchmark::default(),
            sample: SampleOptions::default(),
        }
    }
}

/// What became of one training.
#[derive(Clone, Debug, Serialize)]
pub struct GrowTraining {
    /// Number of the training in this call, from 1.
    pub training: usize,
    /// Name of the dataset.
    pub dataset: String,
    /// `SPACE:CONFIG@SIDE`.
    pub architecture: String,
    /// Name of the new model; `None` if the training failed.
    pub model: Option<String>,
    /// `stored`, `already stored`, or `failed`.
    pub status: &'static str,
    /// Top-1 accuracy on the test part, 0..=1.
    pub accuracy: Option<f32>,
    /// The accuracy that was expected; `None` for a random choice.
    pub expected_accuracy: Option<f32>,
    /// 90 % interval of the expected accuracy, within 0..=1.
    pub interval: Option<[f32; 2]>,
    /// How much the area was expected to rise, 0..=1.
    pub expected_gain: Option<f32>,
    /// How much it rose.
    pub gain: f32,
    /// Area under the dataset's best accuracy within a number of parameters, afterwards, 0..=1.
    pub area: f32,
    /// Parameters.
    pub params: u64,
    /// Multiply-accumulate operations of one sample.
    pub macs: u64,
    /// Seconds of training, the test score included.
    pub seconds: f64,
    /// Why the training failed.
    pub failure: Option<String>,
}

/// A model that no smaller one of the same space equals on a dataset.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GrownModel {
    /// Name in the zoo.
    pub model: String,
    /// `SPACE:CONFIG@SIDE`.
    pub architecture: String,
    /// Parameters.
    pub params: u64,
    /// Top-1 accuracy on the test part, 0..=1.
    pub accuracy: f32,
}

/// Where a dataset stands.
#[derive(Clone, Debug, Serialize)]
pub struct GrownDataset {
    /// Its name.
    pub dataset: String,
    /// Results of the space on it that the zoo held before.
    pub known: usize,
    /// Results that were added.
    pub trained: usize,
    /// Area under the best accuracy within a number of parameters before, 0..=1.
    pub area_before: f32,
    /// The same afterwards.
    pub area: f32,
    /// Models that make the area, smallest first.
    pub front: Vec<GrownModel>,
}

/// What `grow` did.
#[derive(Clone, Debug, Serialize)]
pub struct GrowReport {
    /// The space.
    pub space: String,
    /// Networks of it that were candidates.
    pub candidates: usize,
    /// Each training.
    pub trainings: Vec<GrowTraining>,
    /// Each dataset.
    pub datasets: Vec<GrownDataset>,
    /// Pairs that are left to train.
    pub left: usize,
    /// Seconds in all.
    pub seconds: f64,
    /// (file, reason) of images that could not be read.
    pub skipped: Vec<(String, String)>,
}

/// Called with each training as soon as its model is stored; `Break` asks to stop.
pub type GrowReporter<'a> = &'a mut dyn FnMut(&GrowTraining) -> ControlFlow<()>;

/// What does not change while the zoo grows.
struct Ground<'a> {
    state: &'a State,
    options: &'a GrowOptions,
    tuning: TuningOptions,
    bench: Bench,
    samples: &'a [Samples],
}

/// Trains and stores until the budget is spent or nothing is left.
pub(crate) fn run(
    state: &State,
    sources: &[DatasetSource],
    options: &GrowOptions,
    report: GrowReporter<'_>,
    observer: Observer<'_>,
) -> Result<GrowReport> {
    state.require_writer()?;
    let clock = Instant::now();
    let selection = check(sources, options)?;
    let mut samples = load(sources, &options.sample)?;
    let skipped = samples.iter_mut().flat_map(|it| std::mem::take(&mut it.skipped)).collect();
    let mut growth = survey(state, &selection, &samples, options, &mut *observer)?;
    let bench = Bench::load(state)?;
    let tuning = TuningOptions { from_scratch: true, ..options.tuning.clone() };
    let ground = Ground { state, options, tuning, bench, samples: &samples };
    let before: Vec<(usize, f64)> = (0..samples.len())
        .map(|it| (growth.members(it).len(), growth.staircase(it).area()))
        .collect();
    let trainings = ground.grow(&mut growth, clock, report, observer)?;
    let dataset = |(at, &(known, area_before)): (usize, &(usize, f64))| GrownDataset {
        dataset: samples[at].name.clone(),
        known,
        trained: growth.members(at).len() - known,
        area_before: area_before as f32,
        area: growth.staircase(at).area() as f32,
        front: front(growth.members(at)),
    };
    let datasets = before.iter().enumerate().map(dataset).collect();
    Ok(GrowReport {
        space: options.space.clone(),
        candidates: growth.candidates.len(),
        trainings,
        datasets,
        left: growth.open(),
        seconds: clock.elapsed().as_secs_f64(),
        skipped,
    })
}

/// What can be refused before anything is read.
fn check(sources: &[DatasetSource], options: &GrowOptions) -> Result<Selection> {
    if sources.is_empty() {
        return Err(Error::input("expected at least 1 dataset to grow on, found none"));
    }
    match options.budget {
        GrowBudget::Trainings(0) => {
            return Err(Error::input("budget: expected at least 1 training, found 0"));
        }
        GrowBudget::Time(time) if time.is_zero() => {
            return Err(Error::input("budget: expected a time above 0, found 0"));
        }
        GrowBudget::Trainings(_) | GrowBudget::Time(_) => {}
    }
    if options.tuning.head_only {
        return Err(Error::input(
            "expected networks to be trained as a whole, found head only: their other weights are random",
        ));
    }
    tuning::check(&options.tuning)?;
    Ok(Selection::parse(&options.space)?)
}

/// Reads every dataset, so that one that cannot be used is refused before anything is trained.
fn load(sources: &[DatasetSource], options: &SampleOptions) -> Result<Vec<Samples>> {
    let mut all: Vec<Samples> = Vec::new();
    let mut names: HashMap<_, String> = HashMap::new();
    for source in sources {
        let samples = dataset::samples(source, options)?;
        if let Some(other) = names.insert(samples.task, samples.name.clone()) {
            let name = &samples.name;
            return Err(Error::input(format!(
                "{name}: expected datasets that differ, found the images and labels of {other} again"
            )));
        }
        all.push(samples);
    }
    Ok(all)
}

/// What may be trained, and what is known already.
fn survey(
    state: &State,
    selection: &Selection,
    samples: &[Samples],
    options: &GrowOptions,
    observer: Observer<'_>,
) -> Result<Growth> {
    let mut datasets = Vec::with_capacity(samples.len());
    for samples in samples {
        let (sample, _) = dataset::measure(state, samples, options.sample.seed, &mut *observer)?;
        datasets.push(Dataset { samples, sample });
    }
    let (seed, device) = (options.tuning.seed, state.options.device);
    let candidates = growth::candidates(selection, seed, device, observer)?;
    let growth = Growth::load(state, selection, candidates, &datasets)?;
    if growth.open() == 0 {
        return Err(Error::input(format!(
            "nothing is left to train: the zoo holds all {} networks of {} on {}; name another space or another dataset",
            growth.candidates.len(),
            options.space,
            samples.iter().map(|it| it.name.as_str()).collect::<Vec<_>>().join(", ")
        )));
    }
    Ok(growth)
}

impl Ground<'_> {
    fn grow(
        &self,
        growth: &mut Growth,
        clock: Instant,
        report: GrowReporter<'_>,
        observer: Observer<'_>,
    ) -> Result<Vec<GrowTraining>> {
        let (mut trainings, mut failed) = (Vec::new(), None);
        let (limit, time) = match self.options.budget {
            GrowBudget::Trainings(limit) => (limit, Duration::MAX),
            GrowBudget::Time(time) => (usize::MAX, time),
        };
        let total = limit.min(growth.open());
        while trainings.len() < total && (trainings.is_empty() || clock.elapsed() < time) {
            let proposal = match self.options.random {
                true => growth.draw(self.tuning.seed),
                false => growth.propose()?,
            };
            let Some(proposal) = proposal else { break };
            let at = (trainings.len(), total);
            let trained = Instant::now();
            let done = match self.train(growth, &proposal, at, &mut *observer) {
                Err(Error::Graph(fault)) if fault.is_of_network() => Err(fault),
                other => Ok(other?),
            };
            let training = self.told(growth, &proposal, (trainings.len() + 1, trained), &done);
            let stop = report(&training).is_break();
            trainings.push(training);
            if let Err(fault) = done {
                failed.get_or_insert(fault);
            }
            if stop {
                return Err(Error::Cancelled);
            }
        }
        match failed {
            Some(fault) if trainings.iter().all(|it| it.model.is_none()) => Err(fault.into()),
            Some(_) | None => Ok(trainings),
        }
    }

    fn train(
        &self,
        growth: &Growth,
        proposal: &Proposal,
        (done, total): (usize, usize),
        observer: Observer<'_>,
    ) -> Result<(Tuned, Stored)> {
        let samples = &self.samples[proposal.dataset];
        let spec = &growth.candidates[proposal.candidate].spec;
        let mut inner = |progress: Progress| {
            let item = format!("{} on {}: {}", spec, samples.name, progress.item);
            observer(Progress { step: "growing", item, done, total })
        };
        crate::progress::report(&mut inner, "growing", "", done, total)?;
        let start = Start::generated(spec, samples.class_names.len(), self.tuning.seed)?;
        let course = Course::new(&self.state.options, samples, &self.tuning);
        let tuned = tuning::tune(&course, &start.candidate, &mut inner)?;
        let labels = Labels {
            name: None,
            license: self.options.license.as_deref(),
            tags: &self.options.tags,
            benchmark: self.options.benchmark,
        };
        let trained = Trained { start: &start, tuned: &tuned, samples };
        let seed = self.options.sample.seed;
        let stored = tuned::store(self.state, &self.bench, (trained, seed), &labels, &mut inner)?;
        Ok((tuned, stored))
    }

    /// Takes the outcome in, and tells it.
    fn told(
        &self,
        growth: &mut Growth,
        proposal: &Proposal,
        (training, clock): (usize, Instant),
        done: &std::result::Result<(Tuned, Stored), crate::graph::Error>,
    ) -> GrowTraining {
        let &Proposal { dataset, candidate, expected } = proposal;
        let samples = &self.samples[dataset];
        let before = growth.staircase(dataset).area();
        let candidate = &growth.candidates[candidate];
        let (spec, macs) = (candidate.spec.clone(), candidate.macs);
        let params = candidate.params(samples.class_names.len());
        let told = match done {
            Ok((tuned, stored)) => {
                let (model, accuracy) = (stored.record.name.clone(), tuned.test_accuracy);
                let (spec, params) = (spec.clone(), stored.record.cost.params);
                growth.learn(proposal, Member { model, spec, params, accuracy });
                (Some(stored.record.name.clone()), stored.status, Some(accuracy), None)
            }
            Err(fault) => {
                growth.close(proposal);
                (None, "failed", None, Some(fault.to_string()))
            }
        };
        let (model, status, accuracy, failure) = told;
        let area = growth.staircase(dataset).area();
        let within = |value: f64| value.clamp(0.0, 1.0) as f32;
        GrowTraining {
            training,
            dataset: samples.name.clone(),
            architecture: spec,
            model,
            status,
            accuracy,
            expected_accuracy: expected.map(|it| within(it.accuracy.0)),
            interval: expected.map(|it| {
                let (mean, sd) = it.accuracy;
                let half = f64::from(HALF_WIDTH) * sd;
                [within(mean - half), within(mean + half)]
            }),
            expected_gain: expected.map(|it| it.gain as f32),
            gain: (area - before) as f32,
            area: area as f32,
            params: done.as_ref().map_or(params, |(_, stored)| stored.record.cost.params),
            macs: done.as_ref().map_or(macs, |(_, stored)| stored.record.cost.macs),
            seconds: clock.elapsed().as_secs_f64(),
            failure,
        }
    }
}

/// The members that no smaller one equals, smallest first.
fn front(members: &[Member]) -> Vec<GrownModel> {
    let key = |member: &&Member| (member.params as f64, f64::from(member.accuracy));
    let members = staircase::front(members.iter().collect(), key);
    let told = |member: &Member| GrownModel {
        model: member.model.clone(),
        architecture: member.spec.clone(),
        params: member.params,
        accuracy: member.accuracy,
    };
    members.into_iter().map(told).collect()
}
