//! Leave-tasks-out evaluation: how good is the first pick on tasks never seen?

use super::{FitOptions, Recipe, TrainingSet, closed_form};
use crate::encoder::linalg::quantile;
use crate::encoder::metrics::{ranking, spearman, weighted_tau};
use crate::encoder::{Encoders, Error, Evidence, Kind, TaskEncoding, TaskSample};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::HashMap;
use std::ops::ControlFlow;

/// Tasks with fewer candidates say nothing about picking.
const CANDIDATES_MIN: usize = 3;
/// Resamples of the bootstrap.
const RESAMPLES: usize = 1000;
/// Methods that need no recipe, in the order of their rows.
const BASELINES: [&str; 4] = ["random", "params", "static", "nearest"];

/// One method's figures, averaged over held-out tasks. Accuracy points are 0..100 where named so, fractions elsewhere.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct MethodRow {
    /// random, params, static, nearest, or the contestant's name.
    pub method: String,
    /// First pick's loss in accuracy points, with its 90 % bootstrap interval over tasks.
    pub loss: f32,
    /// Interval of the loss.
    pub loss_interval: [f32; 2],
    /// Best of the first five's loss in accuracy points.
    pub best5: f32,
    /// Spearman.
    pub spearman: f32,
    /// Weighted Kendall tau.
    pub tau: f32,
    /// Mean absolute error of predicted accuracy in accuracy points; `None` where the method predicts none.
    pub mae: Option<f32>,
    /// Share of accuracies inside the 90 % interval.
    pub cover: Option<f32>,
    /// Paired difference of loss to the static list (negative = better), with its 90 % interval.
    pub against_static: Option<(f32, [f32; 2])>,
    /// Loss of each held-out task, in the order of `Evaluation::tasks`.
    pub losses: Vec<f32>,
}

/// A recipe that takes part.
#[derive(Clone, Copy, Debug)]
pub struct Contestant<'a> {
    /// Its row's name.
    pub name: &'a str,
    /// How its encoders are learned.
    pub options: FitOptions,
    /// Tasks with rows that they may be learned from, `None` for all. Results on the others still count in a model's
    /// history, as they do for encoders that are older than a task.
    pub tasks: Option<&'a [[u8; 32]]>,
}

impl Contestant<'_> {
    /// A recipe under its own name, learned from every task.
    pub fn new(options: FitOptions) -> Self {
        Self { name: options.recipe.name(), options, tasks: None }
    }
}

/// Result of an evaluation.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Evaluation {
    /// Indices of the tasks that were held out and had candidates.
    pub tasks: Vec<usize>,
    /// Best network's accuracy, averaged over tasks.
    pub best_accuracy: f32,
    /// Mean network's accuracy, averaged over tasks.
    pub mean_accuracy: f32,
    /// One row per method.
    pub rows: Vec<MethodRow>,
}

/// Holds out each family in turn (folds of families when `folds` is given), fits on the rest, ranks the uncontaminated models.
///
/// Tasks without a sample cannot be asked about; tasks with fewer than three candidates are left out. Candidates are
/// the models that have seen no task of the query's family, judged by the first of probe, finetune, reported that at
/// least three of them have. Every contestant is fitted on the other families' tasks and pairs alone.
/// `progress(folds done, folds)`; `Break` cancels.
///
/// # Errors
/// As `fit`; `Error::Cancelled`.
pub fn leave_tasks_out(
    set: &TrainingSet,
    contestants: &[Contestant<'_>],
    folds: Option<usize>,
    progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Evaluation, Error> {
    super::check(set)?;
    let groups = groups(set, folds);
    let mut outcomes = Vec::new();
    for (done, group) in groups.iter().enumerate() {
        if progress(done, groups.len()).is_break() {
            return Err(Error::Cancelled);
        }
        let queries: Vec<Query> = group.iter().filter_map(|&task| Query::new(set, task)).collect();
        if queries.is_empty() {
            continue;
        }
        let fold = Fold::fit(set, group, contestants, &mut || progress(done, groups.len()))?;
        for query in queries {
            outcomes.push(fold.judge(set, query)?);
        }
    }
    outcomes.sort_by_key(|outcome| outcome.task);
    // The last call only reports: everything is done.
    let _ = progress(groups.len(), groups.len());
    Ok(summary(&outcomes, contestants))
}

/// Tasks that are held out together: families, dealt in turn into `folds` where given.
fn groups(set: &TrainingSet, folds: Option<usize>) -> Vec<Vec<usize>> {
    let mut families: Vec<(&str, Vec<usize>)> = Vec::new();
    for (index, task) in set.tasks.iter().enumerate() {
        match families.iter_mut().find(|(family, _)| *family == task.family) {
            Some((_, members)) => members.push(index),
            None => families.push((&task.family, vec![index])),
        }
    }
    let count = folds.unwrap_or(families.len()).clamp(1, families.len().max(1));
    // With one fold nothing would be left to learn from.
    let count = count.max(2.min(families.len()));
    let mut out = vec![Vec::new(); count];
    for (index, (_, members)) in families.into_iter().enumerate() {
        out[index % count].extend(members);
    }
    out
}

/// A held-out task with its candidates and their true accuracies.
struct Query {
    task: usize,
    models: Vec<usize>,
    truth: Vec<f32>,
}

impl Query {
    fn new(set: &TrainingSet, task: usize) -> Option<Self> {
        set.tasks[task].sample.as_ref()?;
        let family = &set.tasks[task].family;
        let clean = |model: usize| {
            let mut seen = set.models[model].seen.iter().filter_map(|&seen| set.tasks.get(seen));
            !seen.any(|seen| seen.family == *family)
        };
        [Kind::Probe, Kind::Finetune, Kind::Reported].into_iter().find_map(|kind| {
            let (models, truth): (Vec<usize>, Vec<f32>) = set
                .pairs
                .iter()
                .filter(|pair| pair.task == task && pair.kind == kind && clean(pair.model))
                .map(|pair| (pair.model, pair.accuracy))
                .unzip();
            (models.len() >= CANDIDATES_MIN).then_some(Self { task, models, truth })
        })
    }
}

/// What was learned without the tasks of one group.
struct Fold {
    set: TrainingSet,
    options: FitOptions,
    /// Serves the static list and the nearest task.
    reference: Encoders,
    learned: Vec<Learned>,
}

/// A contestant's encoders, and where they see the fold's tasks that they were not learned from.
struct Learned {
    encoders: Encoders,
    fresh: HashMap<[u8; 32], TaskEncoding>,
}

impl Learned {
    fn new(encoders: Encoders, set: &TrainingSet) -> Result<Self, Error> {
        let mut fresh = HashMap::new();
        for task in set.tasks.iter().filter(|task| !encoders.basis().contains(&task.id)) {
            if let Some(sample) = &task.sample {
                fresh.insert(task.id, encoders.encode_task(sample)?);
            }
        }
        Ok(Self { encoders, fresh })
    }
}

impl Fold {
    fn fit(
        set: &TrainingSet,
        group: &[usize],
        contestants: &[Contestant<'_>],
        stop: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Self, Error> {
        let rest = without(set, group);
        let first = contestants.first().map(|first| first.options).unwrap_or_default();
        let options = FitOptions { recipe: Recipe::Default, ..first };
        let reference = super::fit(&rest, &options, &mut |_, _, _| stop())?;
        // Running encoders that know every task are the candidate's twins, and learning takes minutes on libtorch.
        let mut fitted = vec![((options, Vec::new()), reference.clone())];
        let mut learned = Vec::with_capacity(contestants.len());
        for contestant in contestants {
            let missing = contestant.tasks.map_or_else(Vec::new, |known| unknown(&rest, known));
            let asked = (contestant.options, missing);
            let twin = fitted.iter().find(|(done, _)| *done == asked);
            let encoders = match twin.map(|(_, encoders)| encoders.clone()) {
                Some(encoders) => encoders,
                None => {
                    let known = without(&rest, &asked.1);
                    super::fit(&known, &asked.0, &mut |_, _, _| stop())?
                }
            };
            fitted.push((asked, encoders.clone()));
            learned.push(Learned::new(encoders, &rest)?);
        }
        Ok(Self { set: rest, options, reference, learned })
    }

    fn judge(&self, set: &TrainingSet, query: Query) -> Result<Outcome, Error> {
        let Some(sample) = &set.tasks[query.task].sample else {
            return Err(Error::Numerical("a query lost its sample".into()));
        };
        let histories = closed_form::histories(&self.set, &self.options);
        let located = self.reference.encode_task(sample)?;
        let params = |&model: &usize| set.models[model].params as f32;
        let mut scores = vec![query.models.iter().map(params).collect::<Vec<f32>>()];
        scores.extend(self.baselines(&query, &histories, &located));
        let mut methods = vec![Scored::random(&query.truth)];
        methods.extend(scores.iter().map(|scores| Scored::new(scores, &query.truth)));
        for learned in &self.learned {
            methods.push(self.contestant(learned, sample, &query, &histories)?);
        }
        let best = query.truth.iter().copied().fold(0.0, f32::max);
        let mean = query.truth.iter().sum::<f32>() / query.truth.len() as f32;
        Ok(Outcome { task: query.task, best, mean, methods })
    }

    /// Scores of the static list and of the nearest task.
    fn baselines(
        &self,
        query: &Query,
        histories: &[Vec<Evidence<'_>>],
        located: &TaskEncoding,
    ) -> [Vec<f32>; 2] {
        let Encoders::Default(form) = &self.reference else {
            return [vec![0.0; query.models.len()], vec![0.0; query.models.len()]];
        };
        let shrink = closed_form::STANDING_SHRINK;
        let average = |&model: &usize| {
            let standings = form.standings(&histories[model]);
            let sum: f32 = standings.iter().map(|standing| standing.z).sum();
            sum / (standings.len() as f32 + shrink)
        };
        // Accuracies on the nearest task on which any candidate was measured; the others count as average.
        let on = |task: [u8; 32]| -> Vec<f32> {
            let standing = |&model: &usize| {
                let history = histories[model].iter().filter(|evidence| evidence.task == task);
                let evidence = history.min_by_key(|evidence| evidence.kind)?;
                Some(form.standings(std::slice::from_ref(evidence)).pop()?.z)
            };
            query.models.iter().map(|model| standing(model).unwrap_or(0.0)).collect()
        };
        let basis = self.reference.basis();
        let nearest = located.nearest.iter().map(|&(task, _)| on(basis[task]));
        let nearest = nearest.into_iter().find(|scores| scores.iter().any(|&score| score != 0.0));
        let none = || vec![0.0; query.models.len()];
        [query.models.iter().map(average).collect(), nearest.unwrap_or_else(none)]
    }

    fn contestant(
        &self,
        learned: &Learned,
        sample: &TaskSample,
        query: &Query,
        histories: &[Vec<Evidence<'_>>],
    ) -> Result<Scored, Error> {
        let Learned { encoders, fresh } = learned;
        let task = encoders.encode_task(sample)?;
        let cosine = |&model: &usize| -> f32 {
            let placed = |known: &Evidence<'_>| {
                let encoding = fresh.get(&known.task);
                Evidence { task: known.task, kind: known.kind, accuracy: known.accuracy, encoding }
            };
            let history: Vec<Evidence<'_>> = histories[model].iter().map(placed).collect();
            let known = closed_form::evidence(&self.set, model, &history);
            encoders.encode_model(&known).iter().zip(&task.vector).map(|(a, b)| a * b).sum()
        };
        let cosines: Vec<f32> = query.models.iter().map(cosine).collect();
        let mut scored = Scored::new(&cosines, &query.truth);
        let (mut error, mut inside) = (0.0, 0);
        for (&cosine, &truth) in cosines.iter().zip(&query.truth) {
            let predicted = encoders.predict(&task, cosine);
            error += (predicted.accuracy - truth).abs();
            let [low, high] = predicted.interval;
            inside += usize::from((low..=high).contains(&truth));
        }
        let count = query.truth.len() as f32;
        scored.predicted = Some((100.0 * error / count, inside as f32 / count));
        Ok(scored)
    }
}

/// Tasks with rows that are not among the known ones.
fn unknown(set: &TrainingSet, known: &[[u8; 32]]) -> Vec<usize> {
    let missing = |task: &super::TrainingTask| task.sample.is_some() && !known.contains(&task.id);
    (0..set.tasks.len()).filter(|&index| missing(&set.tasks[index])).collect()
}

/// The set without these tasks and their pairs.
fn without(set: &TrainingSet, group: &[usize]) -> TrainingSet {
    let mut moved = vec![None; set.tasks.len()];
    let mut out = TrainingSet::default();
    for (index, task) in set.tasks.iter().enumerate() {
        if !group.contains(&index) {
            moved[index] = Some(out.tasks.len());
            out.tasks.push(task.clone());
        }
    }
    out.models = set.models.clone();
    for model in &mut out.models {
        model.seen =
            model.seen.iter().filter_map(|&seen| moved.get(seen).copied().flatten()).collect();
    }
    out.pairs = set
        .pairs
        .iter()
        .filter_map(|pair| Some(super::TrainingPair { task: moved[pair.task]?, ..*pair }))
        .collect();
    out
}

/// All methods on one task.
struct Outcome {
    task: usize,
    best: f32,
    mean: f32,
    methods: Vec<Scored>,
}

/// One method on one task; losses in accuracy points.
struct Scored {
    loss: f32,
    best5: f32,
    spearman: f32,
    tau: f32,
    /// Mean absolute error in points, and cover.
    predicted: Option<(f32, f32)>,
}

impl Scored {
    fn new(scores: &[f32], truth: &[f32]) -> Self {
        let best = truth.iter().copied().fold(0.0, f32::max);
        let order = ranking(scores);
        let reached =
            |count: usize| order.iter().take(count).map(|&index| truth[index]).fold(0.0, f32::max);
        Self {
            loss: 100.0 * (best - reached(1)),
            best5: 100.0 * (best - reached(5)),
            spearman: spearman(scores, truth),
            tau: weighted_tau(scores, truth),
            predicted: None,
        }
    }

    /// Expected figures of a random order.
    fn random(truth: &[f32]) -> Self {
        let mut sorted = truth.to_vec();
        sorted.sort_by(f32::total_cmp);
        let count = sorted.len();
        let best = sorted.last().copied().unwrap_or(0.0);
        let mean = sorted.iter().sum::<f32>() / count.max(1) as f32;
        let drawn = count.min(5);
        // The largest of the draw is at or below position i in C(i + 1, drawn) of C(count, drawn) draws.
        let below = |position: usize| -> f64 {
            (0..drawn)
                .map(|j| (position + 1).saturating_sub(j) as f64 / (count - j) as f64)
                .product()
        };
        let mut reached = 0.0;
        for (position, &value) in sorted.iter().enumerate() {
            let lower = if position == 0 { 0.0 } else { below(position - 1) };
            reached += f64::from(value) * (below(position) - lower);
        }
        Self {
            loss: 100.0 * (best - mean),
            best5: 100.0 * (best - reached as f32),
            spearman: 0.0,
            tau: 0.0,
            predicted: None,
        }
    }
}

fn summary(outcomes: &[Outcome], contestants: &[Contestant<'_>]) -> Evaluation {
    let seed = contestants.first().map_or(0, |first| first.options.seed);
    let names = BASELINES.into_iter().chain(contestants.iter().map(|contestant| contestant.name));
    let names: Vec<String> = names.map(str::to_owned).collect();
    let fixed = |outcome: &Outcome| outcome.methods[2].loss;
    let reference: Vec<f32> = outcomes.iter().map(fixed).collect();
    let row = |(index, method): (usize, String)| {
        let of: Vec<&Scored> = outcomes.iter().map(|outcome| &outcome.methods[index]).collect();
        let losses: Vec<f32> = of.iter().map(|scored| scored.loss).collect();
        let differences: Vec<f32> = losses.iter().zip(&reference).map(|(a, b)| a - b).collect();
        let predicted: Vec<(f32, f32)> = of.iter().filter_map(|scored| scored.predicted).collect();
        let part = |take: fn(&(f32, f32)) -> f32| {
            (!predicted.is_empty()).then(|| mean(&predicted.iter().map(take).collect::<Vec<_>>()))
        };
        let average = |take: fn(&Scored) -> f32| {
            mean(&of.iter().map(|scored| take(scored)).collect::<Vec<_>>())
        };
        MethodRow {
            loss: mean(&losses),
            loss_interval: bootstrap(&losses, seed),
            best5: average(|scored| scored.best5),
            spearman: average(|scored| scored.spearman),
            tau: average(|scored| scored.tau),
            mae: part(|predicted| predicted.0),
            cover: part(|predicted| predicted.1),
            against_static: (method != "static" && !differences.is_empty())
                .then(|| (mean(&differences), bootstrap(&differences, seed))),
            method,
            losses,
        }
    };
    Evaluation {
        tasks: outcomes.iter().map(|outcome| outcome.task).collect(),
        best_accuracy: mean(&outcomes.iter().map(|outcome| outcome.best).collect::<Vec<_>>()),
        mean_accuracy: mean(&outcomes.iter().map(|outcome| outcome.mean).collect::<Vec<_>>()),
        rows: names.into_iter().enumerate().map(row).collect(),
    }
}

fn mean(values: &[f32]) -> f32 {
    let sum: f64 = values.iter().map(|&value| f64::from(value)).sum();
    (sum / values.len().max(1) as f64) as f32
}

/// 90 % interval of the mean, by drawing tasks with replacement.
fn bootstrap(values: &[f32], seed: u64) -> [f32; 2] {
    if values.is_empty() {
        return [0.0, 0.0];
    }
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut means: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let draw = (0..values.len()).map(|_| values[random.random_range(0..values.len())]);
            draw.map(f64::from).sum::<f64>() / values.len() as f64
        })
        .collect();
    let low = quantile(&mut means, 0.05) as f32;
    [low, quantile(&mut means, 0.95) as f32]
}
