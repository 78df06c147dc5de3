use crate::data::split::Split;
use crate::data::{SplitOptions, split};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Class -> (in train, in all).
fn counts(labels: &[u32], split: &Split) -> BTreeMap<u32, (usize, usize)> {
    let mut counts: BTreeMap<u32, (usize, usize)> = BTreeMap::new();
    for &label in labels {
        counts.entry(label).or_default().1 += 1;
    }
    for &index in &split.train {
        counts.entry(labels[index]).or_default().0 += 1;
    }
    counts
}

fn assert_is_partition(n: usize, split: &Split) {
    let mut all: Vec<usize> = split.train.iter().chain(&split.test).copied().collect();
    assert!(split.train.is_sorted() && split.test.is_sorted());
    all.sort_unstable();
    assert_eq!(all, (0..n).collect::<Vec<_>>());
}

proptest! {
    #[test]
    fn a_split_is_stratified(
        labels in prop::collection::vec(0u32..5, 0..120),
        seed: u64,
        train_share in 0.0f32..=1.0,
    ) {
        let options = SplitOptions { train_share, seed };
        let parts = split(&labels, None, &options);
        assert_is_partition(labels.len(), &parts);
        prop_assert_eq!(&parts, &split(&labels, None, &options));
        for (train, total) in counts(&labels, &parts).into_values() {
            let wanted = f64::from(train_share) * total as f64;
            let bounded = wanted.clamp(1.0, (total.max(2) - 1) as f64);
            prop_assert!((train as f64 - bounded).abs() <= 0.5 + 1e-9, "{train} of {total}");
        }
    }

    #[test]
    fn groups_stay_whole_unless_a_class_would_be_one_sided(
        samples in prop::collection::vec((0u32..4, 0u32..9), 0..150),
        seed: u64,
    ) {
        let (labels, groups): (Vec<u32>, Vec<u32>) = samples.into_iter().unzip();
        let parts = split(&labels, Some(&groups), &SplitOptions { train_share: 0.6, seed });
        assert_is_partition(labels.len(), &parts);
        for (train, total) in counts(&labels, &parts).into_values() {
            prop_assert!(total < 2 || (train > 0 && train < total), "{train} of {total}");
        }
        let distinct: BTreeSet<u32> = groups.iter().copied().collect();
        let in_many = labels.iter().zip(&groups).collect::<BTreeSet<_>>();
        let every_class_in_all = in_many.len() == 4 * distinct.len();
        if distinct.len() >= 3 && every_class_in_all {
            let of = |part: &[usize]| part.iter().map(|&i| groups[i]).collect::<BTreeSet<_>>();
            prop_assert!(of(&parts.train).is_disjoint(&of(&parts.test)));
        }
    }

    #[test]
    fn a_sample_is_capped_nested_and_repeatable(
        labels in prop::collection::vec(0u32..5, 0..120),
        per_class in 0usize..30,
        seed: u64,
    ) {
        let sample = |per_class| crate::data::split::sample(&labels, per_class, seed);
        let chosen = sample(per_class);
        prop_assert!(chosen.windows(2).all(|pair| pair[0] < pair[1]));
        prop_assert_eq!(&chosen, &sample(per_class));
        let larger: BTreeSet<usize> = sample(per_class + 1).into_iter().collect();
        prop_assert!(chosen.iter().all(|index| larger.contains(index)));
        let part = Split { train: chosen, test: Vec::new() };
        for (count, total) in counts(&labels, &part).into_values() {
            prop_assert_eq!(count, total.min(per_class));
        }
    }
}

#[test]
fn even_groups_are_split_whole_and_near_the_share() {
    let labels: Vec<u32> = (0..1000).map(|i| i % 5).collect();
    let groups: Vec<u32> = (0..1000).map(|i| i / 50).collect();
    let mut seen = BTreeSet::new();
    for seed in 0..5 {
        let parts = split(&labels, Some(&groups), &SplitOptions { train_share: 0.6, seed });
        assert_eq!(parts.train.len(), 600);
        assert!(parts.train.iter().step_by(50).all(|&i| parts.train.contains(&(i / 50 * 50))));
        seen.insert(parts.train);
    }
    assert!(seen.len() > 1, "the seed has no effect");
}

#[test]
fn two_groups_and_odd_shares_are_no_obstacle() {
    let labels = [0, 0, 1, 1, 2];
    let share = |train_share| SplitOptions { train_share, seed: 0 };
    for train_share in [0.0, 1.0, f32::NAN, -3.0, 9.0] {
        let parts = split(&labels, Some(&[0, 0, 1, 1, 1]), &share(train_share));
        assert_eq!((parts.train.len(), parts.test.len()), (3, 2));
    }
    assert_eq!(split(&labels, Some(&[0]), &share(0.5)).test.len(), 2);
}
