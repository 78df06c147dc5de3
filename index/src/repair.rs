//! After a build: every point can be reached and finds itself.

use crate::flat::FlatGraph;
use crate::format::NO_LINK;
use crate::simd::row;
use crate::walk::{Hit, Limits, Scratch, walk};
use rayon::prelude::{IntoParallelIterator, ParallelIterator};

/// Candidates of the walks that look for lost points: those of a modest search.
const EF: usize = 64;
/// How often points that were linked again are looked for again.
const ROUNDS: usize = 3;

/// Links points again that cannot be reached from the entry point at level 0 or that a walk to
/// their own vector does not find. Returns how many they were.
///
/// The answer does not depend on the number of threads: they only look, and the links are added
/// in the order of positions.
pub(crate) fn repair(graph: &mut FlatGraph, vectors: &[f32], stride: usize) -> usize {
    if graph.count < 2 {
        return 0;
    }
    let mut repaired = vec![false; graph.count];
    let mut reach = Reach::new(graph);
    for lost in 0..graph.count as u32 {
        if !reach.knows(lost) {
            reach.link(graph, &hits(graph, vectors, stride, lost), lost);
            repaired[lost as usize] = true;
        }
    }
    let mut suspects: Vec<u32> = (0..graph.count as u32).collect();
    for _ in 0..ROUNDS {
        let looking = suspects.into_par_iter();
        suspects = looking.filter(|&point| !finds_itself(graph, vectors, stride, point)).collect();
        for &lost in &suspects {
            reach.link(graph, &hits(graph, vectors, stride, lost), lost);
            repaired[lost as usize] = true;
        }
    }
    repaired.iter().filter(|&&repaired| repaired).count()
}

fn hits(graph: &FlatGraph, vectors: &[f32], stride: usize, point: u32) -> Vec<Hit> {
    let query = row(vectors, point as usize, stride).unwrap_or_default();
    Scratch::with(|scratch| {
        let limits = Limits { ef: EF, budget: usize::MAX };
        walk(&graph.over(vectors, stride), query, limits, |_| true, scratch);
        scratch.hits()
    })
}

/// Of several points with one vector, finding any is as good. Cosines of a vector with itself are
/// 1 only up to rounding, and that of a twin is the same number.
fn finds_itself(graph: &FlatGraph, vectors: &[f32], stride: usize, point: u32) -> bool {
    let found = hits(graph, vectors, stride, point);
    let own = row(vectors, point as usize, stride);
    let same = |hit: &Hit| row(vectors, hit.position as usize, stride) == own;
    found.iter().any(|hit| hit.position == point || same(hit))
}

/// Which points can be reached from position 0 at level 0, and along which links.
struct Reach {
    /// From where a point was reached first, `NO_LINK` if it was not. These links make a tree
    /// and are never replaced: what was reached once stays so.
    parents: Vec<u32>,
    /// Points in the order in which they were reached.
    order: Vec<u32>,
    /// All points before this place in `order` have full rows.
    full_before: usize,
}

impl Reach {
    fn new(graph: &FlatGraph) -> Self {
        let mut reach = Self {
            parents: vec![NO_LINK; graph.count],
            order: Vec::with_capacity(graph.count),
            full_before: 0,
        };
        // The root is its own parent, so that it counts as reached.
        reach.parents[0] = 0;
        reach.order.push(0);
        reach.follow(graph, 0);
        reach
    }

    fn knows(&self, point: u32) -> bool {
        self.parents[point as usize] != NO_LINK
    }

    /// Goes on from `order[start..]`.
    fn follow(&mut self, graph: &FlatGraph, start: usize) {
        let view = graph.over(&[], 0);
        let mut next = start;
        while let Some(&from) = self.order.get(next) {
            for &to in view.neighbours(from) {
                if !self.knows(to) {
                    self.parents[to as usize] = from;
                    self.order.push(to);
                }
            }
            next += 1;
        }
    }

    /// Links `lost` with the nearest of `hits` that has a place for it, in both directions.
    fn link(&mut self, graph: &mut FlatGraph, hits: &[Hit], lost: u32) {
        let near = hits.iter().map(|hit| hit.position);
        let near: Vec<u32> = near.filter(|&from| from != lost && self.knows(from)).collect();
        let by_place = near.iter().copied().find(|&from| self.has_place(graph, from));
        let Some(donor) = by_place.or_else(|| self.any_place(graph, lost)) else { return };
        let slot = self.slot(graph, donor);
        let linked = graph.over(&[], 0).neighbours(donor).contains(&lost);
        let (Some(slot), false) = (slot, linked) else { return };
        graph.links_mut(donor)[slot] = lost;
        let back = graph.links_mut(lost);
        let free = back.iter().position(|&link| link == NO_LINK);
        if let (Some(free), false) = (free, back.contains(&donor)) {
            back[free] = donor;
        }
        if !self.knows(lost) {
            self.parents[lost as usize] = donor;
            self.order.push(lost);
            self.follow(graph, self.order.len() - 1);
        }
    }

    fn has_place(&self, graph: &mut FlatGraph, from: u32) -> bool {
        self.slot(graph, from).is_some()
    }

    /// A free place in a row, else that of its last link that is no part of the tree.
    fn slot(&self, graph: &mut FlatGraph, from: u32) -> Option<usize> {
        let row = graph.links_mut(from);
        let free = row.iter().position(|&link| link == NO_LINK);
        let spare = |link: &u32| self.parents[*link as usize] != from;
        free.or_else(|| row.iter().rposition(spare))
    }

    /// Some reached point with a place. There always is one: the tree has fewer links than points,
    /// and every full row has at least four.
    fn any_place(&mut self, graph: &mut FlatGraph, lost: u32) -> Option<u32> {
        while let Some(&from) = self.order.get(self.full_before) {
            let free = graph.links_mut(from).contains(&NO_LINK);
            if free && from != lost {
                return Some(from);
            }
            self.full_before += 1;
        }
        let order = std::mem::take(&mut self.order);
        let found = order.iter().copied().find(|&from| from != lost && self.has_place(graph, from));
        self.order = order;
        found
    }
}
