//! Backing up, while others read and write.
//!
//! For a moment commits wait: the open pack is closed and RocksDB links its files into a folder of
//! the zoo. From then on nothing that the backup consists of changes, and it is copied at leisure.

use super::Store;
use crate::backup::{self, BackupReport, Entry, Manifest};
use crate::files::{self, install_file, io_error};
use crate::pack::{self, HEADER_BYTES, pack_name, pack_path};
use crate::{Error, FORMAT_VERSION, Result, schema};
use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::Write;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};
use std::sync::PoisonError;

/// How much of a pack's end is compared with the backup before.
const TAIL_BYTES: u64 = 1 << 20;

/// The zoo at one moment.
struct Moment {
    /// Files with the paths that they have in a backup.
    files: Vec<(PathBuf, String)>,
    sequence: u64,
    /// Packs below this number are closed and belong to it.
    packs_end: u32,
}

/// What no backup had before.
#[derive(Default)]
struct Copied {
    bytes: u64,
    packs: BTreeSet<u32>,
}

/// The backup before, whose files are taken over where they are unchanged.
struct Previous {
    path: PathBuf,
    entries: HashMap<String, Entry>,
}

impl Store {
    /// Copies the zoo as it is now into the folder of backups `folder` (new, empty, or with earlier
    /// backups). What is unchanged since the backup before becomes a hard link to it. `observe` is
    /// called before each file with the number of files done and in all; after `Break` nothing is
    /// left behind.
    ///
    /// # Errors
    /// `Error::ReadOnly`; `Error::Poisoned` after an earlier failure; `Error::AlreadyExists` when
    /// something else is at `folder`; `Error::Invalid` when that is in the zoo; `Error::Corrupt` when a pack is missing; `Error::Cancelled`;
    /// `Error::Rocks` or `Error::Io` when a file cannot be read or written.
    pub fn backup(
        &self,
        folder: &Path,
        observe: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<BackupReport> {
        let _alone = self.maintenance.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.writer()?);
        self.delete_left_overs(&mut super::GcReport::default())?;
        self.step("backup/start")?;
        self.refuse_inside(folder)?;
        backup::prepare(folder)?;
        let _alone_there = backup::lock(folder)?;
        let number = backup::numbers(folder)?.last().map_or(1, |newest| newest + 1);
        let partial = backup::start_partial(folder, number)?;
        let staging = self.path.join(format!(".backup.{}-0.tmp", std::process::id()));
        let complete = backup::complete_path(folder, number);
        let report = self
            .hold_still(&staging)
            .and_then(|moment| self.copy_moment(&moment, folder, &partial, observe))
            .and_then(|(manifest, copied)| {
                let damages = self.prove_packs(&copied.packs)?;
                self.step("backup/rename")?;
                files::rename(&partial, &complete)?;
                self.step("backup/renamed")?;
                Ok((manifest, copied, damages))
            });
        self.step("backup/staged")?;
        // A left-over of the staging folder is removed by the next backup or collection.
        let _ = files::remove_folder(&staging);
        let (manifest, copied, damages) = report.inspect_err(|_| {
            // The first error is the one to report; the next backup removes what is left.
            let _ = files::remove_folder(&partial);
        })?;
        Ok(BackupReport {
            number,
            path: complete,
            files: manifest.entries.len() as u64,
            bytes: manifest.entries.iter().map(|entry| entry.bytes).sum(),
            bytes_copied: copied.bytes,
            sequence: manifest.sequence,
            damages,
        })
    }

    /// A backup in the zoo would go with it, and grow with every further one.
    fn refuse_inside(&self, folder: &Path) -> Result<()> {
        let zoo = self.path.canonicalize().map_err(io_error("cannot find", &self.path))?;
        let folder = std::path::absolute(folder).map_err(io_error("cannot find", folder))?;
        let existing = folder.ancestors().find(|folder| folder.exists());
        let missing = existing.and_then(|existing| folder.strip_prefix(existing).ok());
        // Where it leads back to, nobody can say before it is made.
        let leads_back =
            missing.is_some_and(|path| path.components().any(|it| it == Component::ParentDir));
        let existing = existing.and_then(|existing| existing.canonicalize().ok());
        if !leads_back && !existing.is_some_and(|existing| existing.starts_with(&zoo)) {
            return Ok(());
        }
        Err(Error::Invalid(format!(
            "expected a folder of backups outside of the zoo, found {}",
            folder.display()
        )))
    }

    /// Takes hold of everything that belongs to the zoo at this moment.
    fn hold_still(&self, staging: &Path) -> Result<Moment> {
        // A process with our number may have left it when it was killed.
        files::remove_folder(staging)?;
        fs::create_dir(staging).map_err(io_error("cannot create", staging))?;
        let database = staging.join(schema::DATABASE);
        let mut writer = self.writer()?;
        self.step("backup/seal")?;
        self.seal(&mut writer)?;
        self.step("backup/checkpoint")?;
        self.db.checkpoint(&database)?;
        self.step("backup/checkpointed")?;
        let (sequence, packs_end) = (writer.sequence, writer.appender.newest());
        let segment = self.generation()?.and_then(|generation| generation.segment);
        let mut files = Vec::new();
        if let Some(name) = segment {
            // It can be made again, so one that is missing is no reason to fail.
            let held = staging.join(&name);
            if link_or_copy(&self.segment_path(&name), &held).is_ok() {
                files.push((held, format!("{}/{name}", schema::SEGMENTS)));
            }
        }
        drop(writer);
        self.step("backup/held")?;
        for name in files::names(&database)? {
            files.push((database.join(&name), format!("{}/{name}", schema::DATABASE)));
        }
        let packs = pack::numbers(self.packs.folder())?;
        for number in packs.into_iter().filter(|number| *number < packs_end) {
            files.push((pack_path(self.packs.folder(), number), pack_name(number)));
        }
        Ok(Moment { files, sequence, packs_end })
    }

    /// Copies or links every file and writes the manifest; returns it and what was copied.
    fn copy_moment(
        &self,
        moment: &Moment,
        folder: &Path,
        partial: &Path,
        observe: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<(Manifest, Copied)> {
        self.require_packs(moment)?;
        let zoo = self.path.canonicalize().map_err(io_error("cannot find", &self.path))?;
        let zoo = zoo.to_string_lossy().escape_default().to_string();
        let previous = previous(folder, &zoo);
        let folders =
            [schema::DATABASE, schema::PACKS, schema::SEGMENTS].map(|name| partial.join(name));
        for folder in &folders {
            fs::create_dir(folder).map_err(io_error("cannot create", folder))?;
        }
        let mut copied = Copied::default();
        let mut entries = Vec::with_capacity(moment.files.len());
        for (done, (source, path)) in moment.files.iter().enumerate() {
            if observe(done, moment.files.len()).is_break() {
                return Err(Error::Cancelled);
            }
            let target = partial.join(path);
            self.step("backup/file")?;
            let linked = previous
                .as_ref()
                .map_or(Ok(None), |previous| previous.link(source, path, &target))?;
            entries.push(match linked {
                Some(entry) => entry,
                None => {
                    let (bytes, hash) = backup::copy(source, &target)?;
                    copied.bytes += bytes;
                    copied.packs.extend(pack::number_in(path));
                    Entry { path: path.clone(), bytes, hash }
                }
            });
        }
        let manifest = Manifest { format: FORMAT_VERSION, sequence: moment.sequence, zoo, entries };
        self.step("backup/manifest")?;
        let text = manifest.to_text();
        install_file(&partial.join(backup::MANIFEST), |file| file.write_all(text.as_bytes()))?;
        folders.iter().try_for_each(|folder| files::sync_folder(folder))?;
        Ok((manifest, copied))
    }

    /// A backup without a pack that records name would be found out only when it is needed.
    fn require_packs(&self, moment: &Moment) -> Result<()> {
        for number in self.living()?.into_keys() {
            let name = pack_name(number);
            let there = moment.files.iter().any(|(_, path)| *path == name);
            if !there && number < moment.packs_end {
                return Err(Error::Corrupt {
                    file: name,
                    offset: "the file".to_owned(),
                    what: "expected a pack that records name, found no such file".to_owned(),
                });
            }
        }
        Ok(())
    }
}

impl Previous {
    /// Takes over a file that is unchanged; `None` where it is not, or cannot be linked.
    fn link(&self, source: &Path, path: &str, target: &Path) -> Result<Option<Entry>> {
        let Some(entry) = self.entries.get(path) else { return Ok(None) };
        let before = self.path.join(path);
        let bytes = |path: &Path| path.metadata().ok().map(|metadata| metadata.len());
        if bytes(source) != Some(entry.bytes) || bytes(&before) != Some(entry.bytes) {
            return Ok(None);
        }
        let unchanged = if path.starts_with(schema::PACKS) {
            // A closed pack never changes, and its header is random; of two copies of a zoo that went different ways the
            // ends differ.
            ends(source).is_some_and(|found| ends(&before) == Some(found))
        } else {
            backup::hash(source)? == entry.hash
        };
        let linked = unchanged && fs::hard_link(&before, target).is_ok();
        Ok(linked.then(|| entry.clone()))
    }
}

/// The newest backup of this zoo; none where its manifest is damaged.
fn previous(folder: &Path, zoo: &str) -> Option<Previous> {
    let path = backup::complete_path(folder, backup::numbers(folder).ok()?.pop()?);
    let manifest = Manifest::read(&path).ok().filter(|manifest| manifest.zoo == zoo)?;
    let entries = manifest.entries.into_iter().map(|entry| (entry.path.clone(), entry)).collect();
    Some(Previous { path, entries })
}

/// Header and last bytes of a pack.
fn ends(pack: &Path) -> Option<([u8; HEADER_BYTES], Vec<u8>)> {
    let file = File::open(pack).ok()?;
    let mut header = [0; HEADER_BYTES];
    file.read_exact_at(&mut header, 0).ok()?;
    let bytes = file.metadata().ok()?.len();
    let length = bytes.min(TAIL_BYTES);
    let mut tail = vec![0; length as usize];
    file.read_exact_at(&mut tail, bytes - length).ok()?;
    Some((header, tail))
}

fn link_or_copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::hard_link(from, to).or_else(|_| fs::copy(from, to).map(|_| ()))
}
