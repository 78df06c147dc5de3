//! After hnsw_rs: the links of level 0 are chosen anew by our own walk, which is several times
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

/// Chooses each point's links among the `ef` points that a walk to it finds, and links both ways.
///
/// The answer does not depend on the number of threads: every walk goes over the graph as it was.
/// `step` gets the number of points that are done.
pub(crate) fn refine(
    graph: &mut FlatGraph,
    points: Points<'_>,
    ef: usize,
    pool: &ThreadPool,
    step: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<()> {
    let m = graph.m;
    let mut chosen = vec![NO_LINK; graph.count * m];
    for (chunk, rows) in chosen.chunks_mut(CHUNK * m).enumerate() {
        let first = chunk * CHUNK;
        step(first)?;
        pool.install(|| {
            let rows = rows.par_chunks_mut(m).enumerate();
            rows.for_each(|(at, row)| choose_around(graph, points, (first + at) as u32, ef, row));
        });
    }
    let incoming = Incoming::new(&chosen, m);
    pool.install(|| {
        let rows = graph.links.par_chunks_mut(2 * m).enumerate();
        rows.for_each(|(point, row)| {
            let own = chosen[point * m..][..m].iter().copied().filter(|&link| link != NO_LINK);
            let all = own.chain(incoming.of(point).iter().copied());
            join(points, point as u32, all.collect(), row);
        });
    });
    Ok(())
}

/// Fills `row` with links for a point, chosen among what a walk to it finds.
fn choose_around(graph: &FlatGraph, points: Points<'_>, point: u32, ef: usize, row: &mut [u32]) {
    let (kernel, query) = (Kernel::detect(), points.vector(point));
    let mut candidates = Scratch::with(|scratch| {
        let mut probe = Probe::default();
        probe.aim(query, points.ranges);
        walk(&graph.over(points.codes, points.stride), &probe, ef, scratch);
        let others = scratch.hits().map(|hit| hit.position).filter(|&other| other != point);
        let near = |other| (kernel.cosine(query, points.vector(other)), other);
        others.map(near).collect::<Vec<_>>()
    });
    sort(&mut candidates);
    fill_diverse(points, &candidates, row);
}

/// Fills `row` with all links of a point, or with a choice of them if they are too many.
fn join(points: Points<'_>, point: u32, mut links: Vec<u32>, row: &mut [u32]) {
    row.fill(NO_LINK);
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
