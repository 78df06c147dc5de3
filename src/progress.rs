//! How long operations report and how they are stopped.

use std::ops::ControlFlow;

/// Where a long operation stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// What is being done, such as `encoding images`.
    pub step: &'static str,
    /// Which item, such as a file name; may be empty.
    pub item: String,
    /// Units done.
    pub done: usize,
    /// Units in all.
    pub total: usize,
}

/// Called now and then by long operations; must be cheap. `Break` asks to stop, which may take a moment.
pub type Observer<'a> = &'a mut dyn FnMut(Progress) -> ControlFlow<()>;

/// An observer that ignores everything.
pub fn unobserved(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Reports one step; `Err(Cancelled)` when the observer asks to stop.
pub(crate) fn report(
    observer: Observer<'_>,
    step: &'static str,
    item: &str,
    done: usize,
    total: usize,
) -> crate::Result<()> {
    match observer(Progress { step, item: item.to_owned(), done, total }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(crate::Error::Cancelled),
    }
}
