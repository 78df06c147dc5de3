//! Points with one and the same vector. To a graph they are a trap: all others lie behind a copy, so
//! that a point is linked to its copies and to nothing else. The graph is built of one point of
//! each vector, and the copies hang below it with its links.

use crate::Entry;
use crate::flat::FlatGraph;
use crate::format::NO_LINK;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Entries by vector.
pub(crate) struct Groups {
    /// The first entry of each vector.
    pub(crate) firsts: Vec<usize>,
    /// The others of each vector.
    pub(crate) copies: Vec<Vec<usize>>,
}

/// Groups entries whose vectors are equal to the last bit, in the order of their first ones.
pub(crate) fn group(entries: &[Entry]) -> Groups {
    let mut groups = Groups { firsts: Vec::new(), copies: Vec::new() };
    let mut by_hash: HashMap<u64, Vec<usize>> = HashMap::with_capacity(entries.len());
    for (at, entry) in entries.iter().enumerate() {
        let vector = entry.vector.as_slice();
        let mut hasher = DefaultHasher::new();
        vector.iter().for_each(|value| value.to_bits().hash(&mut hasher));
        let alike = by_hash.entry(hasher.finish()).or_default();
        let same = |&&group: &&usize| entries[groups.firsts[group]].vector.as_slice() == vector;
        match alike.iter().find(same) {
            Some(&group) => groups.copies[group].push(at),
            None => {
                alike.push(groups.firsts.len());
                groups.firsts.push(at);
                groups.copies.push(Vec::new());
            }
        }
    }
    groups
}

/// Adds points at the end of level 0: `copies[p]` of them hang below point p, as a heap whose every
/// node has p's links and a few of the others.
pub(crate) fn hang(graph: &mut FlatGraph, copies: &[usize]) {
    let fan = (graph.m / 2).max(1);
    let mut next = graph.count as u32;
    graph.grow(copies.iter().sum());
    for (first, &count) in copies.iter().enumerate().filter(|&(_, &count)| count > 0) {
        let member = |at: usize| if at == 0 { first as u32 } else { next + at as u32 - 1 };
        let own: Vec<u32> = graph.links_of(first as u32).to_vec();
        for at in 0..=count {
            let below: Vec<u32> =
                (fan * at + 1..=fan * (at + 1)).take_while(|&at| at <= count).map(member).collect();
            let row = graph.links_mut(member(at));
            let kept = row.len() - below.len();
            let links = own.iter().copied().filter(|&link| link != NO_LINK).take(kept);
            let all: Vec<u32> = links.chain(below).collect();
            row.fill(NO_LINK);
            row[..all.len()].copy_from_slice(&all);
        }
        next += count as u32;
    }
}
