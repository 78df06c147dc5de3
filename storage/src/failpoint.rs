//! Named steps at which the crash tests stop a write. Without the feature a step does nothing.

/// Passes the step called `name`; fails where a test asked this step to fail.
#[cfg(feature = "failpoints")]
pub(crate) fn step(name: &'static str) -> std::io::Result<()> {
    match fail::eval(name, |reason| reason) {
        None => Ok(()),
        Some(reason) => Err(std::io::Error::other(reason.unwrap_or_else(|| name.to_owned()))),
    }
}

/// Passes the step called `name`; fails where a test asked this step to fail.
#[cfg(not(feature = "failpoints"))]
pub(crate) fn step(_name: &'static str) -> std::io::Result<()> {
    Ok(())
}
