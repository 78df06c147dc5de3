//! Ridge probe: how well a linear classifier does on a network's penultimate features.

use super::dataset::{Part, Samples};
use crate::data::Split;
use crate::encoder::logme::logme;
use crate::encoder::ridge::RidgeProbe;
use crate::graph::exec::Network;
use crate::rows::Rows;
use crate::{Error, Result};
use serde::Serialize;
use std::time::Instant;

/// What one pass over both parts tells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Probed {
    /// Top-1 accuracy on the test part.
    pub held_out: f32,
    /// Mean top-1 accuracy over this split and the further ones: what the test part says, with less noise.
    pub accuracy: f32,
    /// What the training part alone tells.
    pub estimate: Estimate,
}

/// Estimates from the training part alone; what a query can do, whose test part is the user's own business.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// Leave-one-out top-1 accuracy of the ridge probe, 0..=1.
    pub loo_accuracy: f32,
    /// LogME, comparable between networks on one dataset only.
    pub logme: f32,
    /// Wall clock of the training part's features.
    pub seconds: f64,
}

/// Fits on the training part, scores the test part, and repeats both on further splits of the same features; images
/// pass through the network's own preprocessing.
///
/// `resplits`: the samples' own, or none for a network that learned from the training part: it knows images that they
/// would test.
pub fn probe(network: &Network, samples: &Samples, resplits: &[Split]) -> Result<Probed> {
    let classes = samples.class_names.len();
    let Samples { train, test, .. } = samples;
    let (features, fitted, estimate) = fit(network, classes, train)?;
    let test_features = network.features(&test.images)?;
    let held_out = fitted.accuracy(&test_features, &test.labels);
    let features = features.followed_by(&test_features).ok_or_else(|| {
        Error::input("expected features of one dimension, found another for the test part")
    })?;
    let labels = samples.labels();
    let mut sum = held_out;
    for split in resplits {
        let part = |indices: &[usize]| -> (Rows, Vec<u32>) {
            (features.select(indices), indices.iter().map(|&index| labels[index]).collect())
        };
        let ((rows, known), (unseen, truth)) = (part(&split.train), part(&split.test));
        sum += RidgeProbe::fit(&rows, &known, classes)?.accuracy(&unseen, &truth);
    }
    Ok(Probed { held_out, accuracy: sum / (1 + resplits.len()) as f32, estimate })
}

/// What the training part alone tells.
pub fn estimate(network: &Network, classes: usize, train: &Part) -> Result<Estimate> {
    fit(network, classes, train).map(|(_, _, estimate)| estimate)
}

fn fit(network: &Network, classes: usize, train: &Part) -> Result<(Rows, RidgeProbe, Estimate)> {
    let start = Instant::now();
    let features = network.features(&train.images)?;
    let seconds = start.elapsed().as_secs_f64();
    let fitted = RidgeProbe::fit(&features, &train.labels, classes)?;
    let estimate = Estimate {
        loo_accuracy: fitted.loo_accuracy(),
        logme: logme(&features, &train.labels, classes)?,
        seconds,
    };
    Ok((features, fitted, estimate))
}
