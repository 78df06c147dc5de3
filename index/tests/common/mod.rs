//! What the tests of the index share: seeded vectors, a segment on disk, a plain reference search.
#![expect(dead_code, reason = "each test file uses a part of this")]

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use tans_index::{
    Attributes, BuildOptions, Embedding, Entry, Filter, Neighbour, Segment, build_segment,
};
use tempfile::TempDir;

pub const FINGERPRINT: [u8; 32] = [7; 32];

/// Options of a small, deterministic build.
pub fn serial() -> BuildOptions {
    BuildOptions { m: 8, ef_construction: 60, threads: 1, seed: 3 }
}

/// `count` vectors around `clusters` centres, one percent of them with a rare tag.
pub fn clustered(count: usize, dim: usize, clusters: usize, seed: u64) -> Vec<Entry> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut direction = |spread: f32| -> Vec<f32> {
        (0..dim).map(|_| rng.random_range(-spread..=spread)).collect()
    };
    let centres: Vec<Vec<f32>> = (0..clusters).map(|_| direction(1.0)).collect();
    let vectors: Vec<Embedding> = (0..count)
        .map(|at| {
            let near = direction(0.4);
            let sum = near.iter().zip(&centres[at % clusters]).map(|(a, b)| a + b).collect();
            Embedding::new(sum, dim).unwrap()
        })
        .collect();
    let entries = vectors.into_iter().enumerate();
    entries
        .map(|(at, vector)| Entry { key: at as u64 * 3 + 1, vector, attributes: attributes(at) })
        .collect()
}

/// Attributes that follow from a number; each filter of `filters` lets a known part through.
pub fn attributes(at: usize) -> Attributes {
    let rare = if at % 100 == 5 { vec!["rare=yes".to_string()] } else { Vec::new() };
    Attributes {
        params: (!at.is_multiple_of(7)).then_some(at as u64),
        macs: Some(at as u64 % 1000),
        latency_ms: at.is_multiple_of(2).then_some(at as f32 / 10.0),
        license: [None, Some("MIT"), Some("Apache-2.0 OR Zlib")][at % 3].map(str::to_string),
        tags: [rare, vec![format!("third={}", at % 3)]].concat(),
    }
}

/// Filters from everything to nothing.
pub fn filters() -> Vec<(&'static str, Filter)> {
    let words = |words: &[&str]| words.iter().map(ToString::to_string).collect();
    vec![
        ("all", Filter::default()),
        ("runnable", Filter { runnable: true, ..Filter::default() }),
        ("half", Filter { macs_max: Some(499), ..Filter::default() }),
        ("known latency", Filter { latency_ms_max: Some(f32::INFINITY), ..Filter::default() }),
        (
            "two licenses",
            Filter { licenses: words(&["MIT", "none", "Apache-2.0"]), ..Filter::default() },
        ),
        ("tenth", Filter { macs_max: Some(99), ..Filter::default() }),
        ("percent", Filter { tags: words(&["rare=yes"]), ..Filter::default() }),
        (
            "few",
            Filter {
                tags: words(&["rare=yes", "third=1"]),
                params_max: Some(2000),
                ..Filter::default()
            },
        ),
        ("one row", Filter { params_max: Some(1), ..Filter::default() }),
        ("unknown tag", Filter { tags: words(&["rare=no"]), ..Filter::default() }),
        ("unknown license", Filter { licenses: words(&["GPL-3.0"]), ..Filter::default() }),
        ("no number", Filter { latency_ms_max: Some(f32::NAN), ..Filter::default() }),
    ]
}

/// The bytes of a segment of `entries`.
pub fn build(entries: &[Entry], options: &BuildOptions) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut progress = |_, _| ControlFlow::Continue(());
    let report = build_segment(entries, FINGERPRINT, options, &mut bytes, &mut progress).unwrap();
    assert_eq!(report.points, entries.len());
    bytes
}

/// A folder with one segment file in it.
pub struct OnDisk {
    pub folder: TempDir,
    pub path: PathBuf,
}

impl OnDisk {
    pub fn new(bytes: &[u8]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("segment");
        std::fs::write(&path, bytes).unwrap();
        Self { folder, path }
    }
}

/// A segment of `entries`, proven.
pub fn segment(entries: &[Entry], options: &BuildOptions) -> (OnDisk, Segment) {
    let disk = OnDisk::new(&build(entries, options));
    let segment = Segment::open(&disk.path).unwrap();
    segment.verify().unwrap();
    (disk, segment)
}

/// The plain model: all live entries by key.
pub type Model = BTreeMap<u64, (Embedding, Attributes)>;

pub fn model(entries: &[Entry]) -> Model {
    let rows = entries.iter();
    rows.map(|entry| (entry.key, (entry.vector.clone(), entry.attributes.clone()))).collect()
}

/// Brute force in f64: every match, by falling cosine.
pub fn expected(model: &Model, query: &Embedding, filter: &Filter) -> Vec<(u64, f64)> {
    let matching = model.iter().filter(|(_, (_, attributes))| filter.matches(attributes));
    let mut all: Vec<(u64, f64)> = matching
        .map(|(&key, (vector, _))| {
            let pairs = vector.as_slice().iter().zip(query.as_slice());
            (key, pairs.map(|(&a, &b)| f64::from(a) * f64::from(b)).sum())
        })
        .collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    all
}

/// Holds exact answers against brute force: same number, same cosines place by place, and each
/// key has the cosine that it claims. Keys of nearly equal cosines may change places.
pub fn assert_exact(found: &[Neighbour], expected: &[(u64, f64)], k: usize) {
    assert_eq!(found.len(), k.min(expected.len()));
    let by_key: BTreeMap<u64, f64> = expected.iter().copied().collect();
    for (hit, wanted) in found.iter().zip(expected) {
        let own = by_key.get(&hit.key).unwrap_or_else(|| panic!("{} does not match", hit.key));
        assert!((f64::from(hit.cosine) - own).abs() < 1e-5, "{hit:?} has {own}");
        assert!((own - wanted.1).abs() < 1e-5, "{hit:?} stands where {wanted:?} should");
    }
    assert_ordered(found);
}

/// By falling cosine, ties by key, no key twice.
pub fn assert_ordered(found: &[Neighbour]) {
    for pair in found.windows(2) {
        let (a, b) = (pair[0], pair[1]);
        assert!(a.cosine > b.cosine || (a.cosine == b.cosine && a.key < b.key), "{a:?} {b:?}");
    }
    assert!(found.iter().all(|hit| (-1.0..=1.0).contains(&hit.cosine)));
}
