//! Segment and delta against a plain map and brute force.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Model, assert_exact, attributes, expected, filters, segment, serial};
use proptest::collection::vec;
use proptest::prelude::{Just, ProptestConfig, Strategy, prop_oneof, proptest};
use tans_index::{
    Attributes, Delta, Embedding, Entry, Error, Filter, SearchOptions, Segment, merged_entries,
    search,
};

const DIM: usize = 5;

#[derive(Clone, Debug)]
enum Step {
    Insert(u64, Embedding, usize),
    Remove(u64),
    Merge,
}

fn vector() -> impl Strategy<Value = Embedding> {
    // Few distinct values, so that equal vectors and tied cosines occur.
    let component = prop_oneof![Just(0.0f32), Just(1.0), Just(-1.0), -1f32..1.0];
    vec(component, DIM).prop_filter_map("zero", |values| Embedding::new(values, DIM).ok())
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u64..40, vector(), 0usize..300).prop_map(|(key, v, at)| Step::Insert(key, v, at)),
        3 => (0u64..40).prop_map(Step::Remove),
        1 => Just(Step::Merge),
    ]
}

fn check(segment: Option<&Segment>, delta: &Delta, model: &Model, query: &Embedding) {
    for (name, filter) in filters() {
        let truth = expected(model, query, &filter);
        for (k, exact) in [(1, false), (4, true), (1000, false), (usize::MAX, true)] {
            let options = SearchOptions { k, ef: 10, exact };
            let found = search(segment, delta, query, &filter, &options).unwrap();
            assert!(found.iter().all(|hit| model.contains_key(&hit.key)), "{name}: a dead key");
            assert_exact(&found, &truth, k);
        }
    }
    let entries = merged_entries(segment, delta).unwrap();
    let live = entries.iter().map(|entry| (entry.key, &entry.vector, &entry.attributes));
    assert!(live.eq(model.iter().map(|(&key, (vector, attributes))| (key, vector, attributes))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn segment_and_delta_answer_like_a_map(
        steps in vec(step(), 1..80),
        queries in vec(vector(), 3),
    ) {
        let (mut model, mut delta) = (Model::new(), Delta::new(DIM));
        let mut base = None;
        for step in steps {
            match step {
                Step::Insert(key, vector, at) => {
                    delta.insert(key, &vector, attributes(at)).unwrap();
                    model.insert(key, (vector, attributes(at)));
                }
                Step::Remove(key) => {
                    delta.remove(key);
                    model.remove(&key);
                }
                Step::Merge => {
                    let open = base.as_ref().map(|(_, segment)| segment);
                    let entries = merged_entries(open, &delta).unwrap();
                    base = Some(segment(&entries, &serial()));
                    delta = Delta::new(DIM);
                }
            }
            let open = base.as_ref().map(|(_, segment)| segment);
            check(open, &delta, &model, &queries[0]);
        }
        let open = base.as_ref().map(|(_, segment)| segment);
        queries.iter().for_each(|query| check(open, &delta, &model, query));
    }
}

/// The same through walks: here the segment is too large for the planner to scan it.
#[test]
fn removed_and_replaced_keys_do_not_come_back_from_a_walk() {
    let entries = common::clustered(9_000, 16, 60, 4);
    let (_disk, segment) = segment(&entries, &tans_index::BuildOptions::default());
    let mut delta = Delta::new(16);
    let moved = entries[0].vector.clone();
    for (at, entry) in entries.iter().enumerate() {
        match at % 10 {
            0 => delta.remove(entry.key),
            1 => delta.insert(entry.key, &moved, Attributes::default()).unwrap(),
            _ => {}
        }
    }
    let options = SearchOptions { k: 20, ef: 40, exact: false };
    let everything = Filter::default();
    for query in entries.iter().step_by(50) {
        let found = search(Some(&segment), &delta, &query.vector, &everything, &options).unwrap();
        assert_eq!(found.len(), 20);
        for hit in found {
            let at = (hit.key / 3) as usize;
            assert_ne!(at % 10, 0, "a removed key");
            let vector = if at % 10 == 1 { &moved } else { &entries[at].vector };
            let pairs = vector.as_slice().iter().zip(query.vector.as_slice());
            let cosine: f32 = pairs.map(|(a, b)| a * b).sum();
            assert!((cosine - hit.cosine).abs() < 1e-5, "a replaced vector");
        }
    }
}

#[test]
fn bad_vectors_and_options_are_refused() {
    for bad in [[f32::NAN, 1.0], [1.0, f32::INFINITY], [f32::NEG_INFINITY, 0.0], [0.0, -0.0]] {
        assert!(matches!(Embedding::new(bad.to_vec(), 2), Err(Error::NotAVector { .. })));
    }
    assert!(matches!(Embedding::new(vec![], 0), Err(Error::NotAVector { .. })));
    let wrong = Embedding::new(vec![1.0; 3], 2);
    assert!(matches!(wrong, Err(Error::Dimension { expected: 2, found: 3 })));
    let too_wide = Embedding::new(vec![1.0; 70_000], 70_000);
    assert!(matches!(too_wide, Err(Error::Option { name: "dim", .. })));
    for extreme in [[3e38, 3e38], [1e-45, 1e-45]] {
        let vector = Embedding::new(extreme.to_vec(), 2).unwrap();
        assert!(vector.as_slice().iter().all(|value| (value - 0.5f32.sqrt()).abs() < 1e-6));
    }

    let unit = |dim: usize| Embedding::new(vec![1.0; dim], dim).unwrap();
    let mut delta = Delta::new(2);
    let refused = delta.insert(1, &unit(3), Attributes::default());
    assert!(matches!(refused, Err(Error::Dimension { expected: 2, found: 3 })));
    assert!(delta.is_empty() && delta.shadow_count() == 0);
    let ask = |segment: Option<&Segment>, query: &Embedding, k| {
        let options = SearchOptions { k, ..SearchOptions::default() };
        search(segment, &delta, query, &Filter::default(), &options)
    };
    assert!(matches!(ask(None, &unit(2), 0), Err(Error::Option { name: "k", .. })));
    assert!(matches!(ask(None, &unit(3), 1), Err(Error::Dimension { .. })));
    assert_eq!(ask(None, &unit(2), 1).unwrap(), vec![]);
    let other = Entry { key: 1, vector: unit(4), attributes: Attributes::default() };
    let (_disk, other) = segment(&[other], &serial());
    assert!(matches!(ask(Some(&other), &unit(2), 1), Err(Error::Dimension { .. })));
    let (_disk, empty) = segment(&[], &serial());
    assert_eq!(ask(Some(&empty), &unit(2), 1).unwrap(), vec![]);
}

#[test]
fn delta_and_segment_give_one_vector_the_same_cosine() {
    let entries = common::clustered(50, 21, 3, 9);
    let (_disk, segment) = segment(&entries, &serial());
    let (mut delta, empty) = (Delta::new(21), Delta::new(21));
    for entry in &entries {
        delta.insert(entry.key, &entry.vector, entry.attributes.clone()).unwrap();
    }
    let options = SearchOptions { k: 50, ..SearchOptions::default() };
    let (query, everything) = (&entries[7].vector, Filter::default());
    let from_delta = search(None, &delta, query, &everything, &options).unwrap();
    let from_segment = search(Some(&segment), &empty, query, &everything, &options).unwrap();
    assert_eq!(from_delta, from_segment);
}
