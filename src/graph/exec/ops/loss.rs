//! Losses, as a training graph holds them.

use super::{Call, Fault, Outputs};
use tch::{Kind, Reduction, Tensor};

fn reduced(call: &Call<'_>, log_shares: &Tensor) -> Result<Tensor, Fault> {
    let target = call.input(1)?.f_to_kind(Kind::Int64)?.f_to_device(log_shares.device())?;
    let reduction = match call.text("reduction", "mean") {
        "mean" => Reduction::Mean,
        "sum" => Reduction::Sum,
        "none" => Reduction::None,
        other => return Err(Fault::Unsupported(format!("reduction {other:?}"))),
    };
    // No label has this number unless the attribute says so.
    let ignored = call.int("ignore_index", i64::from(i32::MIN));
    Ok(log_shares.f_nll_loss_nd(&target, call.optional(2), reduction, ignored)?)
}

pub(super) fn log_likelihood(call: &Call<'_>) -> Outputs {
    Ok(vec![reduced(call, call.input(0)?)?])
}

pub(super) fn cross_entropy(call: &Call<'_>) -> Outputs {
    let log_shares = call.input(0)?.f_log_softmax(1, None::<Kind>)?;
    Ok(vec![reduced(call, &log_shares)?, log_shares])
}
