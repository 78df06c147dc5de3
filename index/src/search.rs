//! Search over a segment and a delta as if they were one.

use crate::{Delta, Embedding, Filter, Result, Segment};

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
    /// Answers wanted, at least 1.
    pub k: usize,
    /// Candidates kept during the walk. Default 100.
    pub ef: usize,
    /// Scan every vector instead of walking the graph.
    pub exact: bool,
}

/// The `k` nearest of segment and delta that match `filter`, by falling cosine (ties: smaller key first).
///
/// Returns min(k, matches) neighbours, always.
///
/// # Errors
/// `Error::Option` for k = 0, `Error::Dimension` if the query's dimension differs.
pub fn search(
    _segment: Option<&Segment>,
    _delta: &Delta,
    _query: &Embedding,
    _filter: &Filter,
    _options: &SearchOptions,
) -> Result<Vec<Neighbour>> {
    todo!()
}
