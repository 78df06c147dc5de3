//! The graph as arrays, and the walks over it.

use crate::codes::Probe;
use crate::format::NO_LINK;
use crate::simd::{Kernel, prefetch, row};
use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A graph over rows of codes. Positions are ordered by falling level, so that the points of
/// level l are the first `level_counts[l - 1]` ones and position 0 is the entry point.
#[derive(Clone, Copy)]
pub(crate) struct Graph<'a> {
    /// Level 0: one row of 2m positions a point, its end filled with `NO_LINK`.
    pub(crate) links: &'a [u32],
    /// Points that reach level 1, 2, ..
    pub(crate) level_counts: &'a [u32],
    /// Upper levels, one after the other: one row of m positions a point.
    pub(crate) upper: &'a [u32],
    /// Vectors in 8 bits, padded.
    pub(crate) codes: &'a [i8],
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

    /// The point nearest to the probe among those above level 0, by falling steps from position 0.
    fn descend(&self, probe: &Probe, scratch: &mut Scratch) -> Hit {
        let kernel = Kernel::detect();
        let mut best = self.best(kernel, probe, &[0], scratch).unwrap_or(Hit::FARTHEST);
        let mut end = self.upper.len();
        for &level_count in self.level_counts.iter().rev() {
            let start = end.saturating_sub(level_count as usize * self.m);
            let level = &self.upper[start..end];
            loop {
                let row = linked(level, best.position as usize, self.m);
                match self.best(kernel, probe, row, scratch) {
                    Some(better) if better.sum > best.sum => best = better,
                    Some(_) | None => break,
                }
            }
            end = start;
        }
        best
    }

    fn best(
        &self,
        kernel: Kernel,
        probe: &Probe,
        row: &[u32],
        scratch: &mut Scratch,
    ) -> Option<Hit> {
        row.iter().for_each(|&position| self.fetch(position));
        kernel.sums_of(&probe.weights, self.codes, row, &mut scratch.sums);
        let hits = scratch.sums.iter().zip(row);
        let packed = hits.map(|(&sum, &position)| Hit { sum, position }.pack()).max()?;
        Some(Hit::unpack(packed))
    }

    /// Asks for the start of a point's codes before they are needed; the processor then follows a
    /// long row itself.
    #[inline]
    fn fetch(&self, position: u32) {
        let start = position as usize * self.stride;
        prefetch(self.codes.get(start..).unwrap_or_default());
        if self.stride > LINE {
            prefetch(self.codes.get(start + LINE..).unwrap_or_default());
        }
    }

    /// Asks for a point's links at level 0 before they are needed.
    #[inline]
    fn fetch_links(&self, position: u32) {
        let width = 2 * self.m;
        let start = position as usize * width;
        let lines = (start..start + width).step_by(LINE / size_of::<u32>());
        lines.for_each(|line| prefetch(self.links.get(line..).unwrap_or_default()));
    }
}

fn linked(rows: &[u32], position: usize, width: usize) -> &[u32] {
    let links = row(rows, position, width).unwrap_or_default();
    let end = links.iter().position(|&link| link == NO_LINK).unwrap_or(width);
    links.get(..end).unwrap_or_default()
}

/// A point and how near it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Hit {
    /// Of the probe's weights times the point's codes.
    pub(crate) sum: i32,
    pub(crate) position: u32,
}

/// A filter is against a query if it accepts at most one of the nearest points of a walk where its
/// share would have been this many; ..
const AGAINST: f64 = 8.0;
/// .. the walk then keeps this many times as many points.
const AGAINST_WIDER: usize = 8;
/// Points per step of a scan: as many fetches as a processor has under way.
const SCANNED: usize = 16;
/// Bytes that come from memory together.
const LINE: usize = 64;

/// Lowest bit of a packed hit: its neighbours have not been looked at.
const OPEN: u64 = 1;
/// Positions are below 2^31, so that they and the lowest bit fit into half a number.
const POSITIONS: u32 = u32::MAX >> 1;

impl Hit {
    /// Where a walk without points starts.
    const FARTHEST: Self = Self { sum: i32::MIN, position: 0 };

    /// One number that is larger the nearer the point is; among equals, the smaller its position.
    /// Lists of numbers are faster than lists of structs.
    fn pack(self) -> u64 {
        let rising = self.sum as u32 ^ 0x8000_0000;
        let falling = !self.position & POSITIONS;
        u64::from(rising) << 32 | u64::from(falling << 1) | OPEN
    }

    fn unpack(packed: u64) -> Self {
        let sum = ((packed >> 32) as u32 ^ 0x8000_0000) as i32;
        Self { sum, position: !(packed as u32 >> 1) & POSITIONS }
    }
}

/// How far a filtered walk may go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Accepted points kept; the walk ends when nothing nearer than the worst of them is in sight.
    pub(crate) ef: usize,
    /// Share of all points that the filter accepts, about.
    pub(crate) share: f64,
    /// Most points compared before the walk gives up.
    pub(crate) budget: usize,
}

/// How a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// With `ef` points and no nearer one in sight.
    Converged,
    /// With fewer than `ef` points; every point that can be reached was seen.
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
    /// The best points so far, packed, nearest first.
    pool: Vec<u64>,
    candidates: BinaryHeap<u64>,
    found: BinaryHeap<Reverse<u64>>,
    fresh: Vec<u32>,
    sums: Vec<i32>,
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
        self.pool.clear();
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
    #[inline]
    fn visit(&mut self, position: u32) -> bool {
        match self.marks.get_mut(position as usize) {
            Some(mark) if *mark != self.stamp => {
                *mark = self.stamp;
                true
            }
            Some(_) | None => false,
        }
    }

    /// The points of the last walk, nearest first.
    pub(crate) fn hits(&self) -> impl Iterator<Item = Hit> {
        self.pool.iter().map(|&packed| Hit::unpack(packed))
    }
}

/// Walks towards the probe and leaves the `ef` nearest points in `scratch`.
pub(crate) fn walk(graph: &Graph<'_>, probe: &Probe, ef: usize, scratch: &mut Scratch) -> Ending {
    walk_until(graph, probe, ef, NO_LINK, scratch)
}

/// As [`walk`], but the walk ends, however far it is, as soon as it meets `wanted`.
pub(crate) fn walk_until(
    graph: &Graph<'_>,
    probe: &Probe,
    ef: usize,
    wanted: u32,
    scratch: &mut Scratch,
) -> Ending {
    scratch.start(graph.count);
    if graph.count == 0 || ef == 0 {
        return Ending::Exhausted { seen: 0 };
    }
    let kernel = Kernel::detect();
    let first = graph.descend(probe, scratch);
    scratch.visit(first.position);
    scratch.pool.push(first.pack());
    let (mut at, mut seen) = (0, 1);
    while let Some(nearest) = scratch.pool.get_mut(at) {
        if *nearest & OPEN == 0 {
            at += 1;
            continue;
        }
        *nearest &= !OPEN;
        let position = Hit::unpack(*nearest).position;
        if position == wanted {
            break;
        }
        // Late in a walk most steps find nothing nearer, and the next one goes to the next point.
        if let Some(&next) = scratch.pool.get(at + 1) {
            graph.fetch_links(Hit::unpack(next).position);
        }
        seen += expand(graph, kernel, probe, position, scratch);
        let Scratch { pool, fresh, sums, .. } = scratch;
        for (&sum, &position) in sums.iter().zip(fresh.iter()) {
            if let Some(place) = insert(pool, ef, Hit { sum, position }) {
                at = at.min(place);
            }
        }
    }
    // With `ef` points, all that was not kept is farther away than they are.
    if scratch.pool.len() >= ef { Ending::Converged } else { Ending::Exhausted { seen } }
}

/// Leaves the `keep` nearest of the listed points in `scratch`.
pub(crate) fn scan_codes(
    graph: &Graph<'_>,
    probe: &Probe,
    listed: &[u32],
    keep: usize,
    scratch: &mut Scratch,
) {
    scratch.start(0);
    let kernel = Kernel::detect();
    let Scratch { pool, sums, .. } = scratch;
    let fetch = |block: &&[u32]| block.iter().for_each(|&position| graph.fetch(position));
    let mut blocks = listed.chunks(SCANNED).peekable();
    blocks.peek().into_iter().for_each(fetch);
    while let Some(block) = blocks.next() {
        // The next one is on its way while this one is compared.
        blocks.peek().into_iter().for_each(fetch);
        kernel.sums_of(&probe.weights, graph.codes, block, sums);
        for (&sum, &position) in sums.iter().zip(block) {
            insert(pool, keep, Hit { sum, position });
        }
    }
}

/// Puts a hit in its place among the `keep` best, if it is one of them; returns the place.
#[inline]
fn insert(pool: &mut Vec<u64>, keep: usize, hit: Hit) -> Option<usize> {
    let packed = hit.pack();
    if pool.len() >= keep {
        if pool.last().is_none_or(|&worst| packed <= worst) {
            return None;
        }
        pool.pop();
    }
    let place = pool.partition_point(|&other| other > packed);
    pool.insert(place, packed);
    Some(place)
}

/// Walks towards the probe and leaves the `ef` nearest accepted points in `scratch`.
///
/// Points that are not accepted are walked through all the same: a filter does not cut the graph.
pub(crate) fn walk_filtered(
    graph: &Graph<'_>,
    probe: &Probe,
    limits: Limits,
    mut accept: impl FnMut(u32) -> bool,
    scratch: &mut Scratch,
) -> Ending {
    scratch.start(graph.count);
    if graph.count == 0 || limits.ef == 0 {
        return Ending::Exhausted { seen: 0 };
    }
    let kernel = Kernel::detect();
    let first = graph.descend(probe, scratch);
    scratch.visit(first.position);
    offer(first, limits.ef, &mut accept, scratch);
    let (mut seen, mut steps, mut accepted) = (1, 0, 0);
    let (mut ef, trial) = (limits.ef, (AGAINST / limits.share).ceil() as usize);
    while let Some(nearest) = scratch.candidates.pop() {
        if let Some(Reverse(worst)) = scratch.found.peek()
            && scratch.found.len() >= ef
            && nearest < *worst
        {
            break;
        }
        if seen > limits.budget {
            return Ending::OverBudget;
        }
        let position = Hit::unpack(nearest).position;
        if steps < trial {
            steps += 1;
            accepted += usize::from(accept(position));
            // The nearest accepted points then lie all around at about one distance, and it takes
            // more of them to have the nearest.
            if steps == trial && accepted <= 1 {
                ef *= AGAINST_WIDER;
            }
        }
        seen += expand(graph, kernel, probe, position, scratch);
        for at in 0..scratch.fresh.len() {
            let hit = Hit { sum: scratch.sums[at], position: scratch.fresh[at] };
            offer(hit, ef, &mut accept, scratch);
        }
    }
    let Scratch { pool, found, .. } = scratch;
    pool.extend(found.iter().map(|found| found.0));
    pool.sort_unstable_by_key(|&packed| Reverse(packed));
    if pool.len() >= ef { Ending::Converged } else { Ending::Exhausted { seen } }
}

/// Computes the sums of a point's unvisited neighbours; returns how many they are.
#[inline]
fn expand(
    graph: &Graph<'_>,
    kernel: Kernel,
    probe: &Probe,
    position: u32,
    scratch: &mut Scratch,
) -> usize {
    let Scratch { marks, stamp, fresh, sums, .. } = scratch;
    let links = row(graph.links, position as usize, 2 * graph.m).unwrap_or_default();
    fresh.resize(links.len() + 1, 0);
    let mut count = 0;
    for &link in links.iter().take_while(|&&link| link != NO_LINK) {
        let Some(mark) = marks.get_mut(link as usize) else { continue };
        // Whether a link was visited cannot be foretold: counting costs less than branching.
        fresh[count] = link;
        count += usize::from(*mark != *stamp);
        *mark = *stamp;
    }
    fresh.truncate(count);
    // The fetch of all rows starts before the first sum waits for its row.
    fresh.iter().for_each(|&link| graph.fetch(link));
    kernel.sums_of(&probe.weights, graph.codes, fresh, sums);
    count
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
    fn packed_hits_order_by_sum_then_position() {
        let hit = |sum, position| Hit { sum, position };
        let largest = (1 << 31) - 1;
        let rising = [
            hit(i32::MIN, 0),
            hit(-7, 7),
            hit(0, largest),
            hit(0, 9),
            hit(0, 3),
            hit(1, 4),
            hit(i32::MAX, largest),
        ];
        for pair in rising.windows(2) {
            assert!(pair[0].pack() < pair[1].pack(), "{pair:?}");
        }
        for one in rising {
            assert_eq!(Hit::unpack(one.pack()), one);
        }
    }
}
