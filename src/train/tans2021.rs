//! Trains the `tans2021` recipe on libtorch: hinge over in-batch negatives in both directions + squared error of S.

use super::adam::{Adam, Pace, failed, matrix, values};
use super::{FitOptions, TrainingPair, TrainingSet, closed_form};
use crate::encoder::basis::{Standardiser, class_mean};
use crate::encoder::linalg::{dot_f32, mean_sd, quantile};
use crate::encoder::tans2021::{
    Calibration, DIM, NUMBERS, Tans2021, model_input, query_input, topology_row,
};
use crate::encoder::{Error, TaskSample};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use tch::{Kind, TchError, Tensor};

const MARGIN: f64 = 0.2;
const BATCH: usize = 128;
const PACE: Pace = Pace { rate: 1e-3, epsilon: 1e-8, decay: 0.0 };

/// A dataset and a model that belong together.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Positive {
    /// Position among the tasks that have a sample.
    task: usize,
    model: usize,
    accuracy: f32,
}

/// Learns the recipe from a checked set: twice, because only results on tasks that it did not see tell how far it is off.
pub(super) fn fit(
    set: &TrainingSet,
    options: &FitOptions,
    progress: &mut dyn FnMut(usize, usize, f32) -> ControlFlow<()>,
) -> Result<Tans2021, Error> {
    let epochs = options.epochs;
    let mut first = |epoch, _, loss| progress(epoch, 2 * epochs, loss);
    let width = unseen_width(set, options, &mut first)?;
    let mut second = |epoch, _, loss| progress(epochs + epoch, 2 * epochs, loss);
    let (mut recipe, models) = learn(set, options, &mut second)?;
    let misses = missed(&recipe, set, &models);
    recipe.calibration = calibration(&recipe, &misses, &|pair| options.uses(set, pair));
    recipe.calibration.half_width = width.unwrap_or(recipe.calibration.half_width);
    Ok(recipe)
}

/// 90 % quantile of how far predictions are off on a group of families that they were not learned from; `None` where too
/// few are left to learn from.
fn unseen_width(
    set: &TrainingSet,
    options: &FitOptions,
    progress: &mut dyn FnMut(usize, usize, f32) -> ControlFlow<()>,
) -> Result<Option<f32>, Error> {
    let folds = closed_form::folds(set);
    let Some(held) = folds.first().filter(|_| folds.len() > 1) else { return Ok(None) };
    let is_held = |pair: &TrainingPair| held.contains(&set.tasks[pair.task].id);
    let rest = TrainingSet {
        tasks: set.tasks.clone(),
        models: set.models.clone(),
        pairs: set.pairs.iter().filter(|pair| !is_held(pair)).copied().collect(),
    };
    if !rest.pairs.iter().any(|pair| set.tasks[pair.task].sample.is_some()) {
        return Ok(None);
    }
    let (recipe, models) = learn(&rest, options, progress)?;
    let all = missed(&recipe, set, &models);
    let is_known = |pair: &TrainingPair| !is_held(pair) && options.uses(set, pair);
    let Calibration { slope, offset, .. } = calibration(&recipe, &all, &is_known);
    let unseen = all.iter().filter(|miss| is_held(&miss.pair) && options.uses(set, &miss.pair));
    let mut off: Vec<f64> = unseen
        .map(|miss| (miss.rest - f64::from(offset) - f64::from(slope) * miss.cosine).abs())
        .collect();
    Ok((!off.is_empty()).then(|| quantile(&mut off, 0.9) as f32))
}

/// The layers and the share of the average model, and the vector of every model.
fn learn(
    set: &TrainingSet,
    options: &FitOptions,
    progress: &mut dyn FnMut(usize, usize, f32) -> ControlFlow<()>,
) -> Result<(Tans2021, Vec<Vec<f32>>), Error> {
    let samples = samples(set);
    let positives = positives(set, options, &samples);
    if positives.is_empty() {
        return Err(Error::Input {
            what: "training set of tans2021",
            expected: "at least one result on a task with a sample".into(),
            found: "none".into(),
        });
    }
    let mut random = ChaCha8Rng::seed_from_u64(options.seed);
    let mut recipe = prepare(set, &samples, &mut random)?;
    let inputs = Inputs::new(set, &samples, &recipe, positives);
    train(&mut recipe, &inputs, options, progress, &mut random)?;
    recipe.task_vectors =
        inputs.tasks.iter().flat_map(|input| recipe.query_vector(input)).collect();
    let models: Vec<Vec<f32>> = inputs.models.iter().map(|m| recipe.model_vector(m)).collect();
    let shares = models.iter().map(|model| dot_f32(&recipe.score[DIM..], model));
    // What the average model adds to the score.
    recipe.calibration.model_share = shares.sum::<f32>() / models.len().max(1) as f32;
    Ok((recipe, models))
}

/// The tasks that can be learned from, with their place in the set.
fn samples(set: &TrainingSet) -> Vec<(usize, &TaskSample)> {
    (0..set.tasks.len())
        .filter_map(|task| Some((task, set.tasks[task].sample.as_deref()?)))
        .collect()
}

/// Each task with its best model, and each model with the tasks it was trained on.
fn positives(
    set: &TrainingSet,
    options: &FitOptions,
    samples: &[(usize, &TaskSample)],
) -> Vec<Positive> {
    let mut chosen = BTreeSet::new();
    let mut out = Vec::new();
    for (position, &(task, _)) in samples.iter().enumerate() {
        let on_task = set.pairs.iter().filter(|pair| pair.task == task);
        let usable = on_task.clone().filter(|pair| options.uses(set, pair));
        // Kinds are not comparable: the first kind that the task has decides which model is best.
        let best =
            usable.max_by(|a, b| b.kind.cmp(&a.kind).then(a.accuracy.total_cmp(&b.accuracy)));
        let own = on_task.filter(|pair| set.models[pair.model].seen.contains(&task));
        for pair in best.into_iter().chain(own) {
            if chosen.insert((task, pair.model)) {
                let accuracy = pair.accuracy;
                out.push(Positive { task: position, model: pair.model, accuracy });
            }
        }
    }
    out
}

/// Standardisers and initial weights, from our own generator so that the seed decides everything.
fn prepare(
    set: &TrainingSet,
    samples: &[(usize, &TaskSample)],
    random: &mut ChaCha8Rng,
) -> Result<Tans2021, Error> {
    let dim = samples.first().map_or(0, |(_, sample)| sample.rows.dim());
    let mut means = Vec::new();
    for (_, sample) in samples {
        crate::encoder::basis::check_sample(sample)?;
        if sample.rows.dim() != dim {
            return Err(Error::Input {
                what: "backbone rows",
                expected: format!("{dim} numbers each"),
                found: format!("{} numbers each", sample.rows.dim()),
            });
        }
        means.push(class_mean(sample).into_iter().map(Some).collect());
    }
    let summary = set.models.iter().map(|model| model.topology.len()).max().unwrap_or(0);
    let len = NUMBERS + summary;
    let topologies: Vec<_> =
        set.models.iter().map(|model| topology_row(&model.numbers, &model.topology, len)).collect();
    let signatures = set.models.iter().filter_map(|model| model.signature.as_ref());
    let signature_len = signatures.map(|it| it.len()).max().unwrap_or(0);
    let mut uniform = |rows: usize, columns: usize| -> Vec<f32> {
        let bound = 1.0 / (columns as f32).sqrt();
        (0..rows * columns).map(|_| random.random_range(-bound..bound)).collect()
    };
    Ok(Tans2021 {
        tasks: samples.iter().map(|&(task, _)| set.tasks[task].id).collect(),
        task_vectors: Vec::new(),
        rows: Standardiser::fit(&means, dim),
        topology: Standardiser::fit(&topologies, len),
        signature_len,
        query: uniform(DIM, dim),
        model: uniform(DIM, len + signature_len),
        score: uniform(1, 2 * DIM),
        score_bias: 0.0,
        calibration: Calibration::default(),
    })
}

/// What the layers see of every task and model, and which belong together.
struct Inputs {
    tasks: Vec<Vec<f32>>,
    models: Vec<Vec<f32>>,
    positives: Vec<Positive>,
}

impl Inputs {
    fn new(
        set: &TrainingSet,
        samples: &[(usize, &TaskSample)],
        recipe: &Tans2021,
        positives: Vec<Positive>,
    ) -> Self {
        let nothing = closed_form::Known::default();
        let model = |index: usize| {
            let known = closed_form::evidence(set, index, &nothing);
            model_input(&recipe.topology, recipe.signature_len, &known)
        };
        Self {
            tasks: samples.iter().map(|(_, sample)| query_input(&recipe.rows, sample)).collect(),
            models: (0..set.models.len()).map(model).collect(),
            positives,
        }
    }
}

/// The layers' parameters on libtorch: W_q, W_m, W_s, its intercept.
struct Layers(Adam<4>);

fn train(
    recipe: &mut Tans2021,
    inputs: &Inputs,
    options: &FitOptions,
    progress: &mut dyn FnMut(usize, usize, f32) -> ControlFlow<()>,
    random: &mut ChaCha8Rng,
) -> Result<(), Error> {
    let mut layers = Layers::new(recipe).map_err(failed)?;
    let mut positives = inputs.positives.clone();
    for epoch in 0..options.epochs {
        positives.shuffle(random);
        let mut total = 0.0;
        for batch in positives.chunks(BATCH) {
            let loss = layers.loss(inputs, batch).map_err(failed)?;
            total += layers.0.step(&loss).map_err(failed)? * batch.len() as f64;
        }
        let loss = (total / positives.len() as f64) as f32;
        if !loss.is_finite() {
            return Err(Error::Numerical(format!("the loss became {loss} in epoch {epoch}")));
        }
        if progress(epoch + 1, options.epochs, loss).is_break() {
            return Err(Error::Cancelled);
        }
    }
    layers.store(recipe).map_err(failed)
}

impl Layers {
    fn new(recipe: &Tans2021) -> Result<Self, TchError> {
        let parameters = [
            matrix(&recipe.query, DIM)?,
            matrix(&recipe.model, DIM)?,
            matrix(&recipe.score, 1)?,
            matrix(&[recipe.score_bias], 1)?,
        ];
        Ok(Self(Adam::new(parameters, PACE)?))
    }

    fn loss(&self, inputs: &Inputs, batch: &[Positive]) -> Result<Tensor, TchError> {
        let stack = |rows: Vec<&Vec<f32>>| {
            matrix(&rows.into_iter().flatten().copied().collect::<Vec<f32>>(), batch.len())
        };
        let queries = stack(batch.iter().map(|pair| &inputs.tasks[pair.task]).collect())?;
        let models = stack(batch.iter().map(|pair| &inputs.models[pair.model]).collect())?;
        let [query, model, score, bias] = &self.0.parameters;
        let (q, m) = (vectors(&queries, query)?, vectors(&models, model)?);
        // A pair that shares the task or the model is no negative.
        let negative = |at: usize| {
            let (i, j) = (batch[at / batch.len()], batch[at % batch.len()]);
            f32::from(u8::from(i.task != j.task && i.model != j.model))
        };
        let mask: Vec<f32> = (0..batch.len() * batch.len()).map(negative).collect();
        let negatives = f64::from(mask.iter().sum::<f32>().max(1.0));
        let mask = matrix(&mask, batch.len())?;
        let cosines = q.f_matmul(&m.f_transpose(0, 1)?)?;
        let right = cosines.f_diagonal(0, 0, 1)?;
        let by_query = (&cosines - right.f_unsqueeze(1)? + MARGIN).f_relu()?;
        let by_model = (&cosines - right.f_unsqueeze(0)? + MARGIN).f_relu()?;
        let hinge = ((by_query + by_model) * mask).f_sum(Kind::Float)? / negatives;
        let both = Tensor::f_cat(&[q, m], 1)?;
        let predicted = (both.f_matmul(&score.f_transpose(0, 1)?)? + bias).f_sigmoid()?;
        let truth: Vec<f32> = batch.iter().map(|pair| pair.accuracy).collect();
        let error = (predicted - matrix(&truth, batch.len())?).f_square()?;
        Ok(hinge + error.f_mean(Kind::Float)?)
    }

    fn store(&self, recipe: &mut Tans2021) -> Result<(), TchError> {
        let [query, model, score, bias] = &self.0.parameters;
        recipe.query = values(query)?;
        recipe.model = values(model)?;
        recipe.score = values(score)?;
        recipe.score_bias = values(bias)?.first().copied().unwrap_or(0.0);
        Ok(())
    }
}

/// normalise(x W') row by row: `[n, in]` -> `[n, 128]`.
fn vectors(inputs: &Tensor, weights: &Tensor) -> Result<Tensor, TchError> {
    let out = inputs.f_matmul(&weights.f_transpose(0, 1)?)?;
    // A tiny constant under the root keeps the gradient of a zero row finite.
    let square = out.f_square()?.f_sum_dim_intlist([1_i64].as_slice(), true, Kind::Float)?;
    out.f_div(&(square + 1e-24).f_sqrt()?)
}

/// A result, the cosine of its model with its task, and what S at the average model misses of the accuracy.
struct Miss {
    pair: TrainingPair,
    cosine: f64,
    rest: f64,
}

/// What S at the average model misses on every result on a task with a sample.
fn missed(recipe: &Tans2021, set: &TrainingSet, models: &[Vec<f32>]) -> Vec<Miss> {
    let (samples, model_share) = (samples(set), recipe.calibration.model_share);
    let miss = |pair: &TrainingPair| -> Option<Miss> {
        let position = samples.binary_search_by_key(&pair.task, |&(task, _)| task).ok()?;
        let task = &recipe.task_vectors[position * DIM..(position + 1) * DIM];
        let level = dot_f32(&recipe.score[..DIM], task) + model_share + recipe.score_bias;
        let rest = f64::from(pair.accuracy - crate::encoder::tans2021::sigmoid(level));
        let cosine = f64::from(dot_f32(task, &models[pair.model]));
        Some(Miss { pair: *pair, cosine, rest })
    };
    set.pairs.iter().filter_map(miss).collect()
}

/// Least squares of the misses on the cosine, over the results that `uses` admits, or all if it admits none.
fn calibration(
    recipe: &Tans2021,
    misses: &[Miss],
    uses: &dyn Fn(&TrainingPair) -> bool,
) -> Calibration {
    let used: Vec<&Miss> = misses.iter().filter(|miss| uses(&miss.pair)).collect();
    let used = if used.is_empty() { misses.iter().collect() } else { used };
    let of = |take: fn(&Miss) -> f64| used.iter().map(|miss| take(miss)).collect::<Vec<f64>>();
    let (cosine, _) = mean_sd(&of(|miss| miss.cosine));
    let (rest, sd) = mean_sd(&of(|miss| miss.rest));
    let products: f64 = used.iter().map(|miss| (miss.cosine - cosine) * (miss.rest - rest)).sum();
    let squares: f64 = used.iter().map(|miss| (miss.cosine - cosine).powi(2)).sum();
    let slope = products / (squares + 1e-3);
    let offset = rest - slope * cosine;
    let mut off: Vec<f64> =
        used.iter().map(|miss| (miss.rest - offset - slope * miss.cosine).abs()).collect();
    Calibration {
        model_share: recipe.calibration.model_share,
        slope: slope as f32,
        offset: offset as f32,
        sd: sd as f32,
        half_width: quantile(&mut off, 0.9) as f32,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]
mod tests {
    use super::super::tests::world;
    use super::*;
    use crate::encoder::{Encoders, ModelEvidence};
    use crate::train::Recipe;

    fn options(epochs: usize) -> FitOptions {
        FitOptions { recipe: Recipe::Tans2021, epochs, ..FitOptions::default() }
    }

    #[test]
    fn training_lowers_the_loss_and_the_plain_forward_pass_agrees() {
        let set = world(12, 10, (40, 20));
        let mut losses = Vec::new();
        let encoders = super::super::fit(&set, &options(60), &mut |_, _, loss| {
            losses.push(loss);
            ControlFlow::Continue(())
        });
        let encoders = encoders.unwrap();
        assert!(losses[59] < 0.5 * losses[0], "{losses:?}");
        let Encoders::Tans2021(recipe) = &encoders else { panic!("another recipe") };
        let sample = set.tasks[2].sample.as_ref().unwrap();
        // The published order: each row through W_q first, then their mean. Class sizes differ, so each row counts
        // by one over the size of its class.
        let input = matrix(&query_input(&recipe.rows, sample), 1).unwrap();
        let query = vectors(&input, &matrix(&recipe.query, DIM).unwrap()).unwrap();
        let query = Vec::<f32>::try_from(&query.flatten(0, -1)).unwrap();
        let plain = encoders.encode_task(sample).unwrap();
        assert!(query.iter().zip(&plain.vector).all(|(a, b)| (a - b).abs() < 1e-5));
        let known = ModelEvidence {
            topology: &set.models[3].topology,
            signature: set.models[3].signature.as_deref(),
            ..ModelEvidence::default()
        };
        let input = model_input(&recipe.topology, recipe.signature_len, &known);
        let model = matrix(&input, 1).unwrap();
        let model = vectors(&model, &matrix(&recipe.model, DIM).unwrap()).unwrap();
        let model = Vec::<f32>::try_from(&model.flatten(0, -1)).unwrap();
        let plain_model = encoders.encode_model(&known);
        assert!(model.iter().zip(&plain_model).all(|(a, b)| (a - b).abs() < 1e-5));
        assert_eq!(plain.nearest[0].0, 2);
    }

    #[test]
    fn the_seed_decides_and_break_cancels() {
        let set = world(6, 5, (30, 12));
        let bytes = |seed| {
            let options = FitOptions { seed, ..options(5) };
            let encoders =
                super::super::fit(&set, &options, &mut |_, _, _| ControlFlow::Continue(()));
            serde_json::to_vec(&encoders.unwrap()).unwrap()
        };
        assert_eq!(bytes(1), bytes(1));
        assert_ne!(bytes(1), bytes(2));
        let stopped = super::super::fit(&set, &options(5), &mut |_, _, _| ControlFlow::Break(()));
        assert!(matches!(stopped, Err(Error::Cancelled)));
        let empty = TrainingSet::default();
        let refused =
            super::super::fit(&empty, &options(5), &mut |_, _, _| ControlFlow::Continue(()));
        assert!(matches!(refused, Err(Error::Input { .. })));
    }
}
