//! Builds: small and strange inputs, options, determinism, cancelling.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{FINGERPRINT, build, clustered, segment, serial};
use std::io::{self, Write};
use std::ops::ControlFlow;
use tans_index::{
    Attributes, BuildOptions, Delta, Embedding, Entry, Error, Filter, SearchOptions, build_segment,
    search,
};

fn progress(_done: usize, _total: usize) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn nothing_one_and_two_vectors_are_segments() {
    for count in 0..=2 {
        let entries = clustered(count, 3, 1, 1);
        let (_disk, segment) = segment(&entries, &BuildOptions::default());
        assert_eq!((segment.len(), segment.is_empty()), (count, count == 0));
        let query = Embedding::new(vec![1.0, 2.0, 3.0], 3).unwrap();
        for exact in [true, false] {
            let options = SearchOptions { exact, ..SearchOptions::default() };
            let everything = Filter::default();
            let found = search(Some(&segment), &Delta::new(3), &query, &everything, &options);
            assert_eq!(found.unwrap().len(), count);
        }
    }
}

#[test]
fn groups_of_copies_hide_nothing() {
    // As of references with few results: a hundred vectors, forty of each.
    let mut entries = clustered(4_000, 24, 10, 8);
    for at in 100..entries.len() {
        entries[at].vector = entries[at % 100].vector.clone();
    }
    let (_disk, segment) = segment(&entries, &BuildOptions::default());
    let (empty, everything) = (Delta::new(24), Filter::default());
    for query in clustered(100, 24, 10, 9) {
        let best = |exact| {
            // Copies take places among the candidates: these are ten vectors.
            let options = SearchOptions { k: 10, ef: 400, exact };
            search(Some(&segment), &empty, &query.vector, &everything, &options).unwrap()[0].cosine
        };
        assert!((best(false) - best(true)).abs() < 1e-5, "{} {}", best(false), best(true));
    }
}

#[test]
fn equal_vectors_are_all_found() {
    let mut entries = clustered(6_000, 8, 6, 2);
    let twin = entries[0].vector.clone();
    for entry in entries.iter_mut().take(5_000) {
        entry.vector = twin.clone();
    }
    for options in [serial(), BuildOptions::default()] {
        let (_disk, segment) = segment(&entries, &options);
        let (empty, everything) = (Delta::new(8), Filter::default());
        for k in [10, 400, 6_000] {
            let options = SearchOptions { k, ef: k, exact: false };
            let found = search(Some(&segment), &empty, &twin, &everything, &options).unwrap();
            assert_eq!(found.len(), k);
            let twins = found.iter().filter(|hit| hit.cosine > 0.9999).count();
            assert!(twins >= k.min(5_000), "{twins} of {k}");
        }
        // The few that differ must not be walled off by the many that do not.
        for entry in &entries[5_000..] {
            let options = SearchOptions { k: 1, ef: 64, exact: false };
            let found = search(Some(&segment), &empty, &entry.vector, &everything, &options);
            assert_eq!(found.unwrap()[0].key, entry.key);
        }
    }
}

#[test]
fn one_thread_and_one_seed_give_one_file() {
    let entries = clustered(1_500, 20, 30, 3);
    let bytes = build(&entries, &serial());
    assert_eq!(bytes, build(&entries, &serial()));
    assert_ne!(bytes, build(&entries, &BuildOptions { seed: 4, ..serial() }));
}

#[test]
fn every_point_finds_itself() {
    let entries = clustered(6_000, 12, 500, 13);
    let (empty, everything) = (Delta::new(12), Filter::default());
    for options in [serial(), BuildOptions { m: 2, ef_construction: 1, threads: 4, seed: 0 }] {
        let (_disk, segment) = segment(&entries, &options);
        for entry in &entries {
            let options = SearchOptions { k: 1, ef: 64, exact: false };
            let found = search(Some(&segment), &empty, &entry.vector, &everything, &options);
            assert_eq!(found.unwrap()[0].key, entry.key);
        }
    }
}

#[test]
fn options_out_of_range_are_refused() {
    let entries = clustered(3, 4, 1, 1);
    let refuse = |entries: &[Entry], options: BuildOptions| {
        let mut out = Vec::new();
        let error = build_segment(entries, FINGERPRINT, &options, &mut out, &mut progress);
        assert!(out.is_empty());
        error.unwrap_err()
    };
    for (name, options) in [
        ("m", BuildOptions { m: 1, ..serial() }),
        ("m", BuildOptions { m: 257, ..serial() }),
        ("ef_construction", BuildOptions { ef_construction: 0, ..serial() }),
        ("threads", BuildOptions { threads: 0, ..serial() }),
    ] {
        let error = refuse(&entries, options);
        assert!(matches!(error, Error::Option { name: found, .. } if found == name), "{error}");
    }
    let largest = BuildOptions { m: 256, ef_construction: usize::MAX, ..serial() };
    assert!(!build(&entries, &largest).is_empty());

    let twice = [entries[0].clone(), entries[0].clone()];
    assert!(matches!(refuse(&twice, serial()), Error::Option { name: "entries", .. }));
    let vector = Embedding::new(vec![1.0; 5], 5).unwrap();
    let wider = Entry { key: 99, vector, attributes: Attributes::default() };
    let mixed = [entries[0].clone(), wider];
    assert!(matches!(refuse(&mixed, serial()), Error::Dimension { expected: 4, found: 5 }));
}

#[test]
fn cancelling_writes_nothing_and_progress_rises() {
    let entries = clustered(3_000, 8, 10, 1);
    let mut calls = Vec::new();
    let mut note = |done, total| {
        calls.push((done, total));
        ControlFlow::Continue(())
    };
    build_segment(&entries, FINGERPRINT, &serial(), &mut io::sink(), &mut note).unwrap();
    assert!(calls.is_sorted() && calls.len() > 3);
    assert_eq!((calls[0], calls[calls.len() - 1]), ((0, 3_000), (3_000, 3_000)));
    for stop_at in 0..calls.len() {
        let (mut out, mut left) = (Vec::new(), stop_at);
        let mut stop = |_, _| match left.checked_sub(1) {
            Some(less) => {
                left = less;
                ControlFlow::Continue(())
            }
            None => ControlFlow::Break(()),
        };
        let cancelled = build_segment(&entries, FINGERPRINT, &serial(), &mut out, &mut stop);
        assert!(matches!(cancelled, Err(Error::Cancelled)) && out.is_empty());
    }
}

#[test]
fn a_full_disk_is_an_error() {
    struct Full(usize);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let entries = clustered(50, 8, 10, 1);
    for room in [0, 600, 5_000] {
        let full = &mut Full(room);
        let refused = build_segment(&entries, FINGERPRINT, &serial(), full, &mut progress);
        assert!(matches!(refused, Err(Error::Io { action: "write", .. })));
    }
}
