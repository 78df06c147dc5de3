//! Control flow: subgraphs that run once, many times, or not at all.

use super::{Call, Fault, Outputs, Subgraph, axis, unbound};
use crate::graph::exec::tensor;
use std::ops::Range;
use tch::{Device, Kind, Tensor};

pub(super) fn branch(call: &Call<'_>) -> Outputs {
    let name = if truth(call.input(0)?)? { "then_branch" } else { "else_branch" };
    call.body(name)?.run(Vec::new())
}

fn truth(condition: &Tensor) -> Result<bool, Fault> {
    Ok(tensor::to_i64(condition)?.first().is_some_and(|&value| value != 0))
}

fn copies(call: &Call<'_>, inputs: Range<usize>) -> Outputs {
    inputs.map(|index| Ok(call.input(index)?.shallow_clone())).collect()
}

/// Values that a loop collects, one of each output a round. They are alive until the loop ends.
struct Collected<'a> {
    call: &'a Call<'a>,
    lists: Vec<Vec<Tensor>>,
}

impl<'a> Collected<'a> {
    fn new(call: &'a Call<'a>, count: usize) -> Self {
        Self { call, lists: (0..count).map(|_| Vec::new()).collect() }
    }

    fn push(&mut self, values: Vec<Tensor>) -> Result<(), Fault> {
        for (list, value) in self.lists.iter_mut().zip(values) {
            self.call.budget.take(&value)?;
            list.push(value);
        }
        Ok(())
    }

    /// Each list stacked along a new dimension; an empty one has no other dimensions.
    fn stacked(self, place: impl Fn(usize, &[Tensor]) -> Result<(i64, bool), Fault>) -> Outputs {
        let mut outputs = Vec::new();
        for (index, list) in self.lists.iter().enumerate() {
            list.iter().for_each(|value| self.call.budget.release(value));
            if list.is_empty() {
                outputs.push(Tensor::f_zeros([0], (Kind::Float, Device::Cpu))?);
                continue;
            }
            let (dim, reversed) = place(index, list)?;
            let stack = Tensor::f_stack(list, dim)?;
            outputs.push(if reversed { stack.f_flip([dim])? } else { stack });
        }
        Ok(outputs)
    }
}

/// Carries values from round to round while the condition holds, at most `M` times.
pub(super) fn repeat(call: &Call<'_>) -> Outputs {
    let rounds = call.numbers(0)?.and_then(|rounds| rounds.first().copied()).unwrap_or(i64::MAX);
    let mut goes_on = call.optional(1).map_or(Ok(true), truth)?;
    let own = call.node.inputs.len();
    let mut carried = copies(call, 2..own)?;
    let body = call.body("body")?;
    let mut collected = Collected::new(call, call.node.outputs.len().saturating_sub(carried.len()));
    let mut round = 0;
    while goes_on && round < rounds {
        // A body without nodes would not count any step.
        call.budget.step(false)?;
        let options = (Kind::Int64, Device::Cpu);
        let mut inputs = vec![
            Tensor::f_full([0_i64; 0], round, options)?,
            Tensor::f_full([0_i64; 0], 1, options)?.f_to_kind(Kind::Bool)?,
        ];
        inputs.append(&mut carried);
        let count = inputs.len() - 2;
        let mut outputs = body.run(inputs)?;
        if outputs.len() < count + 1 {
            return Err(Fault::Failed(format!("a body of {} outputs", outputs.len())));
        }
        let found = outputs.split_off(count + 1);
        carried = outputs.split_off(1);
        goes_on = truth(&outputs[0])?;
        collected.push(found)?;
        round += 1;
    }
    carried.extend(collected.stacked(|_, _| Ok((0, false)))?);
    Ok(carried)
}

/// Walks along its inputs with a state, and collects what each step gives.
pub(super) fn scan(call: &Call<'_>) -> Outputs {
    if call.opset < 9 {
        return Err(Fault::Unsupported("the form before opset 9".to_string()));
    }
    let body = call.body("body")?;
    let own = call.node.inputs.len();
    let scanned = usize::try_from(call.int("num_scan_inputs", 0)).unwrap_or(0);
    let states = own.checked_sub(scanned).filter(|_| scanned > 0);
    let states = states.ok_or_else(|| Fault::Failed(format!("num_scan_inputs {scanned}")))?;
    let mut carried = copies(call, 0..states)?;
    let slices = slices(call, states, scanned)?;
    let mut collected = Collected::new(call, call.node.outputs.len().saturating_sub(states));
    for step in 0..slices[0].len() {
        carried = scan_step(&body, carried, slices.iter().map(|list| &list[step]), &mut collected)?;
    }
    let axes = call.ints("scan_output_axes").unwrap_or_default();
    let directions = call.ints("scan_output_directions").unwrap_or_default();
    carried.extend(collected.stacked(|index, list| {
        let wanted = axes.get(index).copied().unwrap_or(0);
        let dim = axis(wanted, list[0].dim() + 1)? as i64;
        Ok((dim, directions.get(index).is_some_and(|&direction| direction != 0)))
    })?);
    Ok(carried)
}

fn scan_step<'a>(
    body: &Subgraph<'_>,
    mut inputs: Vec<Tensor>,
    slices: impl Iterator<Item = &'a Tensor>,
    collected: &mut Collected<'_>,
) -> Outputs {
    let states = inputs.len();
    inputs.extend(slices.map(Tensor::shallow_clone));
    let mut carried = body.run(inputs)?;
    if carried.len() < states {
        return Err(Fault::Failed(format!("a body of {} outputs", carried.len())));
    }
    collected.push(carried.split_off(states))?;
    Ok(carried)
}

/// The slices of each scanned input in the order of the walk.
fn slices(call: &Call<'_>, states: usize, scanned: usize) -> Result<Vec<Vec<Tensor>>, Fault> {
    let axes = call.ints("scan_input_axes").unwrap_or_default();
    let directions = call.ints("scan_input_directions").unwrap_or_default();
    let mut slices: Vec<Vec<Tensor>> = Vec::new();
    for index in 0..scanned {
        let x = call.input(states + index)?;
        let dim = axis(axes.get(index).copied().unwrap_or(0), x.dim())?;
        let mut list = unbound(call, x, dim)?;
        if directions.get(index).is_some_and(|&direction| direction != 0) {
            list.reverse();
        }
        if slices.first().is_some_and(|first| first.len() != list.len()) {
            return Err(Fault::Failed("inputs of different lengths".to_string()));
        }
        slices.push(list);
    }
    Ok(slices)
}
