//! Leave-tasks-out evaluation: how good is the first pick on tasks never seen?

mod cold;
mod fixed;
mod probed;
pub mod records;
mod score;

pub use probed::{Estimates, Scores};
pub use score::MethodRow;

use super::{FitOptions, Memory, Recipe, TrainingSet, closed_form};
use crate::encoder::{Encoders, Error, Kind, Prediction, TaskEncoding, TaskSample};
use closed_form::Known;
use fixed::{Fixed, STATIC_SHRINK};
use probed::Probed;
use score::Scored;
use std::collections::HashMap;
use std::ops::ControlFlow;

/// Tasks with fewer candidates say nothing about picking.
const CANDIDATES_MIN: usize = 3;
/// Methods that need no recipe, in the order of their rows.
const BASELINES: [&str; 4] = ["random", "params", STATIC, "nearest"];
/// The static list's row.
const STATIC: &str = "static";
/// What is held out, and what a query may look at.
#[derive(Clone, Copy)]
pub struct Protocol<'a> {
    /// Folds over families; `None` holds out one family at a time.
    pub folds: Option<usize>,
    /// What the networks' probes say of the queries: rows for LogME, the probe of the whole zoo, and the first
    /// contestant with some probes, judged on images that no probe saw where those accuracies are known.
    pub scores: Option<&'a Scores>,
    /// The results that candidates are judged by; `None` for the first of probe, finetune, reported that at least three
    /// candidates have. Other kinds than that of the probes are not known for images that no probe saw.
    pub judge: Option<Kind>,
    /// Only models with at most so many parameters are candidates; the others are learned from all the same.
    pub params_max: Option<u64>,
    /// Rows for networks that the first contestant's encoders know nothing of.
    pub cold: bool,
    /// Where encoders of an evaluation that was stopped are found again.
    pub memory: Option<&'a dyn Memory>,
    /// Milliseconds now.
    pub clock: fn() -> f64,
}

impl Default for Protocol<'_> {
    /// The contestants alone, one family at a time, in no time.
    fn default() -> Self {
        Self {
            folds: None,
            scores: None,
            judge: None,
            params_max: None,
            cold: false,
            memory: None,
            clock: || 0.0,
        }
    }
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
    /// Whether the first contestant's first pick is better than each of the static list, LogME and `tans2021` that took
    /// part.
    pub verdict: Vec<Comparison>,
}

/// The first contestant beside another method.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Comparison {
    /// The other method.
    pub method: String,
    /// Paired difference of loss in accuracy points (negative = better), with its 90 % bootstrap interval over tasks.
    pub difference: f32,
    /// Its interval.
    pub interval: [f32; 2],
}

impl Comparison {
    /// Whether the interval lies below 0.
    pub fn is_better(&self) -> bool {
        self.interval[1] < 0.0
    }
}

/// Holds out each family in turn, or folds of families, fits on the rest, ranks the uncontaminated models.
///
/// Tasks without a sample cannot be asked about; tasks with fewer than three candidates are left out. Candidates are
/// the models that have seen no task of the query's family and have a result there that they are judged by. Every contestant is fitted on the other families' tasks and pairs alone.
/// `progress(folds done, folds)`; `Break` cancels.
///
/// # Errors
/// As `fit`; `Error::Cancelled`.
pub fn leave_tasks_out(
    set: &TrainingSet,
    contestants: &[Contestant<'_>],
    protocol: &Protocol<'_>,
    progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Evaluation, Error> {
    super::check(set)?;
    let groups = groups(set, protocol.folds);
    let mut outcomes = Vec::new();
    for (done, group) in groups.iter().enumerate() {
        if progress(done, groups.len()).is_break() {
            return Err(Error::Cancelled);
        }
        let queries: Vec<Query> =
            group.iter().filter_map(|&task| Query::new(set, task, protocol)).collect();
        if queries.is_empty() {
            continue;
        }
        let stop = &mut || progress(done, groups.len());
        let fold = Fold::fit(set, group, contestants, protocol.memory, stop)?;
        let cold = match protocol.cold {
            true => Some(cold::Cold::fit(&fold.set, &fold.options, stop)?),
            false => None,
        };
        let known = fold.known();
        for query in queries {
            let mut outcome = fold.judge(set, &query, (&known, protocol))?;
            if let (Some(cold), Some(sample)) = (&cold, &set.tasks[query.task].sample) {
                outcome.methods.extend(cold.judge(&query, sample)?);
            }
            outcomes.push(outcome);
        }
    }
    outcomes.sort_by_key(|outcome| outcome.task);
    // The last call only reports: everything is done.
    let _ = progress(groups.len(), groups.len());
    Ok(summary(&outcomes, contestants, protocol))
}

/// Tasks that are held out together: families, dealt in turn into `folds` where given.
pub(super) fn groups(set: &TrainingSet, folds: Option<usize>) -> Vec<Vec<usize>> {
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
    fn new(set: &TrainingSet, task: usize, protocol: &Protocol<'_>) -> Option<Self> {
        set.tasks[task].sample.as_ref()?;
        let family = &set.tasks[task].family;
        let is_candidate = |model: usize| {
            let model = &set.models[model];
            let mut seen = model.seen.iter().filter_map(|&seen| set.tasks.get(seen));
            let is_clean = !seen.any(|seen| seen.family == *family);
            is_clean && protocol.params_max.is_none_or(|most| (1..=most).contains(&model.params))
        };
        let kinds = [Kind::Probe, Kind::Finetune, Kind::Reported].into_iter();
        kinds.filter(|&kind| protocol.judge.is_none_or(|judge| judge == kind)).find_map(|kind| {
            let (models, truth): (Vec<usize>, Vec<f32>) = set
                .pairs
                .iter()
                .filter(|pair| pair.task == task && pair.kind == kind && is_candidate(pair.model))
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
    fixed: Fixed,
    /// Finds the nearest task.
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
        memory: Option<&dyn Memory>,
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
                    super::fit_once(&known, &asked.0, memory, &mut |_, _, _| stop())?
                }
            };
            fitted.push((asked, encoders.clone()));
            learned.push(Learned::new(encoders, &rest)?);
        }
        let fixed = Fixed::new(&rest, &options);
        Ok(Self { set: rest, options, fixed, reference, learned })
    }

    /// What each contestant knows of each model.
    fn known(&self) -> Vec<Vec<Known<'_>>> {
        let fresh = self.learned.iter().map(|learned| &learned.fresh);
        fresh.map(|fresh| closed_form::known(&self.set, &|task| fresh.get(task))).collect()
    }

    fn judge(
        &self,
        set: &TrainingSet,
        query: &Query,
        (known, protocol): (&[Vec<Known<'_>>], &Protocol<'_>),
    ) -> Result<Outcome, Error> {
        let Some(sample) = &set.tasks[query.task].sample else {
            return Err(Error::Numerical("a query lost its sample".into()));
        };
        let located = self.reference.encode_task(sample)?;
        let params = |&model: &usize| set.models[model].params as f32;
        let mut scores = vec![query.models.iter().map(params).collect::<Vec<f32>>()];
        scores.push(self.fixed.list(&query.models));
        scores.push(self.fixed.nearest(&self.set, (&self.reference, &located), &query.models));
        let mut methods = vec![Some(Scored::random(&query.truth))];
        methods.extend(scores.iter().map(|scores| Some(Scored::new(scores, &query.truth))));
        let mut rows = Vec::new();
        for (index, (learned, known)) in self.learned.iter().zip(known).enumerate() {
            let encoders = &learned.encoders;
            let answer = self.answer((encoders, known), sample, query, protocol.clock)?;
            methods.push(Some(answer.scored(&query.truth)));
            if let (0, Some(all)) = (index, protocol.scores) {
                let probed = Probed::new(all, query);
                rows = probed.judge(&answer, &scores[1], protocol.clock);
            }
        }
        methods.extend(rows);
        let best = query.truth.iter().copied().fold(0.0, f32::max);
        let mean = query.truth.iter().sum::<f32>() / query.truth.len() as f32;
        Ok(Outcome { task: query.task, best, mean, methods })
    }

    /// A contestant's vectors are stored, so that a query encodes its dataset and compares.
    fn answer(
        &self,
        (encoders, known): (&Encoders, &[Known<'_>]),
        sample: &TaskSample,
        query: &Query,
        clock: fn() -> f64,
    ) -> Result<Answer, Error> {
        let vector = |&model: &usize| -> Vec<f32> {
            encoders.encode_model(&closed_form::evidence(&self.set, model, &known[model]))
        };
        let vectors: Vec<Vec<f32>> = query.models.iter().map(vector).collect();
        let start = clock();
        let task = encoders.encode_task(sample)?;
        let cosine = |vector: &Vec<f32>| -> f32 {
            vector.iter().zip(&task.vector).map(|(a, b)| a * b).sum()
        };
        let cosines: Vec<f32> = vectors.iter().map(cosine).collect();
        let predictions: Vec<Prediction> =
            cosines.iter().map(|&cosine| encoders.predict(&task, cosine)).collect();
        let ms = clock() - start;
        Ok(Answer { task, vectors, cosines, predictions, ms })
    }
}

/// What a contestant says of a query's candidates.
struct Answer {
    task: TaskEncoding,
    vectors: Vec<Vec<f32>>,
    cosines: Vec<f32>,
    predictions: Vec<Prediction>,
    ms: f64,
}

impl Answer {
    fn scored(&self, truth: &[f32]) -> Scored {
        let ranked = Scored::new(&self.cosines, truth);
        ranked.with_predictions(&self.predictions, truth).taking(Some(self.ms as f32))
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
    methods: Vec<Option<Scored>>,
}

/// The methods in the order of their rows.
fn names(contestants: &[Contestant<'_>], protocol: &Protocol<'_>) -> Vec<String> {
    let fixed = BASELINES.iter().map(|&name| name.to_owned());
    let learned = contestants.iter().map(|contestant| contestant.name.to_owned());
    let first = contestants.first().zip(protocol.scores);
    let probed = first.map_or_else(Vec::new, |(first, all)| probed::names(first.name, all));
    let cold = cold::MEASURED.iter().filter(|_| protocol.cold).map(|count| match count {
        0 => "cold".to_owned(),
        _ => format!("cold+{count}"),
    });
    fixed.chain(learned).chain(probed).chain(cold).collect()
}

fn summary(
    outcomes: &[Outcome],
    contestants: &[Contestant<'_>],
    protocol: &Protocol<'_>,
) -> Evaluation {
    let seed = contestants.first().map_or(0, |first| first.options.seed);
    let of = |index: usize| -> Vec<Option<Scored>> {
        outcomes.iter().map(|outcome| outcome.methods[index]).collect()
    };
    let names = names(contestants, protocol);
    // Networks without results are ranked among themselves, which is another question than the static list's.
    let cold = names.len() - if protocol.cold { cold::MEASURED.len() } else { 0 };
    let own_static = names.iter().position(|name| *name == probed::held_out(STATIC));
    let row = |(index, method)| {
        // Rows after the probed group's own static list belong to that group.
        let fixed = own_static.filter(|&at| index >= at).unwrap_or(2);
        let fixed: Vec<Option<f32>> = of(fixed).iter().map(|it| it.map(|it| it.loss)).collect();
        let row = score::row(method, &of(index), &fixed, seed);
        MethodRow { against_static: row.against_static.filter(|_| index < cold), ..row }
    };
    let rows = names.into_iter().enumerate().map(row);
    let rows: Vec<MethodRow> = rows.filter(|row| row.tasks > 0).collect();
    let average =
        |take: fn(&Outcome) -> f32| score::mean(&outcomes.iter().map(take).collect::<Vec<_>>());
    Evaluation {
        tasks: outcomes.iter().map(|outcome| outcome.task).collect(),
        best_accuracy: average(|outcome| outcome.best),
        mean_accuracy: average(|outcome| outcome.mean),
        verdict: verdict(&rows, contestants.first().map_or("", |first| first.name), seed),
        rows,
    }
}

/// The methods that the first contestant has to beat, where they took part.
fn verdict(rows: &[MethodRow], first: &str, seed: u64) -> Vec<Comparison> {
    let row = |name: &str| rows.iter().find(|row| row.method == name);
    let Some(own) = row(first) else { return Vec::new() };
    let logme = probed::WHOLE[0];
    let others = [STATIC, logme, Recipe::Tans2021.name()].into_iter().filter(|&name| name != first);
    let compared = |name: &str| {
        // LogME ran on images that count among those of the other rows.
        let unseen = row(&probed::held_out(first)).filter(|_| name == logme);
        let losses = &unseen.unwrap_or(own).losses;
        let (difference, interval) = score::difference(losses, &row(name)?.losses, seed)?;
        Some(Comparison { method: name.to_owned(), difference, interval })
    };
    others.filter_map(compared).collect()
}
