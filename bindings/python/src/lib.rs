//! Python binding of tans: thin, no logic. Each method releases the interpreter lock and calls one method of the
//! library; results are dictionaries with the fields of the command line's `--json`.

use numpy::{PyReadonlyArray1, PyReadonlyArrayDyn, PyUntypedArrayMethods};
use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyValueError};
use pyo3::prelude::*;
use std::collections::BTreeMap;
use std::path::PathBuf;
use tans::{
    Database, DatasetSource, Filter, Image, IngestOptions, InitOptions, OpenOptions, QueryOptions,
    unobserved,
};

create_exception!(tans, TansError, PyException, "An operation of tans failed.");
create_exception!(
    tans,
    InputError,
    TansError,
    "The input is wrong: the message says what was expected."
);
create_exception!(tans, ZooError, TansError, "The zoo or the disk failed.");

fn raise(error: tans::Error) -> PyErr {
    let message = error.to_string();
    match error {
        tans::Error::Storage(_) | tans::Error::Index(_) => ZooError::new_err(message),
        tans::Error::Refused(_) | tans::Error::Cancelled => TansError::new_err(message),
        _ => InputError::new_err(message),
    }
}

fn to_python<'py>(py: Python<'py>, value: &impl serde::Serialize) -> PyResult<Bound<'py, PyAny>> {
    let json =
        serde_json::to_string(value).map_err(|error| TansError::new_err(error.to_string()))?;
    py.import("json")?.call_method1("loads", (json,))
}

/// A zoo, open in this process.
#[pyclass(frozen)]
struct Zoo {
    database: Database,
}

#[pymethods]
impl Zoo {
    /// Which stored networks should be fine-tuned on this dataset?
    ///
    /// `images`: uint8 [n, height, width], [n, height, width, 1] or [n, height, width, 3]; `labels`: n integers.
    /// Returns a list of dictionaries: rank, model, cosine, predicted_accuracy, interval, source_tasks, params, macs,
    /// license.
    #[pyo3(signature = (images, labels, k=5, *, max_params=None, max_macs=None))]
    fn query<'py>(
        &self,
        py: Python<'py>,
        images: PyReadonlyArrayDyn<'py, u8>,
        labels: PyReadonlyArray1<'py, i64>,
        k: usize,
        max_params: Option<u64>,
        max_macs: Option<u64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let source = source(&images, &labels)?;
        let filter = Filter { params_max: max_params, macs_max: max_macs, ..Filter::default() };
        let options = QueryOptions { k, filter, ..QueryOptions::default() };
        let report =
            py.detach(|| self.database.query(&source, &options, &mut unobserved)).map_err(raise)?;
        to_python(py, &report.hits)
    }

    /// The same for a dataset on disk, or `task:NAME` for a stored task.
    #[pyo3(signature = (dataset, k=5, *, max_params=None, max_macs=None))]
    fn query_path<'py>(
        &self,
        py: Python<'py>,
        dataset: &str,
        k: usize,
        max_params: Option<u64>,
        max_macs: Option<u64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let source = DatasetSource::parse(dataset);
        let filter = Filter { params_max: max_params, macs_max: max_macs, ..Filter::default() };
        let options = QueryOptions { k, filter, ..QueryOptions::default() };
        let report =
            py.detach(|| self.database.query(&source, &options, &mut unobserved)).map_err(raise)?;
        to_python(py, &report.hits)
    }

    /// Takes a network file, a folder of them or a manifest into the zoo; one dictionary per network.
    #[pyo3(signature = (path, *, name=None, license=None, tags=None))]
    fn ingest<'py>(
        &self,
        py: Python<'py>,
        path: &str,
        name: Option<String>,
        license: Option<String>,
        tags: Option<BTreeMap<String, String>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let tags = tags.unwrap_or_default();
        let options = IngestOptions { name, license, tags, ..IngestOptions::default() };
        let report =
            py.detach(|| self.database.ingest(path, &options, &mut unobserved)).map_err(raise)?;
        to_python(py, &report)
    }

    /// The models, one dictionary each.
    fn list<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let models =
            py.detach(|| self.database.list(&tans::ListOptions::default())).map_err(raise)?;
        to_python(py, &models)
    }

    /// Proves every checksum, reference and tensor hash.
    fn check<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        to_python(py, &py.detach(|| self.database.check()).map_err(raise)?)
    }
}

fn source(
    images: &PyReadonlyArrayDyn<'_, u8>,
    labels: &PyReadonlyArray1<'_, i64>,
) -> PyResult<DatasetSource> {
    let shape = images.shape().to_vec();
    let (count, height, width, channels) = match shape[..] {
        [count, height, width] => (count, height, width, 1),
        [count, height, width, channels @ (1 | 3)] => (count, height, width, channels),
        _ => {
            return Err(PyValueError::new_err(format!(
                "images: expected uint8 [n, height, width], [n, height, width, 1] or [n, height, width, 3], found shape {shape:?}"
            )));
        }
    };
    let pixels: Vec<u8> = images.as_array().iter().copied().collect();
    let length = height * width * channels;
    let images = (0..count)
        .map(|index| {
            let pixels = pixels[index * length..(index + 1) * length].to_vec();
            Image::new(width, height, channels, pixels).ok_or_else(|| {
                PyValueError::new_err("images: expected at least 1x1 pixels, found an empty side")
            })
        })
        .collect::<PyResult<Vec<Image>>>()?;
    let labels = labels
        .as_array()
        .iter()
        .map(|&label| {
            u32::try_from(label).map_err(|_| {
                PyValueError::new_err(format!("labels: expected integers from 0, found {label}"))
            })
        })
        .collect::<PyResult<Vec<u32>>>()?;
    Ok(DatasetSource::Images { name: "arrays".to_owned(), images, labels })
}

/// Opens a zoo; with `read_only=True` beside a writer.
#[pyfunction]
#[pyo3(signature = (path, *, read_only=false, cache_dir=None))]
fn open(
    py: Python<'_>,
    path: PathBuf,
    read_only: bool,
    cache_dir: Option<PathBuf>,
) -> PyResult<Zoo> {
    let options = OpenOptions { read_only, cache_dir, ..OpenOptions::default() };
    let database = py.detach(|| Database::open(&path, options)).map_err(raise)?;
    Ok(Zoo { database })
}

/// Makes a zoo in a new or empty directory, from a starter bundle where one is given.
#[pyfunction]
#[pyo3(signature = (path, *, starter=None, cache_dir=None))]
fn init(
    py: Python<'_>,
    path: PathBuf,
    starter: Option<PathBuf>,
    cache_dir: Option<PathBuf>,
) -> PyResult<Zoo> {
    let options = OpenOptions { cache_dir, ..OpenOptions::default() };
    let starters = InitOptions { starters: starter.into_iter().collect() };
    let (database, _) = py.detach(|| Database::init(&path, &starters, options)).map_err(raise)?;
    Ok(Zoo { database })
}

/// An embedded model-zoo database: which stored network should I fine-tune on my dataset?
#[pymodule]
#[pyo3(name = "tans")]
fn binding(exports: &Bound<'_, PyModule>) -> PyResult<()> {
    exports.add_class::<Zoo>()?;
    exports.add_function(wrap_pyfunction!(open, exports)?)?;
    exports.add_function(wrap_pyfunction!(init, exports)?)?;
    exports.add("TansError", exports.py().get_type::<TansError>())?;
    exports.add("InputError", exports.py().get_type::<InputError>())?;
    exports.add("ZooError", exports.py().get_type::<ZooError>())?;
    Ok(())
}
