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
    /// The addends of the cosine of a dataset's and a model's vector (both of this encoder version); `expected` is the
    /// model's vector without its own results.
    ///
    /// `default` tells what networks like it let expect from what its own results add, and there its standing everywhere
    /// from what it did on tasks like this one; `listwise` and `tans2021` have learned their dimensions, so that they
    /// cannot be told apart, and `tans2021` knows no results either.
    pub fn terms(&self, task: &TaskEncoding, model: &[f32], expected: &[f32]) -> Vec<Term> {
        let product = |vector: &[f32], range: std::ops::Range<usize>| -> f32 {
            let of =
                |at: usize| task.vector.get(at).zip(vector.get(at)).map_or(0.0, |(a, b)| a * b);
            range.map(of).sum()
        };
        let dim = self.dim();
        let own = |range: std::ops::Range<usize>| {
            product(model, range.clone()) - product(expected, range)
        };
        match self {
            Self::Default(_) => vec![
                Term { name: "networks like it", cosine: product(expected, 0..dim) },
                Term { name: "own results on all tasks", cosine: own(0..1) },
                Term { name: "own results on similar tasks", cosine: own(1..dim) },
            ],
            Self::Listwise(_) => vec![
                Term { name: "networks like it", cosine: product(expected, 0..dim) },
                Term { name: "own results", cosine: own(0..dim) },
            ],
            Self::Tans2021(_) => vec![Term { name: "learned", cosine: product(model, 0..dim) }],
        }
    }
}
