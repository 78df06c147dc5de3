//! Turns a dataset into feature rows that `query` takes instead of images.

use crate::data::{self, RowDataset};
use crate::state::State;
use crate::steps::dataset::{self, DatasetSource, SampleOptions};
use crate::steps::{self, feature_cache};
use crate::{Error, Observer, Result};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// What `encode` wrote.
#[derive(Clone, Debug, Serialize)]
pub struct EncodeReport {
    /// The dataset.
    pub dataset: String,
    /// The file.
    pub output: PathBuf,
    /// Rows written: the training part of the dataset.
    pub rows: usize,
    /// Numbers in a row.
    pub dim: usize,
    /// Milliseconds in the backbone.
    pub backbone_ms: f64,
    /// (file, reason) of images that could not be read.
    pub skipped: Vec<(String, String)>,
}

pub(crate) fn run(
    state: &State,
    source: &DatasetSource,
    output: &Path,
    options: &SampleOptions,
    observer: Observer<'_>,
) -> Result<EncodeReport> {
    if output.extension().is_none_or(|suffix| !suffix.eq_ignore_ascii_case("npz")) {
        return Err(Error::input(format!(
            "{}: expected a file name that ends in .npz, which is how `query` knows the rows",
            output.display()
        )));
    }
    steps::refuse_missing_folder(output)?;
    if let DatasetSource::Path(path) = source
        && let (Ok(from), Ok(to)) = (path.canonicalize(), output.canonicalize())
        && from == to
    {
        return Err(Error::input(format!(
            "{}: expected another file than the dataset, found the dataset itself",
            output.display()
        )));
    }
    let samples = dataset::samples(source, options)?;
    let train = &samples.train;
    let (rows, backbone_ms) =
        feature_cache::backbone_rows(&state.options, &train.images, observer)?;
    let measured = crate::encoder::TaskSample::measure(
        &rows,
        &train.labels,
        Some(&train.images),
        options.seed,
    )?;
    let encoded = RowDataset {
        class_names: samples.class_names,
        labels: samples.train.labels,
        rows,
        scalars: measured.scalars,
        backbone: state.store.backbone(),
        task: Some(samples.task.0),
    };
    let mut bytes = std::io::Cursor::new(Vec::new());
    data::write_rows(&encoded, &mut bytes)
        .map_err(|error| Error::input(format!("{}: {error}", output.display())))?;
    let bytes = bytes.into_inner();
    steps::write_file(output, &bytes)?;
    Ok(EncodeReport {
        dataset: samples.name,
        output: output.to_path_buf(),
        rows: encoded.rows.len(),
        dim: encoded.rows.dim(),
        backbone_ms,
        skipped: samples.skipped,
    })
}
