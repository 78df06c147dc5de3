//! Recurrent layers, one step of time after the other.

use super::{Call, Fault, Outputs};
use crate::graph::Attribute;
use tch::{Kind, Tensor};

/// Gates of a cell and values that it carries.
#[derive(Clone, Copy, PartialEq)]
enum Cell {
    Rnn,
    Gru,
    Lstm,
}

impl Cell {
    fn gates(self) -> i64 {
        match self {
            Self::Rnn => 1,
            Self::Gru => 3,
            Self::Lstm => 4,
        }
    }
    fn activations(self) -> &'static [&'static str] {
        match self {
            Self::Rnn => &["Tanh"],
            Self::Gru => &["Sigmoid", "Tanh"],
            Self::Lstm => &["Sigmoid", "Tanh", "Tanh"],
        }
    }
}

pub(super) fn rnn(call: &Call<'_>) -> Outputs {
    let weights = Weights { w: call.input(1)?.shallow_clone(), r: call.input(2)?.shallow_clone() };
    layer(call, Cell::Rnn, &weights)
}

pub(super) fn gru(call: &Call<'_>) -> Outputs {
    let weights = Weights { w: call.input(1)?.shallow_clone(), r: call.input(2)?.shallow_clone() };
    layer(call, Cell::Gru, &weights)
}

pub(super) fn lstm(call: &Call<'_>) -> Outputs {
    let weights = Weights { w: call.input(1)?.shallow_clone(), r: call.input(2)?.shallow_clone() };
    layer(call, Cell::Lstm, &weights)
}

/// Contributed operator of ONNX Runtime: quantised weights, stored with their last two dimensions
/// swapped. The runtime quantises the activations too; here they stay as they are.
pub(super) fn dynamic_lstm(call: &Call<'_>) -> Outputs {
    let real = |weight: usize, scale: usize| -> Result<Tensor, Fault> {
        // One number for each direction, or for each of its columns.
        let wide = |parameter: &Tensor| -> Result<Tensor, Fault> {
            let parameter = parameter.f_to_kind(Kind::Float)?;
            let directions = parameter.size().first().copied().unwrap_or(1);
            Ok(parameter.f_reshape([directions, 1, -1])?)
        };
        let weight = call.input(weight)?.f_to_kind(Kind::Float)?;
        let zero = wide(call.input(scale + 1)?)?;
        let real = weight.f_sub(&zero)?.f_mul(&wide(call.input(scale)?)?)?;
        Ok(real.f_swapaxes(1, 2)?)
    };
    layer(call, Cell::Lstm, &Weights { w: real(1, 8)?, r: real(2, 10)? })
}

/// `[directions, gates * hidden, input]` and `[directions, gates * hidden, hidden]`.
struct Weights {
    w: Tensor,
    r: Tensor,
}

/// One direction of a layer.
struct Direction<'a> {
    call: &'a Call<'a>,
    cell: Cell,
    /// `[gates * hidden, hidden]`.
    r: Tensor,
    /// `[gates * hidden]` each, for the input and for the carried value.
    biases: Option<[Tensor; 2]>,
    /// `[3 * hidden]`.
    peepholes: Option<Tensor>,
    hidden: i64,
    /// Number of the first of its activations.
    first: usize,
}

fn layer(call: &Call<'_>, cell: Cell, weights: &Weights) -> Outputs {
    let batch_first = call.int("layout", 0) != 0;
    let swap = |x: &Tensor| if batch_first { x.f_swapaxes(0, 1) } else { Ok(x.shallow_clone()) };
    let x = swap(call.input(0)?)?;
    let (steps, batch, _) = x.size3()?;
    let (directions, rows, hidden) = weights.r.size3()?;
    if hidden < 1 || rows != cell.gates() * hidden || !(1..=2).contains(&directions) {
        return Err(Fault::Failed(format!("recurrent weights {:?}", weights.r.size())));
    }
    let lengths = call.numbers(4)?.map(|lengths| mask(&lengths, steps, &x)).transpose()?;
    let start = |index: usize| -> Result<Tensor, Fault> {
        match call.optional(index) {
            Some(start) => Ok(swap(start)?),
            None => Ok(Tensor::f_zeros([directions, batch, hidden], (Kind::Float, x.device()))?),
        }
    };
    let hidden_start = start(5)?;
    let cell_start = if cell == Cell::Lstm { start(6)? } else { hidden_start.shallow_clone() };
    let mut found: [Vec<Tensor>; 3] = Default::default();
    for index in 0..directions {
        let direction = direction(call, cell, weights, index, hidden)?;
        let w = weights.w.f_select(0, index)?;
        let backwards = index == 1 || call.text("direction", "forward") == "reverse";
        let state = [hidden_start.f_select(0, index)?, cell_start.f_select(0, index)?];
        let projected = x.f_matmul(&w.f_swapaxes(0, 1)?)?;
        let (outputs, [h, c]) = direction.walk(&projected, state, lengths.as_ref(), backwards)?;
        found[0].push(outputs);
        found[1].push(h);
        found[2].push(c);
    }
    let [outputs, h, c] = found;
    // [time, directions, batch, hidden] or, batch first, [batch, time, directions, hidden].
    let outputs = Tensor::f_stack(&outputs, 1)?;
    let outputs = if batch_first { outputs.f_permute([2, 0, 1, 3])? } else { outputs };
    let last = |list: &[Tensor]| swap(&Tensor::f_stack(list, 0)?);
    Ok(vec![outputs, last(&h)?, last(&c)?])
}

fn direction<'a>(
    call: &'a Call<'a>,
    cell: Cell,
    weights: &Weights,
    index: i64,
    hidden: i64,
) -> Result<Direction<'a>, Fault> {
    let of =
        |input: usize| call.optional(input).map(|tensor| tensor.f_select(0, index)).transpose();
    let biases = match of(3)? {
        None => None,
        Some(both) => {
            let half = both.size1()? / 2;
            Some([both.f_narrow(0, 0, half)?, both.f_narrow(0, half, half)?])
        }
    };
    Ok(Direction {
        call,
        cell,
        r: weights.r.f_select(0, index)?,
        biases,
        peepholes: if cell == Cell::Lstm { of(7)? } else { None },
        hidden,
        first: index as usize * cell.activations().len(),
    })
}

/// `[time, batch, 1]`: 1 where a step lies inside its sample's length.
fn mask(lengths: &[i64], steps: i64, x: &Tensor) -> Result<Tensor, Fault> {
    let lengths = Tensor::f_from_slice(lengths)?.f_reshape([1, -1, 1])?;
    let steps = Tensor::f_arange(steps, (Kind::Int64, tch::Device::Cpu))?.f_reshape([-1, 1, 1])?;
    Ok(steps.f_lt_tensor(&lengths)?.f_to_device(x.device())?)
}

impl Direction<'_> {
    /// (`[time, batch, hidden]`, last states) from the projected input `[time, batch, gates *
    /// hidden]`. Beyond its length a sample keeps its state and puts out zeros.
    fn walk(
        &self,
        projected: &Tensor,
        mut state: [Tensor; 2],
        inside: Option<&Tensor>,
        backwards: bool,
    ) -> Result<(Tensor, [Tensor; 2]), Fault> {
        let steps = projected.size()[0];
        let mut outputs = Vec::new();
        for step in 0..steps {
            let at = if backwards { steps - 1 - step } else { step };
            self.call.budget.step(false)?;
            let [h, c] = self.step(&projected.f_select(0, at)?, &state)?;
            let (output, next) = match inside {
                None => (h.shallow_clone(), [h, c]),
                Some(inside) => {
                    let inside = inside.f_select(0, at)?;
                    let output = h.f_where_self(&inside, &h.f_zeros_like()?)?;
                    let kept =
                        [h.f_where_self(&inside, &state[0])?, c.f_where_self(&inside, &state[1])?];
                    (output, kept)
                }
            };
            outputs.push(output);
            state = next;
        }
        if backwards {
            outputs.reverse();
        }
        Ok((Tensor::f_stack(&outputs, 0)?, state))
    }

    fn step(&self, x: &Tensor, [h, c]: &[Tensor; 2]) -> Result<[Tensor; 2], Fault> {
        match self.cell {
            Cell::Rnn => {
                let gates = self.gates(x, h, 0, 1)?;
                let h = self.activate(0, &gates[0])?;
                Ok([h.shallow_clone(), h])
            }
            Cell::Gru => {
                let h = self.gru(x, h)?;
                Ok([h.shallow_clone(), h])
            }
            Cell::Lstm => self.lstm(x, h, c),
        }
    }

    /// `x + h R + biases` of the gates from `first` on.
    fn gates(&self, x: &Tensor, h: &Tensor, first: i64, count: i64) -> Outputs {
        let part = |tensor: &Tensor, dim: i64| {
            tensor.f_narrow(dim, first * self.hidden, count * self.hidden)
        };
        let mut sum = part(x, 1)?.f_add(&h.f_matmul(&part(&self.r, 0)?.f_swapaxes(0, 1)?)?)?;
        for bias in self.biases.iter().flatten() {
            sum = sum.f_add(&part(bias, 0)?)?;
        }
        Ok(sum.f_chunk(count, 1)?)
    }

    fn gru(&self, x: &Tensor, h: &Tensor) -> Result<Tensor, Fault> {
        let gates = self.gates(x, h, 0, 2)?;
        let (update, reset) = (self.activate(0, &gates[0])?, self.activate(0, &gates[1])?);
        let candidate = if self.call.int("linear_before_reset", 0) == 0 {
            self.gates(x, &h.f_mul(&reset)?, 2, 1)?.remove(0)
        } else {
            let part = |tensor: &Tensor, dim| tensor.f_narrow(dim, 2 * self.hidden, self.hidden);
            let mut inner = h.f_matmul(&part(&self.r, 0)?.f_swapaxes(0, 1)?)?;
            let mut outer = part(x, 1)?;
            if let Some([input, carried]) = &self.biases {
                inner = inner.f_add(&part(carried, 0)?)?;
                outer = outer.f_add(&part(input, 0)?)?;
            }
            outer.f_add(&reset.f_mul(&inner)?)?
        };
        let candidate = self.activate(1, &candidate)?;
        // (1 - update) candidate + update h
        Ok(candidate.f_add(&update.f_mul(&h.f_sub(&candidate)?)?)?)
    }

    fn lstm(&self, x: &Tensor, h: &Tensor, c: &Tensor) -> Result<[Tensor; 2], Fault> {
        let gates = self.gates(x, h, 0, 4)?;
        // Peepholes: of the input, output and forget gate in this order.
        let peep = |gate: &Tensor, index: i64, c: &Tensor| -> Result<Tensor, Fault> {
            let Some(peepholes) = &self.peepholes else { return Ok(gate.shallow_clone()) };
            let weight = peepholes.f_narrow(0, index * self.hidden, self.hidden)?;
            Ok(gate.f_add(&weight.f_mul(c)?)?)
        };
        let input = self.activate(0, &peep(&gates[0], 0, c)?)?;
        let forget = if self.call.int("input_forget", 0) != 0 {
            input.f_neg()?.f_add_scalar(1.0)?
        } else {
            self.activate(0, &peep(&gates[2], 2, c)?)?
        };
        let candidate = self.activate(1, &gates[3])?;
        let next = forget.f_mul(c)?.f_add(&input.f_mul(&candidate)?)?;
        let output = self.activate(0, &peep(&gates[1], 1, &next)?)?;
        // The activation of the new cell value is not clipped.
        let shown = self.function(2, &next)?;
        Ok([output.f_mul(&shown)?, next])
    }

    /// An activation of what a gate sums up, which may be clipped first.
    fn activate(&self, index: usize, x: &Tensor) -> Result<Tensor, Fault> {
        let clip = self.call.float("clip", 0.0);
        if clip > 0.0 {
            self.function(index, &x.f_clamp(-clip, clip)?)
        } else {
            self.function(index, x)
        }
    }

    fn function(&self, index: usize, x: &Tensor) -> Result<Tensor, Fault> {
        let named = match self.call.node.attributes.get("activations") {
            Some(Attribute::Strings(names)) => names.get(self.first + index),
            _ => None,
        };
        let name = match named {
            Some(bytes) => std::str::from_utf8(bytes).unwrap_or_default(),
            None => self.cell.activations()[index],
        };
        let number = |list: &str, default: f64| match self.call.node.attributes.get(list) {
            Some(Attribute::Floats(list)) => {
                list.get(self.first + index).map_or(default, |&v| v.into())
            }
            _ => default,
        };
        Ok(match name {
            "Sigmoid" => x.f_sigmoid()?,
            "Tanh" => x.f_tanh()?,
            "Relu" => x.f_relu()?,
            "Softsign" => x.f_div(&x.f_abs()?.f_add_scalar(1.0)?)?,
            "Softplus" => x.f_softplus()?,
            "HardSigmoid" => {
                let line = x.f_mul_scalar(number("activation_alpha", 0.2))?;
                line.f_add_scalar(number("activation_beta", 0.5))?.f_clamp(0.0, 1.0)?
            }
            "Affine" => {
                let line = x.f_mul_scalar(number("activation_alpha", 1.0))?;
                line.f_add_scalar(number("activation_beta", 0.0))?
            }
            other => return Err(Fault::Unsupported(format!("activation {other:?}"))),
        })
    }
}
