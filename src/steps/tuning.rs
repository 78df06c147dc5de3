//! Fine-tunes one network on one dataset, or races several for it, and scores it on the test part.

use super::cutting::{self, own_accuracy};
use super::dataset::Samples;
use super::fit::{self, Data, EpochReport, FitOptions, FitState, Fitted};
use super::paused::{Next, Paused};
use crate::encoder::ridge::{Linear, RidgeProbe};
use crate::graph::exec::{
    Device, Elastic, Evaluation, Network, Optimizer, Trainer, TrainerOptions,
};
use crate::graph::input::InputContract;
use crate::graph::spaces::elastic::Supernet;
use crate::graph::{Error as GraphError, Graph};
use crate::{Error, Observer, OpenOptions, Progress, Result};
use serde::Serialize;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

/// How a network is fine-tuned.
#[derive(Clone, Debug, PartialEq)]
pub struct TuningOptions {
    /// Passes over the training part; `None`: as many as show 6,000 images, 10 to 30. Default `None`.
    pub epochs: Option<usize>,
    /// Images a step. Default 32.
    pub batch_size: usize,
    /// Peak learning rate of the cosine schedule; `None` chooses by optimiser (AdamW 1e-3, SGD 0.05).
    pub learning_rate: Option<f32>,
    /// Optimiser. Default AdamW.
    pub optimizer: Optimizer,
    /// Draw every weight anew first: training from random initialisation.
    pub from_scratch: bool,
    /// Train the new head only.
    pub head_only: bool,
    /// Label smoothing in 0..1. Default 0.05.
    pub label_smoothing: f32,
    /// Stop after this many epochs that were clearly worse than an earlier one (by more than the standard error of its
    /// accuracy) on the tenth of the training part that is held back for validation; 0 never stops. The weights of the
    /// last epoch before are kept in any case. Default 10.
    pub patience: usize,
    /// Stop after the epoch in which this time has passed. Default `None`.
    pub budget: Option<Duration>,
    /// Train the subnets of a supernet along with it: so many random ones a step, beside the whole network and the smallest
    /// subnet. The last epoch's weights are kept then, and there is no early stop. Default `None`.
    pub elastic: Option<usize>,
    /// Seed of head, order, augmentation and validation split. Default 0.
    pub seed: u64,
}

impl Default for TuningOptions {
    fn default() -> Self {
        Self {
            epochs: None,
            batch_size: 32,
            learning_rate: None,
            optimizer: Optimizer::AdamW,
            from_scratch: false,
            head_only: false,
            label_smoothing: 0.05,
            patience: 10,
            budget: None,
            elastic: None,
            seed: 0,
        }
    }
}

/// A network to be fine-tuned.
pub struct Candidate {
    /// What to call it.
    pub name: String,
    /// With its own head.
    pub graph: Graph,
    /// How images become its input.
    pub input: InputContract,
    /// The space that it spans, if it is a supernet, and whether its weights come from a training.
    pub supernet: Option<(Supernet, bool)>,
}

/// Images of the training part, at most, that a trained supernet's statistics are estimated on.
const CALIBRATION_IMAGES: usize = 256;

/// A fine-tuned network and how it fared.
pub struct Tuned {
    /// The network with its new head.
    pub graph: Graph,
    /// One report per epoch.
    pub epochs: Vec<EpochReport>,
    /// The epoch whose weights were kept, from 1; 0 for those that it started with.
    pub best_epoch: usize,
    /// How the start did in validation, where its weights might have been kept.
    pub start: Option<Evaluation>,
    /// Epochs that were done before, by the same training when it was stopped.
    pub resumed_epochs: usize,
    /// Top-1 accuracy on the test part.
    pub test_accuracy: f32,
    /// Where the training's state lies, to be forgotten when the result is stored.
    pub paused: Paused,
}

/// How far a candidate came in a race.
#[derive(Clone, Debug, Serialize)]
pub struct Raced {
    /// Name of the candidate.
    pub model: String,
    /// Epochs it was trained for.
    pub epochs: usize,
    /// The best so far; `None` where there were too few images to hold some back, or no epoch was finished.
    pub validation_accuracy: Option<f32>,
    /// Why it was taken out, when its training failed.
    pub failure: Option<String>,
}

/// What all candidates share.
pub struct Course<'a> {
    /// Images of both parts.
    pub samples: &'a Samples,
    /// How each is trained.
    pub options: &'a TuningOptions,
    /// Where.
    pub device: Device,
    /// Where a training that is stopped leaves its state; `None` keeps none.
    pub cache_dir: Option<&'a Path>,
}

/// Trains on the training part (of which some is held back for validation), scores the test part once, at the end. A
/// training that was stopped or killed goes on where it was.
///
/// # Errors
/// `Error::Input` for options that cannot be trained with; `Error::Graph` if the training fails; `Error::Cancelled`.
pub fn tune(course: &Course<'_>, candidate: &Candidate, observer: Observer<'_>) -> Result<Tuned> {
    check(course.options)?;
    alone(course, candidate, observer).map(|(tuned, _)| tuned)
}

fn alone(
    course: &Course<'_>,
    candidate: &Candidate,
    observer: Observer<'_>,
) -> Result<(Tuned, Raced)> {
    let mut place = Paused::of(course, candidate)?;
    let mut run = Run::new(candidate);
    run.paused = place.load();
    let resumed_epochs = run.paused.as_ref().map_or(0, |state| state.epochs.len());
    let length = (course.epochs(), course.options.budget);
    let mut keep = |state: &FitState, next| place.keep(state, next);
    match run.advance(course, length, &mut keep, &mut *observer) {
        Err(Error::Graph(GraphError::Malformed { .. })) if resumed_epochs > 0 => {
            // The state is of another network after all.
            place.forget();
            return alone(course, candidate, observer);
        }
        done => done?,
    }
    let raced = run.report();
    let tuned = run.finish(course)?;
    Ok((Tuned { paused: place, resumed_epochs, ..tuned }, raced))
}

/// Successive halving (Jamieson & Talwalkar 2016): all candidates are trained for a few epochs, the better half on the
/// validation split goes on, and so forth. The survivor has had the training that `tune` would have given it.
///
/// When the budget is spent, candidates that have not begun are left out.
///
/// Returns its index, what became of it, and how far each came. A race of one is `tune`; one of several begins anew after it
/// was stopped.
///
/// # Errors
/// As `tune`, if no candidate can be trained.
pub fn race(
    course: &Course<'_>,
    candidates: &[&Candidate],
    observer: Observer<'_>,
) -> Result<(usize, Tuned, Vec<Raced>)> {
    check(course.options)?;
    if let [candidate] = candidates {
        let (tuned, raced) = alone(course, candidate, observer)?;
        return Ok((0, tuned, vec![raced]));
    }
    let mut runs: Vec<Run<'_>> = candidates.iter().map(|candidate| Run::new(candidate)).collect();
    let mut field: Vec<usize> = (0..runs.len()).collect();
    let rungs = rungs(runs.len());
    let budget = course.options.budget;
    let start = Instant::now();
    for rungs_left in (1..=rungs).rev() {
        // The last rung is the whole training, the one before half of it, and so on. Each gets an equal part of the
        // time that is left, and so does each candidate within it.
        let target = course.epochs().div_ceil(1_usize << (rungs_left - 1));
        let rung = budget.map(|budget| budget.saturating_sub(start.elapsed()) / rungs_left);
        let rung_start = Instant::now();
        for (members_left, &index) in (1..=field.len() as u32).rev().zip(&field) {
            let is_over = budget.is_some_and(|budget| start.elapsed() >= budget);
            if is_over && runs.iter().any(|run| run.fitted.is_some()) {
                break;
            }
            let slice = rung.map(|rung| rung.saturating_sub(rung_start.elapsed()) / members_left);
            match runs[index].advance(course, (target, slice), &mut |_, _| {}, &mut *observer) {
                Ok(()) => {}
                Err(Error::Cancelled) => return Err(Error::Cancelled),
                Err(error) => runs[index].failure = Some(error),
            }
        }
        field.retain(|&index| runs[index].failure.is_none());
        field.sort_by(|&a, &b| runs[b].compare(&runs[a]));
        field.truncate(field.len().div_ceil(2));
    }
    let raced = runs.iter().map(Run::report).collect();
    let Some(&winner) = field.first() else {
        let failed = runs.into_iter().find_map(|run| run.failure);
        return Err(failed.unwrap_or_else(|| Error::input("expected a candidate, found none")));
    };
    Ok((winner, runs.swap_remove(winner).finish(course)?, raced))
}

/// Halvings until one is left, and the last lap.
fn rungs(candidates: usize) -> u32 {
    candidates.max(1).next_power_of_two().ilog2() + 1
}

/// One candidate's training, which can pause between epochs.
struct Run<'a> {
    candidate: &'a Candidate,
    /// Where it goes on; `None` before the start and after the end.
    paused: Option<FitState>,
    fitted: Option<Fitted>,
    failure: Option<Error>,
}

impl<'a> Run<'a> {
    fn new(candidate: &'a Candidate) -> Self {
        Self { candidate, paused: None, fitted: None, failure: None }
    }

    /// Trains until `target` epochs are done or `slice` has passed, at least one epoch if none is done yet. `keep` is
    /// called after each epoch, and told what comes next.
    fn advance(
        &mut self,
        course: &Course<'_>,
        (target, slice): (usize, Option<Duration>),
        keep: &mut dyn FnMut(&FitState, Next),
        observer: Observer<'_>,
    ) -> Result<()> {
        let is_over = self.fitted.is_some() && self.paused.is_none();
        if is_over || self.epochs().len() >= target {
            return Ok(());
        }
        let name = &self.candidate.name;
        let trainer = match self.paused {
            Some(_) => course.trainer(self.candidate, &self.candidate.graph)?,
            None => course.beginner(self.candidate)?,
        };
        let (mut paused, mut cancelled) = (None, false);
        let (clock, total) = (Instant::now(), course.epochs());
        let mut after_epoch = |state: &FitState| {
            let Some(epoch) = state.epochs.last() else { return ControlFlow::Continue(()) };
            let (step, item) = ("fine-tuning", epoch_text(name, epoch));
            cancelled = observer(Progress { step, item, done: epoch.epoch, total }).is_break();
            let is_late = slice.is_some_and(|slice| clock.elapsed() >= slice);
            let next = match (cancelled, is_late || epoch.epoch >= target) {
                (true, _) => Next::Stops,
                (false, true) => Next::Ends,
                (false, false) => Next::GoesOn,
            };
            keep(state, next);
            if next == Next::GoesOn {
                return ControlFlow::Continue(());
            }
            paused = Some(state.clone());
            ControlFlow::Break(())
        };
        let train = &course.samples.train;
        let groups = course.samples.train_groups();
        let mut fitted = fit::resume(
            trainer,
            Data { images: &train.images, labels: &train.labels, groups },
            &course.fit_options(),
            self.paused.take(),
            &mut after_epoch,
        )?;
        if cancelled {
            return Err(Error::Cancelled);
        }
        if let Some(error) = fitted.diverged.take() {
            return Err(error.into());
        }
        (self.paused, self.fitted) = (paused, Some(fitted));
        Ok(())
    }

    fn epochs(&self) -> &[EpochReport] {
        self.fitted.as_ref().map_or(&[], |fitted| &fitted.epochs)
    }

    /// How the weights that would be kept now did in validation.
    fn validation(&self) -> Option<Evaluation> {
        self.fitted.as_ref().and_then(|fitted| fitted.validation)
    }

    /// Higher validation accuracy first, then lower loss; without validation the training loss decides.
    fn compare(&self, other: &Self) -> std::cmp::Ordering {
        let standing = |run: &Self| {
            let trained = || run.epochs().last().map(|epoch| (0.0, -epoch.train_loss));
            let found =
                run.validation().map(|found| (found.accuracy, -found.loss)).or_else(trained);
            found.unwrap_or((f32::NEG_INFINITY, f32::NEG_INFINITY))
        };
        let (a, b) = (standing(self), standing(other));
        a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1))
    }

    fn report(&self) -> Raced {
        Raced {
            model: self.candidate.name.clone(),
            epochs: self.epochs().len(),
            validation_accuracy: self.validation().map(|found| found.accuracy),
            failure: self.failure.as_ref().map(ToString::to_string),
        }
    }

    /// Scores the best epoch's weights on the test part.
    fn finish(self, course: &Course<'_>) -> Result<Tuned> {
        let Some(Fitted { graph, epochs, best_epoch, start, .. }) = self.fitted else {
            return Err(Error::input("expected a trained candidate, found none"));
        };
        let graph = match course.options.elastic {
            Some(_) => course.with_own_statistics(&graph, &self.candidate.input)?,
            None => graph,
        };
        let test_accuracy =
            own_accuracy(&graph, &self.candidate.input, course.samples, course.device)?;
        let (resumed_epochs, paused) = (0, Paused::nowhere());
        Ok(Tuned { graph, epochs, best_epoch, start, resumed_epochs, test_accuracy, paused })
    }
}

fn epoch_text(name: &str, epoch: &EpochReport) -> String {
    let loss = epoch.train_loss;
    match epoch.validation_accuracy {
        Some(accuracy) => format!("{name}: loss {loss:.3}, validation accuracy {accuracy:.3}"),
        None => format!("{name}: loss {loss:.3}"),
    }
}

impl<'a> Course<'a> {
    /// As the zoo was opened.
    pub fn new(open: &'a OpenOptions, samples: &'a Samples, options: &'a TuningOptions) -> Self {
        Self { samples, options, device: open.device, cache_dir: open.cache_dir.as_deref() }
    }
}

/// Images that a training shows where nothing is said of its epochs, and the bounds of those.
const IMAGES_SHOWN: usize = 6_000;
const EPOCHS: [usize; 2] = [10, 30];

impl Course<'_> {
    fn epochs(&self) -> usize {
        let images = self.samples.train.images.len().max(1);
        let enough = || IMAGES_SHOWN.div_ceil(images).clamp(EPOCHS[0], EPOCHS[1]);
        self.options.epochs.unwrap_or_else(enough)
    }

    fn trainer(&self, candidate: &Candidate, graph: &Graph) -> Result<Trainer> {
        let Candidate { name, input, supernet, .. } = candidate;
        let trainer = Trainer::new(graph, input, &self.trainer_options())?;
        let Some(random) = self.options.elastic else { return Ok(trainer) };
        let Some((space, is_trained)) = *supernet else {
            return Err(Error::input(format!(
                "{name}: expected a supernet to train its subnets (mobilenetv3:supernet, mobilenetv3_tiny:supernet, or a \
                stored one), found another network"
            )));
        };
        let is_progressive = self.options.from_scratch || !is_trained;
        Ok(trainer.elastic(Elastic { space, random, is_progressive })?)
    }

    /// At the first step: the new head of a trained network starts from a ridge probe of its features, first the linear
    /// probe, then fine-tuning (Kumar et al. 2022, LP-FT), which keeps the features from being bent to a random head.
    ///
    /// Where batch norm is trained as well, features are those under statistics of these images, as its batches have
    /// them: under its old ones a channel may be all but constant, and its weight in the probe huge.
    fn beginner(&self, candidate: &Candidate) -> Result<Trainer> {
        let TuningOptions { from_scratch, head_only, elastic, .. } = *self.options;
        if from_scratch || elastic.is_some() {
            return self.trainer(candidate, &candidate.graph);
        }
        // Where there are too few images for statistics, a network starts with its own.
        let own =
            (!head_only).then(|| self.with_own_statistics(&candidate.graph, &candidate.input));
        let graph = own.and_then(Result::ok).unwrap_or_else(|| candidate.graph.clone());
        let mut trainer = self.trainer(candidate, &graph)?;
        self.start_head(&mut trainer, &graph, &candidate.input)?;
        Ok(trainer)
    }

    fn start_head(
        &self,
        trainer: &mut Trainer,
        graph: &Graph,
        input: &InputContract,
    ) -> Result<()> {
        let network = Network::new(graph, input, self.device)?;
        let train = &self.samples.train;
        let groups = self.samples.train_groups();
        let chosen = fit::trained_on(&train.labels, groups, &self.fit_options());
        let labels: Vec<u32> = chosen.iter().map(|&at| train.labels[at]).collect();
        let features = network.features(&train.images)?.select(&chosen);
        // Too few images to fit anything on are too few to start from.
        let classes = self.samples.class_names.len();
        match RidgeProbe::fit_layer(&features, &labels, classes) {
            Ok(Linear { weights, bias }) => Ok(trainer.start_head(&weights, &bias)?),
            Err(_) => Ok(()),
        }
    }

    /// A step of a supernet moves weights by the gradients of several networks, and the running statistics lag behind.
    fn with_own_statistics(&self, graph: &Graph, input: &InputContract) -> Result<Graph> {
        let images = cutting::sample(&self.samples.train, CALIBRATION_IMAGES, self.options.seed);
        cutting::own_statistics(graph, input, &images, self.device)
    }

    fn trainer_options(&self) -> TrainerOptions {
        TrainerOptions {
            classes: self.samples.class_names.len(),
            new_head: true,
            head_only: self.options.head_only,
            from_scratch: self.options.from_scratch,
            optimizer: self.options.optimizer,
            weight_decay: 0.01,
            label_smoothing: self.options.label_smoothing,
            augment: true,
            seed: self.options.seed,
            device: self.device,
        }
    }

    fn fit_options(&self) -> FitOptions {
        let options = self.options;
        FitOptions {
            epochs: self.epochs(),
            batch_size: options.batch_size,
            learning_rate: options.learning_rate.unwrap_or(match options.optimizer {
                Optimizer::AdamW => 1e-3,
                Optimizer::Sgd => 0.05,
            }),
            patience: if options.elastic.is_some() { 0 } else { options.patience },
            keep_last: options.elastic.is_some(),
            start_counts: !options.from_scratch && options.elastic.is_none(),
            seed: options.seed,
            ..FitOptions::default()
        }
    }
}

/// Refuses what cannot be trained with.
///
/// # Errors
/// `Error::Input` for no epoch, an empty batch, no time, or a learning rate that is not positive.
pub fn check(options: &TuningOptions) -> Result<()> {
    if options.epochs == Some(0) || options.batch_size == 0 {
        return Err(Error::input(
            "expected at least 1 epoch and batches of at least 1 image, found none",
        ));
    }
    if options.budget.is_some_and(|budget| budget.is_zero()) {
        return Err(Error::input("budget: expected a time above 0, found 0"));
    }
    if options.elastic.is_some() && options.head_only {
        return Err(Error::input(
            "expected the whole of a supernet to be trained with its subnets, found head_only beside elastic",
        ));
    }
    match options.learning_rate {
        Some(rate) if !(rate.is_finite() && rate > 0.0) => {
            Err(Error::input(format!("learning rate: expected a positive number, found {rate}")))
        }
        Some(_) | None => Ok(()),
    }
}
