//! What the command line notes on standard error although the operation succeeded, as a `UserWarning`.

use pyo3::exceptions::PyUserWarning;
use pyo3::prelude::*;

/// Says how many images could not be read, and why the first could not.
pub fn skipped(py: Python<'_>, skipped: &[(String, String)]) -> PyResult<()> {
    summed(py, "unreadable images skipped in all", skipped)
}

/// Says how many models could not be measured, and why the first could not.
pub fn unmeasured(py: Python<'_>, unmeasured: &[(String, String)]) -> PyResult<()> {
    summed(py, "models that could not be measured", unmeasured)
}

/// Names each model that was to be probed and could not be.
pub fn unprobed(py: Python<'_>, unprobed: &[(String, String)]) -> PyResult<()> {
    unprobed
        .iter()
        .try_for_each(|(model, reason)| warn(py, &format!("{model} was not probed: {reason}")))
}

fn summed(py: Python<'_>, what: &str, left_out: &[(String, String)]) -> PyResult<()> {
    let Some((first, reason)) = left_out.first() else { return Ok(()) };
    warn(py, &format!("{what}: {}; the first, {first}: {reason}", left_out.len()))
}

fn warn(py: Python<'_>, message: &str) -> PyResult<()> {
    let category = py.get_type::<PyUserWarning>();
    py.import("warnings")?.call_method1("warn", (message, category))?;
    Ok(())
}
