//! Folders of backups.

use super::bytes::{Found, ensure, hash, hex, lines};
use super::zoo::{entries, read_file};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path};

pub struct Manifest {
    pub format: u32,
    pub sequence: u64,
    pub zoo: String,
    /// Length and hash of each file.
    pub files: BTreeMap<String, (u64, String)>,
}

fn after<'a>(line: Option<&'a str>, word: &str) -> Found<&'a str> {
    let line = line.ok_or_else(|| format!("MANIFEST: expected a line {word}, found none"))?;
    let rest = line.strip_prefix(word).and_then(|rest| rest.strip_prefix(' '));
    rest.ok_or_else(|| format!("MANIFEST: expected a line {word}, found {line:?}"))
}

fn number<T: std::str::FromStr>(text: &str) -> Found<T> {
    text.parse().map_err(|_| format!("MANIFEST: expected a number, found {text:?}"))
}

impl Manifest {
    pub fn decode(bytes: &[u8]) -> Found<Self> {
        let mut lines = lines("MANIFEST", bytes)?;
        let end = lines.pop().unwrap_or_default();
        let before = bytes.len() - end.len() - 1;
        let sum = hex(&hash(&[&bytes[..before]]));
        ensure(after(Some(end), "end")? == sum, || format!("MANIFEST: {end:?}, found {sum}"))?;
        let mut lines = lines.into_iter();
        let first = lines.next();
        ensure(first == Some("tans backup 1"), || format!("MANIFEST: {first:?}"))?;
        let format = number(after(lines.next(), "format")?)?;
        let sequence = number(after(lines.next(), "sequence")?)?;
        let zoo = after(lines.next(), "zoo")?.to_owned();
        let mut files = BTreeMap::new();
        for line in lines {
            let mut parts = line.splitn(3, ' ');
            let (Some(length), Some(sum), Some(path)) = (parts.next(), parts.next(), parts.next())
            else {
                return Err(format!("MANIFEST: {line:?} is no file"));
            };
            let plain =
                Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
            ensure(plain && !path.contains("//"), || format!("MANIFEST: the path {path:?}"))?;
            let earlier = files.insert(path.to_owned(), (number(length)?, sum.to_owned()));
            ensure(earlier.is_none(), || format!("MANIFEST: {path} twice"))?;
        }
        Ok(Self { format, sequence, zoo, files })
    }
}

/// Proves every file of a backup and that there are no others.
pub fn read(backup: &Path) -> Manifest {
    let manifest = Manifest::decode(&read_file(&backup.join("MANIFEST"))).expect("a manifest");
    let mut found = BTreeMap::new();
    assert_eq!(entries(backup), ["MANIFEST", "db", "packs", "segments"]);
    for folder in ["db", "packs", "segments"] {
        for name in entries(&backup.join(folder)) {
            let bytes = read_file(&backup.join(folder).join(&name));
            found.insert(format!("{folder}/{name}"), (bytes.len() as u64, hex(&hash(&[&bytes]))));
        }
    }
    assert_eq!(found, manifest.files, "files of {}", backup.display());
    manifest
}

/// The newer backup's unchanged files are those of the older one.
pub fn shares(older: &Path, newer: &Path) -> usize {
    use std::os::unix::fs::MetadataExt;
    let (before, after) = (read(older), read(newer));
    let inode = |path: &Path| fs::metadata(path).expect("a file of a backup").ino();
    let mut shared = 0;
    for (name, file) in &after.files {
        let linked = inode(&newer.join(name));
        if before.files.get(name) == Some(file) {
            assert_eq!(linked, inode(&older.join(name)), "{name} is no hard link");
            shared += 1;
        }
    }
    shared
}
