//! Builds a segment with hnsw_rs; the one file that speaks that crate.

use crate::codes::{Points, quantise};
use crate::columns::ColumnData;
use crate::copies;
use crate::embedding::padded_dim;
use crate::flat::FlatGraph;
use crate::format::{self, COUNT_MAX, Header, LEVELS_MAX, M_MAX};
use crate::map::bytes_of;
use crate::refine::refine;
use crate::repair::repair;
use crate::simd::Kernel;
use crate::{Attributes, Embedding, Error, Result};
use anndists::dist::distances::Distance;
use hnsw_rs::hnsw::{Hnsw, Point};
use rayon::prelude::{IntoParallelRefIterator, ParallelIterator};
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::collections::HashSet;
use std::io::Write;
use std::ops::ControlFlow;

/// One vector to be indexed.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Key, unique.
    pub key: u64,
    /// Unit vector.
    pub vector: Embedding,
    /// Columns for filters.
    pub attributes: Attributes,
}

/// Options of a build.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BuildOptions {
    /// Neighbours per point and layer (level 0 has twice as many), 2..=256. Default 16.
    pub m: usize,
    /// Candidates among which the links of level 0 are chosen, at least 1. Default 200.
    pub ef_construction: usize,
    /// Threads, at least 1; 1 makes the build deterministic. Default: all cores.
    pub threads: usize,
    /// Seed of the order of insertion (the level generator of hnsw_rs has a fixed one). Default 0.
    pub seed: u64,
}

impl Default for BuildOptions {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self { m: 16, ef_construction: 200, threads, seed: 0 }
    }
}

/// What a build did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuildReport {
    /// Vectors in the segment.
    pub points: usize,
    /// Points that could not be reached from the entry point, or did not find themselves, and
    /// were linked again.
    pub repaired: usize,
}

/// Points that go in one after the other before threads start: hnsw_rs leaves a point without any
/// link if it comes while the graph has no entry point yet.
const SERIAL_START: usize = 256;
/// hnsw_rs keeps this many candidates, or m if that is more: with fewer than m its graph falls apart.
const SKETCH_EF: usize = 16;
/// Insertions between two calls of `progress`.
const CHUNK: usize = 1024;

/// Builds a segment of `entries` and writes it to `out`.
///
/// `progress(done, total)` is called now and then; `Break` cancels. Nothing is written to `out`
/// before the graph is complete; a segment becomes durable and visible by the caller's rename.
///
/// # Errors
/// `Error::Option` for options out of range or a key that occurs twice, `Error::Dimension` for
/// mixed dimensions, `Error::Cancelled`, `Error::Io` if `out` fails.
pub fn build_segment(
    entries: &[Entry],
    fingerprint: [u8; 32],
    options: &BuildOptions,
    out: &mut dyn Write,
    progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<BuildReport> {
    check_options(options)?;
    let dim = check_entries(entries)?;
    let pool = pool(options.threads)?;
    let total = entries.len();
    // To choose the links takes about three times as long as to insert the points.
    let mut inserted = |done| step(progress, done / 4, total);
    let groups = copies::group(entries);
    let distinct: Vec<&Entry> = groups.firsts.iter().map(|&first| &entries[first]).collect();
    let built = build_graph(&distinct, options, &pool, &mut inserted)?;
    let (mut graph, order) = flatten(&built, options.m);
    drop(built);
    let stride = padded_dim(dim);
    let hanging = order.iter().flat_map(|&origin| &groups.copies[origin]);
    let hanging = hanging.map(|&copy| &entries[copy]);
    let ordered: Vec<&Entry> = order.iter().map(|&at| distinct[at]).chain(hanging).collect();
    let mut vectors = Vec::with_capacity(ordered.len() * stride);
    ordered.iter().for_each(|entry| vectors.extend(entry.vector.padded()));
    let (codes, ranges) = quantise(&vectors, stride);
    let points = Points { vectors: &vectors, codes: &codes, ranges: &ranges, stride };
    let mut refined = |done| step(progress, (total + 3 * done) / 4, total);
    refine(&mut graph, points, options.ef_construction, &pool, &mut refined)?;
    let copies: Vec<usize> = order.iter().map(|&origin| groups.copies[origin].len()).collect();
    copies::hang(&mut graph, &copies);
    let repaired = pool.install(|| repair(&mut graph, points));
    step(progress, total, total)?;
    let header = Header {
        dim: dim as u32,
        count: entries.len() as u64,
        fingerprint,
        m: options.m as u32,
        ef_construction: u32::try_from(options.ef_construction).unwrap_or(u32::MAX),
        threads: u32::try_from(options.threads).unwrap_or(u32::MAX),
        levels: graph.level_counts.len() as u32,
        seed: options.seed,
    };
    write(&header, &graph, &ordered, points, out)?;
    tracing::debug!(points = entries.len(), repaired, "built a segment");
    Ok(BuildReport { points: entries.len(), repaired })
}

fn check_options(options: &BuildOptions) -> Result<()> {
    let BuildOptions { m, ef_construction, threads, seed: _ } = *options;
    // hnsw_rs ends the process for m above 256, and its level generator divides by ln(m).
    let (name, expected, found) = if !(2..=M_MAX).contains(&m) {
        ("m", format!("2..={M_MAX}"), m)
    } else if ef_construction == 0 {
        ("ef_construction", "at least 1".into(), ef_construction)
    } else if threads == 0 {
        ("threads", "at least 1".into(), threads)
    } else {
        return Ok(());
    };
    Err(Error::Option { name, expected, found: found.to_string() })
}

/// Returns the dimension that all entries share, 0 if there are none.
fn check_entries(entries: &[Entry]) -> Result<usize> {
    let wrong = |expected: &str, found| {
        Err(Error::Option { name: "entries", expected: expected.into(), found })
    };
    if entries.len() > COUNT_MAX {
        return wrong("at most 2^31 - 1 vectors", entries.len().to_string());
    }
    let dim = entries.first().map_or(0, |entry| entry.vector.dim());
    let mut keys = HashSet::with_capacity(entries.len());
    for entry in entries {
        if entry.vector.dim() != dim {
            return Err(Error::Dimension { expected: dim, found: entry.vector.dim() });
        }
        if !keys.insert(entry.key) {
            return wrong("unique keys", format!("key {} twice", entry.key));
        }
    }
    Ok(dim)
}

/// Threads of this build alone.
fn pool(threads: usize) -> Result<ThreadPool> {
    ThreadPoolBuilder::new().num_threads(threads).build().map_err(|error| Error::Option {
        name: "threads",
        expected: "a number of threads that the system can start".into(),
        found: format!("{threads} ({error})"),
    })
}

/// Cosine distance of padded unit vectors. Rounding makes equal vectors slightly more similar
/// than 1, and hnsw_rs asserts that no distance is negative: the kernel clamps.
struct CosineDistance(Kernel);

impl Distance<f32> for CosineDistance {
    fn eval(&self, a: &[f32], b: &[f32]) -> f32 {
        (1.0 - self.0.cosine(a, b)).max(0.0)
    }
}

type Graph<'a> = Hnsw<'a, f32, CosineDistance>;

fn build_graph(
    entries: &[&Entry],
    options: &BuildOptions,
    pool: &ThreadPool,
    step: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Graph<'static>> {
    let total = entries.len();
    let distance = CosineDistance(Kernel::detect());
    let levels = LEVELS_MAX + 1;
    // All links are chosen anew among `ef_construction` candidates; to start from, a coarse graph
    // is as good as a fine one, which takes hnsw_rs several times as long.
    let ef = SKETCH_EF.max(options.m);
    // Keeping more candidates than there are points changes nothing but the memory asked for.
    let ef = ef.min(total.max(1));
    let graph = Graph::new(options.m, total.max(1), levels, ef, distance);
    let insert = |&origin: &usize| graph.insert((&entries[origin].vector.padded(), origin));
    let order = shuffled(total, options.seed);
    let (start, rest) = order.split_at(total.min(SERIAL_START));
    step(0)?;
    start.iter().for_each(insert);
    let mut done = start.len();
    for chunk in rest.chunks(CHUNK) {
        step(done)?;
        match options.threads {
            // In the order of insertion, so that equal seeds make equal graphs.
            1 => chunk.iter().for_each(insert),
            _ => pool.install(|| chunk.par_iter().for_each(insert)),
        }
        done += chunk.len();
    }
    Ok(graph)
}

fn step(
    progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    done: usize,
    total: usize,
) -> Result<()> {
    match progress(done, total) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::Cancelled),
    }
}

/// 0..count in an order that only `seed` decides (splitmix64 and Fisher-Yates).
fn shuffled(count: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    let mut state = seed;
    for last in (1..count).rev() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        order.swap(last, (mixed % (last as u64 + 1)) as usize);
    }
    order
}

/// Brings the graph into arrays whose positions are ordered by falling level. Returns the entry
/// of each position too.
fn flatten(graph: &Graph<'_>, m: usize) -> (FlatGraph, Vec<usize>) {
    // Each point is listed at its top level only. Within a level the order of the entries
    // decides, so that the order in which threads inserted does not show.
    let indexation = graph.get_point_indexation();
    let mut order = Vec::with_capacity(graph.get_nb_point());
    let mut level_counts = Vec::new();
    for level in (0..=LEVELS_MAX).rev() {
        let start = order.len();
        order.extend(indexation.get_layer_iterator(level).map(|point| point.get_origin_id()));
        order[start..].sort_unstable();
        if level > 0 && !order.is_empty() {
            level_counts.insert(0, order.len() as u32);
        }
    }
    let mut positions = vec![0u32; order.len()];
    for (position, &origin) in order.iter().enumerate() {
        positions[origin] = position as u32;
    }
    let mut flat = FlatGraph::new(order.len(), m, level_counts);
    for top in 0..=LEVELS_MAX {
        for point in indexation.get_layer_iterator(top) {
            copy_links(&mut flat, &positions, &point, top);
        }
    }
    (flat, order)
}

/// hnsw_rs also notes, for a point, who was passed on levels that the point does not reach, and
/// for an early point links at levels that its neighbour does not reach: neither is a link.
fn copy_links(flat: &mut FlatGraph, positions: &[u32], point: &Point<'_, f32>, top: usize) {
    let from = positions[point.get_origin_id()];
    for (level, row) in point.get_neighborhood_id().iter().enumerate().take(top + 1) {
        let links: Vec<u32> = row.iter().map(|neighbour| positions[neighbour.d_id]).collect();
        flat.set_row(level, from, &links);
    }
}

fn write(
    header: &Header,
    graph: &FlatGraph,
    ordered: &[&Entry],
    points: Points<'_>,
    out: &mut dyn Write,
) -> Result<()> {
    let columns = ColumnData::new(ordered.iter().map(|entry| &entry.attributes))?;
    let keys: Vec<u64> = ordered.iter().map(|entry| entry.key).collect();
    // In the order of `Section::ALL`.
    let sections = [
        bytes_of(&graph.links),
        bytes_of(&graph.level_counts),
        bytes_of(&graph.upper),
        bytes_of(points.vectors),
        bytes_of(points.codes),
        bytes_of(points.ranges),
        bytes_of(&keys),
        &columns.flags,
        bytes_of(&columns.params),
        bytes_of(&columns.macs),
        bytes_of(&columns.latency),
        bytes_of(&columns.license),
        bytes_of(&columns.tag_offsets),
        bytes_of(&columns.tags),
        bytes_of(&columns.string_offsets),
        &columns.strings,
        bytes_of(&columns.params_order),
        bytes_of(&columns.macs_order),
        bytes_of(&columns.latency_order),
        bytes_of(&columns.posting_offsets),
        bytes_of(&columns.postings),
    ];
    format::write(header, &sections, out)
}
