//! Build and search of the index on clustered vectors: walks against the exact scan, one thread.
//!
//! Recall at 10 stands in the names of the walks: a fast search that finds the wrong vectors is
//! not a fast search.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::ops::ControlFlow;
use tans_index::{
    Attributes, BuildOptions, Delta, Embedding, Entry, Filter, Neighbour, SearchOptions, Segment,
    build_segment, search,
};

/// The size of the published zoo, and one where a scan no longer is an option.
const SIZES: [usize; 2] = [14_000, 60_000];
const DIM: usize = 128;
const CLUSTERS: usize = 1_000;
const QUERIES: usize = 500;
const SEED: u64 = 42;

criterion_group!(benches, builds, searches);
criterion_main!(benches);

fn builds(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("build");
    group.sample_size(10);
    let entries = entries(2_000, SEED);
    group.throughput(Throughput::Elements(entries.len() as u64));
    group.bench_function("2000 x 128, one thread", |bench| {
        let options = BuildOptions { threads: 1, ..BuildOptions::default() };
        bench.iter(|| build(&entries, &options));
    });
    group.finish();
}

fn searches(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("the temporary folder can be written");
    for size in SIZES {
        let path = folder.path().join(format!("{size}.segment"));
        let bytes = build(&entries(size, SEED), &BuildOptions::default());
        std::fs::write(&path, bytes).expect("the temporary folder can be written");
        let segment = Segment::open(&path).expect("a segment that was just built opens");
        search_one(criterion, &segment);
    }
}

fn search_one(criterion: &mut Criterion, segment: &Segment) {
    let mut group = criterion.benchmark_group(format!("search {} x {DIM}", segment.len()));
    let queries: Vec<Embedding> =
        entries(QUERIES, SEED + 1).into_iter().map(|entry| entry.vector).collect();
    let (delta, all) = (Delta::new(DIM), Filter::default());
    let tenth = Filter { macs_max: Some(99), ..Filter::default() };
    let ask = |query: &Embedding, filter: &Filter, ef, exact| {
        let options = SearchOptions { k: 10, ef, exact };
        search(Some(segment), &delta, query, filter, &options).expect("the query fits the index")
    };
    group.throughput(Throughput::Elements(QUERIES as u64));
    let every = |filter: &Filter, ef, exact| -> Vec<Vec<Neighbour>> {
        queries.iter().map(|query| ask(query, filter, ef, exact)).collect()
    };
    group.sample_size(10);
    group.bench_function("exact", |bench| bench.iter(|| black_box(every(&all, 10, true))));
    let truth = every(&all, 10, true);
    for ef in [16, 32, 64, 128] {
        let name = format!("walk ef {ef}, recall {:.3}", recall(&every(&all, ef, false), &truth));
        group.bench_function(BenchmarkId::from_parameter(name), |bench| {
            bench.iter(|| black_box(every(&all, ef, false)));
        });
    }
    let (truth, found) = (every(&tenth, 10, true), every(&tenth, 64, false));
    let name = format!("one in ten allowed, ef 64, recall {:.3}", recall(&found, &truth));
    group.bench_function(name, |bench| bench.iter(|| black_box(every(&tenth, 64, false))));
    group.finish();
}

fn recall(found: &[Vec<Neighbour>], truth: &[Vec<Neighbour>]) -> f64 {
    let pairs = found.iter().zip(truth);
    let hits: usize = pairs
        .map(|(found, truth)| {
            found.iter().filter(|hit| truth.iter().any(|t| t.key == hit.key)).count()
        })
        .sum();
    hits as f64 / truth.iter().map(Vec::len).sum::<usize>() as f64
}

fn build(entries: &[Entry], options: &BuildOptions) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut progress = |_, _| ControlFlow::Continue(());
    build_segment(entries, [0; 32], options, &mut bytes, &mut progress)
        .expect("the options are in range");
    bytes
}

/// Vectors around seeded centres (the same for every seed), a third of their length beside them.
fn entries(count: usize, seed: u64) -> Vec<Entry> {
    let mut centre_source = Noise(7);
    let centres: Vec<Vec<f32>> = (0..CLUSTERS).map(|_| centre_source.vector()).collect();
    let mut noise = Noise(seed);
    let mut entry = |at: usize| {
        let centre = &centres[(noise.next() % CLUSTERS as u64) as usize];
        let pairs = centre.iter().zip(noise.vector());
        let values = pairs.map(|(centre, beside)| centre + 0.5 * beside).collect();
        let vector = Embedding::new(values, DIM).expect("noise is not zero");
        let attributes = Attributes { macs: Some(at as u64 % 1000), ..Attributes::default() };
        Entry { key: at as u64, vector, attributes }
    };
    (0..count).map(&mut entry).collect()
}

/// splitmix64: the benches need the same vectors everywhere, not good randomness.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn vector(&mut self) -> Vec<f32> {
        (0..DIM).map(|_| (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0).collect()
    }
}
