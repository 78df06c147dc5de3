//! What one run may take: bytes that are alive at once, constants made by the graph, steps.

use super::ops::Fault;
use crate::graph::Graph;
use crate::graph::formats::Limits;
use std::cell::Cell;
use tch::{Kind, Tensor};

/// Bytes that a byte of a weight may become, over all steps: 8-bit weights become f32 and are
/// transposed and reshaped.
const UNPACKED: u64 = 16;

/// Counts what a run takes and refuses more than its limits, before memory is allocated where the
/// size is known beforehand.
pub(crate) struct Budget {
    limits: Limits,
    /// Whether constants are held to their limit too.
    holds_constants: bool,
    /// Whether the step that runs depends on weights alone.
    constant: Cell<bool>,
    live_bytes: Cell<u64>,
    constant_bytes: Cell<u64>,
    steps: Cell<u64>,
}

impl Budget {
    /// A budget for one run. A network that was let in once may make its constants again.
    pub fn new(limits: &Limits) -> Self {
        Self {
            limits: *limits,
            holds_constants: false,
            constant: Cell::new(false),
            live_bytes: Cell::new(0),
            constant_bytes: Cell::new(0),
            steps: Cell::new(0),
        }
    }

    /// A budget for the first run of a network that nothing is known of. Weights may be unpacked,
    /// moved and copied, which depends on constants alone too.
    pub fn strict(limits: &Limits, graph: &Graph) -> Self {
        let weights = graph.weights.values().map(|weight| weight.data().len() as u64);
        let unpacked = weights.sum::<u64>().saturating_mul(UNPACKED);
        let constant_bytes_max = limits.constant_bytes_max.saturating_add(unpacked);
        Self { holds_constants: true, ..Self::new(&Limits { constant_bytes_max, ..*limits }) }
    }

    /// Counts a step, which depends on weights alone if `constant`.
    pub fn step(&self, constant: bool) -> Result<(), Fault> {
        self.constant.set(constant);
        let (steps, limit) = (self.steps.get() + 1, self.limits.nodes_max);
        self.steps.set(steps);
        refuse_above("the number of steps of one run", steps, limit)
    }

    /// Whether a tensor of this shape may be made now.
    pub fn allow(&self, shape: &[i64], kind: Kind) -> Result<(), Fault> {
        if let Some(side) = shape.iter().find(|&&side| side < 0) {
            return Err(Fault::Failed(format!("expected sides of at least 0, found {side}")));
        }
        let width = kind.elt_size_in_bytes() as u64;
        let bytes = shape.iter().fold(width, |bytes, &side| bytes.saturating_mul(side as u64));
        self.check(bytes)
    }

    fn check(&self, bytes: u64) -> Result<(), Fault> {
        let constants = self.constant_bytes.get().saturating_add(bytes);
        if self.holds_constants && self.constant.get() {
            let limit = self.limits.constant_bytes_max;
            refuse_above("memory for what the graph makes of constants (bytes)", constants, limit)?;
        }
        let live = self.live_bytes.get().saturating_add(bytes);
        refuse_above("memory for values alive at once (bytes)", live, self.limits.value_bytes_max)
    }

    /// Counts a value that a step has made.
    pub fn take(&self, value: &Tensor) -> Result<(), Fault> {
        let bytes = bytes(value);
        self.check(bytes)?;
        self.live_bytes.set(self.live_bytes.get().saturating_add(bytes));
        if self.constant.get() {
            self.constant_bytes.set(self.constant_bytes.get().saturating_add(bytes));
        }
        Ok(())
    }

    /// Counts a value that is no longer needed.
    pub fn release(&self, value: &Tensor) {
        self.live_bytes.set(self.live_bytes.get().saturating_sub(bytes(value)));
    }
}

fn bytes(value: &Tensor) -> u64 {
    let width = value.f_kind().map_or(8, |kind| kind.elt_size_in_bytes());
    value.numel() as u64 * width as u64
}

fn refuse_above(what: &'static str, found: u64, limit: u64) -> Result<(), Fault> {
    if found > limit { Err(Fault::Limit { what, found, limit }) } else { Ok(()) }
}
