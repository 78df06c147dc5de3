//! Seeded, stratified, group-wise splits.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use std::collections::BTreeMap;

/// Options of a split.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SplitOptions {
    /// Share of the training part, 0..=1; others are clamped. Default 0.6.
    pub train_share: f32,
    /// Seed. Default 0.
    pub seed: u64,
}

/// Indices of the two parts, ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Training part.
    pub train: Vec<usize>,
    /// Test part.
    pub test: Vec<usize>,
}

impl Default for SplitOptions {
    fn default() -> Self {
        Self { train_share: 0.6, seed: 0 }
    }
}

/// Fewest groups that are split as wholes: with two, the share could not be kept.
pub(super) const GROUPS_MIN: usize = 3;

/// Rounds of the search for a better assignment of groups; it usually settles in three.
const ROUNDS_MAX: usize = 20;

/// Splits stratified by label; with three or more groups, whole groups go to one side.
///
/// Every class with at least two samples is on both sides (a class that groups would leave on one
/// side is split by sample); without groups, a class with one sample is in the training part.
/// Groups of another length than the labels are not used.
pub fn split(labels: &[u32], groups: Option<&[u32]>, options: &SplitOptions) -> Split {
    let share = match options.train_share {
        share if share.is_finite() => f64::from(share.clamp(0.0, 1.0)),
        _ => f64::from(SplitOptions::default().train_share),
    };
    let members = groups
        .filter(|groups| groups.len() == labels.len())
        .map(members_of)
        .filter(|members| members.len() >= GROUPS_MIN);
    let by_class = members_of(labels);
    let mut in_train = match members {
        Some(members) => {
            let members: Vec<Vec<usize>> = members.into_values().collect();
            assign_groups(labels, &members, share, options.seed)
        }
        None => vec![true; labels.len()],
    };
    for (&label, samples) in &by_class {
        let train_count = samples.iter().filter(|&&sample| in_train[sample]).count();
        if samples.len() > 1 && (train_count == 0 || train_count == samples.len()) {
            split_class(samples, share, &mut stream(options.seed, label), &mut in_train);
        }
    }
    let (train, test) = (0..labels.len()).partition(|&sample| in_train[sample]);
    Split { train, test }
}

/// At most `per_class` indices of each label, ascending. A larger `per_class` keeps the smaller
/// choice.
pub(super) fn sample(labels: &[u32], per_class: usize, seed: u64) -> Vec<usize> {
    let mut chosen = Vec::new();
    for (label, mut samples) in members_of(labels) {
        shuffle(&mut samples, &mut stream(seed, label));
        samples.truncate(per_class);
        chosen.extend(samples);
    }
    chosen.sort_unstable();
    chosen
}

/// Indices by key.
fn members_of(keys: &[u32]) -> BTreeMap<u32, Vec<usize>> {
    let mut members: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (index, &key) in keys.iter().enumerate() {
        members.entry(key).or_default().push(index);
    }
    members
}

/// A class has its own stream, so that its choice does not depend on which other classes exist.
fn stream(seed: u64, label: u32) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(u64::from(label));
    rng
}

/// Fisher-Yates. Written out, because stored results depend on its order and a library's may
/// change.
fn shuffle(items: &mut [usize], rng: &mut ChaCha8Rng) {
    for last in (1..items.len()).rev() {
        let other = rng.next_u64() % (last as u64 + 1);
        items.swap(last, other as usize);
    }
}

/// samples: at least two.
fn split_class(samples: &[usize], share: f64, rng: &mut ChaCha8Rng, in_train: &mut [bool]) {
    let wanted = (share * samples.len() as f64).round() as usize;
    let train_count = wanted.clamp(1, samples.len() - 1);
    let mut order = samples.to_vec();
    shuffle(&mut order, rng);
    for (position, sample) in order.into_iter().enumerate() {
        in_train[sample] = position < train_count;
    }
}

/// Samples of one class: how many there are and how many are in the training part.
#[derive(Clone, Copy, Default)]
struct Balance {
    train: usize,
    total: usize,
}

impl Balance {
    /// Squared distance from the wanted share; a class on one side weighs more than any distance.
    fn cost(self, share: f64) -> f64 {
        let distance = self.train as f64 / self.total as f64 - share;
        let one_sided = self.total > 1 && (self.train == 0 || self.train == self.total);
        distance * distance + if one_sided { 1000.0 } else { 0.0 }
    }
}

/// Moves whole groups, in random order, as long as a move brings the classes nearer to the share.
fn assign_groups(labels: &[u32], members: &[Vec<usize>], share: f64, seed: u64) -> Vec<bool> {
    let mut balances: BTreeMap<u32, Balance> = BTreeMap::new();
    for &label in labels {
        balances.entry(label).or_default().total += 1;
    }
    let counts: Vec<BTreeMap<u32, usize>> =
        members.iter().map(|samples| count_labels(labels, samples)).collect();
    let mut order: Vec<usize> = (0..members.len()).collect();
    // No class has this stream: labels are u32.
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(u64::MAX);
    shuffle(&mut order, &mut rng);
    let mut group_in_train = vec![false; members.len()];
    for _ in 0..ROUNDS_MAX {
        let mut moved = false;
        for &group in &order {
            let to_train = !group_in_train[group];
            if gain_of_move(&counts[group], &balances, to_train, share) > 1e-12 {
                apply_move(&counts[group], &mut balances, to_train);
                group_in_train[group] = to_train;
                moved = true;
            }
        }
        if !moved {
            break;
        }
    }
    let mut in_train = vec![false; labels.len()];
    for (samples, &train) in members.iter().zip(&group_in_train) {
        samples.iter().for_each(|&sample| in_train[sample] = train);
    }
    in_train
}

fn count_labels(labels: &[u32], samples: &[usize]) -> BTreeMap<u32, usize> {
    let mut counts = BTreeMap::new();
    for &sample in samples {
        *counts.entry(labels[sample]).or_default() += 1;
    }
    counts
}

fn after_move(balance: Balance, count: usize, to_train: bool) -> Balance {
    let train = if to_train { balance.train + count } else { balance.train - count };
    Balance { train, ..balance }
}

fn gain_of_move(
    counts: &BTreeMap<u32, usize>,
    balances: &BTreeMap<u32, Balance>,
    to_train: bool,
    share: f64,
) -> f64 {
    let gain = |(label, &count): (&u32, &usize)| {
        let before = balances[label];
        before.cost(share) - after_move(before, count, to_train).cost(share)
    };
    counts.iter().map(gain).sum()
}

fn apply_move(
    counts: &BTreeMap<u32, usize>,
    balances: &mut BTreeMap<u32, Balance>,
    to_train: bool,
) {
    for (label, &count) in counts {
        if let Some(balance) = balances.get_mut(label) {
            *balance = after_move(*balance, count, to_train);
        }
    }
}
