//! Attention and positions.

use super::{Call, Fault, Outputs};
use tch::{Kind, Tensor};

/// Heads of `[batch, time, heads * dim]` as `[batch, heads, time, dim]`; four dimensions stay.
fn heads(x: &Tensor, count: i64) -> Result<Tensor, Fault> {
    if x.dim() == 4 {
        return Ok(x.shallow_clone());
    }
    let (batch, time, width) = x.size3()?;
    if count < 1 || width % count != 0 {
        return Err(Fault::Failed(format!("{count} heads in {:?}", x.size())));
    }
    Ok(x.f_reshape([batch, time, count, width / count])?.f_swapaxes(1, 2)?)
}

fn grown(past: Option<&Tensor>, x: Tensor) -> Result<Tensor, Fault> {
    Ok(match past {
        Some(past) => Tensor::f_cat(&[past, &x], 2)?,
        None => x,
    })
}

/// Each head of keys or values serves as many heads of queries.
fn shared(x: &Tensor, q_heads: i64) -> Result<Tensor, Fault> {
    let own = x.size().get(1).copied().unwrap_or(1).max(1);
    if own == q_heads {
        return Ok(x.shallow_clone());
    }
    if q_heads % own != 0 {
        return Err(Fault::Failed(format!("{own} heads of keys for {q_heads} of queries")));
    }
    Ok(x.f_repeat_interleave_self_int(q_heads / own, 1, None)?)
}

/// `softmax(cap(q k^T scale) + mask) v`.
pub(super) fn attention(call: &Call<'_>) -> Outputs {
    let query = call.input(0)?;
    let q = heads(query, call.int("q_num_heads", 0))?;
    let kv_heads = call.int("kv_num_heads", 0);
    let key = grown(call.optional(4), heads(call.input(1)?, kv_heads)?)?;
    let value = grown(call.optional(5), heads(call.input(2)?, kv_heads)?)?;
    let (batch, q_heads, q_time, dim) = q.size4()?;
    let (k, v) = (shared(&key, q_heads)?, shared(&value, q_heads)?);
    let time = k.size4()?.2;
    call.allow(&[batch, q_heads, q_time, time], Kind::Float)?;
    let scale = call.float("scale", 1.0 / (dim as f32).sqrt());
    let product = q.f_matmul(&k.f_swapaxes(2, 3)?)?.f_mul_scalar(scale)?;
    let cap = call.float("softcap", 0.0);
    let capped = match cap > 0.0 {
        true => product.f_div_scalar(cap)?.f_tanh()?.f_mul_scalar(cap)?,
        false => product.shallow_clone(),
    };
    let masked = masked(call, &capped)?;
    let shares = masked.f_softmax(-1, None::<Kind>)?;
    // A row that may look at nothing looks at nothing.
    let shares = shares.f_masked_fill(&shares.f_isnan()?, 0.0)?;
    let y = shares.f_matmul(&v)?;
    let y = match query.dim() {
        3 => y.f_swapaxes(1, 2)?.f_reshape([batch, q_time, -1])?,
        _ => y,
    };
    let shown = match call.int("qk_matmul_output_mode", 0) {
        0 => product,
        1 => capped,
        2 => masked,
        _ => shares,
    };
    Ok(vec![y, key, value, shown])
}

/// Scores plus the mask, minus infinity where nothing may be seen.
fn masked(call: &Call<'_>, scores: &Tensor) -> Result<Tensor, Fault> {
    let (_, _, q_time, time) = scores.size4()?;
    let device = scores.device();
    let mut scores = scores.shallow_clone();
    if let Some(mask) = call.optional(3) {
        let missing = time - mask.size().last().copied().unwrap_or(time);
        if missing < 0 {
            return Err(Fault::Failed(format!("mask {:?} for {time} keys", mask.size())));
        }
        let mask = mask.f_to_device(device)?;
        scores = if mask.f_kind()? == Kind::Bool {
            let padded = mask.f_to_kind(Kind::Float)?.f_pad([0, missing], "constant", 0.0)?;
            scores.f_masked_fill(&padded.f_eq(0.0)?, f64::NEG_INFINITY)?
        } else {
            scores.f_add(&mask.f_pad([0, missing], "constant", f64::NEG_INFINITY)?)?
        };
    }
    let keys = Tensor::f_arange(time, (Kind::Int64, device))?;
    if call.int("is_causal", 0) != 0 {
        let past = call.optional(4).and_then(|past| past.size().get(2).copied()).unwrap_or(0);
        let queries = Tensor::f_arange(q_time, (Kind::Int64, device))?.f_add_scalar(past)?;
        let future = keys.f_gt_tensor(&queries.f_unsqueeze(1)?)?;
        scores = scores.f_masked_fill(&future, f64::NEG_INFINITY)?;
    }
    if let Some(lengths) = call.numbers(6)? {
        let lengths = Tensor::f_from_slice(&lengths)?.f_reshape([-1, 1, 1, 1])?;
        let beyond = keys.f_ge_tensor(&lengths.f_to_device(device)?)?;
        scores = scores.f_masked_fill(&beyond, f64::NEG_INFINITY)?;
    }
    Ok(scores)
}

/// Turns pairs of features by angles that depend on the position.
pub(super) fn rotary(call: &Call<'_>) -> Outputs {
    let x = call.input(0)?;
    let size = x.size();
    let y = heads(x, call.int("num_heads", 0))?.f_swapaxes(1, 2)?;
    let width = y.size()[3];
    let turned = match call.int("rotary_embedding_dim", 0) {
        0 => width,
        dim => dim.clamp(0, width),
    };
    let angles = |index: usize| -> Result<Tensor, Fault> {
        let table = call.input(index)?;
        let rows = match call.optional(3) {
            None => table.shallow_clone(),
            Some(places) => {
                let places_size = places.size();
                let places = super::index::wrapped(places, table.size2()?.0, table)?;
                let rows = table.f_index_select(0, &places.f_reshape([-1])?)?;
                rows.f_reshape([&places_size[..], &[-1]].concat())?
            }
        };
        Ok(rows.f_unsqueeze(2)?)
    };
    let (cos, sin) = (angles(1)?, angles(2)?);
    let front = y.f_narrow(3, 0, turned)?;
    let interleaved = call.int("interleaved", 0) != 0;
    let (a, b) = if interleaved {
        (front.f_slice(3, 0, turned, 2)?, front.f_slice(3, 1, turned, 2)?)
    } else {
        (front.f_narrow(3, 0, turned / 2)?, front.f_narrow(3, turned / 2, turned / 2)?)
    };
    let real = a.f_mul(&cos)?.f_sub(&b.f_mul(&sin)?)?;
    let imaginary = a.f_mul(&sin)?.f_add(&b.f_mul(&cos)?)?;
    let front = if interleaved {
        Tensor::f_stack(&[real, imaginary], 4)?.f_reshape(front.size())?
    } else {
        Tensor::f_cat(&[real, imaginary], 3)?
    };
    let y = Tensor::f_cat(&[front, y.f_narrow(3, turned, width - turned)?], 3)?;
    Ok(vec![if size.len() == 3 { y.f_reshape(&size)? } else { y.f_swapaxes(1, 2)? }])
}
