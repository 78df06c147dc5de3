//! Between Python's values and the library's: arrays in, dictionaries out.

use crate::errors::{InputError, TansError, raise};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyBytes, PyDict};
use std::path::PathBuf;
use tans::DatasetSource;

/// A value as Python sees it in the output of `--json`.
pub fn to_python<'py>(
    py: Python<'py>,
    value: &impl serde::Serialize,
) -> PyResult<Bound<'py, PyAny>> {
    let json =
        serde_json::to_string(value).map_err(|error| TansError::new_err(error.to_string()))?;
    py.import("json")?.call_method1("loads", (json,))
}

/// A path that has to be text, as results are that name it.
pub fn text(name: &str, path: PathBuf) -> PyResult<String> {
    path.into_os_string().into_string().map_err(|found| {
        InputError::new_err(format!("{name}: expected a path in UTF-8, found {found:?}: rename it"))
    })
}

/// Where a network lies: a path of the caller's, or the folder of an export, which goes with it.
pub struct Exported {
    path: String,
    _folder: Option<Py<PyAny>>,
}

impl Exported {
    /// A path as it is; a `torch.nn.Module` as an ONNX file for images of `input`.
    pub fn of(source: &Bound<'_, PyAny>, input: Option<(usize, usize, usize)>) -> PyResult<Self> {
        if let Ok(path) = source.extract::<PathBuf>() {
            return Ok(Self { path: text("source", path)?, _folder: None });
        }
        let py = source.py();
        let wrong = |expected: &str| {
            let found = source.get_type().to_string();
            InputError::new_err(format!("source: expected {expected}, found {found}"))
        };
        // Whoever has a module has imported torch.
        let torch = py.import("sys")?.getattr("modules")?.call_method1("get", ("torch",))?;
        if torch.is_none() || !source.is_instance(&torch.getattr("nn")?.getattr("Module")?)? {
            return Err(wrong("a path or a torch.nn.Module"));
        }
        let (channels, height, width) =
            input.ok_or_else(|| wrong("input=(channels, height, width) with a module"))?;
        let folder = py.import("tempfile")?.call_method0("TemporaryDirectory")?;
        let stem: String = source.get_type().name()?.extract()?;
        let path: String = folder.getattr("name")?.extract()?;
        let path = format!("{path}/{stem}.onnx");
        let images = torch.call_method1("zeros", (1, channels, height, width))?;
        let batch = [(0, "batch")].into_py_dict(py)?;
        let options = PyDict::new(py);
        options.set_item("dynamo", false)?;
        options.set_item("input_names", ["images"])?;
        options.set_item("output_names", ["logits"])?;
        options
            .set_item("dynamic_axes", [("images", &batch), ("logits", &batch)].into_py_dict(py)?)?;
        let export = torch.getattr("onnx")?.getattr("export")?;
        export.call((source, (images,), &path), Some(&options))?;
        Ok(Self { path, _folder: Some(folder.unbind()) })
    }

    /// The path.
    pub fn path(&self) -> &str {
        &self.path
    }
}

/// Arrays of images and labels; without labels a path or `task:NAME`.
pub fn dataset(
    dataset: &Bound<'_, PyAny>,
    labels: Option<&Bound<'_, PyAny>>,
) -> PyResult<DatasetSource> {
    match labels {
        Some(labels) => {
            let labels = self::labels(labels)?;
            DatasetSource::from_npy(npy(dataset)?.as_bytes(), labels).map_err(raise)
        }
        None => {
            let path: PathBuf = dataset.extract().map_err(|_| {
                let message = "dataset: expected a path, task:NAME, or images with labels";
                InputError::new_err(message)
            })?;
            Ok(match path.to_str() {
                Some(text) => DatasetSource::parse(text),
                None => DatasetSource::Path(path),
            })
        }
    }
}

/// A list of datasets: paths, or (images, labels).
pub fn datasets(list: &Bound<'_, PyAny>) -> PyResult<Vec<DatasetSource>> {
    if list.extract::<PathBuf>().is_ok() {
        return Err(InputError::new_err("datasets: expected a list, found a path"));
    }
    let one = |item: Bound<'_, PyAny>| match item.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>()
    {
        Ok((images, labels)) => dataset(&images, Some(&labels)),
        Err(_) => dataset(&item, None),
    };
    list.try_iter()?.map(|item| one(item?)).collect()
}

/// Whatever numpy takes for an array (`what`), its element type and shape.
fn array<'py>(
    values: &Bound<'py, PyAny>,
    what: &str,
) -> PyResult<(Bound<'py, PyAny>, String, Vec<usize>)> {
    let numpy = values.py().import("numpy")?;
    let array = numpy.call_method1("asarray", (values,)).map_err(|error| wrong(what, error))?;
    let dtype = array.getattr("dtype")?.str()?.to_string();
    let shape = array.getattr("shape")?.extract()?;
    Ok((array, dtype, shape))
}

/// What numpy refuses as a value or type is wrong input; anything else stays what it is.
fn wrong(what: &str, error: PyErr) -> PyErr {
    Python::attach(|py| {
        let is_input =
            error.is_instance_of::<PyValueError>(py) || error.is_instance_of::<PyTypeError>(py);
        match is_input {
            true => InputError::new_err(format!("{what}: expected an array, found {error}")),
            false => error,
        }
    })
}

/// An array as `numpy.save` writes it.
fn npy<'py>(values: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    let py = values.py();
    let (array, ..) = array(values, "images")?;
    let numpy = py.import("numpy")?;
    let array = numpy.call_method1("ascontiguousarray", (array,))?;
    let file = py.import("io")?.call_method0("BytesIO")?;
    let options = [("allow_pickle", false)].into_py_dict(py)?;
    let saved = numpy.call_method("save", (&file, array), Some(&options));
    saved.map_err(|error| wrong("images", error))?;
    Ok(file.call_method0("getvalue")?.cast_into::<PyBytes>()?)
}

fn labels(labels: &Bound<'_, PyAny>) -> PyResult<Vec<u32>> {
    let (array, dtype, shape) = array(labels, "labels")?;
    let kind: String = array.getattr("dtype")?.getattr("kind")?.extract()?;
    if shape.len() != 1 || !matches!(kind.as_str(), "i" | "u" | "b") {
        return Err(InputError::new_err(format!(
            "labels: expected integers [n], found {dtype} {shape:?}"
        )));
    }
    // Python's own integers hold every integer type of numpy without wrapping around.
    let values: Vec<i128> = array.call_method0("tolist")?.extract()?;
    let label = |value: i128| {
        u32::try_from(value).map_err(|_| {
            let message = format!("labels: expected integers from 0 to 2^32 - 1, found {value}");
            InputError::new_err(message)
        })
    };
    values.into_iter().map(label).collect()
}
