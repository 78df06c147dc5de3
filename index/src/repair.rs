//! After a build: every point can be reached and finds itself.

use crate::codes::{Points, Probe};
use crate::flat::FlatGraph;
use crate::format::NO_LINK;
use crate::walk::{Hit, Scratch, walk_until};
use rayon::prelude::{IntoParallelRefIterator, ParallelIterator};
use std::collections::HashSet;

/// Candidates of the walks that look for lost points: those of a modest search.
const EF: usize = 64;
/// How often points that were linked again are looked for again.
const ROUNDS: usize = 32;

/// Links points again that cannot be reached from the entry point at level 0 or that a walk to
/// their own vector does not find. Returns how many they were.
///
/// The answer does not depend on the number of threads: they only look, and the links are added
/// in the order of positions.
pub(crate) fn repair(graph: &mut FlatGraph, points: Points<'_>) -> usize {
    if graph.count < 2 {
        return 0;
    }
    let mut repaired = vec![false; graph.count];
    let mut reach = Reach::new(graph);
    for lost in 0..graph.count as u32 {
        if !reach.knows(lost) {
            reach.link(graph, &hits(graph, points, lost), lost);
            repaired[lost as usize] = true;
        }
    }
    for lost in reach.link_back(graph) {
        repaired[lost as usize] = true;
    }
    let everyone: Vec<u32> = (0..graph.count as u32).collect();
    // Each round looks for everyone: a link that helps one point changes the walks to others.
    for _ in 0..ROUNDS {
        let looking = everyone.par_iter().copied();
        let lost = looking.filter(|&point| !finds_itself(graph, points, point));
        let lost: Vec<u32> = lost.collect();
        if lost.is_empty() {
            break;
        }
        for &lost in &lost {
            // A link that was added for an earlier one may help this one too.
            let hits = hits(graph, points, lost);
            if !contains(&hits, points, lost) {
                reach.link(graph, &hits, lost);
                repaired[lost as usize] = true;
            }
        }
    }
    repaired.iter().filter(|&&repaired| repaired).count()
}

/// What a walk to a point meets, until it meets the point.
fn hits(graph: &FlatGraph, points: Points<'_>, point: u32) -> Vec<Hit> {
    Scratch::with(|scratch| {
        let mut probe = Probe::default();
        probe.aim(points.vector(point), points.ranges);
        let graph = graph.over(points.codes, points.stride);
        walk_until(&graph, &probe, EF, point, scratch);
        scratch.hits().collect()
    })
}

fn finds_itself(graph: &FlatGraph, points: Points<'_>, point: u32) -> bool {
    contains(&hits(graph, points, point), points, point)
}

/// Whether the point is among the hits. Of several points with one vector, any is as good.
fn contains(hits: &[Hit], points: Points<'_>, point: u32) -> bool {
    let same = |hit: &Hit| points.vector(hit.position) == points.vector(point);
    hits.iter().any(|hit| hit.position == point || same(hit))
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
    /// Links that were added here, as (from, to): they are not replaced either, or one lost point
    /// would push out another.
    added: HashSet<(u32, u32)>,
}

impl Reach {
    fn new(graph: &FlatGraph) -> Self {
        let mut reach = Self {
            parents: vec![NO_LINK; graph.count],
            order: Vec::with_capacity(graph.count),
            full_before: 0,
            added: HashSet::new(),
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
        // Thousands of equal vectors would fill the rows of the 64 that every walk meets first,
        // and nothing else could be linked there any more: reaching leaves a quarter to finding.
        let keep = if self.knows(lost) { 0 } else { graph.m / 2 };
        let roomy = |from: &u32| graph.over(&[], 0).neighbours(*from).len() + keep < 2 * graph.m;
        let mut donor = near.iter().copied().find(roomy);
        if self.knows(lost) {
            let slotted = |from: &u32| self.slot(graph, *from, lost).is_some();
            donor = donor.or_else(|| near.iter().copied().find(slotted));
        }
        let Some(donor) = donor.or_else(|| self.any_place(graph, lost)) else { return };
        let Some(slot) = self.slot(graph, donor, lost) else { return };
        if graph.links_of(donor).contains(&lost) {
            return;
        }
        let old = std::mem::replace(&mut graph.links_mut(donor)[slot], lost);
        self.added.insert((donor, lost));
        let of_tree = old != NO_LINK && self.parents[old as usize] == donor;
        // The way to a replaced point of the tree now leads over the lost point.
        let back = if of_tree { old } else { donor };
        if !graph.links_of(lost).contains(&back)
            && let Some(slot) = self.loose_slot(graph, lost)
        {
            graph.links_mut(lost)[slot] = back;
        }
        if of_tree {
            self.parents[old as usize] = lost;
            if !self.descends(donor, lost) {
                self.parents[lost as usize] = donor;
            }
        }
        if !self.knows(lost) {
            self.parents[lost as usize] = donor;
            self.order.push(lost);
            self.follow(graph, self.order.len() - 1);
        }
    }

    /// Adds links until position 0 can be reached from everywhere: a walk that comes down into a
    /// closed group of points would end there. Returns the points that were linked.
    ///
    /// Parents come before children in `order`, so that a link to the parent leads on to 0.
    fn link_back(&mut self, graph: &mut FlatGraph) -> Vec<u32> {
        let incoming = incoming(graph);
        let mut leads_back = vec![false; graph.count];
        let (mut linked, mut open) = (Vec::new(), vec![0]);
        leads_back[0] = true;
        for at in 0..self.order.len() {
            let point = self.order[at];
            if !leads_back[point as usize] {
                // A point without a place waits for the others of its group.
                let Some(slot) = self.loose_slot(graph, point) else { continue };
                let parent = self.parents[point as usize];
                graph.links_mut(point)[slot] = parent;
                self.added.insert((point, parent));
                leads_back[point as usize] = true;
                linked.push(point);
                open.push(point);
            }
            while let Some(to) = open.pop() {
                for &from in &incoming[to as usize] {
                    // A link that was replaced by a link back no longer counts, but its point
                    // was marked when that happened.
                    if !std::mem::replace(&mut leads_back[from as usize], true) {
                        open.push(from);
                    }
                }
            }
        }
        linked
    }

    /// A place in a row of `from` for a link to `lost`: one that nobody needs, else that of a link
    /// of the tree, if `lost` has a place to carry that one on.
    fn slot(&self, graph: &FlatGraph, from: u32, lost: u32) -> Option<usize> {
        let carried = |&link: &u32| link != lost && !self.added.contains(&(from, link));
        let of_tree = || {
            let can_carry = self.knows(lost) && self.loose_slot(graph, lost).is_some();
            can_carry.then(|| graph.links_of(from).iter().rposition(carried)).flatten()
        };
        self.loose_slot(graph, from).or_else(of_tree)
    }

    /// A free place in a row, else that of its last link that is not part of the tree or added.
    fn loose_slot(&self, graph: &FlatGraph, from: u32) -> Option<usize> {
        let row = graph.links_of(from);
        let free = row.iter().position(|&link| link == NO_LINK);
        let loose = |&link: &u32| {
            self.parents[link as usize] != from && !self.added.contains(&(from, link))
        };
        free.or_else(|| row.iter().rposition(loose))
    }

    /// Whether the tree leads to `point` over `ancestor`.
    fn descends(&self, point: u32, ancestor: u32) -> bool {
        let mut at = point;
        while at != ancestor && at != 0 {
            at = self.parents[at as usize];
        }
        at == ancestor
    }

    /// Some reached point with a place. For a point that was not reached there always is one: until
    /// then every added link is one of the tree, the tree has fewer links than points, and every
    /// full row has at least four.
    fn any_place(&mut self, graph: &FlatGraph, lost: u32) -> Option<u32> {
        while let Some(&from) = self.order.get(self.full_before) {
            let free = graph.links_of(from).contains(&NO_LINK);
            if free && from != lost {
                return Some(from);
            }
            self.full_before += 1;
        }
        let order = std::mem::take(&mut self.order);
        let found = order
            .iter()
            .copied()
            .find(|&from| from != lost && self.loose_slot(graph, from).is_some());
        self.order = order;
        found
    }
}

/// From where each point is linked at level 0.
fn incoming(graph: &FlatGraph) -> Vec<Vec<u32>> {
    let view = graph.over(&[], 0);
    let mut incoming = vec![Vec::new(); graph.count];
    for from in 0..graph.count as u32 {
        for &to in view.neighbours(from) {
            incoming[to as usize].push(from);
        }
    }
    incoming
}
