//! The `default` recipe: a Gaussian process over task x network, served as one cosine.
//!
//! A dataset is q = [1, phi(q), 0]; a model is [w, rest], where w is what its kin and its own results let expect at
//! [1, phi], and `rest` completes every model to the same length, so that the cosine ranks as the inner product.
//!
//! The covariance of standings is (1 + K_task) x (K_kin + OWN I), the noise NOISE. Given the duals of the kin, a model's
//! own share solves (c A + NOISE) alpha = z - A w0 with A = 1 + K_task over its results and c the variance that its kin
//! leaves: for a network that the encoders were learned from, with the results of then, this is the process' posterior
//! mean itself, and with fewer, more or other results it is the update that `record` makes.

use super::basis::Basis;
use super::kinship::Kinship;
use super::linalg::{dot_f32, solve_ridge};
use super::predictor::{Predictor, SD_MIN};
use super::{Error, Evidence, Kind, ModelEvidence, Prediction, Source, TaskEncoding, TaskSample};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Variance of standings that a network has for itself, and noise of one standing.
pub(crate) const OWN: f64 = 0.1;
pub(crate) const NOISE: f64 = 0.7;
/// Variance of a predicted mean accuracy around the measured one, in predicted spreads, over the corpus with families
/// held out: what a result tells is doubtful by so much more where it cannot be compared with others of its kind.
pub(crate) const MISJUDGED: f64 = 3.7;
/// Results on a task that the network was trained on flatter it: they tell where it does well rather than how well.
const FLATTERED: f32 = 0.5;
/// Expected of networks of which no result and no source is known, unless their kin is worse.
const UNTRAINED: f32 = -2.0;
/// Standings beyond this are cut: one result on an easily misjudged task must not decide everything.
const STANDING_MAX: f32 = 3.0;
/// Nearest training tasks that are reported.
const NEAREST: usize = 8;

/// Mean and standard deviation of accuracies.
pub(crate) type Spread = (f32, f32);

/// What is frozen of one training task's accuracies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct TaskLevel {
    pub(crate) id: [u8; 32],
    /// Measured over at least three models: probe, finetune, reported.
    pub(crate) measured: [Option<Spread>; 3],
    /// Over a reference population.
    pub(crate) prior: Option<Spread>,
    /// From the predictor; `None` for reference tasks.
    pub(crate) predicted: Option<Spread>,
}

impl TaskLevel {
    /// Mean and spread of accuracies of this kind.
    fn known(&self, kind: Kind) -> Option<Spread> {
        let prior = self.prior.filter(|_| kind == Kind::Probe);
        self.measured[kind as usize].or(prior)
    }

    /// What they may be near where they are not known.
    fn guessed(&self) -> Option<Spread> {
        self.prior.or(self.predicted)
    }
}

/// Frozen task basis and static parts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClosedForm {
    pub(crate) basis: Basis,
    /// Sorted by id.
    pub(crate) levels: Vec<TaskLevel>,
    pub(crate) predictor: Predictor,
    /// Empty while too few networks were measured.
    pub(crate) kinship: Option<Kinship>,
    /// Length of every model's vector before normalising.
    pub(crate) radius: f32,
}

/// A standing at a point of the task space.
pub(crate) struct Standing<'a> {
    pub(crate) task: [u8; 32],
    pub(crate) z: f32,
    /// How much of the mean standing it tells.
    pub(crate) level: f32,
    /// Square root of the noise of standings over its own: 1 where the accuracies of its kind are known.
    pub(crate) trust: f64,
    /// Coordinates of the task; empty for reference tasks.
    pub(crate) at: &'a [f32],
}

impl Standing<'_> {
    /// Where it counts, in the coordinates of a model's weights; what it says there is `weighted`.
    pub(crate) fn place(&self, size: usize) -> Vec<f64> {
        let mut place = vec![0.0; size];
        place[0] = f64::from(self.level);
        place[1..].iter_mut().zip(self.at).for_each(|(out, &value)| *out = f64::from(value));
        place.iter_mut().for_each(|value| *value *= self.trust);
        place
    }

    /// The standing at its place, so that all have the same noise.
    pub(crate) fn weighted(&self) -> f64 {
        f64::from(self.z) * self.trust
    }
}

impl ClosedForm {
    /// Dimension of every vector.
    pub(crate) fn dim(&self) -> usize {
        self.basis.k + 2
    }

    /// Training tasks.
    pub(crate) fn tasks(&self) -> &[[u8; 32]] {
        &self.basis.tasks
    }

    pub(crate) fn encode_task(&self, sample: &TaskSample) -> Result<TaskEncoding, Error> {
        self.basis.check(sample)?;
        let blocks = self.basis.describe(sample);
        let kernel = self.basis.kernel(&blocks);
        let chance = sample.chance();
        let (accuracy_mean, accuracy_sd) = self.predictor.expect(chance, &blocks[2], &kernel);
        let features = self.basis.locate(sample, &kernel);
        if features.iter().chain([&accuracy_mean]).any(|value| !value.is_finite()) {
            return Err(Error::Numerical("the dataset's features overflow".into()));
        }
        let mut vector = vec![1.0];
        vector.extend(&features);
        vector.push(0.0);
        let length = dot_f32(&vector, &vector).sqrt();
        vector.iter_mut().for_each(|value| *value /= length);
        let mut nearest: Vec<(usize, f32)> = kernel.into_iter().enumerate().collect();
        nearest.sort_by(|a, b| b.1.total_cmp(&a.1));
        nearest.truncate(NEAREST);
        let scale = length * self.radius;
        Ok(TaskEncoding { vector, scale, accuracy_mean, accuracy_sd, nearest, features })
    }

    pub(crate) fn encode_model(&self, model: &ModelEvidence<'_>) -> Vec<f32> {
        complete(self.weights(model), self.radius)
    }

    pub(crate) fn predict(&self, task: &TaskEncoding, cosine: f32) -> Prediction {
        let accuracy = task.accuracy_mean + task.accuracy_sd * cosine * task.scale;
        let half = self.predictor.half_width * task.accuracy_sd;
        super::prediction(accuracy, half)
    }

    /// Standings from a history: one for each task, probes before fine-tunes before reports.
    pub(crate) fn standings<'a>(&'a self, history: &'a [Evidence<'a>]) -> Vec<Standing<'a>> {
        let mut chosen: BTreeMap<[u8; 32], &Evidence<'_>> = BTreeMap::new();
        for evidence in history.iter().filter(|evidence| evidence.accuracy.is_finite()) {
            let entry = chosen.entry(evidence.task).or_insert(evidence);
            if evidence.kind < entry.kind {
                *entry = evidence;
            }
        }
        chosen.into_values().filter_map(|evidence| self.standing(evidence)).collect()
    }

    /// `None` where nothing is known that the accuracy could be compared with.
    fn standing<'a>(&'a self, evidence: &'a Evidence<'a>) -> Option<Standing<'a>> {
        let encoding = evidence.encoding.filter(|encoding| self.fits(encoding));
        let known = self.levels.binary_search_by_key(&evidence.task, |level| level.id).ok();
        let known = known.map(|index| &self.levels[index]);
        let expected = encoding.map(|encoding| (encoding.accuracy_mean, encoding.accuracy_sd));
        let (spread, trust) = match known.and_then(|level| level.known(evidence.kind)) {
            Some(spread) => (spread, 1.0),
            None => {
                let guessed = known.and_then(TaskLevel::guessed).or(expected)?;
                (guessed, (NOISE / (NOISE + MISJUDGED)).sqrt())
            }
        };
        let at = match self.basis.position(&evidence.task) {
            Some(task) => self.basis.coordinates_of(task),
            None => encoding.map_or(&[][..], |encoding| &encoding.features),
        };
        let level = if evidence.is_own { FLATTERED } else { 1.0 };
        Some(Standing {
            task: evidence.task,
            z: standardised(evidence.accuracy, spread),
            level,
            trust,
            at,
        })
    }

    /// Encodings of other encoders may reach us by mistake; they must not panic.
    fn fits(&self, encoding: &TaskEncoding) -> bool {
        encoding.features.len() == self.basis.k
            && encoding.features.iter().all(|value| value.is_finite())
            && encoding.accuracy_mean.is_finite()
            && encoding.accuracy_sd.is_finite()
    }

    /// What a model's kin and its results let expect, `[k + 1]`, not yet clipped.
    pub(crate) fn weights(&self, model: &ModelEvidence<'_>) -> Vec<f32> {
        let size = self.basis.k + 1;
        let (mut expected, left) = match &self.kinship {
            Some(kinship) => {
                let (features, known) = kinship.describe(model, &self.sources(model));
                kinship.expect(&features, known, size)
            }
            None => (vec![0.0; size], 1.0),
        };
        let standings = self.standings(model.history);
        if model.history.is_empty() && !model.is_trained {
            expected[0] = expected[0].min(UNTRAINED);
        }
        let own = update(&standings, &expected, OWN + f64::from(left));
        expected.iter_mut().zip(own).for_each(|(sum, value)| *sum += value);
        expected
    }

    /// Coordinates of the tasks that a model was trained on, where they are known.
    pub(crate) fn sources<'a>(&'a self, model: &ModelEvidence<'a>) -> Vec<&'a [f32]> {
        let place = |source: &Source<'a>| match self.basis.position(&source.task) {
            Some(task) => Some(self.basis.coordinates_of(task)),
            None => Some(&source.encoding.filter(|encoding| self.fits(encoding))?.features[..]),
        };
        model.sources.iter().filter_map(place).collect()
    }
}

/// The unit vector of a model: cut to the radius, with the coordinate that completes it to that length.
pub(crate) fn complete(mut vector: Vec<f32>, radius: f32) -> Vec<f32> {
    let length = dot_f32(&vector, &vector).sqrt();
    if length > radius {
        vector.iter_mut().for_each(|value| *value *= radius / length);
    }
    let rest = (radius.powi(2) - length.min(radius).powi(2)).max(0.0).sqrt();
    vector.push(rest);
    super::linalg::normalise(&mut vector);
    vector
}

/// A'(A A' + NOISE / c)^-1 (z - A w) for the places A of a model's results, in its form of the size of w.
fn update(standings: &[Standing<'_>], expected: &[f32], variance: f64) -> Vec<f32> {
    let size = expected.len();
    let (mut gram, mut right) = (vec![0.0; size * size], vec![0.0; size]);
    for standing in standings {
        let place = standing.place(size);
        let known: f64 = place.iter().zip(expected).map(|(a, &b)| a * f64::from(b)).sum();
        for (row, &left) in place.iter().enumerate() {
            right[row] += left * (standing.weighted() - known);
            for (entry, value) in gram[row * size..=row * size + row].iter_mut().zip(&place) {
                *entry += left * value;
            }
        }
    }
    // The matrix is positive definite by the ridge, so a failure means overflow: then the expectation stands.
    let solved = solve_ridge(&gram, NOISE / variance, &right).unwrap_or_else(|_| vec![0.0; size]);
    solved.into_iter().map(|value| value as f32).collect()
}

/// The accuracy in standard deviations from the mean, cut at both ends.
pub(crate) fn standardised(accuracy: f32, (mean, sd): Spread) -> f32 {
    ((accuracy - mean) / sd.max(SD_MIN)).clamp(-STANDING_MAX, STANDING_MAX)
}
