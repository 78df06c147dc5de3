//! Ridge probe: how well a linear classifier does on a network's penultimate features.

use super::dataset::Part;
use crate::Result;
use crate::encoder::ridge::RidgeProbe;
use crate::graph::exec::Network;

/// Accuracies of one probe.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Probed {
    /// Top-1 accuracy on the test part.
    pub test_accuracy: f32,
    /// Leave-one-out top-1 accuracy on the training part.
    pub loo_accuracy: f32,
}

/// Fits on the training part, scores the test part; images pass through the network's own preprocessing.
pub fn probe(network: &Network, classes: usize, train: &Part, test: &Part) -> Result<Probed> {
    let fitted = RidgeProbe::fit(&network.features(&train.images)?, &train.labels, classes)?;
    let test_accuracy = fitted.accuracy(&network.features(&test.images)?, &test.labels);
    Ok(Probed { test_accuracy, loo_accuracy: fitted.loo_accuracy() })
}

/// Fits on the training part alone; what a query can do, whose test part is the user's own business.
pub fn probe_loo(network: &Network, classes: usize, train: &Part) -> Result<f32> {
    let features = network.features(&train.images)?;
    Ok(RidgeProbe::fit(&features, &train.labels, classes)?.loo_accuracy())
}
