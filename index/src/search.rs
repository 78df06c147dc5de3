//! Search over a segment and a delta as if they were one.

use crate::columns::{Columns, Compiled};
use crate::simd::Kernel;
use crate::walk::{Ending, Graph, Hit, Limits, Scratch, walk};
use crate::{Delta, Embedding, Error, Filter, Result, Segment};
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

/// Below this many allowed vectors a scan is taken: it is exact and costs microseconds.
const SCAN_BELOW: f64 = 2_000.0;
/// What a cosine in a walk costs, in cosines of a scan: its row is not the next one in memory.
const WALK_COSINE: f64 = 3.0;
/// What asking a filter about one row costs, in cosines of a scan.
const FILTER_ROW: f64 = 0.2;
/// Rows that are asked to estimate how many a filter lets through.
const SAMPLE: usize = 512;
/// Rows per step of a scan.
const BLOCK: usize = 64;

/// The `k` nearest of segment and delta that match `filter`, by falling cosine (ties: smaller key
/// first).
///
/// Returns min(k, matches) neighbours, always. With `exact`, for small segments and under narrow
/// filters they are the nearest; otherwise the walk may miss some, fewer the larger `ef` is.
///
/// # Errors
/// `Error::Option` for k = 0, `Error::Dimension` if the query's dimension, the delta's and the
/// segment's differ.
pub fn search(
    segment: Option<&Segment>,
    delta: &Delta,
    query: &Embedding,
    filter: &Filter,
    options: &SearchOptions,
) -> Result<Vec<Neighbour>> {
    if options.k == 0 {
        return Err(Error::Option { name: "k", expected: "at least 1".into(), found: "0".into() });
    }
    // An empty segment knows no dimension and has nothing to say.
    let segment = segment.filter(|segment| !segment.is_empty());
    let dims = std::iter::once(query.dim()).chain(segment.map(Segment::dim));
    for found in dims {
        if found != delta.dim() {
            return Err(Error::Dimension { expected: delta.dim(), found });
        }
    }
    let query = query.padded();
    let mut top = Top::new(options.k);
    scan_delta(delta, &query, filter, &mut top);
    if let Some(segment) = segment {
        let part = SegmentPart::new(segment, delta, filter);
        part.search(&query, options, &mut top);
    }
    Ok(top.into_sorted())
}

fn scan_delta(delta: &Delta, query: &[f32], filter: &Filter, top: &mut Top) {
    let mut cosines = Vec::new();
    Kernel::detect().cosines_all(query, delta.rows(), &mut cosines);
    let rows = delta.keys().iter().zip(&cosines).zip(delta.attributes());
    for ((&key, &cosine), attributes) in rows {
        if top.admits(cosine) && filter.matches(attributes) {
            top.offer(Neighbour { key, cosine });
        }
    }
}

/// A segment as one search sees it: without what the delta shadows and the filter excludes.
struct SegmentPart<'a> {
    graph: Graph<'a>,
    keys: &'a [u64],
    columns: Columns<'a>,
    filter: Option<Compiled>,
    shadow: Option<&'a Delta>,
}

impl<'a> SegmentPart<'a> {
    fn new(segment: &'a Segment, delta: &'a Delta, filter: &Filter) -> Self {
        let columns = segment.columns();
        Self {
            graph: segment.graph(),
            keys: segment.keys(),
            columns,
            filter: (!filter.is_empty()).then(|| columns.compile(filter)),
            shadow: (delta.shadow_count() > 0).then_some(delta),
        }
    }

    /// Plans and runs.
    fn search(&self, query: &[f32], options: &SearchOptions, top: &mut Top) {
        let count = self.graph.count;
        let ef = options.ef.max(options.k).min(count);
        let allowed = self.estimate_allowed();
        let asks = if self.filter.is_some() { count as f64 * FILTER_ROW } else { 0.0 };
        let scan_cost = allowed + asks;
        // A walk computes about m cosines for each point it keeps, and keeps every point that it
        // meets on its way to `ef` allowed ones.
        let walk_points = ef as f64 * count as f64 / allowed.max(1.0);
        let walk_cost = walk_points * self.graph.m as f64 * WALK_COSINE;
        if options.exact || allowed < SCAN_BELOW || scan_cost <= walk_cost {
            return self.scan(query, top);
        }
        // A walk that has cost as much as a scan is given up, so that a search costs at most
        // twice the cheaper way. Without a filter the walk always gets there.
        let filtered = self.filter.is_some() || self.shadow.is_some();
        let budget = if filtered { (scan_cost / WALK_COSINE) as usize } else { usize::MAX };
        match self.walk(query, Limits { ef, budget }) {
            Some(hits) => hits.iter().for_each(|hit| top.offer(self.neighbour(*hit))),
            None => self.scan(query, top),
        }
    }

    /// The walk's hits; `None` if it cannot promise that no match is missing.
    fn walk(&self, query: &[f32], limits: Limits) -> Option<Vec<Hit>> {
        Scratch::with(|scratch| {
            let accept = |position: u32| self.allows(position as usize);
            match walk(&self.graph, query, limits, accept, scratch) {
                Ending::Converged => Some(scratch.hits()),
                // Fewer than `ef` were found: complete only if every point was seen.
                Ending::Exhausted { seen } if seen == self.graph.count => Some(scratch.hits()),
                Ending::Exhausted { seen: _ } | Ending::OverBudget => None,
            }
        })
    }

    fn scan(&self, query: &[f32], top: &mut Top) {
        let kernel = Kernel::detect();
        let (mut positions, mut cosines) = (Vec::with_capacity(BLOCK), Vec::with_capacity(BLOCK));
        let filtered = self.filter.is_some() || self.shadow.is_some();
        for (block, rows) in self.graph.vectors.chunks(BLOCK * self.graph.stride).enumerate() {
            let start = block * BLOCK;
            let end = start + rows.len() / self.graph.stride;
            positions.clear();
            if filtered {
                let allowed = (start..end).filter(|&position| self.allows(position));
                positions.extend(allowed.map(|position| position as u32));
                kernel.cosines_of(query, self.graph.vectors, &positions, &mut cosines);
            } else {
                positions.extend(start as u32..end as u32);
                kernel.cosines_all(query, rows, &mut cosines);
            }
            for (&position, &cosine) in positions.iter().zip(&cosines) {
                if top.admits(cosine) {
                    top.offer(self.neighbour(Hit { cosine, position }));
                }
            }
        }
    }

    fn allows(&self, position: usize) -> bool {
        self.filter.as_ref().is_none_or(|filter| self.columns.matches(filter, position))
            && self.shadow.is_none_or(|delta| !delta.shadows(self.keys[position]))
    }

    /// About how many vectors are allowed. Small segments are asked row by row, large ones by a
    /// sample; the shadow is counted as if each of its keys were in the segment.
    fn estimate_allowed(&self) -> f64 {
        let count = self.graph.count;
        let shadowed = self.shadow.map_or(0, Delta::shadow_count);
        let lit = count.saturating_sub(shadowed) as f64;
        let Some(filter) = &self.filter else { return lit };
        let sampled = count.min(SAMPLE);
        let rows = (0..sampled).map(|at| at * count / sampled);
        let matching = rows.filter(|&row| self.columns.matches(filter, row)).count();
        lit * matching as f64 / sampled.max(1) as f64
    }

    fn neighbour(&self, hit: Hit) -> Neighbour {
        Neighbour { key: self.keys[hit.position as usize], cosine: hit.cosine }
    }
}

/// The best `k` neighbours so far, the worst of them on top.
struct Top {
    k: usize,
    heap: BinaryHeap<Reverse<Ranked>>,
}

impl Top {
    fn new(k: usize) -> Self {
        Self { k, heap: BinaryHeap::new() }
    }

    /// Whether a neighbour of this cosine may enter, before its key is known.
    fn admits(&self, cosine: f32) -> bool {
        self.heap.len() < self.k
            || self.heap.peek().is_some_and(|Reverse(worst)| cosine >= worst.0.cosine)
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

    fn into_sorted(self) -> Vec<Neighbour> {
        self.heap.into_sorted_vec().into_iter().map(|Reverse(ranked)| ranked.0).collect()
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
