//! Probes candidates of a query one after the other, each time the one that promises most, and ranks them anew.

use super::admit;
use super::dataset::Samples;
use super::feature_cache;
use super::search::{self, Found};
use super::summary;
use crate::encoder::TaskEncoding;
use crate::encoder::belief::{Belief, Candidate};
use crate::encoder::ridge::RidgeProbe;
use crate::error::ErrorKind;
use crate::state::{Generation, State};
use crate::{Observer, Result};
use std::time::Instant;
use tans_storage::ModelRecord;

/// What the probes of one query may take.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    /// Networks.
    pub probes: usize,
    /// No probe begins later.
    pub until: Option<Instant>,
}

impl Allowance {
    fn is_spent(&self, probes: usize) -> bool {
        probes >= self.probes || self.until.is_some_and(|until| Instant::now() >= until)
    }
}

/// Probes, updates what is predicted of all candidates, and puts them in the order of that. Returns (model, reason) of
/// candidates that could not be probed; they cost nothing of the allowance.
pub fn rerank(
    state: &State,
    generation: &Generation,
    (task, samples): (&TaskEncoding, &Samples),
    found: &mut Vec<Found>,
    (allowance, observer): (Allowance, Observer<'_>),
) -> Result<Vec<(String, String)>> {
    let vectors = search::vectors_of(state, generation, found)?;
    let candidates: Vec<Candidate<'_>> = found
        .iter()
        .zip(&vectors)
        .map(|(hit, vector)| Candidate {
            prediction: hit.prediction,
            vector,
            runnable: summary::is_runnable(&hit.model),
        })
        .collect();
    let distance = search::typical_distance(generation)?;
    let mut belief = Belief::new(task, &candidates, (distance, samples.is_grouped()));
    let (mut probed, mut unprobed) = (vec![None; found.len()], Vec::new());
    let mut done = 0;
    while let Some(next) = belief.next().filter(|_| !allowance.is_spent(done)) {
        let model = &found[next].model;
        let total = allowance.probes.min(candidates.len());
        crate::progress::report(&mut *observer, "probing candidates", &model.name, done, total)?;
        match probe(state, model, samples) {
            Ok(accuracy) => {
                belief.observe(next, accuracy);
                probed[next] = Some(accuracy);
                done += 1;
            }
            // A network that cannot run or gives NaN on these images stands by what is predicted of it.
            Err(error) if error.kind() == ErrorKind::Input => {
                belief.close(next);
                unprobed.push((model.name.clone(), error.to_string()));
            }
            Err(error) => return Err(error),
        }
    }
    if done == 0 {
        return Ok(unprobed);
    }
    let order = crate::encoder::metrics::ranking(&belief.standings());
    let predictions: Vec<_> = (0..found.len()).map(|index| belief.prediction(index)).collect();
    for (hit, (prediction, probed)) in found.iter_mut().zip(predictions.into_iter().zip(probed)) {
        (hit.prediction, hit.probed) = (prediction, probed);
    }
    let mut taken: Vec<Option<Found>> = found.drain(..).map(Some).collect();
    found.extend(order.into_iter().filter_map(|index| taken[index].take()));
    Ok(unprobed)
}

fn probe(state: &State, model: &ModelRecord, samples: &Samples) -> Result<f32> {
    let load = || admit::load_runnable(state, model);
    let images = &samples.train.images;
    let features = feature_cache::model_rows(&state.options, &model.id.0, images, load)?;
    let classes = samples.class_names.len();
    Ok(RidgeProbe::fit(&features, &samples.train.labels, classes)?.loo_accuracy())
}
