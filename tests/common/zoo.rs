//! A small zoo for the command line.

use crate::images;
use tans::{Benchmark, Database, IngestOptions, InitOptions, OpenOptions, unobserved};
use tempfile::TempDir;

/// A zoo with one small network of random weights, `base`, licensed MIT, and a dataset `colours`.
///
/// Made by the library: a process that links libtorch takes a third of a second to start, and only
/// the commands under test are worth it.
pub fn zoo_of_one() -> TempDir {
    let folder = TempDir::new().expect("a temporary folder");
    images::colours(&folder.path().join("colours"), 12, 4);
    let (zoo, _) =
        Database::init(&folder.path().join("zoo"), &InitOptions::default(), OpenOptions::default())
            .expect("a zoo can be made");
    let options = IngestOptions {
        name: Some("base".into()),
        license: Some("MIT".into()),
        benchmark: Benchmark::None,
        ..IngestOptions::default()
    };
    zoo.ingest("small:cnn-w16@32", &options, &mut unobserved).expect("a generated network");
    folder
}
