//! A graph in memory, laid out as in the file but still open for changes.

use crate::format::NO_LINK;
use crate::walk::Graph;

/// What [`Graph`] looks at, owned.
pub(crate) struct FlatGraph {
    pub(crate) links: Vec<u32>,
    pub(crate) level_counts: Vec<u32>,
    pub(crate) upper: Vec<u32>,
    pub(crate) m: usize,
    pub(crate) count: usize,
}

impl FlatGraph {
    /// `count` points without links, `level_counts[l - 1]` of which reach level l.
    pub(crate) fn new(count: usize, m: usize, level_counts: Vec<u32>) -> Self {
        let upper_rows: usize = level_counts.iter().map(|&count| count as usize).sum();
        Self {
            links: vec![NO_LINK; count * 2 * m],
            level_counts,
            upper: vec![NO_LINK; upper_rows * m],
            m,
            count,
        }
    }

    /// Links a point on one level, nearest neighbours first; leaves out itself, repetitions,
    /// points that do not reach this level, and what does not fit.
    pub(crate) fn set_row(&mut self, level: usize, from: u32, links: &[u32]) {
        let reach = match level {
            0 => self.count as u32,
            _ => self.level_counts.get(level - 1).copied().unwrap_or(0),
        };
        if from >= reach {
            return;
        }
        let row = self.row_mut(level, from);
        let mut len = 0;
        for &link in links {
            if len < row.len() && link != from && link < reach && !row[..len].contains(&link) {
                row[len] = link;
                len += 1;
            }
        }
    }

    /// Adds points without links that reach level 0 alone.
    pub(crate) fn grow(&mut self, more: usize) {
        self.count += more;
        self.links.resize(self.count * 2 * self.m, NO_LINK);
    }

    fn row_mut(&mut self, level: usize, from: u32) -> &mut [u32] {
        let from = from as usize;
        if level == 0 {
            return &mut self.links[from * 2 * self.m..][..2 * self.m];
        }
        let start = self.start_of(level);
        &mut self.upper[start + from * self.m..][..self.m]
    }

    /// Where the rows of an upper level start.
    fn start_of(&self, level: usize) -> usize {
        let below = &self.level_counts[..level - 1];
        below.iter().map(|&count| count as usize * self.m).sum()
    }

    /// An upper level and all above it as a graph of their own.
    pub(crate) fn part_above(&self, level: usize) -> Self {
        let (m, count) = (self.m, self.level_counts[level - 1] as usize);
        let mut graph = Self::new(count, m, self.level_counts[level..].to_vec());
        let (rows, above) = self.upper[self.start_of(level)..].split_at(count * m);
        for (wide, row) in graph.links.chunks_mut(2 * m).zip(rows.chunks(m)) {
            wide[..m].copy_from_slice(row);
        }
        graph.upper.copy_from_slice(above);
        graph
    }

    /// Takes the first m links of each point at level 0 of `other` as those of an upper level.
    pub(crate) fn set_level(&mut self, level: usize, other: &Self) {
        let (m, start) = (self.m, self.start_of(level));
        let rows = self.upper[start..].chunks_mut(m);
        for (row, wide) in rows.zip(other.links.chunks(2 * m)) {
            row.copy_from_slice(&wide[..m]);
        }
    }

    /// The row of a point at level 0, with its unused end.
    pub(crate) fn links_of(&self, from: u32) -> &[u32] {
        &self.links[from as usize * 2 * self.m..][..2 * self.m]
    }

    /// The same, to be changed.
    pub(crate) fn links_mut(&mut self, from: u32) -> &mut [u32] {
        self.row_mut(0, from)
    }

    /// The graph over these codes, for a walk.
    pub(crate) fn over<'a>(&'a self, codes: &'a [i8], stride: usize) -> Graph<'a> {
        Graph {
            links: &self.links,
            level_counts: &self.level_counts,
            upper: &self.upper,
            codes,
            m: self.m,
            stride,
            count: self.count,
        }
    }
}
