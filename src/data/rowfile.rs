//! Feature rows of a known backbone, as an npz that numpy reads too.

use super::arrays::{CLASS_NAMES, labelled};
use super::npy::{self, Place};
use super::npz::ReadArray;
use super::{ARRAY_BYTES_MAX, Error, RowDataset};
use crate::rows::Rows;
use std::io::{self, Cursor, Write};
use std::path::Path;
use zip::write::{SimpleFileOptions, ZipWriter};
use zip::{CompressionMethod, DateTime};

/// `[n, dim]` f32. Its presence makes an npz a file of rows.
pub(super) const ROWS: &str = "rows";

/// `[n]` labels.
const LABELS: &str = "y";

/// `[10]`, NaN where a scalar was not measured.
const SCALARS: &str = "scalars";

/// `[32]` u8.
const BACKBONE: &str = "backbone";

/// `[32]` u8: the dataset's identity, so that results on it count for the rows as well.
const TASK: &str = "task";

/// Reads rows, labels, the backbone's fingerprint, and where they are there scalars and the dataset's identity.
pub(super) fn read(
    path: &Path,
    names: &[String],
    read: &mut ReadArray<'_>,
) -> Result<RowDataset, Error> {
    let has = |name: &str| names.iter().any(|other| other == name);
    if let Some(missing) = [LABELS, BACKBONE].iter().find(|name| !has(name)) {
        return Err(Error::unusable(
            path,
            format!("rows with {LABELS} and {BACKBONE}"),
            format!("no {missing}"),
            "make the file with `tans encode`",
        ));
    }
    let rows = read_rows(path, read)?;
    let labelled = labelled(path, LABELS, rows.len(), has(CLASS_NAMES), read)?;
    let scalars = match has(SCALARS) {
        true => read_scalars(path, read)?,
        false => [None; 10],
    };
    let backbone = read_hash(path, BACKBONE, read)?;
    let task = if has(TASK) { Some(read_hash(path, TASK, read)?) } else { None };
    Ok(RowDataset {
        class_names: labelled.class_names,
        labels: labelled.labels,
        rows,
        scalars,
        backbone,
        task,
    })
}

fn read_hash(path: &Path, name: &str, read: &mut ReadArray<'_>) -> Result<[u8; 32], Error> {
    let array = read(name, 1 << 10)?;
    array.bytes.as_slice().try_into().map_err(|_| {
        let place = Place { path, name, bytes_max: 0 };
        let found = format!("{} bytes", array.bytes.len());
        place.refuse("a fingerprint of 32 bytes", &found, "make the file with `tans encode`")
    })
}

fn read_rows(path: &Path, read: &mut ReadArray<'_>) -> Result<Rows, Error> {
    let place = Place { path, name: ROWS, bytes_max: ARRAY_BYTES_MAX };
    let advice = "make the file with `tans encode`";
    let array = read(ROWS, ARRAY_BYTES_MAX)?;
    let values: Option<Vec<f32>> =
        array.floats().map(|values| values.map(|value| value as f32).collect());
    let rows = match (array.shape.as_slice(), values) {
        ([_, dim], Some(values)) => Rows::new(*dim, values),
        _ => None,
    };
    let rows = rows.ok_or_else(|| {
        let found = format!("{:?} of shape {:?}", array.kind, array.shape);
        place.refuse("numbers of shape [n, dim]", &found, advice)
    })?;
    let bad_row = rows.iter().position(|row| row.iter().any(|value| !value.is_finite()));
    match bad_row {
        Some(row) => {
            let found = format!("NaN or infinity in row {row}");
            Err(place.refuse("finite numbers", &found, advice))
        }
        None => Ok(rows),
    }
}

fn read_scalars(path: &Path, read: &mut ReadArray<'_>) -> Result<[Option<f32>; 10], Error> {
    let array = read(SCALARS, 1 << 10)?;
    let values: Option<Vec<f64>> = array.floats().map(Iterator::collect);
    let values: Option<[f64; 10]> = values.and_then(|values| values.try_into().ok());
    let finite = |value: f64| Some(value as f32).filter(|value| value.is_finite());
    values.map(|values| values.map(finite)).ok_or_else(|| {
        let place = Place { path, name: SCALARS, bytes_max: 0 };
        let found = format!("{:?} of shape {:?}", array.kind, array.shape);
        place.refuse("ten numbers", &found, "make the file with `tans encode`")
    })
}

/// Writes rows as an npz; the same rows give the same bytes.
///
/// # Errors
/// `InvalidInput` if the labels do not fit rows and class names, or a row is not finite; otherwise
/// what `out` reports.
pub fn write_rows(dataset: &RowDataset, out: &mut dyn Write) -> io::Result<()> {
    let RowDataset { class_names, labels, rows, scalars, backbone, task } = dataset;
    check(dataset).map_err(|found| io::Error::new(io::ErrorKind::InvalidInput, found))?;
    let row_bytes: Vec<u8> = rows.values().iter().flat_map(|value| value.to_le_bytes()).collect();
    let labels: Vec<u8> = labels.iter().flat_map(|&label| i64::from(label).to_le_bytes()).collect();
    let scalar_bytes: Vec<u8> =
        scalars.iter().flat_map(|value| value.unwrap_or(f32::NAN).to_le_bytes()).collect();
    let (names_descr, names) = text_array(class_names);
    let count = rows.len();
    let mut entries = vec![
        (ROWS, npy::write("<f4", &[count, rows.dim()], &row_bytes)),
        (LABELS, npy::write("<i8", &[count], &labels)),
        (SCALARS, npy::write("<f4", &[scalars.len()], &scalar_bytes)),
        (BACKBONE, npy::write("|u1", &[backbone.len()], backbone)),
        (CLASS_NAMES, npy::write(&names_descr, &[class_names.len()], &names)),
    ];
    entries.extend(task.map(|task| (TASK, npy::write("|u1", &[task.len()], &task))));
    // A fixed date keeps equal rows equal in bytes.
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .last_modified_time(DateTime::default());
    // Zip needs to seek, `out` may be a pipe.
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        archive.start_file(format!("{name}.npy"), options)?;
        archive.write_all(&bytes)?;
    }
    out.write_all(archive.finish()?.get_ref())
}

fn check(dataset: &RowDataset) -> Result<(), String> {
    let (rows, labels) = (dataset.rows.len(), dataset.labels.len());
    if rows != labels {
        return Err(format!("expected one label per row, found {labels} for {rows} rows"));
    }
    let classes = dataset.class_names.len();
    if let Some(label) = dataset.labels.iter().find(|&&label| label as usize >= classes) {
        return Err(format!("expected labels below {classes}, found {label}"));
    }
    if dataset.rows.values().iter().any(|value| !value.is_finite()) {
        return Err("expected finite rows, found NaN or infinity".into());
    }
    Ok(())
}

/// numpy's fixed-width UTF-32 strings: type name and elements.
fn text_array(texts: &[String]) -> (String, Vec<u8>) {
    let width = texts.iter().map(|text| text.chars().count()).max().unwrap_or(0).max(1);
    let padded = texts
        .iter()
        .flat_map(|text| text.chars().map(u32::from).chain(std::iter::repeat(0)).take(width));
    (format!("<U{width}"), padded.flat_map(u32::to_le_bytes).collect())
}
