//! What a score is made of.

use super::{Encoders, TaskEncoding};

/// One addend of a cosine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Term {
    /// What it stands for.
    pub name: &'static str,
    /// Its part of the cosine.
    pub cosine: f32,
}

impl Encoders {
    /// The addends of the cosine of a dataset's and a model's vector (both of this encoder version).
    ///
    /// `default` tells a model's standing everywhere from what it did on tasks like this one; `tans2021` has learned
    /// its dimensions, so that they cannot be told apart.
    pub fn terms(&self, task: &TaskEncoding, model: &[f32]) -> Vec<Term> {
        let product = |range: std::ops::Range<usize>| {
            let of = |at: usize| task.vector.get(at).zip(model.get(at)).map_or(0.0, |(a, b)| a * b);
            range.map(of).sum()
        };
        let dim = self.dim();
        match self {
            Self::Default(_) => vec![
                Term { name: "standing on all tasks", cosine: product(0..1) },
                Term { name: "standing on similar tasks", cosine: product(1..dim) },
            ],
            Self::Tans2021(_) => vec![Term { name: "learned", cosine: product(0..dim) }],
        }
    }
}
