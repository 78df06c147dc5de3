//! Methods that run networks on the query's own training part.

use super::score::Scored;
use super::{Answer, Query, STATIC};
use crate::encoder::Prediction;
use crate::encoder::belief::{self, Belief, Candidate};
use std::collections::HashMap;

/// Methods that run every network on the query.
pub(super) const WHOLE: [&str; 2] = ["logme", "probe"];
/// Probes that the first contestant is granted.
const PROBES: [usize; 3] = [3, 5, 10];

/// What a probe tells of a network on a task.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimates {
    /// Leave-one-out accuracy of a ridge probe of the training part, 0..=1.
    pub loo: f32,
    /// LogME of the training part.
    pub logme: f32,
    /// Accuracy on the test part, 0..=1; `None` where only results over all images are known.
    pub held_out: Option<f32>,
    /// What the probe took.
    pub seconds: Option<f32>,
}

/// Estimates by (task, model).
pub type Scores = HashMap<(usize, usize), Estimates>;

/// A row's name where it is judged on images that no probe saw, beside its name elsewhere.
pub(super) fn held_out(method: &str) -> String {
    format!("{method} held-out")
}

/// The rows in order: the static list and the contestant without probes only where they are judged on other images
/// than above.
pub(super) fn names(contestant: &str, scores: &Scores) -> Vec<String> {
    let bare = [STATIC, contestant].into_iter().filter(|_| splits(scores)).map(held_out);
    let whole = WHOLE.iter().map(|&name| name.to_owned());
    let probed = PROBES.iter().map(|count| format!("{contestant}+{count}"));
    bare.chain(whole).chain(probed).collect()
}

/// Whether accuracies on images that no probe saw are known.
fn splits(scores: &Scores) -> bool {
    scores.values().any(|estimates| estimates.held_out.is_some())
}

/// A query's candidates as their probes see them.
pub(super) struct Probed {
    /// `None` for candidates that were not probed.
    estimates: Vec<Option<Estimates>>,
    /// Accuracies on images that no probe saw, as far as they are known.
    truth: Vec<f32>,
    /// Whether those differ from the query's own.
    splits: bool,
}

impl Probed {
    pub(super) fn new(scores: &Scores, query: &Query) -> Self {
        let estimates: Vec<Option<Estimates>> =
            query.models.iter().map(|&model| scores.get(&(query.task, model)).copied()).collect();
        let unseen = estimates.iter().map(|one| one.and_then(|one| one.held_out));
        let truth = unseen.zip(&query.truth).map(|(unseen, &truth)| unseen.unwrap_or(truth));
        Self { truth: truth.collect(), estimates, splits: splits(scores) }
    }

    /// In the order of `names`; `fixed`: the static list's scores.
    pub(super) fn judge(
        &self,
        answer: &Answer,
        fixed: &[f32],
        clock: fn() -> f64,
    ) -> Vec<Option<Scored>> {
        let mut rows = Vec::new();
        if self.splits {
            rows.push(Some(Scored::new(fixed, &self.truth)));
            rows.push(Some(answer.scored(&self.truth)));
        }
        if self.estimates.iter().all(Option::is_none) {
            rows.resize(rows.len() + WHOLE.len() + PROBES.len(), None);
            return rows;
        }
        rows.extend(self.whole_zoo().map(Some));
        rows.extend(self.sequential(answer, clock).map(Some));
        rows
    }

    /// LogME and the probe of every candidate. Those that were not probed rank last.
    fn whole_zoo(&self) -> [Scored; 2] {
        let seconds = self.estimates.iter().flatten().map(|one| one.seconds).sum::<Option<f32>>();
        let scored = |take: fn(Estimates) -> f32| {
            let scores: Vec<f32> =
                self.estimates.iter().map(|one| one.map_or(f32::NEG_INFINITY, take)).collect();
            Scored::new(&scores, &self.truth).taking(seconds.map(|seconds| 1e3 * seconds))
        };
        let loo = self.estimates.iter().map(|one| one.map_or(0.0, |one| one.loo));
        let probe = scored(|one| one.loo).with_accuracies(&loo.collect::<Vec<_>>(), &self.truth);
        [scored(|one| one.logme), probe]
    }

    /// The contestant after some probes, in the order in which `query` would make them.
    fn sequential(&self, answer: &Answer, clock: fn() -> f64) -> [Scored; PROBES.len()] {
        let known = answer.predictions.iter().zip(&answer.vectors).zip(&self.estimates);
        let candidates: Vec<Candidate<'_>> = known
            .map(|((&prediction, vector), estimate)| Candidate {
                prediction,
                vector,
                runnable: estimate.is_some(),
            })
            .collect();
        let vectors: Vec<&[f32]> = candidates.iter().map(|one| one.vector).collect();
        let distance = belief::typical_distance(&vectors);
        let start = clock();
        // As those of the corpus do.
        let mut belief = Belief::new(&answer.task, &candidates, (distance, true));
        let (mut probes, mut seconds) = (0, Some(0.0));
        PROBES.map(|count| {
            while let Some(next) = belief.next().filter(|_| probes < count) {
                probes += 1;
                let Some(found) = self.estimates[next] else { break };
                belief.observe(next, found.loo);
                seconds = seconds.and_then(|sum: f32| Some(sum + found.seconds?));
            }
            let predictions: Vec<Prediction> =
                (0..self.truth.len()).map(|at| belief.prediction(at)).collect();
            let passed = (answer.ms + clock() - start) as f32;
            let ranked = Scored::new(&belief.standings(), &self.truth);
            let scored = ranked.with_predictions(&predictions, &self.truth);
            scored.taking(seconds.map(|seconds| passed + 1e3 * seconds))
        })
    }
}
