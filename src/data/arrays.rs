//! Named arrays to a dataset: images with labels, or feature rows.

use super::decode::SIDE_MAX;
use super::npy::{Array, Kind, Place};
use super::npz::ReadArray;
use super::split::GROUPS_MIN;
use super::{ARRAY_BYTES_MAX, Dataset, Error, ImageDataset, Source, rowfile};
use std::collections::BTreeMap;
use std::path::Path;

/// Usual names of images and labels.
pub(super) const PAIRS: [(&str, &str); 5] = [
    ("x", "y"),
    ("images", "labels"),
    ("x_train", "y_train"),
    ("train_images", "train_labels"),
    ("arr_0", "arr_1"),
];

/// Names by label value.
pub(super) const CLASS_NAMES: &str = "class_names";

/// Groups of images, -1 for none.
pub(super) const GROUP: &str = "group";

/// Most bytes of an array that is not images or rows.
const SMALL_BYTES_MAX: u64 = 256 << 20;

/// Values of images that are not uint8 must come this near to 255, or their range is not known.
const BRIGHTEST_MIN: f64 = 200.0;

/// Builds a dataset from the arrays called `names`; others are ignored.
pub(super) fn dataset(
    path: &Path,
    names: &[String],
    read: &mut ReadArray<'_>,
) -> Result<Dataset, Error> {
    let has = |name: &str| names.iter().any(|other| other == name);
    if has(rowfile::ROWS) {
        return rowfile::read(path, names, read).map(Dataset::Rows);
    }
    let Some((images, labels)) = PAIRS.iter().find(|(images, labels)| has(images) && has(labels))
    else {
        return Err(Error::unusable(
            path,
            "arrays x and y (or images and labels, x_train and y_train, arr_0 and arr_1)",
            format!("arrays {names:?}"),
            "name the images x and the labels y",
        ));
    };
    let place = Place { path, name: images, bytes_max: ARRAY_BYTES_MAX };
    let (count, source) = pixels(read(images, ARRAY_BYTES_MAX)?, &place)?;
    let labelled = labelled(path, labels, count, has(CLASS_NAMES), read)?;
    let groups = match has(GROUP) {
        true => groups(&read(GROUP, SMALL_BYTES_MAX)?, count, path)?,
        false => None,
    };
    Ok(Dataset::Images(ImageDataset {
        class_names: labelled.class_names,
        labels: labelled.labels,
        groups,
        ignored: 0,
        path: path.to_path_buf(),
        source,
    }))
}

/// The images of an array without labels.
pub(super) fn images(array: Array, place: &Place<'_>) -> Result<ImageDataset, Error> {
    let (count, source) = pixels(array, place)?;
    Ok(ImageDataset {
        class_names: vec!["unlabelled".into()],
        labels: vec![0; count],
        groups: None,
        ignored: 0,
        path: place.path.to_path_buf(),
        source,
    })
}

/// Labels 0..C, each in use.
pub(super) struct Labelled {
    pub class_names: Vec<String>,
    pub labels: Vec<u32>,
}

/// Reads labels and names and numbers the classes in use densely, in the order of their values.
pub(super) fn labelled(
    path: &Path,
    name: &str,
    count: usize,
    has_names: bool,
    read: &mut ReadArray<'_>,
) -> Result<Labelled, Error> {
    let place = Place { path, name, bytes_max: SMALL_BYTES_MAX };
    let array = read(name, SMALL_BYTES_MAX)?;
    let values = one_per_sample(&array, count, &place)?;
    let names = match has_names {
        true => Some(class_names(&read(CLASS_NAMES, SMALL_BYTES_MAX)?, path)?),
        false => None,
    };
    let mut dense: BTreeMap<i64, u32> = values.iter().map(|&value| (value, 0)).collect();
    dense.values_mut().zip(0..).for_each(|(label, position)| *label = position);
    let name_of = |&value: &i64| match &names {
        None => Ok(value.to_string()),
        Some(names) => {
            usize::try_from(value).ok().and_then(|v| names.get(v).cloned()).ok_or_else(|| {
                let expected = format!("labels from 0 to {}", names.len().saturating_sub(1));
                place.refuse(&expected, &value.to_string(), "give class_names one name per label")
            })
        }
    };
    let class_names = dense.keys().map(name_of).collect::<Result<_, _>>()?;
    Ok(Labelled { class_names, labels: values.iter().map(|value| dense[value]).collect() })
}

fn class_names(array: &Array, path: &Path) -> Result<Vec<String>, Error> {
    let place = Place { path, name: CLASS_NAMES, bytes_max: SMALL_BYTES_MAX };
    let names = if array.shape.len() == 1 { array.strings() } else { None };
    names.ok_or_else(|| {
        let found = format!("{:?} of shape {:?}", array.kind, array.shape);
        place.refuse("a list of strings", &found, "save numpy.array(names, dtype=str)")
    })
}

/// Whole numbers of shape `[n]` or `[n, 1]`.
fn one_per_sample(array: &Array, count: usize, place: &Place<'_>) -> Result<Vec<i64>, Error> {
    if !matches!(array.shape.as_slice(), [n] | [n, 1] if *n == count) {
        return Err(place.refuse(
            &format!("one whole number for each of the {count} samples"),
            &format!("shape {:?}", array.shape),
            "save one label per sample",
        ));
    }
    array.integers().map_err(|found| {
        place.refuse("whole numbers", &found, "save the position of each sample's class name")
    })
}

/// Dense groups; a sample without a group is a group of its own. `None` below three real groups.
fn groups(array: &Array, count: usize, path: &Path) -> Result<Option<Vec<u32>>, Error> {
    let place = Place { path, name: GROUP, bytes_max: SMALL_BYTES_MAX };
    let values = one_per_sample(array, count, &place)?;
    let mut dense: BTreeMap<i64, u32> =
        values.iter().filter(|&&value| value >= 0).map(|&value| (value, 0)).collect();
    dense.values_mut().zip(0..).for_each(|(group, position)| *group = position);
    if dense.len() < GROUPS_MIN {
        return Ok(None);
    }
    let mut next = dense.len() as u32;
    let group_of = |value: &i64| {
        dense.get(value).copied().unwrap_or_else(|| {
            next += 1;
            next - 1
        })
    };
    Ok(Some(values.iter().map(group_of).collect()))
}

/// Number of images, and their pixels as bytes.
fn pixels(array: Array, place: &Place<'_>) -> Result<(usize, Source), Error> {
    let (count, height, width, channels) = match *array.shape.as_slice() {
        [n, h, w] => (n, h, w, 1),
        [n, h, w, c @ (1 | 3 | 4)] => (n, h, w, c),
        _ => return Err(wrong_shape(&array.shape, place)),
    };
    let sides = 1..=SIDE_MAX;
    if !sides.contains(&height) || !sides.contains(&width) {
        let expected = format!("images with sides from 1 to {SIDE_MAX}");
        return Err(place.refuse(&expected, &format!("{width}x{height}"), "resize them"));
    }
    let pixels = match (array.kind, array.width) {
        (Kind::Unsigned, 1) => array.bytes,
        _ => to_bytes(&array, place)?,
    };
    Ok((count, Source::Memory { width, height, channels, pixels }))
}

fn wrong_shape(shape: &[usize], place: &Place<'_>) -> Error {
    let advice = match shape {
        [_, 1 | 3 | 4, _, _] => "put the channels last with x.transpose(0, 2, 3, 1)",
        [_, _] => "feature rows come from `tans encode`; flat images need reshape(n, h, w)",
        _ => "reshape the images",
    };
    let expected = "images of shape [n, h, w], [n, h, w, 1], [n, h, w, 3] or [n, h, w, 4]";
    place.refuse(expected, &format!("shape {shape:?}"), advice)
}

/// Values of 0..1 or 0..255 to bytes. Anything between is refused: dark images and digits of 0..16
/// look alike, and a wrong guess would go unnoticed.
fn to_bytes(array: &Array, place: &Place<'_>) -> Result<Vec<u8>, Error> {
    let Some(values) = array.floats() else {
        return Err(place.refuse("numbers", "strings", "save the pixels as uint8"));
    };
    let (mut low, mut high, mut finite) = (f64::INFINITY, f64::NEG_INFINITY, true);
    for value in values {
        finite &= value.is_finite();
        (low, high) = (low.min(value), high.max(value));
    }
    let unit = matches!(array.kind, Kind::Float | Kind::Bool) && high <= 1.0;
    let known = finite && low >= 0.0 && (unit || (BRIGHTEST_MIN..=255.0).contains(&high));
    if !known && array.len() > 0 {
        let found = if finite { format!("{low} to {high}") } else { "NaN or infinity".into() };
        return Err(place.refuse(
            "uint8, or values that fill 0..1 or 0..255",
            &found,
            "convert the images to uint8 in 0..255",
        ));
    }
    let scale = if unit { 255.0 } else { 1.0 };
    let bytes = array.floats().into_iter().flatten();
    Ok(bytes.map(|value| (value * scale).round() as u8).collect())
}
