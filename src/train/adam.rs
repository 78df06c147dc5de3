//! Adam (Kingma & Ba 2015, algorithm 1) with decoupled decay (Loshchilov & Hutter 2019, algorithm 2) over tensors.

use crate::encoder::Error;
use tch::{Kind, TchError, Tensor};

const BETAS: [f64; 2] = [0.9, 0.999];

/// How far a step goes.
#[derive(Clone, Copy)]
pub(super) struct Pace {
    pub(super) rate: f64,
    /// Added to the root of the second moment; far above the gradients it leaves plain descent with momentum.
    pub(super) epsilon: f64,
    /// Share of the rate by which a step draws parameters to zero.
    pub(super) decay: f64,
}

/// Parameters with their two moments.
pub(super) struct Adam<const N: usize> {
    pub(super) parameters: [Tensor; N],
    moments: Vec<[Tensor; 2]>,
    steps: i32,
    pace: Pace,
}

impl<const N: usize> Adam<N> {
    pub(super) fn new(parameters: [Tensor; N], pace: Pace) -> Result<Self, TchError> {
        let mut moments = Vec::new();
        for parameter in &parameters {
            moments.push([parameter.f_zeros_like()?, parameter.f_zeros_like()?]);
            let _ = parameter.f_set_requires_grad(true)?;
        }
        Ok(Self { parameters, moments, steps: 0, pace })
    }

    /// One step along the gradient of a loss of these parameters; returns the loss before it.
    pub(super) fn step(&mut self, loss: &Tensor) -> Result<f64, TchError> {
        loss.f_backward()?;
        self.steps += 1;
        let corrections = BETAS.map(|beta| 1.0 - beta.powi(self.steps));
        tch::no_grad(|| {
            for (parameter, moments) in self.parameters.iter_mut().zip(&mut self.moments) {
                let mut gradient = parameter.grad();
                if !gradient.defined() {
                    continue;
                }
                if self.pace.decay > 0.0 {
                    let _ = parameter.f_mul_scalar_(1.0 - self.pace.rate * self.pace.decay)?;
                }
                moments[0] = &moments[0] * BETAS[0] + &gradient * (1.0 - BETAS[0]);
                moments[1] = &moments[1] * BETAS[1] + &gradient * &gradient * (1.0 - BETAS[1]);
                let scale = (&moments[1] / corrections[1]).f_sqrt()? + self.pace.epsilon;
                let change = &moments[0] / corrections[0] / scale * -self.pace.rate;
                let _ = parameter.f_add_(&change)?;
                let _ = gradient.f_zero_()?;
            }
            Ok::<(), TchError>(())
        })?;
        loss.f_double_value(&[])
    }
}

/// `[rows, values / rows]` f32.
pub(super) fn matrix(values: &[f32], rows: usize) -> Result<Tensor, TchError> {
    Tensor::f_from_slice(values)?.f_view([rows as i64, (values.len() / rows) as i64])
}

/// A tensor's numbers, row-major.
pub(super) fn values(tensor: &Tensor) -> Result<Vec<f32>, TchError> {
    Vec::<f32>::try_from(&tensor.f_detach()?.f_to_kind(Kind::Float)?.f_flatten(0, -1)?)
}

pub(super) fn failed(error: TchError) -> Error {
    Error::Numerical(format!("libtorch: {error}"))
}
