//! Walks and filters against brute force.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{assert_exact, assert_ordered, clustered, expected, filters, model, segment};
use std::collections::BTreeSet;
use tans_index::{BuildOptions, Delta, Entry, Filter, SearchOptions, search};

const K: usize = 10;

fn options(exact: bool) -> SearchOptions {
    SearchOptions { k: K, ef: 100, exact }
}

#[test]
fn walks_keep_their_recall_under_every_filter() {
    let mut entries = clustered(12_060, 24, 300, 1);
    let queries = entries.split_off(12_000);
    let build = BuildOptions { threads: 2, ..BuildOptions::default() };
    let (_disk, segment) = segment(&entries, &build);
    let (model, delta) = (model(&entries), Delta::new(24));
    for (name, filter) in filters() {
        let (mut wanted, mut hit) = (0, 0);
        for query in &queries {
            let query = &query.vector;
            let truth = expected(&model, query, &filter);
            let exact = search(Some(&segment), &delta, query, &filter, &options(true)).unwrap();
            assert_exact(&exact, &truth, K);
            let found = search(Some(&segment), &delta, query, &filter, &options(false)).unwrap();
            assert_ordered(&found);
            assert_eq!(found.len(), K.min(truth.len()), "{name}");
            let nearest: BTreeSet<u64> = truth.iter().take(K).map(|row| row.0).collect();
            let all: BTreeSet<u64> = truth.iter().map(|row| row.0).collect();
            assert!(found.iter().all(|hit| all.contains(&hit.key)), "{name}");
            wanted += nearest.len();
            hit += found.iter().filter(|hit| nearest.contains(&hit.key)).count();
        }
        assert!(hit as f64 >= 0.97 * wanted as f64, "{name}: {hit} of {wanted}");
    }
}

#[test]
fn a_wider_walk_finds_more() {
    let mut entries = clustered(12_080, 48, 40, 5);
    let queries = entries.split_off(12_000);
    let build = BuildOptions { m: 6, ef_construction: 40, threads: 2, seed: 0 };
    let (_disk, segment) = segment(&entries, &build);
    let (model, delta, filter) = (model(&entries), Delta::new(48), Filter::default());
    let hits = |ef| {
        let options = SearchOptions { k: 1, ef, exact: false };
        let found = |query| search(Some(&segment), &delta, query, &filter, &options).unwrap()[0];
        let right = |query| found(query).key == expected(&model, query, &filter)[0].0;
        queries.iter().filter(|query| right(&query.vector)).count()
    };
    let (narrow, wide) = (hits(1), hits(200));
    assert!(narrow < wide && wide >= 76, "{narrow} and {wide} of 80");
}

/// Each cluster holds fewer points than a build keeps candidates, or more: links must lead on from
/// cluster to cluster, and inside each to every member.
#[test]
fn many_tight_clusters_are_one_graph() {
    for clusters in [30, 120] {
        let mut entries = clustered(12_200, 64, clusters, 3);
        let queries = entries.split_off(12_000);
        let build = BuildOptions { threads: 2, ..BuildOptions::default() };
        let (_disk, segment) = segment(&entries, &build);
        let (delta, filter) = (Delta::new(64), Filter::default());
        let found = |query, exact| {
            let options = SearchOptions { k: K, ef: 40, exact };
            let found = search(Some(&segment), &delta, query, &filter, &options).unwrap();
            found.iter().map(|hit| hit.key).collect::<BTreeSet<u64>>()
        };
        let hits = queries.iter().map(|Entry { vector, .. }| {
            found(vector, true).intersection(&found(vector, false)).count()
        });
        let (hit, wanted) = (hits.sum::<usize>(), queries.len() * K);
        assert!(hit as f64 >= 0.98 * wanted as f64, "{clusters} clusters: {hit} of {wanted}");
    }
}

/// The filter lets through only points far from the query, so that a walk meets none for long.
#[test]
fn a_filter_that_excludes_the_whole_neighbourhood_is_answered_in_full() {
    let mut entries = clustered(6_000, 16, 2, 8);
    for entry in &mut entries {
        entry.attributes.params = Some(entry.key / 3 % 2);
    }
    let build = BuildOptions { ef_construction: 50, ..BuildOptions::default() };
    let (_disk, segment) = segment(&entries, &build);
    let (model, delta) = (model(&entries), Delta::new(16));
    let filter = Filter { params_max: Some(0), ..Filter::default() };
    // Odd positions belong to the other centre.
    for at in [1, 501, 5_999] {
        let query = &entries[at].vector;
        let truth = expected(&model, query, &filter);
        for k in [1, 10, 2_990, 9_000] {
            let options = SearchOptions { k, ef: 50, exact: false };
            let found = search(Some(&segment), &delta, query, &filter, &options).unwrap();
            assert_eq!(found.len(), k.min(truth.len()));
            assert!(f64::from(found[0].cosine) > truth[9].1 - 1e-5);
        }
    }
}
