//! The graph as arrays, and the walk over it.

use crate::format::NO_LINK;
use crate::simd::{Kernel, prefetch, row};
use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A graph over rows of vectors. Positions are ordered by falling level, so that the points of
/// level l are the first `level_counts[l - 1]` ones and position 0 is the entry point.
#[derive(Clone, Copy)]
pub(crate) struct Graph<'a> {
    /// Level 0: one row of 2m positions a point, its end filled with `NO_LINK`.
    pub(crate) links: &'a [u32],
    /// Points that reach level 1, 2, ..
    pub(crate) level_counts: &'a [u32],
    /// Upper levels, one after the other: one row of m positions a point.
    pub(crate) upper: &'a [u32],
    /// Unit vectors, padded.
    pub(crate) vectors: &'a [f32],
    /// Neighbours per point and upper level.
    pub(crate) m: usize,
    /// Components of a vector.
    pub(crate) stride: usize,
    /// Points.
    pub(crate) count: usize,
}

impl<'a> Graph<'a> {
    /// Neighbours of a point at level 0, none if there is no such point.
    pub(crate) fn neighbours(&self, position: u32) -> &'a [u32] {
        linked(self.links, position as usize, 2 * self.m)
    }

    /// The point nearest to `query` among those above level 0, by falling steps from position 0.
    fn descend(&self, kernel: Kernel, query: &[f32], scratch: &mut Scratch) -> Hit {
        let mut best = Hit { cosine: self.cosine(kernel, query, 0), position: 0 };
        let mut end = self.upper.len();
        for &level_count in self.level_counts.iter().rev() {
            let start = end.saturating_sub(level_count as usize * self.m);
            let level = &self.upper[start..end];
            while let Some(better) = self.step(kernel, query, (level, best), scratch) {
                best = better;
            }
            end = start;
        }
        best
    }

    fn step(
        &self,
        kernel: Kernel,
        query: &[f32],
        (level, from): (&[u32], Hit),
        scratch: &mut Scratch,
    ) -> Option<Hit> {
        let row = linked(level, from.position as usize, self.m);
        kernel.cosines_of(query, self.vectors, row, &mut scratch.cosines);
        let hits = scratch.cosines.iter().zip(row);
        let best = hits.map(|(&cosine, &position)| Hit { cosine, position }.pack()).max()?;
        let best = Hit::unpack(best);
        (best.cosine > from.cosine).then_some(best)
    }

    fn cosine(&self, kernel: Kernel, query: &[f32], position: u32) -> f32 {
        row(self.vectors, position as usize, self.stride)
            .map_or(-1.0, |row| kernel.cosine(query, row))
    }
}

fn linked(rows: &[u32], position: usize, width: usize) -> &[u32] {
    let start = position * width;
    let row = rows.get(start..start + width).unwrap_or_default();
    let end = row.iter().position(|&link| link == NO_LINK).unwrap_or(width);
    row.get(..end).unwrap_or_default()
}

/// A point and how near it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Hit {
    pub(crate) cosine: f32,
    pub(crate) position: u32,
}

impl Hit {
    /// One number that is larger the nearer the point is; among equals, the smaller its position.
    /// Heaps of numbers are faster than heaps of structs with a float inside.
    fn pack(self) -> u64 {
        let bits = self.cosine.to_bits();
        let rising = if bits >> 31 == 1 { !bits } else { bits | 0x8000_0000 };
        u64::from(rising) << 32 | u64::from(!self.position)
    }

    fn unpack(packed: u64) -> Self {
        let rising = (packed >> 32) as u32;
        let bits = if rising >> 31 == 1 { rising & 0x7fff_ffff } else { !rising };
        Self { cosine: f32::from_bits(bits), position: !(packed as u32) }
    }
}

/// How far a walk may go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Accepted points kept; the walk ends when nothing nearer than the worst of them is in sight.
    pub(crate) ef: usize,
    /// Most cosines computed before the walk gives up.
    pub(crate) budget: usize,
}

/// How a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// With `ef` accepted points and no nearer one in sight.
    Converged,
    /// With fewer than `ef` accepted points; every point that can be reached was seen.
    Exhausted {
        /// How many they are.
        seen: usize,
    },
    /// The budget was spent.
    OverBudget,
}

/// Memory of a walk, kept from walk to walk.
#[derive(Default)]
pub(crate) struct Scratch {
    /// A point was visited in this walk if its mark equals `stamp`: a new stamp forgets all marks
    /// without touching them.
    marks: Vec<u8>,
    stamp: u8,
    candidates: BinaryHeap<u64>,
    found: BinaryHeap<Reverse<u64>>,
    fresh: Vec<u32>,
    cosines: Vec<f32>,
}

thread_local! {
    static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

impl Scratch {
    /// Runs `work` with this thread's scratch memory.
    pub(crate) fn with<T>(work: impl FnOnce(&mut Self) -> T) -> T {
        // Taken out and put back: a search inside a search then merely starts with a new one.
        let mut scratch = SCRATCH.take().unwrap_or_default();
        let answer = work(&mut scratch);
        SCRATCH.set(Some(scratch));
        answer
    }

    fn start(&mut self, count: usize) {
        self.candidates.clear();
        self.found.clear();
        if self.marks.len() < count {
            self.marks.resize(count, 0);
        }
        self.stamp = self.stamp.wrapping_add(1);
        if self.stamp == 0 {
            self.marks.fill(0);
            self.stamp = 1;
        }
    }

    /// Notes a visit; false if there was one before, or if there is no such point.
    fn visit(&mut self, position: u32) -> bool {
        match self.marks.get_mut(position as usize) {
            Some(mark) if *mark != self.stamp => {
                *mark = self.stamp;
                true
            }
            Some(_) | None => false,
        }
    }

    /// The accepted points of the last walk, nearest first.
    pub(crate) fn hits(&self) -> Vec<Hit> {
        let mut packed: Vec<u64> = self.found.iter().map(|found| found.0).collect();
        packed.sort_unstable_by_key(|&packed| Reverse(packed));
        packed.into_iter().map(Hit::unpack).collect()
    }
}

/// Walks towards `query` (padded) and leaves the nearest accepted points in `scratch`.
///
/// Points that are not accepted are walked through all the same: a filter does not cut the graph.
pub(crate) fn walk(
    graph: &Graph<'_>,
    query: &[f32],
    limits: Limits,
    mut accept: impl FnMut(u32) -> bool,
    scratch: &mut Scratch,
) -> Ending {
    scratch.start(graph.count);
    if graph.count == 0 || limits.ef == 0 {
        return Ending::Exhausted { seen: 0 };
    }
    let kernel = Kernel::detect();
    let first = graph.descend(kernel, query, scratch);
    scratch.visit(first.position);
    offer(first, limits.ef, &mut accept, scratch);
    let mut seen = 1;
    while let Some(nearest) = scratch.candidates.pop() {
        if let Some(Reverse(worst)) = scratch.found.peek()
            && scratch.found.len() >= limits.ef
            && nearest < *worst
        {
            return Ending::Converged;
        }
        if seen > limits.budget {
            return Ending::OverBudget;
        }
        seen += expand(graph, kernel, query, Hit::unpack(nearest).position, scratch);
        for at in 0..scratch.fresh.len() {
            let hit = Hit { cosine: scratch.cosines[at], position: scratch.fresh[at] };
            offer(hit, limits.ef, &mut accept, scratch);
        }
    }
    // With `ef` points found, all that was not kept as a candidate is farther away than they are.
    if scratch.found.len() >= limits.ef { Ending::Converged } else { Ending::Exhausted { seen } }
}

/// Computes the cosines of a point's unvisited neighbours; returns how many they are.
fn expand(
    graph: &Graph<'_>,
    kernel: Kernel,
    query: &[f32],
    position: u32,
    scratch: &mut Scratch,
) -> usize {
    scratch.fresh.clear();
    for &neighbour in graph.neighbours(position) {
        if scratch.visit(neighbour) {
            scratch.fresh.push(neighbour);
            // The fetch of all rows starts before the first cosine waits for its row.
            let start = neighbour as usize * graph.stride;
            prefetch(graph.vectors.get(start..).unwrap_or_default());
            prefetch(graph.vectors.get(start + 16..).unwrap_or_default());
        }
    }
    let Scratch { fresh, cosines, .. } = scratch;
    kernel.cosines_of(query, graph.vectors, fresh, cosines);
    fresh.len()
}

fn offer(hit: Hit, ef: usize, accept: &mut impl FnMut(u32) -> bool, scratch: &mut Scratch) {
    let packed = hit.pack();
    let full = scratch.found.len() >= ef;
    if full && scratch.found.peek().is_some_and(|Reverse(worst)| packed < *worst) {
        return;
    }
    scratch.candidates.push(packed);
    if accept(hit.position) {
        if full {
            scratch.found.pop();
        }
        scratch.found.push(Reverse(packed));
    }
}

#[cfg(test)]
mod tests {
    use super::Hit;

    #[test]
    fn packed_hits_order_by_cosine_then_position() {
        let hit = |cosine, position| Hit { cosine, position };
        let rising = [hit(-1.0, 0), hit(-0.5, 7), hit(0.0, 9), hit(0.0, 3), hit(1e-30, 4)];
        for pair in rising.windows(2) {
            assert!(pair[0].pack() < pair[1].pack(), "{pair:?}");
        }
        for one in rising {
            assert_eq!(Hit::unpack(one.pack()), one);
        }
    }
}
