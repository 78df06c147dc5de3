//! Search over a segment and a delta as if they were one.

use crate::codes::Probe;
use crate::columns::{Columns, Compiled};
use crate::embedding::padded_dim;
use crate::simd::{Kernel, prefetch, row};
use crate::walk::{Ending, Graph, Limits, Scratch, scan_codes, walk, walk_filtered};
use crate::{Delta, Embedding, Error, Filter, Result, Segment};
use std::cell::Cell;
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// One answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbour {
    /// Key.
    pub key: u64,
    /// Cosine similarity, in -1..=1.
    pub cosine: f32,
}

/// Options of a search.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SearchOptions {
    /// Answers wanted, at least 1. Default 10.
    pub k: usize,
    /// Candidates kept during the walk. Default 100.
    pub ef: usize,
    /// Scan every vector instead of walking the graph. Default false.
    pub exact: bool,
}

impl Default for SearchOptions {
    fn default() -> Self {
        Self { k: 10, ef: 100, exact: false }
    }
}

/// Options of a search of many queries.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchOptions {
    /// As for one query.
    pub search: SearchOptions,
    /// Threads, at least 1. Default: all cores.
    pub threads: usize,
}

impl Default for BatchOptions {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self { search: SearchOptions::default(), threads }
    }
}

/// Below this many allowed vectors a scan is taken: it is exact and costs microseconds.
const SCAN_BELOW: f64 = 2_000.0;
/// What a comparison in a walk costs, in cosines of a scan: its row is not the next one in memory.
const WALK_POINT: f64 = 1.0;
/// The same in a walk that goes on for long, with long lists of candidates.
const FAR_WALK_POINT: f64 = 3.0;
/// The same for a point that a scan takes from a list.
const LISTED_POINT: f64 = 0.7;
/// Rows that are asked to estimate how many a filter lets through.
const SAMPLE: usize = 512;
/// Share of allowed points from which on a filtered walk keeps as many candidates as any other.
const WIDE_SHARE: f64 = 0.25;
/// Rows per step of a scan.
const BLOCK: usize = 16;
/// Beyond so many, a list of the best that is kept in order costs more than a scan.
const KEPT_MAX: usize = 10_000;
/// Points beyond `k` that a scan of codes keeps for the re-rank.
const SCAN_SPARE: usize = 64;
/// Rows per step of a re-rank, components of a cache line, and lines that are asked for at once.
const RERANK: usize = 8;
const LINE: usize = 16;
const LINES: usize = 16;
/// Points are re-ranked while the cosine of their codes is at most this many standard deviations
/// of its error below the worst answer.
const DEVIATIONS: f32 = 4.0;

/// The `k` nearest of segment and delta that match `filter`, by falling cosine (ties: smaller key
/// first).
///
/// Returns min(k, matches) neighbours, always. With `exact`, for small segments and under narrow
/// filters they are the nearest; otherwise the walk may miss some, fewer the larger `ef` is.
///
/// # Errors
/// `Error::Option` for k = 0, `Error::Dimension` if the query's dimension, the delta's and the
/// segment's differ, `Error::Io` if the vectors of a large segment cannot be read.
pub fn search(
    segment: Option<&Segment>,
    delta: &Delta,
    query: &Embedding,
    filter: &Filter,
    options: &SearchOptions,
) -> Result<Vec<Neighbour>> {
    // An empty segment knows no dimension and has nothing to say.
    let segment = segment.filter(|segment| !segment.is_empty());
    check(segment, delta, query, options)?;
    Memory::with(|memory| {
        memory.top.start(options.k);
        memory.query.clear();
        memory.query.extend_from_slice(query.as_slice());
        memory.query.resize(padded_dim(query.dim()), 0.0);
        memory.scan_delta(delta, filter);
        if let Some(segment) = segment {
            SegmentPart::new(segment, delta, filter).search(options, memory)?;
        }
        Ok(memory.top.take_sorted())
    })
}

/// [`search`] for many queries, shared out over `threads` threads; answers in the order of queries.
///
/// # Errors
/// As [`search`]; `Error::Option` for 0 threads.
pub fn search_batch(
    segment: Option<&Segment>,
    delta: &Delta,
    queries: &[Embedding],
    filter: &Filter,
    options: &BatchOptions,
) -> Result<Vec<Vec<Neighbour>>> {
    let BatchOptions { search: options, threads } = options;
    if *threads == 0 {
        let expected = "at least 1".into();
        return Err(Error::Option { name: "threads", expected, found: "0".into() });
    }
    let part = |queries: &[Embedding]| -> Result<Vec<Vec<Neighbour>>> {
        queries.iter().map(|query| search(segment, delta, query, filter, options)).collect()
    };
    let each = queries.len().div_ceil(*threads).max(1);
    let mut parts = queries.chunks(each);
    let own = parts.next().unwrap_or_default();
    std::thread::scope(|scope| {
        let others: Vec<_> = parts.map(|queries| scope.spawn(move || part(queries))).collect();
        let mut answers = part(own)?;
        for other in others {
            // A panic of a thread goes on in this one, as it would have without threads.
            answers.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok(answers)
    })
}

fn check(
    segment: Option<&Segment>,
    delta: &Delta,
    query: &Embedding,
    options: &SearchOptions,
) -> Result<()> {
    if options.k == 0 {
        return Err(Error::Option { name: "k", expected: "at least 1".into(), found: "0".into() });
    }
    let mut dims = std::iter::once(query.dim()).chain(segment.map(Segment::dim));
    match dims.find(|&dim| dim != delta.dim()) {
        Some(found) => Err(Error::Dimension { expected: delta.dim(), found }),
        None => Ok(()),
    }
}

/// What a search needs beside the walk's memory, kept from search to search.
#[derive(Default)]
struct Memory {
    /// The padded query.
    query: Vec<f32>,
    probe: Probe,
    top: Top,
    positions: Vec<u32>,
    /// Allowed points of a scan.
    listed: Vec<u32>,
    /// Vectors that were read for a re-rank.
    rows: Vec<f32>,
    cosines: Vec<f32>,
}

thread_local! {
    static MEMORY: Cell<Option<Box<Memory>>> = const { Cell::new(None) };
}

impl Memory {
    /// Runs `work` with this thread's memory.
    fn with<T>(work: impl FnOnce(&mut Self) -> T) -> T {
        let mut memory = MEMORY.take().unwrap_or_default();
        let answer = work(&mut memory);
        MEMORY.set(Some(memory));
        answer
    }

    fn scan_delta(&mut self, delta: &Delta, filter: &Filter) {
        Kernel::detect().cosines_all(&self.query, delta.rows(), &mut self.cosines);
        let rows = delta.keys().iter().zip(&self.cosines).zip(delta.attributes());
        for ((&key, &cosine), attributes) in rows {
            if self.top.admits(cosine) && filter.matches(attributes) {
                self.top.offer(Neighbour { key, cosine });
            }
        }
    }
}

/// A segment as one search sees it: without what the delta shadows and the filter excludes.
struct SegmentPart<'a> {
    segment: &'a Segment,
    graph: Graph<'a>,
    vectors: &'a [f32],
    ranges: &'a [f32],
    keys: &'a [u64],
    columns: Columns<'a>,
    filter: Option<Compiled>,
    shadow: Option<&'a Delta>,
}

impl<'a> SegmentPart<'a> {
    fn new(segment: &'a Segment, delta: &'a Delta, filter: &Filter) -> Self {
        let columns = segment.columns();
        Self {
            segment,
            graph: segment.graph(),
            vectors: segment.vectors(),
            ranges: segment.ranges(),
            keys: segment.keys(),
            columns,
            filter: (!filter.is_empty()).then(|| columns.compile(filter, || segment.licenses())),
            shadow: (delta.shadow_count() > 0).then_some(delta),
        }
    }

    /// Plans and runs.
    fn search(&self, options: &SearchOptions, memory: &mut Memory) -> Result<()> {
        let count = self.graph.count;
        let listed = self.filter.as_ref().and_then(|filter| self.columns.narrowest(filter));
        let allowed = self.estimate_allowed(listed.as_deref());
        let scan_cost = match &listed {
            None => count as f64,
            Some(lists) => {
                let listed: usize = lists.iter().map(|list| list.len()).sum();
                (listed as f64 * LISTED_POINT).min(count as f64)
            }
        };
        let share = allowed / count as f64;
        // With few allowed, the nearest allowed ones lie far out among all, where the walk sees
        // nearly everything on its way: fewer spare candidates do. A filter that lets through more
        // may exclude just the neighbourhood of the query, where they do not.
        let part = (share / WIDE_SHARE).sqrt().min(1.0);
        let spare = options.ef.saturating_sub(options.k) as f64 * part;
        let ef = (options.k as f64 + spare.ceil()).min(count as f64);
        // A walk compares about m points for each point it keeps, and keeps every point that it
        // meets on its way to `ef` allowed ones.
        let walk_cost = ef / share.max(1e-9) * self.graph.m as f64 * WALK_POINT;
        let is_long = ef as usize > KEPT_MAX;
        if options.exact || is_long || allowed < SCAN_BELOW || scan_cost <= walk_cost {
            return self.scan(listed.as_deref(), options.exact, memory);
        }
        // A walk that costs more than was expected by as much as a scan is given up. Without a
        // filter the walk always gets there.
        let budget = (walk_cost + scan_cost / FAR_WALK_POINT) as usize;
        let limits = Limits { ef: ef as usize, share, budget };
        if self.walk(limits, memory)? {
            return Ok(());
        }
        self.scan(listed.as_deref(), options.exact, memory)
    }

    /// Walks and re-ranks; false if that cannot promise that no match is missing.
    fn walk(&self, limits: Limits, memory: &mut Memory) -> Result<bool> {
        memory.probe.aim(&memory.query, self.ranges);
        Scratch::with(|scratch| {
            let ending = match (&self.filter, self.shadow) {
                (None, None) => walk(&self.graph, &memory.probe, limits.ef, scratch),
                (_, _) => {
                    let accept = |position: u32| self.allows(position as usize);
                    walk_filtered(&self.graph, &memory.probe, limits, accept, scratch)
                }
            };
            let complete = match ending {
                Ending::Converged => true,
                // Fewer than `ef` were found: complete only if every point was seen.
                Ending::Exhausted { seen } => seen == self.graph.count,
                Ending::OverBudget => false,
            };
            if complete {
                self.rerank(scratch, memory)?;
            }
            Ok(complete)
        })
    }

    /// Offers the walk's points with the cosines of their vectors, as far as they may matter.
    fn rerank(&self, scratch: &Scratch, memory: &mut Memory) -> Result<()> {
        let slack = DEVIATIONS * memory.probe.spread;
        let mut hits = scratch.hits().peekable();
        while let Some(hit) = hits.peek()
            && !memory.top.excludes(memory.probe.cosine(hit.sum) + slack)
        {
            let positions = hits.by_ref().take(RERANK).map(|hit| hit.position);
            memory.positions.clear();
            memory.positions.extend(positions);
            if self.segment.read_vectors(&memory.positions, &mut memory.rows)? {
                let Memory { query, rows, cosines, .. } = &mut *memory;
                Kernel::detect().cosines_all(query, rows, cosines);
                self.offer_cosines(memory);
            } else {
                self.offer_positions(memory);
            }
        }
        Ok(())
    }

    /// Offers `memory.positions`.
    fn offer_positions(&self, memory: &mut Memory) {
        let Memory { query, positions, cosines, .. } = &mut *memory;
        for &position in positions.iter() {
            let vector = row(self.vectors, position as usize, self.graph.stride);
            vector.unwrap_or_default().chunks(LINE).take(LINES).for_each(prefetch);
        }
        Kernel::detect().cosines_of(query, self.vectors, positions, cosines);
        self.offer_cosines(memory);
    }

    /// Offers `memory.positions`, whose cosines are known.
    fn offer_cosines(&self, memory: &mut Memory) {
        let Memory { top, positions, cosines, .. } = memory;
        for (&position, &cosine) in positions.iter().zip(cosines.iter()) {
            if top.admits(cosine) {
                top.offer(Neighbour { key: self.keys[position as usize], cosine });
            }
        }
    }

    /// Looks at every allowed vector; `listed` are points that hold all of them.
    fn scan(&self, listed: Option<&[&[u32]]>, exact: bool, memory: &mut Memory) -> Result<()> {
        if let Some(listed) = listed {
            let points = listed.iter().copied().flatten().copied();
            let allowed = points.filter(|&position| self.allows(position as usize));
            memory.listed.clear();
            memory.listed.extend(allowed);
            if listed.len() > 1 {
                // A word may be the license of a point and a tag of it, or be asked for twice.
                memory.listed.sort_unstable();
                memory.listed.dedup();
            }
        } else if self.shadow.is_some() {
            let allowed = (0..self.graph.count).filter(|&position| self.allows(position));
            memory.listed.clear();
            memory.listed.extend(allowed.map(|position| position as u32));
        } else {
            self.scan_all(memory);
            return Ok(());
        }
        let spare = memory.top.k.saturating_add(SCAN_SPARE);
        let is_short = spare < memory.listed.len().min(KEPT_MAX);
        if !exact && is_short && memory.listed.len() as f64 > SCAN_BELOW {
            return self.scan_codes(spare, memory);
        }
        let listed = std::mem::take(&mut memory.listed);
        for block in listed.chunks(BLOCK) {
            memory.positions.clear();
            memory.positions.extend_from_slice(block);
            self.offer_positions(memory);
        }
        memory.listed = listed;
        Ok(())
    }

    /// Compares the codes of all listed points and re-ranks the best.
    fn scan_codes(&self, spare: usize, memory: &mut Memory) -> Result<()> {
        memory.probe.aim(&memory.query, self.ranges);
        Scratch::with(|scratch| {
            scan_codes(&self.graph, &memory.probe, &memory.listed, spare, scratch);
            self.rerank(scratch, memory)
        })
    }

    fn scan_all(&self, memory: &mut Memory) {
        let kernel = Kernel::detect();
        let Memory { query, top, cosines, .. } = memory;
        let blocks = self.vectors.chunks(BLOCK * self.graph.stride);
        for (rows, keys) in blocks.zip(self.keys.chunks(BLOCK)) {
            kernel.cosines_all(query, rows, cosines);
            for (&key, &cosine) in keys.iter().zip(cosines.iter()) {
                if top.admits(cosine) {
                    top.offer(Neighbour { key, cosine });
                }
            }
        }
    }

    fn allows(&self, position: usize) -> bool {
        self.filter.as_ref().is_none_or(|filter| self.columns.matches(filter, position))
            && self.shadow.is_none_or(|delta| !delta.shadows(self.keys[position]))
    }

    /// About how many vectors are allowed, by a sample of those that are listed; the shadow is
    /// counted as if each of its keys were in the segment.
    fn estimate_allowed(&self, listed: Option<&[&[u32]]>) -> f64 {
        let count = self.graph.count;
        let shadowed = self.shadow.map_or(0, Delta::shadow_count);
        let lit = count.saturating_sub(shadowed) as f64;
        let (Some(filter), Some(listed)) = (&self.filter, listed) else { return lit };
        let total: usize = listed.iter().map(|list| list.len()).sum();
        let mut matching = 0;
        for list in listed {
            let step = (total / SAMPLE).max(1);
            let sampled = list.iter().step_by(step);
            let matches = |&&at: &&u32| self.columns.matches(filter, at as usize);
            matching += sampled.filter(matches).count() * step;
        }
        lit * matching.min(total) as f64 / count.max(1) as f64
    }
}

/// The best `k` neighbours so far, the worst of them on top.
#[derive(Default)]
struct Top {
    k: usize,
    heap: BinaryHeap<Reverse<Ranked>>,
}

impl Top {
    fn start(&mut self, k: usize) {
        self.k = k;
        self.heap.clear();
    }

    /// Whether a neighbour of this cosine may enter, before its key is known.
    #[inline]
    fn admits(&self, cosine: f32) -> bool {
        self.heap.len() < self.k
            || self.heap.peek().is_some_and(|Reverse(worst)| cosine >= worst.0.cosine)
    }

    /// Whether a neighbour of at most this cosine cannot enter; NaN is no bound.
    fn excludes(&self, cosine: f32) -> bool {
        self.heap.len() >= self.k
            && self.heap.peek().is_some_and(|Reverse(worst)| cosine < worst.0.cosine)
    }

    fn offer(&mut self, neighbour: Neighbour) {
        let ranked = Ranked(neighbour);
        if self.heap.len() < self.k {
            self.heap.push(Reverse(ranked));
        } else if let Some(mut worst) = self.heap.peek_mut()
            && ranked > worst.0
        {
            *worst = Reverse(ranked);
        }
    }

    /// The neighbours, best first; the memory stays here.
    fn take_sorted(&mut self) -> Vec<Neighbour> {
        let mut sorted: Vec<Neighbour> = self.heap.drain().map(|Reverse(one)| one.0).collect();
        sorted.sort_unstable_by_key(|&one| Reverse(Ranked(one)));
        sorted
    }
}

/// Orders neighbours: the better one is the greater one.
#[derive(PartialEq)]
struct Ranked(Neighbour);

impl Eq for Ranked {}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_cosine = self.0.cosine.total_cmp(&other.0.cosine);
        by_cosine.then_with(|| other.0.key.cmp(&self.0.key))
    }
}
