//! After hnsw_rs: the links are chosen anew by our own walk, which is several times
//! faster than the one inside hnsw_rs and looks at more candidates in the same time.

use crate::Result;
use crate::codes::{Points, Probe};
use crate::flat::FlatGraph;
use crate::format::NO_LINK;
use crate::simd::Kernel;
use crate::walk::{Scratch, walk};
use rayon::ThreadPool;
use rayon::prelude::{IndexedParallelIterator, ParallelIterator, ParallelSliceMut};

/// Points between two calls of `step`.
const CHUNK: usize = 4096;
/// Candidates of the passes before the last one.
const COARSE_EF: usize = 32;
/// Passes before the last one, at most.
const COARSE_PASSES: usize = 4;
/// They end when at most one point in this many is missed by the walk to itself.
const MISSED_PART: usize = 200;
/// Levels above that lend candidates, ..
const SPARSER_LEVELS: usize = 2;
/// .. and how many each.
const SPARSER_EF: usize = 32;
const LENT: usize = SPARSER_LEVELS * SPARSER_EF;

/// Chooses each point's links on every level anew, from the top level down.
///
/// The answer does not depend on the number of threads: every walk goes over the graph as it was.
/// `step` gets the number of points whose links at level 0 are final.
pub(crate) fn refine(
    graph: &mut FlatGraph,
    points: Points<'_>,
    ef: usize,
    pool: &ThreadPool,
    step: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<()> {
    let m = graph.m;
    let mut above = Vec::new();
    for level in (1..=graph.level_counts.len()).rev() {
        let mut sparser = graph.part_above(level);
        let lent = lend(points, &above, sparser.count, pool, &mut |_| step(0))?;
        let chooser = Chooser { points, lent: &lent, width: m, pool };
        chooser.settle(&mut sparser, ef, &mut |_| step(0))?;
        graph.set_level(level, &sparser);
        above.push(sparser);
    }
    let lent = lend(points, &above, graph.count, pool, &mut |_| step(0))?;
    Chooser { points, lent: &lent, width: 2 * m, pool }.settle(graph, ef, step)
}

/// For each point a row of the nearest on the levels above, its end filled with `NO_LINK`.
///
/// Where a cluster has more points than a walk keeps, these alone lead out of it: in a graph that
/// grows point by point they are the links of its youth.
fn lend(
    points: Points<'_>,
    above: &[FlatGraph],
    count: usize,
    pool: &ThreadPool,
    step: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Vec<u32>> {
    let mut lent = vec![NO_LINK; count * LENT];
    for (chunk, rows) in lent.chunks_mut(CHUNK * LENT).enumerate() {
        let first = chunk * CHUNK;
        step(first)?;
        pool.install(|| {
            rows.par_chunks_mut(LENT).enumerate().for_each(|(at, row)| {
                let levels = above.iter().rev().take(SPARSER_LEVELS);
                let point = (first + at) as u32;
                let near = levels.flat_map(|level| nearest(level, points, point, SPARSER_EF));
                row.iter_mut().zip(near).for_each(|(slot, position)| *slot = position);
            });
        });
    }
    Ok(lent)
}

/// The `ef` nearest that a walk to a point finds.
fn nearest(graph: &FlatGraph, points: Points<'_>, point: u32, ef: usize) -> Vec<u32> {
    Scratch::with(|scratch| {
        let mut probe = Probe::default();
        probe.aim(points.vector(point), points.ranges);
        walk(&graph.over(points.codes, points.stride), &probe, ef, scratch);
        scratch.hits().map(|hit| hit.position).collect()
    })
}

/// Chooses the links of level 0 of a graph, which may itself be an upper part of another one.
struct Chooser<'a> {
    points: Points<'a>,
    /// What the levels above lend each point.
    lent: &'a [u32],
    /// Links of a point, at most.
    width: usize,
    pool: &'a ThreadPool,
}

impl Chooser<'_> {
    /// A walk over a bad graph misses the near points that it should link, and in data of many
    /// tight clusters hnsw_rs leaves such a graph after so few candidates: cheap passes mend it
    /// before the last one, whose walks keep `ef` candidates.
    fn settle(
        &self,
        graph: &mut FlatGraph,
        ef: usize,
        step: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<()> {
        for _ in 0..COARSE_PASSES {
            let missed = self.pass(graph, ef.min(COARSE_EF), &mut |_| step(0))?;
            if missed <= graph.count / MISSED_PART {
                break;
            }
        }
        self.pass(graph, ef, step).map(drop)
    }

    /// Chooses links for each point and links both ways. Returns how many points the walk to them
    /// did not find.
    fn pass(
        &self,
        graph: &mut FlatGraph,
        ef: usize,
        step: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<usize> {
        let m = graph.m;
        let mut chosen = vec![NO_LINK; graph.count * m];
        let mut missed = 0;
        for (chunk, rows) in chosen.chunks_mut(CHUNK * m).enumerate() {
            let first = chunk * CHUNK;
            step(first)?;
            missed += self.pool.install(|| {
                let rows = rows.par_chunks_mut(m).enumerate();
                let found = rows.map(|(at, row)| self.choose(graph, (first + at) as u32, ef, row));
                found.filter(|&found| !found).count()
            });
        }
        let incoming = Incoming::new(&chosen, m);
        self.pool.install(|| {
            let rows = graph.links.par_chunks_mut(2 * m).enumerate();
            rows.for_each(|(point, row)| {
                let own = chosen[point * m..][..m].iter().copied().filter(|&link| link != NO_LINK);
                let all = own.chain(incoming.of(point).iter().copied());
                row.fill(NO_LINK);
                join(self.points, point as u32, all.collect(), &mut row[..self.width]);
            });
        });
        Ok(missed)
    }

    /// Fills `row` with links for a point, chosen among the `ef` nearest that a walk finds and what
    /// the levels above lend. Returns whether the walk found the point itself.
    fn choose(&self, graph: &FlatGraph, point: u32, ef: usize, row: &mut [u32]) -> bool {
        let mut candidates = nearest(graph, self.points, point, ef);
        let found = candidates.contains(&point);
        let lent = &self.lent[point as usize * LENT..][..LENT];
        candidates.extend(lent.iter().take_while(|&&position| position != NO_LINK));
        candidates.sort_unstable();
        candidates.dedup();
        let (kernel, vector) = (Kernel::detect(), self.points.vector(point));
        let others = candidates.into_iter().filter(|&other| other != point);
        let near = |other| (kernel.cosine(vector, self.points.vector(other)), other);
        let mut others: Vec<(f32, u32)> = others.map(near).collect();
        sort(&mut others);
        fill_diverse(self.points, &others, row);
        found
    }
}

/// Fills `row` with all links of a point, or with a choice of them if they are too many.
fn join(points: Points<'_>, point: u32, mut links: Vec<u32>, row: &mut [u32]) {
    links.sort_unstable();
    links.dedup();
    let (kernel, own) = (Kernel::detect(), points.vector(point));
    let near = |&other: &u32| (kernel.cosine(own, points.vector(other)), other);
    let mut candidates: Vec<(f32, u32)> = links.iter().map(near).collect();
    sort(&mut candidates);
    if candidates.len() > row.len() {
        return fill_diverse(points, &candidates, row);
    }
    row.iter_mut().zip(candidates).for_each(|(slot, (_, link))| *slot = link);
}

/// Nearest first.
fn sort(candidates: &mut [(f32, u32)]) {
    candidates.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
}

/// Takes candidates, nearest first, that are nearer to the point than to any one taken before:
/// what lies behind a taken one is reached over it.
fn fill_diverse(points: Points<'_>, candidates: &[(f32, u32)], row: &mut [u32]) {
    let kernel = Kernel::detect();
    row.fill(NO_LINK);
    let mut taken = 0;
    for &(cosine, candidate) in candidates {
        let vector = points.vector(candidate);
        let behind = |&link: &u32| kernel.cosine(vector, points.vector(link)) >= cosine;
        if taken < row.len() && !row[..taken].iter().any(behind) {
            row[taken] = candidate;
            taken += 1;
        }
    }
}

/// Who chose each point.
struct Incoming {
    starts: Vec<usize>,
    from: Vec<u32>,
}

impl Incoming {
    fn new(chosen: &[u32], m: usize) -> Self {
        let count = chosen.len() / m;
        let mut starts = vec![0; count + 1];
        for &to in chosen.iter().filter(|&&to| to != NO_LINK) {
            starts[to as usize + 1] += 1;
        }
        for at in 0..count {
            starts[at + 1] += starts[at];
        }
        let (mut next, mut from) = (starts.clone(), vec![0; starts[count]]);
        for (at, &to) in chosen.iter().enumerate().filter(|&(_, &to)| to != NO_LINK) {
            from[next[to as usize]] = (at / m) as u32;
            next[to as usize] += 1;
        }
        Self { starts, from }
    }

    fn of(&self, point: usize) -> &[u32] {
        &self.from[self.starts[point]..self.starts[point + 1]]
    }
}
