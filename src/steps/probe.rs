//! Ridge probe: how well a linear classifier does on a network's penultimate features.

use super::dataset::Part;
use crate::Result;
use crate::encoder::logme::logme;
use crate::encoder::ridge::RidgeProbe;
use crate::graph::exec::Network;
use serde::Serialize;
use std::time::Instant;

/// What one pass over both parts tells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Probed {
    /// Top-1 accuracy on the test part.
    pub test_accuracy: f32,
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

/// Fits on the training part, scores the test part; images pass through the network's own preprocessing.
pub fn probe(network: &Network, classes: usize, train: &Part, test: &Part) -> Result<Probed> {
    let start = Instant::now();
    let features = network.features(&train.images)?;
    let seconds = start.elapsed().as_secs_f64();
    let fitted = RidgeProbe::fit(&features, &train.labels, classes)?;
    let estimate = Estimate {
        loo_accuracy: fitted.loo_accuracy(),
        logme: logme(&features, &train.labels, classes)?,
        seconds,
    };
    let test_accuracy = fitted.accuracy(&network.features(&test.images)?, &test.labels);
    Ok(Probed { test_accuracy, estimate })
}
