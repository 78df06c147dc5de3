//! Named steps at which the crash tests kill the process or fail a write. Without the feature a step
//! does nothing.

/// Passes the step called `name`; fails where a test asked this step to fail, with the error number
/// of the operating system that the test gave, or with its words.
#[cfg(feature = "failpoints")]
pub(crate) fn step(name: &'static str) -> std::io::Result<()> {
    let Some(reason) = fail::eval(name, |reason| reason.unwrap_or_else(|| name.to_owned())) else {
        return Ok(());
    };
    Err(match reason.parse() {
        Ok(number) => std::io::Error::from_raw_os_error(number),
        Err(_) => std::io::Error::other(reason),
    })
}

/// Passes the step called `name`; fails where a test asked this step to fail.
#[cfg(not(feature = "failpoints"))]
pub(crate) fn step(_name: &'static str) -> std::io::Result<()> {
    Ok(())
}
