//! Matrix products.

use super::{Call, Fault, Outputs, broadcast};
use std::collections::{BTreeMap, BTreeSet};
use tch::{Kind, Tensor};

pub(super) fn gemm(call: &Call<'_>) -> Outputs {
    let (a, b) = (call.input(0)?, call.input(1)?);
    let a = if call.int("transA", 0) != 0 { a.f_swapaxes(0, 1)? } else { a.shallow_clone() };
    let b = if call.int("transB", 0) != 0 { b.f_swapaxes(0, 1)? } else { b.shallow_clone() };
    let (alpha, beta) = (call.float("alpha", 1.0), call.float("beta", 1.0));
    let bias = match call.optional(2) {
        Some(bias) if beta != 1.0 => Some(bias.f_mul_scalar(beta)?),
        Some(bias) => Some(bias.shallow_clone()),
        None => None,
    };
    let y = match bias {
        Some(bias) if alpha == 1.0 => bias.f_addmm(&a, &b)?,
        Some(bias) => a.f_mm(&b)?.f_mul_scalar(alpha)?.f_add(&bias)?,
        None => a.f_mm(&b)?.f_mul_scalar(alpha)?,
    };
    Ok(vec![y])
}

pub(super) fn mat_mul(call: &Call<'_>) -> Outputs {
    let (a, b) = (call.input(0)?, call.input(1)?);
    // A product of two thin matrices may be far larger than both.
    let (left, right) = (a.size(), b.size());
    if let ([batch_a @ .., rows, _], [batch_b @ .., _, columns]) = (&left[..], &right[..]) {
        let batch = broadcast(batch_a, batch_b);
        call.allow(&[&batch[..], &[*rows, *columns]].concat(), a.f_kind()?)?;
    }
    Ok(vec![a.f_matmul(b)?])
}

/// A sum of products by the letters of its dimensions.
pub(super) fn einsum(call: &Call<'_>) -> Outputs {
    let equation: String = call.text("equation", "").split_whitespace().collect();
    let known = |letter: char| letter.is_ascii_alphabetic() || ",->.".contains(letter);
    if equation.is_empty() || !equation.chars().all(known) {
        return Err(Fault::Failed(format!("equation {equation:?}")));
    }
    let inputs = (0..call.inputs.len()).map(|index| call.input(index));
    let inputs = inputs.collect::<Result<Vec<_>, _>>()?;
    allow_einsum(call, &equation, &inputs)?;
    Ok(vec![Tensor::f_einsum(&equation, &inputs, None::<i64>)?])
}

pub(super) fn determinant(call: &Call<'_>) -> Outputs {
    Ok(vec![Tensor::f_linalg_det(call.input(0)?)?])
}

/// Two factors are multiplied without anything between them and the result; of more, what lies
/// between may have all letters.
fn allow_einsum(call: &Call<'_>, equation: &str, inputs: &[&Tensor]) -> Result<(), Fault> {
    let (terms, result) = equation.split_once("->").unwrap_or((equation, equation));
    let mut sides = BTreeMap::new();
    for (term, input) in terms.split(',').zip(inputs) {
        // Letters are counted from both ends, since an ellipsis may stand between them.
        let size = input.size();
        let (head, tail) = term.split_once("...").unwrap_or((term, ""));
        sides.extend(head.chars().zip(size.iter().copied()));
        sides.extend(tail.chars().rev().zip(size.iter().rev().copied()));
    }
    let shape: Vec<i64> = if inputs.len() > 2 {
        sides.into_values().collect()
    } else {
        let letters: BTreeSet<char> = result.chars().collect();
        letters.iter().filter_map(|letter| sides.get(letter).copied()).collect()
    };
    call.allow(&shape, Kind::Float)
}
