//! Seeded, stratified, group-wise splits.

/// Options of a split.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SplitOptions {
    /// Share of the training part. Default 0.6.
    pub train_share: f32,
    /// Seed. Default 0.
    pub seed: u64,
}

/// Indices of the two parts, ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Training part.
    pub train: Vec<usize>,
    /// Test part.
    pub test: Vec<usize>,
}

impl Default for SplitOptions {
    fn default() -> Self {
        Self { train_share: 0.6, seed: 0 }
    }
}

/// Splits stratified by label; with three or more groups, whole groups go to one side.
///
/// Every class with at least two samples is on both sides (a class that groups would leave on one side is split by sample).
pub fn split(_labels: &[u32], _groups: Option<&[u32]>, _options: &SplitOptions) -> Split {
    todo!()
}
