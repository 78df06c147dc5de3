//! The choice, on datasets and networks that are made up.

#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

use super::*;
use std::ops::ControlFlow;

/// Networks whose sizes double, each with as many MACs, on `datasets` datasets of ten classes.
fn growth(datasets: usize, candidates: usize) -> Growth {
    let candidates: Vec<Candidate> = (0..candidates)
        .map(|at| {
            let (params, macs) = (10_000 << at, 1_000_000 << at);
            let described = Described::new(&[], &[at as f32], (params, macs));
            let spec = format!("made:{at}@32");
            Candidate { spec, macs, params, params_per_class: 100, described }
        })
        .collect();
    let line = vec![(0..datasets).map(|at| vec![at as f32]).collect()];
    let described: Vec<Described> = candidates.iter().map(|it| it.described.clone()).collect();
    Growth {
        field: Field {
            tasks: Distances::between(datasets, &line),
            networks: between_networks(&described),
        },
        candidates,
        classes: vec![10; datasets],
        results: Vec::new(),
        elsewhere: Vec::new(),
        members: vec![Vec::new(); datasets],
        closed: HashSet::new(),
    }
}

fn learn(growth: &mut Growth, proposal: &Proposal, accuracy: f32) {
    let candidate = &growth.candidates[proposal.candidate];
    let (spec, params) = (candidate.spec.clone(), candidate.params(10));
    growth.learn(proposal, Member { model: spec.clone(), spec, params, accuracy });
}

fn mean_area(growth: &Growth) -> f64 {
    let datasets = growth.classes.len();
    (0..datasets).map(|it| growth.staircase(it).area()).sum::<f64>() / datasets as f64
}

#[test]
fn no_pair_is_proposed_twice_and_each_once() {
    for is_random in [false, true] {
        let (mut growth, mut seen) = (growth(3, 5), HashSet::new());
        let mut random = ChaCha8Rng::seed_from_u64(3);
        for left in (1..=15).rev() {
            assert_eq!(growth.open(), left);
            let proposal =
                if is_random { growth.draw(7) } else { growth.propose().unwrap() }.unwrap();
            assert!(seen.insert((proposal.dataset, proposal.candidate)), "{proposal:?} again");
            match random.random_bool(0.2) {
                true => growth.close(&proposal),
                false => learn(&mut growth, &proposal, random.random()),
            }
        }
        assert_eq!((growth.open(), growth.draw(7), growth.propose().unwrap()), (0, None, None));
    }
}

#[test]
fn first_picks_go_to_every_dataset_and_the_cheapest_network() {
    let mut growth = growth(4, 6);
    let mut datasets = HashSet::new();
    for _ in 0..4 {
        let proposal = growth.propose().unwrap().unwrap();
        assert_eq!(proposal.candidate, 0, "the smallest raises the whole staircase");
        datasets.insert(proposal.dataset);
        learn(&mut growth, &proposal, 0.5);
    }
    assert_eq!(datasets.len(), 4);
}

#[test]
fn equal_gains_go_to_the_fewest_macs() {
    let mut growth = growth(1, 3);
    for (at, macs) in [(0, 30), (1, 10), (2, 20)] {
        growth.candidates[at] = Candidate { macs, ..growth.candidates[0].clone() };
    }
    growth.field.networks = Distances::between(3, &[]);
    assert_eq!(growth.propose().unwrap().unwrap().candidate, 1);
}

#[test]
fn the_choice_beats_chance_where_larger_is_better_up_to_a_point() {
    let accuracy = |proposal: &Proposal| {
        let size = proposal.candidate as f32;
        0.3 + 0.1 * proposal.dataset as f32 + 0.05 * size - 0.003 * size * size
    };
    let run = |choose: &dyn Fn(&Growth) -> Proposal| {
        let mut growth = growth(3, 12);
        for _ in 0..9 {
            let proposal = choose(&growth);
            learn(&mut growth, &proposal, accuracy(&proposal));
        }
        mean_area(&growth)
    };
    let chosen = run(&|growth| growth.propose().unwrap().unwrap());
    let drawn: f64 =
        (0..20).map(|seed| run(&|growth| growth.draw(seed).unwrap())).sum::<f64>() / 20.0;
    assert!(chosen > drawn + 0.05, "{chosen} {drawn}");
}

#[test]
fn a_random_run_goes_on_as_it_would_have() {
    let (mut whole, mut stopped) = (growth(2, 6), growth(2, 6));
    for at in 0..8 {
        let proposal = whole.draw(5).unwrap();
        assert_eq!(Some(proposal), stopped.draw(5), "training {at}");
        learn(&mut whole, &proposal, 0.5);
        learn(&mut stopped, &proposal, 0.1 * at as f32);
    }
    assert_ne!(growth(2, 6).draw(5), growth(2, 6).draw(6));
}

#[test]
fn costs_are_those_of_the_drawn_network() {
    let specs = ["small:mobile-w12@64", "mobilenetv3:d2-k3-e3@32", "efficientnet_lite:lite0@224"];
    for spec in specs {
        let candidate = candidate(spec.to_owned(), Device::Cpu).unwrap();
        for classes in [2, 10, 33] {
            let made = spaces::generate(spec, classes, 0).unwrap();
            assert_eq!(candidate.params(classes), cost::params(&made.graph), "{spec}, {classes}");
        }
        assert!(candidate.macs > candidate.params / 2, "{spec}: {}", candidate.macs);
    }
}

#[test]
fn surveying_a_space_can_be_stopped() {
    let selection = Selection::parse("small").unwrap();
    let mut stop = |_: crate::Progress| ControlFlow::Break(());
    let found = candidates(&selection, 0, Device::Cpu, &mut stop);
    assert!(matches!(found, Err(Error::Cancelled)));
}
