//! Pure learning: a training set in, encoders and metrics out. No database, no clock.

#[cfg(feature = "torch")]
mod adam;
mod basis;
mod closed_form;
pub mod evaluate;
mod kinship;
mod levels;
#[cfg(feature = "torch")]
mod listwise;
#[cfg(feature = "torch")]
mod tans2021;

use crate::encoder::{Encoders, Error, Kind, TaskSample};
use std::ops::ControlFlow;
use std::sync::Arc;

/// A task to learn from.
#[derive(Clone, Debug)]
pub struct TrainingTask {
    /// Task id.
    pub id: [u8; 32],
    /// Tasks of one family are held out together.
    pub family: String,
    /// `None` for reference tasks: their results count for the static part only.
    pub sample: Option<Arc<TaskSample>>,
    /// Mean and standard deviation of probe accuracies over a reference population, used while fewer than three models were measured.
    pub prior: Option<(f32, f32)>,
}

/// A model to learn from; cheap to clone, because every fold of an evaluation has all models.
#[derive(Clone, Debug)]
pub struct TrainingModel {
    /// The 45 numbers of the Once-for-all space, or empty.
    pub numbers: Arc<[f32]>,
    /// Fixed-length summary of the graph.
    pub topology: Arc<[f32]>,
    /// 512 numbers.
    pub signature: Option<Arc<[f32]>>,
    /// Parameters.
    pub params: u64,
    /// Indices of tasks it was trained on.
    pub seen: Vec<usize>,
    /// Whether it was trained on any, known or not.
    pub is_trained: bool,
}

/// One measured accuracy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrainingPair {
    /// Index of the task.
    pub task: usize,
    /// Index of the model.
    pub model: usize,
    /// How it was measured.
    pub kind: Kind,
    /// 0..=1.
    pub accuracy: f32,
}

/// Everything that encoders are learned from.
#[derive(Default)]
pub struct TrainingSet {
    /// Tasks.
    pub tasks: Vec<TrainingTask>,
    /// Models.
    pub models: Vec<TrainingModel>,
    /// The latest accuracy per (task, model, kind).
    pub pairs: Vec<TrainingPair>,
}

/// How encoders are learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Recipe {
    /// Closed form (DESIGN §7).
    Default,
    /// The published baseline.
    Tans2021,
    /// Linear maps of what `Default` knows, trained on libtorch to order each task's networks.
    Listwise,
}

/// Options of `fit`.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct FitOptions {
    /// Recipe.
    pub recipe: Recipe,
    /// Epochs of the recipes that iterate. Default 200.
    pub epochs: usize,
    /// Seed.
    pub seed: u64,
    /// Whether a model's results on tasks that it has seen count as well. Default false: they flatter it, and say
    /// little of what it does elsewhere. (`tans2021` always takes its own pairs as positives.)
    #[serde(default)]
    pub seen_pairs: bool,
}

impl Recipe {
    /// Every recipe.
    pub const ALL: [Self; 3] = [Self::Default, Self::Tans2021, Self::Listwise];

    /// The recipe of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|recipe| recipe.name() == name)
    }

    /// The word for it on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Tans2021 => "tans2021",
            Self::Listwise => "listwise",
        }
    }
}

impl Default for FitOptions {
    fn default() -> Self {
        Self { recipe: Recipe::Default, epochs: 200, seed: 0, seen_pairs: false }
    }
}

impl FitOptions {
    fn uses(&self, set: &TrainingSet, pair: &TrainingPair) -> bool {
        self.seen_pairs || !set.models[pair.model].seen.contains(&pair.task)
    }
}

/// Learns encoders. `progress(epoch, epochs, loss)`; `Break` cancels.
///
/// The same set, options and machine give the same bytes.
///
/// # Errors
/// `Error::Input` for indices out of range, accuracies outside 0..=1, a task listed twice, samples that disagree in
/// their row dimension, or a recipe that this build cannot train; `Error::Cancelled`.
pub fn fit(
    set: &TrainingSet,
    options: &FitOptions,
    progress: &mut dyn FnMut(usize, usize, f32) -> ControlFlow<()>,
) -> Result<Encoders, Error> {
    check(set)?;
    match options.recipe {
        Recipe::Default => {
            if progress(0, 1, 0.0).is_break() {
                return Err(Error::Cancelled);
            }
            let form = closed_form::fit(set, options)?;
            // Nothing is installed yet, so that a late wish to stop is honoured too.
            if progress(1, 1, 0.0).is_break() {
                return Err(Error::Cancelled);
            }
            Ok(Encoders::Default(Box::new(form)))
        }
        #[cfg(feature = "torch")]
        Recipe::Tans2021 => {
            tans2021::fit(set, options, progress).map(|recipe| Encoders::Tans2021(Box::new(recipe)))
        }
        #[cfg(feature = "torch")]
        Recipe::Listwise => {
            listwise::fit(set, options, progress).map(|recipe| Encoders::Listwise(Box::new(recipe)))
        }
        #[cfg(not(feature = "torch"))]
        Recipe::Tans2021 | Recipe::Listwise => Err(Error::Input {
            what: "recipe",
            expected: "default (the others are trained on libtorch: build with feature torch)"
                .into(),
            found: options.recipe.name().into(),
        }),
    }
}

/// What earlier, stopped work has learned: the same set and options give the same encoders.
pub trait Memory {
    /// Encoders that were learned from exactly this before; else those of `learn`, which are kept.
    fn recall_or(
        &self,
        set: &TrainingSet,
        options: &FitOptions,
        learn: &mut dyn FnMut() -> Result<Encoders, Error>,
    ) -> Result<Encoders, Error>;
}

/// As [`fit`], unless `memory` has it. The closed form is learned in less time than it takes to look.
///
/// # Errors
/// As `fit`.
pub fn fit_once(
    set: &TrainingSet,
    options: &FitOptions,
    memory: Option<&dyn Memory>,
    progress: &mut dyn FnMut(usize, usize, f32) -> ControlFlow<()>,
) -> Result<Encoders, Error> {
    let mut learn = || fit(set, options, &mut *progress);
    match memory.filter(|_| options.recipe != Recipe::Default) {
        Some(memory) => memory.recall_or(set, options, &mut learn),
        None => learn(),
    }
}

fn check(set: &TrainingSet) -> Result<(), Error> {
    let refuse =
        |what, expected: String, found: String| Err(Error::Input { what, expected, found });
    let mut ids: Vec<[u8; 32]> = set.tasks.iter().map(|task| task.id).collect();
    ids.sort_unstable();
    if ids.windows(2).any(|pair| pair[0] == pair[1]) {
        return refuse("tasks to learn from", "each once".into(), "one listed twice".into());
    }
    let bad = |(mean, sd): (f32, f32)| !(0.0..=1.0).contains(&mean) || !(0.0..=1.0).contains(&sd);
    if let Some(prior) = set.tasks.iter().filter_map(|task| task.prior).find(|prior| bad(*prior)) {
        return refuse("a task's prior", "numbers in 0..1".into(), format!("{prior:?}"));
    }
    for pair in &set.pairs {
        if pair.task >= set.tasks.len() || pair.model >= set.models.len() {
            let expected = format!("{} tasks and {} models", set.tasks.len(), set.models.len());
            return refuse("a pair", expected, format!("task {} model {}", pair.task, pair.model));
        }
        if !(0.0..=1.0).contains(&pair.accuracy) {
            return refuse("accuracy", "a number in 0..1".into(), pair.accuracy.to_string());
        }
    }
    let mut numbers = set.models.iter().flat_map(|model| {
        let signature = model.signature.as_deref().unwrap_or_default();
        signature.iter().chain(&*model.topology).chain(&*model.numbers)
    });
    if numbers.any(|value| !value.is_finite()) {
        return refuse("a model", "finite numbers".into(), "NaN or infinity".into());
    }
    let mut lengths = set.models.iter().filter_map(|m| m.signature.as_ref().map(|it| it.len()));
    let first = lengths.next();
    match lengths.find(|&length| Some(length) != first) {
        None => Ok(()),
        Some(other) => refuse("signatures", format!("{first:?} numbers"), other.to_string()),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]
pub(crate) mod tests;
