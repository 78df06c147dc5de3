//! Collecting: gives the disk back what no record names, while others read and write.
//!
//! Nothing is edited: tensors that live on in a pack that is mostly dead are appended to the open
//! pack, one write moves their records, and the old pack is deleted when every reader has seen that
//! write. Killed anywhere, it leaves dead bytes that the next collection finds.

use super::{Store, Writer, record};
use crate::files::{self, io_error, sync_folder};
use crate::pack::{self, pack_path};
use crate::records::{Place, TensorRecord};
use crate::rocks::{Family, Write};
use crate::{Error, Result, TensorId, codec, dtype, failpoint, readers, schema};
use serde::Serialize;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::PoisonError;

/// A commit waits at most for so many bytes to be moved.
const CHUNK_BYTES: u64 = 8 << 20;

/// Records of dead tensors that are forgotten by one write.
const CHUNK_RECORDS: usize = 4096;

/// What a collection did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GcReport {
    /// Tensors that no record names, forgotten.
    pub tensors_dropped: u64,
    /// Tensors that were moved out of packs whose living part was under half.
    pub tensors_moved: u64,
    /// Their bytes.
    pub bytes_moved: u64,
    /// Packs deleted.
    pub packs_deleted: u64,
    /// Bytes of deleted packs, segments and left-over temporary files.
    pub bytes_freed: u64,
    /// Packs and segments that a reader may still look for; a later collection deletes them.
    pub files_kept_for_readers: u64,
    /// Tensors that could not be moved because their bytes are damaged; their packs stay.
    pub tensors_damaged: u64,
}

/// Bytes of the living tensors of each pack.
type Living = BTreeMap<u32, u64>;

impl Store {
    /// Deletes what no record names: tensors without references, packs whose living part is under
    /// half (after their living tensors have moved), segments of earlier generations, files that a
    /// killed process left. Commits go on meanwhile. `observe` is called before each pack with the
    /// number of packs done and in all; after `Break` the rest is left for another time.
    ///
    /// # Errors
    /// `Error::ReadOnly`; `Error::Poisoned` after an earlier failure; `Error::Corrupt` when a record
    /// cannot be read; `Error::Cancelled`; `Error::Rocks` or `Error::Io` when a write fails. What was done stays done.
    pub fn gc(&self, observe: &mut dyn FnMut(usize, usize) -> ControlFlow<()>) -> Result<GcReport> {
        let _alone = self.maintenance.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.writer()?);
        let mut report = GcReport::default();
        self.step("gc/start")?;
        self.drop_unreferenced(&mut report)?;
        let victims = self.tensors_to_move()?;
        let count = victims.len();
        for (done, (victim, tensors)) in victims.into_iter().enumerate() {
            if observe(done, count).is_break() {
                return Err(Error::Cancelled);
            }
            self.empty_pack(victim, tensors, &mut report)?;
        }
        self.delete_dead_packs(&mut report)?;
        self.delete_segments(&mut report)?;
        self.delete_left_overs(&mut report)?;
        self.step("gc/end")?;
        Ok(report)
    }

    /// Forgets the tensors that no record names and nobody is about to name.
    fn drop_unreferenced(&self, report: &mut GcReport) -> Result<()> {
        let mut candidates = Vec::new();
        for entry in self.db.scan(Family::Tensor, &[], &[])? {
            let (key, value) = entry?;
            let tensor: TensorRecord = record::decode(Family::Tensor, &key, &value)?;
            if tensor.references == 0 {
                candidates.push(tensor_id(&key)?);
            }
        }
        for chunk in candidates.chunks(CHUNK_RECORDS) {
            self.step("gc/drop")?;
            let mut writer = self.writer()?;
            let mut write = Write::default();
            for id in chunk {
                // Looked at again under the mutex: a commit may have named it, or be about to.
                let tensor = record::get::<TensorRecord>(&self.db, Family::Tensor, &id.0)?;
                if tensor.is_some_and(|tensor| tensor.references == 0)
                    && self.staged().get(*id).is_none()
                {
                    write.entries.insert((Family::Tensor, id.0.to_vec()), None);
                }
            }
            report.tensors_dropped += write.entries.len() as u64;
            self.write_moves(&mut writer, write)?;
            drop(writer);
            self.step("gc/dropped")?;
        }
        Ok(())
    }

    /// The packs whose living part is under half, and those with a damaged header. The open pack is closed first if it is
    /// one.
    fn packs_to_empty(&self) -> Result<Vec<u32>> {
        let staged = self.staged().packs();
        let living = self.living()?;
        let mut victims = Vec::new();
        for number in pack::numbers(self.packs.folder())? {
            let path = pack_path(self.packs.folder(), number);
            let bytes = path.metadata().map_err(io_error("cannot inspect", &path))?.len();
            let content = bytes.saturating_sub(pack::ALIGNMENT);
            let alive = living.get(&number).copied().unwrap_or(0);
            let is_bad = alive > 0 && self.packs.check_header(number).is_err();
            let is_mostly_dead = content > 0 && alive < content.div_ceil(2);
            if (is_mostly_dead || is_bad) && !staged.contains(&number) {
                victims.push(number);
            }
        }
        let mut writer = self.writer()?;
        if victims.last().is_some_and(|number| *number == writer.appender.newest()) {
            self.step("gc/seal")?;
            self.seal(&mut writer)?;
        }
        Ok(victims)
    }

    /// Bytes of the living tensors of each pack, as they lie there.
    pub(super) fn living(&self) -> Result<Living> {
        let mut living = Living::new();
        for entry in self.db.scan(Family::Tensor, &[], &[])? {
            let (key, value) = entry?;
            let tensor: TensorRecord = record::decode(Family::Tensor, &key, &value)?;
            if let Place::Pack { pack, .. } = tensor.place {
                let bytes = dtype::byte_len(tensor.dtype, &tensor.shape).unwrap_or(0);
                let padded = bytes.checked_next_multiple_of(pack::ALIGNMENT).unwrap_or(bytes);
                let sum = living.entry(pack).or_insert(0);
                *sum = sum.saturating_add(padded);
            }
        }
        Ok(living)
    }

    /// The packs to empty, with offset and id of what lives in them.
    fn tensors_to_move(&self) -> Result<BTreeMap<u32, Vec<(u64, TensorId)>>> {
        let victims = self.packs_to_empty()?;
        if victims.is_empty() {
            return Ok(BTreeMap::new());
        }
        let mut tensors: BTreeMap<u32, Vec<_>> =
            victims.into_iter().map(|victim| (victim, Vec::new())).collect();
        for entry in self.db.scan(Family::Tensor, &[], &[])? {
            let (key, value) = entry?;
            let tensor: TensorRecord = record::decode(Family::Tensor, &key, &value)?;
            if let Place::Pack { pack, offset } = tensor.place
                && let Some(living) = tensors.get_mut(&pack)
            {
                living.push((offset, tensor_id(&key)?));
            }
        }
        Ok(tensors)
    }

    /// Moves the living tensors of a pack into the open one, a chunk at a time.
    fn empty_pack(
        &self,
        victim: u32,
        mut living: Vec<(u64, TensorId)>,
        report: &mut GcReport,
    ) -> Result<()> {
        // In the order of the file, so that tensors of one model stay together.
        living.sort_unstable();
        let mut left = living.iter().map(|(_, id)| *id).peekable();
        while left.peek().is_some() {
            self.step("gc/chunk")?;
            let mut writer = self.writer()?;
            let mut write = Write::default();
            let mut bytes = 0;
            while bytes < CHUNK_BYTES
                && let Some(id) = left.next()
            {
                bytes += self.move_tensor(&mut writer, victim, id, (&mut write, report))?;
            }
            self.step("gc/copied")?;
            self.write_moves(&mut writer, write)?;
            drop(writer);
            self.step("gc/moved")?;
        }
        Ok(())
    }

    /// Copies one tensor if it is still where it was; returns its bytes.
    fn move_tensor(
        &self,
        writer: &mut Writer,
        victim: u32,
        id: TensorId,
        (write, report): (&mut Write, &mut GcReport),
    ) -> Result<u64> {
        let stored = record::get::<TensorRecord>(&self.db, Family::Tensor, &id.0)?;
        let Some(mut tensor) = stored else { return Ok(0) };
        if !matches!(tensor.place, Place::Pack { pack, .. } if pack == victim) {
            return Ok(0);
        }
        let mapped = match self.packs.proven_now(id, &tensor) {
            Ok(mapped) => mapped,
            // What is left of it may still help somebody, and a copy would hide where it came from.
            Err(Error::Corrupt { .. }) => {
                report.tensors_damaged += 1;
                return Ok(0);
            }
            Err(error) => return Err(error),
        };
        let bytes = mapped.bytes().len() as u64;
        tensor.place = self.append(writer, mapped.bytes())?;
        write.entries.insert((Family::Tensor, id.0.to_vec()), Some(codec::encode(&tensor)?));
        // Whoever put the tensor again and has not committed yet goes on with its new place.
        self.staged_mut().relocate(id, &tensor.place);
        report.tensors_moved += 1;
        report.bytes_moved += bytes;
        Ok(bytes)
    }

    /// Deletes the closed packs in which nothing lives, unless a reader may not know it yet.
    fn delete_dead_packs(&self, report: &mut GcReport) -> Result<()> {
        // First what is staged, then what is stored: a commit between the two looks turns one into
        // the other. What is put after the first look goes to the newest pack, which stays.
        let (staged, newest) = {
            let writer = self.writer()?;
            (self.staged().packs(), writer.appender.newest())
        };
        let position = self.db.position();
        let living = self.living()?;
        // What made a pack dead must not be undone by a power cut when the pack is gone.
        self.sync()?;
        let may_delete = self.seen_by_all_readers(position)?;
        for number in pack::numbers(self.packs.folder())? {
            if number >= newest || staged.contains(&number) || living.contains_key(&number) {
                continue;
            }
            if !may_delete {
                report.files_kept_for_readers += 1;
                continue;
            }
            self.step("gc/delete")?;
            report.bytes_freed += delete(&pack_path(self.packs.folder(), number))?;
            report.packs_deleted += 1;
            self.step("gc/deleted")?;
        }
        if report.packs_deleted > 0 {
            self.step("gc/unsynced")?;
            sync_folder(self.packs.folder())?;
            self.packs.forget_deleted();
        }
        Ok(())
    }

    /// Deletes the segments of generations before the current one, unless a reader may not know it
    /// yet; a segment's name starts with the number of its generation in ten digits.
    ///
    /// # Errors
    /// `Error::ReadOnly`; `Error::Corrupt` or `Error::Io` when something cannot be read or deleted.
    pub fn delete_old_segments(&self) -> Result<()> {
        drop(self.writer()?);
        self.delete_segments(&mut GcReport::default())
    }

    fn delete_segments(&self, report: &mut GcReport) -> Result<()> {
        let folder = self.path.join(schema::SEGMENTS);
        // The generation first: who has read up to the position knows it.
        let Some(current) = self.generation()? else { return Ok(()) };
        let position = self.db.position();
        self.sync()?;
        let number = format!("{:010}", current.number);
        let may_delete = self.seen_by_all_readers(position)?;
        for name in files::names(&folder)? {
            let older = name < number && current.segment.as_ref() != Some(&name);
            if !older || files::is_temporary(&name) {
                continue;
            }
            if !may_delete {
                report.files_kept_for_readers += 1;
                continue;
            }
            self.step("gc/segment")?;
            report.bytes_freed += delete(&folder.join(name))?;
        }
        Ok(())
    }

    /// Deletes what a killed process was about to install or to back up. Only this process writes
    /// here, and its own temporary files carry its process id.
    pub(super) fn delete_left_overs(&self, report: &mut GcReport) -> Result<()> {
        let own = format!(".{}-", std::process::id());
        for folder in [self.path.clone(), self.path.join(schema::SEGMENTS)] {
            for name in files::names(&folder)? {
                if files::is_temporary(&name) && !name.contains(&own) {
                    report.bytes_freed += delete(&folder.join(name))?;
                }
            }
        }
        Ok(())
    }

    /// Whether every living reader has caught up with what was written until `position`.
    fn seen_by_all_readers(&self, position: u64) -> Result<bool> {
        Ok(readers::passed_by_all(&self.path)?.is_none_or(|passed| passed >= position))
    }

    pub(super) fn step(&self, name: &'static str) -> Result<()> {
        failpoint::step(name).map_err(io_error("cannot write", &self.path))
    }
}

fn tensor_id(key: &[u8]) -> Result<TensorId> {
    key.try_into().map(TensorId).map_err(|_| record::bad_key(Family::Tensor, key))
}

/// Deletes a file or folder; returns its size.
fn delete(path: &Path) -> Result<u64> {
    let bytes = path.metadata().map_or(0, |metadata| metadata.len());
    if path.is_dir() {
        files::remove_folder(path)?;
    } else {
        files::remove_file(path)?;
    }
    Ok(bytes)
}
