//! Which subnet of a supernet to cut, and the cut one made ready: its statistics, its accuracy.

use super::dataset::{Part, Samples};
use super::probe;
use crate::graph::cost::{self, GraphCost};
use crate::graph::exec::{Device, Network, Trainer, TrainerOptions, calibrate};
use crate::graph::formats::Limits;
use crate::graph::spaces::Generated;
use crate::graph::spaces::elastic::{Freedom, Subnet, Supernet};
use crate::graph::{Graph, input::InputContract};
use crate::sample::Image;
use crate::{Error, Observer, Result};
use rand::SeedableRng;
use rand::seq::index;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use std::collections::BTreeSet;

/// Images of a batch while statistics are estimated.
const BATCH: usize = 32;
/// Subnets that are drawn for each one that is kept, before a bound counts as met by too few.
const DRAWS: usize = 20;

/// Which subnet is cut.
#[derive(Clone, Debug)]
pub enum Choice {
    /// The configuration, such as `d2-k3-e4`, or the 45 numbers joined by commas.
    Code(String),
    /// The best of those that cost at most this.
    Within {
        /// Parameters.
        params: Option<u64>,
        /// Multiply-accumulate operations of one sample.
        macs: Option<u64>,
        /// How many subnets are looked at, drawn at random; the smallest is one of them.
        candidates: usize,
    },
}

/// A subnet that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Tried {
    /// Its configuration.
    pub subnet: String,
    /// Parameters.
    pub params: u64,
    /// Multiply-accumulate operations of one sample.
    pub macs: u64,
    /// Leave-one-out accuracy of a ridge probe on the training part, 0..=1; `None` without a dataset.
    pub accuracy: Option<f32>,
}

/// A supernet with its weights, and what its subnets are judged by.
pub struct Workshop<'a> {
    /// The architecture.
    pub space: Supernet,
    /// The weights.
    pub graph: &'a Graph,
    /// The images that statistics and accuracies come from.
    pub samples: Option<&'a Samples>,
    /// How many images of the training part statistics are estimated on.
    pub images: usize,
    /// Seed of what is drawn.
    pub seed: u64,
    /// Where networks run.
    pub device: Device,
}

impl Workshop<'_> {
    /// The subnet that is asked for, and all that were looked at.
    ///
    /// # Errors
    /// `Error::Input` for a subnet that the space does not have, or a bound that the smallest does not keep;
    /// `Error::Cancelled`.
    pub fn choose(&self, choice: &Choice, observer: Observer<'_>) -> Result<(Subnet, Vec<Tried>)> {
        match choice {
            Choice::Code(code) => Ok((self.space.subnet(code)?, Vec::new())),
            Choice::Within { params, macs, candidates } => {
                self.best(&[*params, *macs], *candidates, observer)
            }
        }
    }

    /// The subnet with its own statistics where there are images for them; how many there were.
    ///
    /// # Errors
    /// As `Subnet::cut` and `calibrate`.
    pub fn make(&self, subnet: &Subnet) -> Result<(Generated, usize)> {
        let mut made = subnet.cut(self.graph)?;
        let Some(samples) = self.samples else { return Ok((made, 0)) };
        let images = sample(&samples.train, self.images, self.seed);
        made.graph = own_statistics(&made.graph, &made.input, &images, self.device)?;
        Ok((made, images.len()))
    }

    fn best(
        &self,
        bounds: &[Option<u64>; 2],
        candidates: usize,
        observer: Observer<'_>,
    ) -> Result<(Subnet, Vec<Tried>)> {
        let drawn = self.within(bounds, candidates, &mut *observer)?;
        let mut tried = Vec::new();
        for (done, (subnet, cost)) in drawn.iter().enumerate() {
            let code = subnet.code();
            crate::progress::report(&mut *observer, "trying subnets", &code, done, drawn.len())?;
            let accuracy = match self.samples {
                Some(samples) => Some(self.estimate(subnet, samples)?),
                None => None,
            };
            let GraphCost { params, macs, .. } = *cost;
            tried.push(Tried { subnet: code, params, macs, accuracy });
        }
        // Without a dataset the most work that the bound allows is the best guess.
        let standing = |it: &Tried| (it.accuracy.unwrap_or_default(), it.macs);
        let order = |a: &Tried, b: &Tried| {
            let (a, b) = (standing(a), standing(b));
            a.0.total_cmp(&b.0).then(a.1.cmp(&b.1))
        };
        let best = (0..tried.len()).max_by(|&a, &b| order(&tried[a], &tried[b]));
        let best = best.ok_or_else(|| Error::input("candidates: expected at least 1, found 0"))?;
        Ok((drawn[best].0, tried))
    }

    /// Different subnets that keep the bounds, the smallest first.
    fn within(
        &self,
        bounds: &[Option<u64>; 2],
        candidates: usize,
        observer: Observer<'_>,
    ) -> Result<Vec<(Subnet, GraphCost)>> {
        let smallest = self.space.smallest(Freedom::Expansion);
        let cost = self.cost(&smallest)?;
        let keeps = |cost: &GraphCost| {
            let costs = [cost.params, cost.macs];
            bounds.iter().zip(costs).all(|(bound, cost)| bound.is_none_or(|most| cost <= most))
        };
        if !keeps(&cost) {
            return Err(Error::input(format!(
                "expected a bound that a subnet of {} keeps, found one below the smallest, {}, of {} parameters and {} \
                multiply-accumulates",
                self.space.spec(),
                smallest.code(),
                cost.params,
                cost.macs
            )));
        }
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        let mut seen = BTreeSet::from([smallest.code()]);
        let mut found = vec![(smallest, cost)];
        let whole = self.space.largest();
        for draw in 0..candidates.saturating_mul(DRAWS) {
            if found.len() >= candidates {
                break;
            }
            let subnet = if draw == 0 { whole } else { self.space.draw_any(&mut random) };
            if seen.insert(subnet.code()) {
                crate::progress::report(
                    &mut *observer,
                    "drawing subnets",
                    "",
                    found.len(),
                    candidates,
                )?;
                let cost = self.cost(&subnet)?;
                found.extend(keeps(&cost).then_some((subnet, cost)));
            }
        }
        Ok(found)
    }

    fn cost(&self, subnet: &Subnet) -> Result<GraphCost> {
        let made = subnet.cut(self.graph)?;
        let network = Network::new(&made.graph, &made.input, self.device)?;
        Ok(cost::cost(&made.graph, &network.trace(&Limits::default())?))
    }

    fn estimate(&self, subnet: &Subnet, samples: &Samples) -> Result<f32> {
        let (made, _) = self.make(subnet)?;
        let network = Network::new(&made.graph, &made.input, self.device)?;
        let classes = samples.class_names.len();
        Ok(probe::estimate(&network, classes, &samples.train)?.loo_accuracy)
    }
}

/// The network with batch-norm statistics of these images.
///
/// # Errors
/// As `calibrate`.
pub fn own_statistics(
    graph: &Graph,
    input: &InputContract,
    images: &[&Image],
    device: Device,
) -> Result<Graph> {
    Ok(calibrate(graph, input, images, BATCH, device)?)
}

/// A seeded sample of images, in the order of the part.
pub fn sample(part: &Part, count: usize, seed: u64) -> Vec<&Image> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let count = count.min(part.images.len());
    let mut chosen = index::sample(&mut random, part.images.len(), count).into_vec();
    chosen.sort_unstable();
    chosen.into_iter().map(|at| &part.images[at]).collect()
}

/// Top-1 accuracy on the test part by the network's own head.
///
/// # Errors
/// As `Trainer::new` for a head of another number of classes.
pub fn own_accuracy(
    graph: &Graph,
    input: &InputContract,
    samples: &Samples,
    device: Device,
) -> Result<f32> {
    let options = TrainerOptions::scoring(samples.class_names.len(), device);
    let scorer = Trainer::new(graph, input, &options)?;
    let test: Vec<&Image> = samples.test.images.iter().collect();
    Ok(scorer.evaluate(&test, &samples.test.labels)?.accuracy)
}
