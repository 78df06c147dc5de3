//! One exception for each kind of the library's errors, and Ctrl-C during long work.

use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyType};
use std::ops::ControlFlow;
use tans::{ErrorKind, Observer, Progress};

create_exception!(tans, TansError, PyException, "An operation of tans failed.");
create_exception!(tans, RefusedError, TansError, "The answer is no; nothing was changed.");
create_exception!(tans, CancelledError, TansError, "The caller stopped the operation.");
create_exception!(tans, ZooError, TansError, "The zoo or the disk failed.");
create_exception!(tans, LockedError, ZooError, "Another process writes to the zoo.");
create_exception!(tans, DamagedError, ZooError, "Stored bytes are wrong; `check` says which.");

/// The exception of wrong input: a `TansError` and, as Python has it for bad arguments, a `ValueError`.
pub struct InputError;

impl InputError {
    /// The class, made at its first use.
    pub fn class(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
        static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        let made = CLASS.get_or_try_init(py, || -> PyResult<Py<PyType>> {
            let bases = (py.get_type::<TansError>(), py.get_type::<PyValueError>());
            let content = PyDict::new(py);
            content.set_item("__module__", "tans")?;
            let doc = "The input is wrong: the message says what was expected.";
            content.set_item("__doc__", doc)?;
            let class = py.get_type::<PyType>().call1(("InputError", bases, content))?;
            Ok(class.cast_into::<PyType>()?.unbind())
        })?;
        Ok(made.bind(py))
    }

    /// One to raise.
    pub fn new_err(message: impl Into<String>) -> PyErr {
        let message = message.into();
        Python::attach(|py| match Self::class(py) {
            Ok(class) => PyErr::from_type(class.clone(), (message,)),
            Err(error) => error,
        })
    }
}

/// The exception of an error, with its message.
pub fn raise(error: tans::Error) -> PyErr {
    let message = error.to_string();
    match error.kind() {
        ErrorKind::Refused => RefusedError::new_err(message),
        ErrorKind::Cancelled => CancelledError::new_err(message),
        ErrorKind::Input => InputError::new_err(message),
        ErrorKind::Locked => LockedError::new_err(message),
        ErrorKind::Damaged => DamagedError::new_err(message),
        ErrorKind::Failed => ZooError::new_err(message),
    }
}

/// Runs a long operation without the interpreter lock; a signal such as Ctrl-C stops it and is raised.
pub fn interruptible<T: Send>(
    py: Python<'_>,
    operation: impl FnOnce(Observer<'_>) -> tans::Result<T> + Send,
) -> PyResult<T> {
    let mut signal = None;
    let mut observer = |_: Progress| match Python::attach(|py| py.check_signals()) {
        Ok(()) => ControlFlow::Continue(()),
        Err(raised) => {
            signal = Some(raised);
            ControlFlow::Break(())
        }
    };
    let result = py.detach(|| operation(&mut observer));
    match (signal, result) {
        (_, Ok(value)) => Ok(value),
        (Some(raised), Err(_)) => Err(raised),
        (None, Err(error)) => Err(raise(error)),
    }
}
