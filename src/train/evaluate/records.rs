//! Leave-one-dataset-out on results alone: models of which nothing is known but what others measured.

use super::score::{self, MethodRow, Scored};
use super::{Comparison, Evaluation, STATIC_SHRINK};
use crate::encoder::Error;
use crate::encoder::closed_form::{NOISE, OWN};
use crate::encoder::linalg::{Cholesky, mean_sd};
use crate::encoder::metrics::average_ranks;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::ops::ControlFlow;

/// Results that are known of each model, at most: all, and few, drawn so many times.
const KNOWN: [Option<usize>; 3] = [None, Some(4), Some(1)];
const DRAWS: u64 = 3;
/// Datasets with fewer candidates say nothing about picking.
const CANDIDATES_MIN: usize = 3;
/// Beyond so many models their likeness is left out: it takes the cube of their number.
const ALIKE_MAX: usize = 2000;
/// Variance of a standing around the model's mean standing, and of LogME's normal score around the standing.
const AROUND: f64 = 0.1;
const LOGME_NOISE: f64 = 1.0;

/// What is stated of a model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StatedModel {
    /// Parameters.
    pub params: Option<f32>,
    /// Words such as its architecture and what it was trained on; empty where unknown.
    pub words: Vec<String>,
}

/// One result.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stated {
    /// Index of the model.
    pub model: usize,
    /// Index of the dataset.
    pub dataset: usize,
    /// 0..=1.
    pub accuracy: f32,
    /// LogME of the model on the dataset, where known.
    pub logme: Option<f32>,
}

/// Results of models on datasets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Records {
    /// Models.
    pub models: Vec<StatedModel>,
    /// Number of datasets.
    pub datasets: usize,
    /// At most one of each model and dataset.
    pub results: Vec<Stated>,
}

/// Ranks the models for each dataset by what is known of them on the others.
///
/// Rows `static` (mean normal score on the other datasets) and `default` (with the results of models that are alike);
/// then, on the datasets and models that have it, the static list again, LogME, the rank sum of both, and `default` with
/// LogME as a further observation. `@4` and `@1`: with so many known results of each model.
///
/// # Errors
/// `Error::Cancelled`; `Error::Numerical` if the results overflow.
pub fn leave_datasets_out(
    records: &Records,
    seed: u64,
    progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Evaluation, Error> {
    let covariance = covariance(&records.models);
    let queries: Vec<Query> =
        (0..records.datasets).filter_map(|dataset| Query::new(records, dataset)).collect();
    let (mut outcomes, mut names) = (Vec::new(), Vec::new());
    for (done, query) in queries.iter().enumerate() {
        if progress(done, queries.len()).is_break() {
            return Err(Error::Cancelled);
        }
        let mut figures = Vec::new();
        names.clear();
        for known in KNOWN {
            let draws = if known.is_some() { DRAWS } else { 1 };
            let mut drawn = Vec::new();
            for draw in 0..draws {
                let chosen = choose(records, query.dataset, known, seed + draw);
                drawn.push(query.judge(&Standings::new(records, &chosen, covariance.as_deref())?));
            }
            figures.extend((0..METHODS.len()).map(|method| {
                let of: Option<Vec<Scored>> = drawn.iter().map(|figures| figures[method]).collect();
                Scored::mean(&of?)
            }));
            let suffix = known.map_or_else(String::new, |count| format!("@{count}"));
            names.extend(METHODS.map(|method| format!("{method}{suffix}")));
        }
        outcomes.push(figures);
    }
    let _ = progress(queries.len(), queries.len());
    Ok(summary(&queries, &outcomes, &names, seed))
}

/// Methods for one number of known results.
const METHODS: [&str; 6] =
    ["static", "default", "static scored", "logme scored", "static+logme scored", "default scored"];

fn summary(
    queries: &[Query],
    outcomes: &[Vec<Option<Scored>>],
    names: &[String],
    seed: u64,
) -> Evaluation {
    let of =
        |at: usize| -> Vec<Option<Scored>> { outcomes.iter().map(|figures| figures[at]).collect() };
    let rows: Vec<MethodRow> = names
        .iter()
        .enumerate()
        .map(|(at, name)| {
            let round = at / METHODS.len() * METHODS.len();
            let fixed = if at - round < 2 { round } else { round + 2 };
            let losses: Vec<Option<f32>> =
                of(fixed).iter().map(|one| one.map(|one| one.loss)).collect();
            let row = score::row(name.clone(), &of(at), &losses, seed);
            MethodRow { against_static: row.against_static.filter(|_| at != fixed), ..row }
        })
        .collect();
    let compared = |own: usize, other: usize| {
        let (own, other): (&MethodRow, &MethodRow) = (rows.get(own)?, rows.get(other)?);
        let (difference, interval) = score::difference(&own.losses, &other.losses, seed)?;
        Some(Comparison { method: other.method.clone(), difference, interval })
    };
    let verdict = [compared(1, 0), compared(5, 3), compared(5, 4)].into_iter().flatten().collect();
    let average = |take: fn(&[f32]) -> f32| {
        score::mean(&queries.iter().map(|query| take(&query.truth)).collect::<Vec<_>>())
    };
    Evaluation {
        tasks: queries.iter().map(|query| query.dataset).collect(),
        best_accuracy: average(|truth| truth.iter().copied().fold(0.0, f32::max)),
        mean_accuracy: average(score::mean),
        // Without LogME there is nothing to say of it.
        rows: rows.into_iter().filter(|row| row.tasks > 0).collect(),
        verdict,
    }
}

/// A dataset and its candidates.
struct Query {
    dataset: usize,
    models: Vec<usize>,
    truth: Vec<f32>,
    /// Normal scores among the candidates that have LogME.
    logme: Vec<Option<f32>>,
}

impl Query {
    fn new(records: &Records, dataset: usize) -> Option<Self> {
        let results: Vec<&Stated> =
            records.results.iter().filter(|result| result.dataset == dataset).collect();
        let known: Vec<f32> = results.iter().filter_map(|result| result.logme).collect();
        let mut scores = normal_scores(&known).into_iter();
        (results.len() >= CANDIDATES_MIN).then(|| Self {
            dataset,
            models: results.iter().map(|result| result.model).collect(),
            truth: results.iter().map(|result| result.accuracy).collect(),
            logme: results.iter().map(|one| one.logme.and_then(|_| scores.next())).collect(),
        })
    }

    fn judge(&self, standings: &Standings) -> [Option<Scored>; METHODS.len()] {
        let fixed: Vec<f32> = self.models.iter().map(|&model| standings.fixed[model]).collect();
        let candidates = self.models.iter().zip(&self.logme);
        let alone: Vec<f32> =
            self.models.iter().map(|&model| standings.with(model, None)).collect();
        let learned: Vec<f32> =
            candidates.map(|(&model, &logme)| standings.with(model, logme)).collect();
        let scored: Vec<usize> =
            (0..self.models.len()).filter(|&at| self.logme[at].is_some()).collect();
        let part = |values: &[f32]| -> Vec<f32> { scored.iter().map(|&at| values[at]).collect() };
        let truth = part(&self.truth);
        let of = |values: &[f32]| {
            (scored.len() >= CANDIDATES_MIN).then(|| Scored::new(&part(values), &truth))
        };
        let logme: Vec<f32> = self.logme.iter().map(|one| one.unwrap_or(0.0)).collect();
        let ranks = average_ranks(&part(&fixed)).into_iter().zip(average_ranks(&part(&logme)));
        let sum: Vec<f32> = ranks.map(|(a, b)| (a + b) as f32).collect();
        let both = (scored.len() >= CANDIDATES_MIN).then(|| Scored::new(&sum, &truth));
        [
            Some(Scored::new(&fixed, &self.truth)),
            Some(Scored::new(&alone, &self.truth)),
            of(&fixed),
            of(&logme),
            both,
            of(&learned),
        ]
    }
}

/// Results on other datasets, no more than `known` of each model.
fn choose(records: &Records, dataset: usize, known: Option<usize>, seed: u64) -> Vec<Stated> {
    let mut results: Vec<Stated> =
        records.results.iter().filter(|result| result.dataset != dataset).copied().collect();
    let Some(most) = known else { return results };
    results.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    let mut counts = vec![0; records.models.len()];
    results.retain(|result| {
        counts[result.model] += 1;
        counts[result.model] <= most
    });
    results
}

/// What is known of each model's mean standing.
struct Standings {
    /// The static list.
    fixed: Vec<f32>,
    mean: Vec<f64>,
    variance: Vec<f64>,
}

impl Standings {
    fn new(
        records: &Records,
        results: &[Stated],
        covariance: Option<&[f64]>,
    ) -> Result<Self, Error> {
        let count = records.models.len();
        let (mut sums, mut counts) = (vec![0.0; count], vec![0.0; count]);
        for dataset in 0..records.datasets {
            let of: Vec<&Stated> = results.iter().filter(|one| one.dataset == dataset).collect();
            if of.len() < CANDIDATES_MIN {
                continue;
            }
            let accuracies: Vec<f32> = of.iter().map(|one| one.accuracy).collect();
            for (one, score) in of.iter().zip(normal_scores(&accuracies)) {
                sums[one.model] += f64::from(score);
                counts[one.model] += 1.0;
            }
        }
        let shrunk = |(sum, count): (&f64, &f64)| (sum / (count + f64::from(STATIC_SHRINK))) as f32;
        let fixed = sums.iter().zip(&counts).map(shrunk).collect();
        let (mean, variance) = match covariance {
            Some(covariance) => posterior(covariance, &sums, &counts)?,
            None => {
                let prior = 1.0 + OWN;
                let share = |count: f64| prior / (prior * count + NOISE);
                let known = sums.iter().zip(&counts);
                let mean = known.map(|(sum, &count)| sum * share(count)).collect();
                (mean, counts.iter().map(|&count| NOISE * share(count)).collect())
            }
        };
        Ok(Self { fixed, mean, variance })
    }

    /// The standing on a dataset, after LogME there.
    fn with(&self, model: usize, logme: Option<f32>) -> f32 {
        let (mean, variance) = (self.mean[model], self.variance[model] + AROUND);
        let moved = logme
            .map_or(0.0, |logme| variance / (variance + LOGME_NOISE) * (f64::from(logme) - mean));
        (mean + moved) as f32
    }
}

/// Mean and variance of each model's mean standing, given sums of its normal scores.
fn posterior(
    covariance: &[f64],
    sums: &[f64],
    counts: &[f64],
) -> Result<(Vec<f64>, Vec<f64>), Error> {
    let all = sums.len();
    let seen: Vec<usize> = (0..all).filter(|&model| counts[model] > 0.0).collect();
    let size = seen.len();
    let entry = |at: usize| {
        let (i, j) = (seen[at / size], seen[at % size]);
        covariance[i * all + j] + if i == j { NOISE / counts[i] } else { 0.0 }
    };
    let factor = Cholesky::new(size, (0..size * size).map(entry).collect())?;
    let means: Vec<f64> = seen.iter().map(|&model| sums[model] / counts[model]).collect();
    let dual = factor.solve(&means);
    let (mut mean, mut variance) = (Vec::with_capacity(all), Vec::with_capacity(all));
    for model in 0..all {
        let row: Vec<f64> = seen.iter().map(|&other| covariance[model * all + other]).collect();
        let known: f64 = row.iter().zip(factor.solve(&row)).map(|(a, b)| a * b).sum();
        mean.push(row.iter().zip(&dual).map(|(a, b)| a * b).sum());
        variance.push((covariance[model * all + model] - known).max(0.0));
    }
    Ok((mean, variance))
}

/// Models with the same words and as many parameters stand alike; `None` where there are too many models.
fn covariance(models: &[StatedModel]) -> Option<Vec<f64>> {
    let count = models.len();
    if count > ALIKE_MAX {
        return None;
    }
    let log = |model: &StatedModel| model.params.map(|params| f64::from(params.max(1.0)).ln());
    let (centre, sd) = mean_sd(&models.iter().filter_map(log).collect::<Vec<_>>());
    let size = |model: &StatedModel| {
        log(model).map_or(0.0, |log| if sd > 1e-9 { (log - centre) / sd } else { 0.0 })
    };
    let entry = |at: usize| {
        let (left, right) = (&models[at / count], &models[at % count]);
        if at / count == at % count {
            return 1.0 + OWN;
        }
        let differ =
            left.words.iter().zip(&right.words).filter(|(a, b)| a != b || a.is_empty()).count();
        (-(differ as f64 + (size(left) - size(right)).powi(2))).exp()
    };
    Some((0..count * count).map(entry).collect())
}

/// Quantiles of the normal distribution by rank (Tukey's lambda approximation, within 0.01).
fn normal_scores(values: &[f32]) -> Vec<f32> {
    let count = values.len() as f64;
    let score = |rank: f64| {
        let share = (rank + 0.5) / count;
        (4.91 * (share.powf(0.14) - (1.0 - share).powf(0.14))) as f32
    };
    average_ranks(values).into_iter().map(score).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]
mod tests {
    use super::*;
    use rand::Rng;

    /// Models of four kinds that decide half of their quality, and LogME that shows some of the rest.
    fn records(models: usize, datasets: usize) -> Records {
        let mut random = ChaCha8Rng::seed_from_u64(4);
        let mut normal = || (0..12).map(|_| random.random_range(0.0..1.0_f32)).sum::<f32>() - 6.0;
        let kinds: Vec<f32> = (0..4).map(|_| normal()).collect();
        let mut out = Records { datasets, ..Records::default() };
        for model in 0..models {
            let quality = kinds[model % 4] + 0.5 * normal();
            let words = vec![format!("kind {}", model % 4)];
            out.models.push(StatedModel { params: Some(1e6), words });
            for dataset in 0..datasets {
                let standing = quality + 0.7 * normal();
                let accuracy = (0.7 + 0.03 * standing).clamp(0.0, 1.0);
                let logme = (dataset % 2 == 0).then(|| standing + normal());
                out.results.push(Stated { model, dataset, accuracy, logme });
            }
        }
        out
    }

    #[test]
    fn kin_and_logme_help_where_few_results_are_known() {
        let go_on = &mut |_, _| ControlFlow::Continue(());
        let result = leave_datasets_out(&records(60, 12), 0, go_on).unwrap();
        let tau = |name: &str| result.rows.iter().find(|row| row.method == name).unwrap().tau;
        assert_eq!(result.rows.len(), 18);
        let near = |name: &str, other: &str| {
            assert!(tau(name) > tau(other) - 0.03, "{} {}", tau(name), tau(other))
        };
        near("default", "static");
        near("default scored", "static scored");
        assert!(
            tau("default@1") > tau("static@1") + 0.02,
            "{} {}",
            tau("default@1"),
            tau("static@1")
        );
        assert!(tau("default scored@1") > tau("logme scored@1").max(tau("static scored@1")));
        let scored = result.rows.iter().find(|row| row.method == "logme scored").unwrap();
        assert_eq!((scored.tasks, result.tasks.len()), (6, 12));
        let compared: Vec<&str> = result.verdict.iter().map(|one| one.method.as_str()).collect();
        assert_eq!(compared, ["static", "logme scored", "static+logme scored"]);
    }

    #[test]
    fn a_dataset_is_ranked_without_its_own_results() {
        let mut set = records(20, 6);
        for result in &mut set.results {
            result.logme = None;
        }
        let go_on = &mut |_, _| ControlFlow::Continue(());
        let before = leave_datasets_out(&set, 0, go_on).unwrap();
        // Turned around, the order that the others give must be as wrong as it was right.
        for result in set.results.iter_mut().filter(|result| result.dataset == 2) {
            result.accuracy = 1.0 - result.accuracy;
        }
        let query = Query::new(&set, 2).unwrap();
        let chosen = choose(&set, 2, None, 0);
        let standings = Standings::new(&set, &chosen, None).unwrap();
        let turned = query.judge(&standings)[0].unwrap();
        let was = before.rows[0].losses[2].unwrap();
        assert!(turned.spearman < 0.0 && turned.loss != was, "{turned:?}");
        assert!(before.rows.iter().all(|row| !row.method.contains("scored")));
        assert_eq!(before.verdict.len(), 1);
    }
}
