//! SGD and AdamW over a list of tensors, with a state that can be saved.

use super::Optimizer;
use super::ops::Fault;
use tch::Tensor;

const MOMENTUM: f64 = 0.9;
const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPSILON: f64 = 1e-8;

/// Gradients whose joint length exceeds this are scaled down to it.
const NORM_MAX: f64 = 5.0;

/// Moments of every learned tensor.
pub(super) struct State {
    kind: Optimizer,
    /// Steps taken.
    pub steps: i64,
    /// SGD: velocity. AdamW: mean of gradients.
    pub first: Vec<Tensor>,
    /// AdamW: mean of squared gradients; empty for SGD.
    pub second: Vec<Tensor>,
}

impl State {
    /// No step taken yet.
    pub fn new(kind: Optimizer, parameters: &[&Tensor]) -> Result<Self, Fault> {
        let zeros = || parameters.iter().map(|p| Ok(p.f_zeros_like()?.f_detach()?));
        let first = zeros().collect::<Result<_, Fault>>()?;
        let second = match kind {
            Optimizer::Sgd => Vec::new(),
            Optimizer::AdamW => zeros().collect::<Result<_, Fault>>()?,
        };
        Ok(Self { kind, steps: 0, first, second })
    }

    /// One step in place. `decay` is the weight decay of each parameter; an undefined gradient
    /// leaves its parameter alone.
    pub fn step(
        &mut self,
        parameters: &mut [Tensor],
        gradients: &[Tensor],
        decay: &[f64],
        rate: f64,
    ) -> Result<(), Fault> {
        let _guard = tch::no_grad_guard();
        self.steps += 1;
        let scale = clip_scale(gradients)?;
        for (index, parameter) in parameters.iter_mut().enumerate() {
            let gradient = &gradients[index];
            if !gradient.defined() {
                continue;
            }
            let gradient = gradient.f_mul_scalar(scale)?;
            match self.kind {
                Optimizer::Sgd => self.sgd(index, parameter, gradient, [decay[index], rate])?,
                Optimizer::AdamW => self.adamw(index, parameter, gradient, [decay[index], rate])?,
            }
        }
        Ok(())
    }

    /// v = m v + g; w -= rate (g + m v), with g including the decay.
    fn sgd(
        &mut self,
        index: usize,
        parameter: &mut Tensor,
        mut gradient: Tensor,
        [decay, rate]: [f64; 2],
    ) -> Result<(), Fault> {
        if decay != 0.0 {
            _ = gradient.f_add_(&parameter.f_mul_scalar(decay)?)?;
        }
        let velocity = &mut self.first[index];
        _ = velocity.f_mul_scalar_(MOMENTUM)?.f_add_(&gradient)?;
        let change = velocity.f_mul_scalar(MOMENTUM)?.f_add_(&gradient)?.f_mul_scalar_(rate)?;
        _ = parameter.f_sub_(&change)?;
        Ok(())
    }

    /// Adam with bias correction; the decay acts on the weights, not through the moments.
    fn adamw(
        &mut self,
        index: usize,
        parameter: &mut Tensor,
        gradient: Tensor,
        [decay, rate]: [f64; 2],
    ) -> Result<(), Fault> {
        let steps = i32::try_from(self.steps).unwrap_or(i32::MAX);
        let mean = &mut self.first[index];
        _ = mean.f_lerp_(&gradient, 1.0 - BETA1)?;
        let square = &mut self.second[index];
        _ = square.f_lerp_(&gradient.f_square()?, 1.0 - BETA2)?;
        if decay != 0.0 {
            _ = parameter.f_mul_scalar_(1.0 - rate * decay)?;
        }
        let correction = (1.0 - BETA2.powi(steps)).sqrt();
        let spread = square.f_sqrt()?.f_div_scalar_(correction)?.f_add_scalar_(EPSILON)?;
        let change = mean.f_mul_scalar(rate / (1.0 - BETA1.powi(steps)))?.f_div_(&spread)?;
        _ = parameter.f_sub_(&change)?;
        Ok(())
    }
}

fn clip_scale(gradients: &[Tensor]) -> Result<f64, Fault> {
    let mut total: Option<Tensor> = None;
    for gradient in gradients.iter().filter(|gradient| gradient.defined()) {
        let square = gradient.f_square()?.f_sum(tch::Kind::Float)?;
        total = Some(match total {
            Some(sum) => sum.f_add(&square)?,
            None => square,
        });
    }
    let norm = total.map_or(Ok(0.0), |total| total.f_double_value(&[]))?.sqrt();
    if !norm.is_finite() {
        return Err(diverged("norm of the gradients", norm));
    }
    Ok(if norm > NORM_MAX { NORM_MAX / norm } else { 1.0 })
}

/// What is said when a number of the training is not finite.
pub(super) fn diverged(what: &str, value: f64) -> Fault {
    Fault::Failed(format!("the training diverged (the {what} is {value}): lower the learning rate"))
}

#[cfg(test)]
mod tests {
    use super::{Optimizer, State};
    use tch::Tensor;

    /// Two steps from w = [1, -2] with gradients [0.5, 1] and [-1, 0.25], rate 0.1, decay 0.01.
    fn two_steps(kind: Optimizer) -> Vec<f32> {
        let mut parameters = [Tensor::from_slice(&[1.0_f32, -2.0])];
        let mut state = State::new(kind, &[&parameters[0]]).expect("state");
        for gradient in [[0.5_f32, 1.0], [-1.0, 0.25]] {
            let gradients = [Tensor::from_slice(&gradient)];
            state.step(&mut parameters, &gradients, &[0.01], 0.1).expect("a step");
        }
        Vec::try_from(&parameters[0]).expect("values")
    }

    fn assert_close(found: &[f32], expected: [f64; 2]) {
        for (a, b) in found.iter().zip(expected) {
            assert!((f64::from(*a) - b).abs() < 1e-6, "{found:?} {expected:?}");
        }
    }

    #[test]
    fn sgd_follows_its_formula() {
        let by_hand = |start: f64, gradients: [f64; 2]| {
            let (mut w, mut v) = (start, 0.0);
            for g in gradients {
                let g = g + 0.01 * w;
                v = 0.9 * v + g;
                w -= 0.1 * (g + 0.9 * v);
            }
            w
        };
        let expected = [by_hand(1.0, [0.5, -1.0]), by_hand(-2.0, [1.0, 0.25])];
        assert_close(&two_steps(Optimizer::Sgd), expected);
    }

    #[test]
    fn adamw_follows_its_formula() {
        let by_hand = |start: f64, gradients: [f64; 2]| {
            let (mut w, mut m, mut v) = (start, 0.0, 0.0);
            for (step, g) in gradients.into_iter().enumerate() {
                let step = step as i32 + 1;
                m = 0.9 * m + 0.1 * g;
                v = 0.999 * v + 0.001 * g * g;
                w *= 1.0 - 0.1 * 0.01;
                let (m, v): (f64, f64) =
                    (m / (1.0 - 0.9_f64.powi(step)), v / (1.0 - 0.999_f64.powi(step)));
                w -= 0.1 * m / (v.sqrt() + 1e-8);
            }
            w
        };
        let expected = [by_hand(1.0, [0.5, -1.0]), by_hand(-2.0, [1.0, 0.25])];
        assert_close(&two_steps(Optimizer::AdamW), expected);
    }

    #[test]
    fn long_gradients_are_clipped_and_infinite_ones_refused() {
        let run = |gradient: f32| {
            let mut parameters = [Tensor::from_slice(&[0.0_f32])];
            let mut state = State::new(Optimizer::Sgd, &[&parameters[0]]).expect("state");
            let gradients = [Tensor::from_slice(&[gradient])];
            let done = state.step(&mut parameters, &gradients, &[0.0], 1.0);
            done.map(|()| parameters[0].double_value(&[0]))
        };
        assert!((run(50.0).expect("a step") + 5.0 * 1.9).abs() < 1e-5);
        assert!(run(f32::INFINITY).is_err());
    }
}
