//! Weights as numpy arrays over mapped files.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use tans::{Dtype, MappedTensor};

/// Keeps a mapped file open for the array that looks into it.
#[pyclass(frozen)]
struct Weight {
    tensor: MappedTensor,
}

#[pymethods]
impl Weight {
    /// numpy's array interface, version 3.
    #[getter]
    fn __array_interface__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let bytes = self.tensor.as_ref();
        let interface = PyDict::new(py);
        interface.set_item("version", 3)?;
        // What numpy has no type for comes as bytes.
        let (typestr, shape) = match type_string(self.tensor.dtype()) {
            Some(typestr) => (typestr, PyTuple::new(py, self.tensor.shape())?),
            None => ("|u1", PyTuple::new(py, [bytes.len()])?),
        };
        interface.set_item("typestr", typestr)?;
        interface.set_item("shape", shape)?;
        interface.set_item("data", (bytes.as_ptr() as usize, true))?;
        Ok(interface)
    }
}

/// numpy's name of an element type.
fn type_string(dtype: Dtype) -> Option<&'static str> {
    Some(match dtype {
        Dtype::BOOL => "|b1",
        Dtype::U8 => "|u1",
        Dtype::I8 => "|i1",
        Dtype::U16 | Dtype::BF16 => "<u2",
        Dtype::I16 => "<i2",
        Dtype::U32 => "<u4",
        Dtype::I32 => "<i4",
        Dtype::U64 => "<u8",
        Dtype::I64 => "<i8",
        Dtype::F16 => "<f2",
        Dtype::F32 => "<f4",
        Dtype::F64 => "<f8",
        _ => return None,
    })
}

/// Arrays by name; each holds the file that it looks into.
pub fn arrays(py: Python<'_>, weights: Vec<(String, MappedTensor)>) -> PyResult<Bound<'_, PyDict>> {
    let numpy = py.import("numpy")?;
    let arrays = PyDict::new(py);
    for (name, tensor) in weights {
        let weight = Bound::new(py, Weight { tensor })?;
        arrays.set_item(name, numpy.call_method1("asarray", (weight,))?)?;
    }
    Ok(arrays)
}
