//! Writing: one batch after the other under the write mutex, and durable by syncs outside of it that
//! many threads share.
//!
//! A batch is visible as soon as it is written. The log keeps the order of the writes, so whatever is
//! durable stands on nothing that is not; an operation answers after `sync`, and so does one that
//! found its work done by a batch that another thread has not synced yet.

use super::commit::{self, Plan};
use super::{Batch, Store, Writer};
use crate::records::Place;
use crate::rocks::Write;
use crate::{Error, Result};
use std::sync::MutexGuard;
use std::sync::atomic::Ordering;

impl Store {
    /// The commit point: writes a batch and returns when it is durable, with its newest op-log
    /// number. Threads that commit at the same time share the syncs. After an error nothing of the
    /// batch is stored, except that after a failed write or sync only opening the zoo again can tell.
    ///
    /// # Errors
    /// As `apply` and `sync`.
    pub fn commit(&self, batch: Batch) -> Result<u64> {
        self.sync_tensors()?;
        let sequence = self.apply(batch)?;
        self.sync()?;
        Ok(sequence)
    }

    /// Writes a batch behind all that were written before it: whole, and visible at once, also to
    /// other processes; durable when a later `sync` returns. Adjusts tensor references, appends to
    /// the op log, returns its newest sequence number. Tensors that the batch names are durable
    /// before it is written; where `sync_tensors` has seen to that, nobody waits for a disk here.
    ///
    /// # Errors
    /// `Error::Invalid` when a change contradicts what is stored (a name in use by another id, an
    /// accuracy outside 0..=1, a tensor, model, task or encoder that is missing, a record over
    /// 1 MB); `Error::ReadOnly`; `Error::Poisoned` after an earlier failure; `Error::Rocks` or
    /// `Error::Io` when the write fails.
    pub fn apply(&self, batch: Batch) -> Result<u64> {
        let mut writer = self.writer()?;
        let planned = commit::plan(&self.db, writer.sequence, &self.staged(), batch.changes)?;
        let Plan { write, sequence, next_row, tensors, staged } = planned;
        self.step("commit/planned")?;
        if !write.is_empty() {
            let durable = staged.iter().try_for_each(|place| writer.appender.sync_place(place));
            self.noting_failure(durable.and_then(|()| self.write(write)))?;
        }
        writer.sequence = sequence;
        self.next_row.fetch_max(next_row, Ordering::Relaxed);
        self.staged_mut().named(&tensors);
        Ok(sequence)
    }

    /// Returns when everything that was written before the call is durable. One thread syncs for all
    /// that wait.
    ///
    /// # Errors
    /// `Error::ReadOnly`; `Error::Rocks` or `Error::Io` when the sync fails, `Error::Poisoned` for
    /// all that waited for it, and for all writes from then on.
    pub fn sync(&self) -> Result<()> {
        if self.writer.is_none() {
            return Err(Error::ReadOnly);
        }
        let sync = || {
            self.step("commit/sync")?;
            self.db.sync()?;
            self.step("commit/synced")
        };
        let position = || self.db.position();
        self.noting_failure(self.synced.reach(position(), position, sync))
    }

    /// Makes all tensors durable that were put before the call, while others go on writing. One
    /// thread syncs for all that wait.
    ///
    /// # Errors
    /// As `sync`.
    pub fn sync_tensors(&self) -> Result<()> {
        let pack = self.writer()?.appender.open_pack().cloned();
        match pack {
            // A pack that another one has followed meanwhile was synced before that.
            Some(pack) => self.noting_failure(pack.sync_to(pack.end())),
            None => Ok(()),
        }
    }

    /// Writes what a collection moves or forgets, after the tensors that it has appended.
    pub(super) fn write_moves(&self, writer: &mut Writer, write: Write) -> Result<()> {
        if write.is_empty() {
            return Ok(());
        }
        self.noting_failure(writer.appender.sync().and_then(|()| self.write(write)))
    }

    fn write(&self, write: Write) -> Result<()> {
        self.step("commit/write")?;
        self.db.write(write, self.synced.synced())?;
        self.step("commit/written")
    }

    /// Takes the write mutex; refuses when an earlier write failed.
    pub(super) fn writer(&self) -> Result<MutexGuard<'_, Writer>> {
        let writer = self.writer.as_ref().ok_or(Error::ReadOnly)?;
        self.owner.require()?;
        let Ok(writer) = writer.lock() else {
            return Err(Error::Poisoned { reason: "a thread panicked while writing".to_owned() });
        };
        // Asked under the mutex: asked before, a failure could still happen while waiting.
        self.require_no_failure()?;
        Ok(writer)
    }

    /// Appends to the open pack. A failed write leaves nothing behind that counts; a failed sync
    /// leaves doubts.
    pub(super) fn append(&self, writer: &mut Writer, bytes: &[u8]) -> Result<Place> {
        let appended = writer.appender.append(bytes);
        self.note_failed_sync(writer);
        appended
    }

    /// Closes the open pack, so that it never changes again.
    pub(super) fn seal(&self, writer: &mut Writer) -> Result<()> {
        let sealed = writer.appender.seal();
        self.note_failed_sync(writer);
        sealed
    }

    fn require_no_failure(&self) -> Result<()> {
        match self.failed.get() {
            Some(reason) => Err(Error::Poisoned { reason: reason.clone() }),
            None => Ok(()),
        }
    }

    /// Remembers a failure of a write or sync, after which what is on disk is uncertain.
    fn noting_failure<T>(&self, result: Result<T>) -> Result<T> {
        if let Err(error) = &result {
            self.failed.get_or_init(|| error.to_string());
        }
        result
    }

    fn note_failed_sync(&self, writer: &Writer) {
        if let Some(reason) = writer.appender.failed_sync() {
            self.failed.get_or_init(|| reason.to_owned());
        }
    }
}
