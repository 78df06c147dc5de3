//! Counts and sizes.

use super::Store;
use super::record::{self, SYS_SEQUENCE};
use crate::records::{Place, TensorRecord};
use crate::rocks::Family;
use crate::{Result, dtype, files, pack};

/// Figures of a store.
#[derive(Clone, Debug, Default)]
pub struct StoreStats {
    /// Models that are not removed.
    pub models: u64,
    /// Tasks.
    pub tasks: u64,
    /// Pairs, superseded ones included.
    pub pairs: u64,
    /// Distinct tensors and blobs.
    pub tensors: u64,
    /// Sum over all references of the bytes they point to.
    pub logical_bytes: u64,
    /// Sum of the distinct tensors' bytes.
    pub distinct_bytes: u64,
    /// Bytes of the whole zoo directory.
    pub disk_bytes: u64,
    /// Bytes of the pack files that no record names; collecting gives back most of them.
    pub dead_bytes: u64,
    /// Newest op-log sequence number.
    pub sequence: u64,
}

impl Store {
    /// Counts and sizes. Walks the keys of four families and the zoo's folders.
    ///
    /// # Errors
    /// `Error::Corrupt` when a record is damaged; `Error::Io` when a folder cannot be listed.
    pub fn stats(&self) -> Result<StoreStats> {
        let _still = self.not_catching_up();
        let mut stats = StoreStats {
            models: self.count(Family::Model, &[])?,
            tasks: self.count(Family::Task, &[])?,
            pairs: self.pairs()?.len() as u64,
            disk_bytes: files::folder_bytes(&self.path)?,
            sequence: record::require(&self.db, Family::Sys, SYS_SEQUENCE)?,
            ..StoreStats::default()
        };
        let mut living = 0u64;
        for entry in self.db.scan(Family::Tensor, &[], &[])? {
            let (key, value) = entry?;
            let tensor: TensorRecord = record::decode(Family::Tensor, &key, &value)?;
            if tensor.references == 0 {
                continue;
            }
            let bytes = dtype::byte_len(tensor.dtype, &tensor.shape).unwrap_or(0);
            stats.tensors += 1;
            stats.distinct_bytes = stats.distinct_bytes.saturating_add(bytes);
            let logical = bytes.saturating_mul(tensor.references);
            stats.logical_bytes = stats.logical_bytes.saturating_add(logical);
            if matches!(tensor.place, Place::Pack { .. }) {
                living = living.saturating_add(
                    bytes.checked_next_multiple_of(pack::ALIGNMENT).unwrap_or(bytes),
                );
            }
        }
        stats.dead_bytes = self.pack_bytes()?.saturating_sub(living);
        Ok(stats)
    }

    /// Bytes of the pack files without their headers.
    fn pack_bytes(&self) -> Result<u64> {
        let packs = pack::numbers(self.packs.folder())?.len() as u64;
        let bytes = files::folder_bytes(self.packs.folder())?;
        Ok(bytes.saturating_sub(packs * pack::ALIGNMENT))
    }

    fn count(&self, family: Family, prefix: &[u8]) -> Result<u64> {
        self.db.scan(family, prefix, prefix)?.try_fold(0, |count, entry| entry.map(|_| count + 1))
    }
}
