//! A matrix of feature rows: the vocabulary that data, graph and encoder share.

/// Row-major `[n, dim]` f32.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Rows {
    dim: usize,
    values: Vec<f32>,
}

impl Rows {
    /// Wraps values; `None` unless `dim` is at least 1 and divides their number.
    pub fn new(dim: usize, values: Vec<f32>) -> Option<Self> {
        (dim >= 1 && values.len().is_multiple_of(dim)).then_some(Self { dim, values })
    }
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.values.len() / self.dim.max(1)
    }
    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
    /// Numbers in a row.
    pub fn dim(&self) -> usize {
        self.dim
    }
    /// One row.
    pub fn row(&self, index: usize) -> &[f32] {
        &self.values[index * self.dim..(index + 1) * self.dim]
    }
    /// All rows in order.
    pub fn iter(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks_exact(self.dim.max(1))
    }
    /// All values, row-major.
    pub fn values(&self) -> &[f32] {
        &self.values
    }
    /// These rows, then others; `None` where they have another dimension.
    pub fn followed_by(mut self, others: &Self) -> Option<Self> {
        if others.dim != self.dim {
            return None;
        }
        self.values.extend_from_slice(&others.values);
        Some(self)
    }
    /// The rows at `indices`, in that order.
    pub fn select(&self, indices: &[usize]) -> Self {
        let values = indices.iter().flat_map(|&index| self.row(index)).copied().collect();
        Self { dim: self.dim, values }
    }
}
