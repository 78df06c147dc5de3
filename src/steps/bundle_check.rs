//! Proves what a bundle says of its tasks, models and pairs before a zoo takes any of it.

use super::admit_name;
use super::bundle::{Manifest, ModelEntry, TaskEntry};
use crate::encoder::signature::SIGNATURE_LEN;
use crate::graph::topology::SUMMARY_LEN;
use crate::graph::{Dtype, Weight};
use crate::{Error, Result};
use std::collections::BTreeSet;
use std::path::Path;

/// Landmarks are logarithms, accuracies and means of pixels; far larger ones break every later training.
const SCALAR_MAX: f32 = 1e6;

/// Refuses a manifest that contradicts itself, or says what no zoo says.
pub fn manifest(manifest: &Manifest, origin: &Path) -> Result<()> {
    let at = |error: Error| Error::input(format!("{}: {error}", origin.display()));
    unique("task", manifest.tasks.iter().map(|task| &task.name)).map_err(at)?;
    unique("task id", manifest.tasks.iter().map(|task| &task.id)).map_err(at)?;
    unique("model", manifest.models.iter().map(|model| &model.name)).map_err(at)?;
    manifest.tasks.iter().try_for_each(task).map_err(at)?;
    for (index, entry) in manifest.models.iter().enumerate() {
        model(index, entry, manifest.tasks.len()).map_err(at)?;
    }
    let counts = [manifest.tasks.len(), manifest.models.len()];
    for &(task, model, _, accuracy) in &manifest.pairs {
        let numbers = [("task", task), ("model", model)];
        for ((what, number), count) in numbers.into_iter().zip(counts) {
            expect(number < count, "a pair", || format!("a {what} below {count}"), number)
                .map_err(at)?;
        }
        let fits = (0.0..=1.0).contains(&accuracy);
        expect(fits, "a pair", || "an accuracy in 0..1".into(), accuracy).map_err(at)?;
    }
    Ok(())
}

fn task(entry: &TaskEntry) -> Result<()> {
    let name = format!("task {:?}", entry.name);
    admit_name::check("task", &entry.name)?;
    entry.family.iter().try_for_each(|family| admit_name::check("family", family))?;
    for scalar in entry.scalars.into_iter().flatten() {
        let fits = scalar.abs() <= SCALAR_MAX;
        expect(fits, &name, || format!("landmarks within {SCALAR_MAX}"), scalar)?;
    }
    let classes = entry.class_names.len();
    for &label in entry.labels.iter().flatten() {
        expect((label as usize) < classes, &name, || format!("labels below {classes}"), label)?;
    }
    Ok(())
}

fn model(index: usize, entry: &ModelEntry, tasks: usize) -> Result<()> {
    let name = format!("model {:?}", entry.name);
    admit_name::check("model", &entry.name)?;
    unique("weight", &entry.weight_names)?;
    if let Some(parent) = entry.parent {
        expect(parent < index, &name, || "a parent before it".into(), parent)?;
    }
    for &seen in &entry.seen {
        expect(seen < tasks, &name, || format!("tasks below {tasks}"), seen)?;
    }
    let numbers = entry.architecture.iter().flat_map(|space| &space.numbers);
    for &number in entry.topology.iter().chain(numbers) {
        expect(number.is_finite(), &name, || "finite topology numbers".into(), number)?;
    }
    let length = entry.topology.len();
    let fits = matches!(length, 0 | SUMMARY_LEN);
    expect(fits, &name, || format!("{SUMMARY_LEN} topology numbers"), length)
}

/// Refuses a signature of another length than this version's, or with a number that is not finite.
pub fn signature(model: &str, signature: &Weight) -> Result<()> {
    let fits = signature.dtype == Dtype::F16 && signature.shape[..] == [SIGNATURE_LEN];
    let expected = || format!("a signature of {SIGNATURE_LEN} f16 numbers");
    let found = format!("{:?} {:?}", signature.dtype, signature.shape);
    expect(fits, &format!("model {model:?}"), expected, found)?;
    finite_f16(&format!("the signature of {model:?}"), signature)
}

/// Refuses f16 values that are NaN or infinite.
pub fn finite_f16(what: &str, values: &Weight) -> Result<()> {
    let bytes: &[u8] = (*values.bytes).as_ref();
    let exponent = |two: &[u8]| u16::from_le_bytes([two[0], two[1]]) & 0x7c00;
    let finite = bytes.chunks_exact(2).all(|two| exponent(two) != 0x7c00);
    expect(finite, what, || "finite numbers".into(), "NaN or infinity")
}

fn unique<T: Ord + std::fmt::Debug>(what: &str, names: impl IntoIterator<Item = T>) -> Result<()> {
    let mut known = BTreeSet::new();
    for name in names {
        let again = format!("{name:?} twice");
        expect(known.insert(name), "the bundle", || format!("each {what} once"), again)?;
    }
    Ok(())
}

fn expect(
    holds: bool,
    what: &str,
    expected: impl FnOnce() -> String,
    found: impl std::fmt::Display,
) -> Result<()> {
    if holds {
        return Ok(());
    }
    Err(Error::input(format!("{what}: expected {}, found {found}", expected())))
}
