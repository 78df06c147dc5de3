//! Tensors that are put before the commit that names them. Until then no record knows them, so
//! collecting has to be told to leave them alone.

use super::{Store, Writer, record};
use crate::codec::Bytes;
use crate::pack::INLINE_BYTES_END;
use crate::records::{Place, TensorRecord};
use crate::rocks::Family;
use crate::{Error, Result, TensorId, dtype};
use safetensors::Dtype;
use std::collections::{HashMap, HashSet};
use std::sync::{PoisonError, RwLockReadGuard, RwLockWriteGuard};

/// A tensor (or an opaque blob: dtype U8, one dimension) to be stored. Its id is `TensorId::of`.
#[derive(Clone, Copy)]
pub struct NewTensor<'a> {
    /// Element type.
    pub dtype: Dtype,
    /// Shape.
    pub shape: &'a [usize],
    /// Little-endian, row-major.
    pub bytes: &'a [u8],
}

/// A tensor whose id is known, so that it is hashed once.
pub struct HashedTensor<'a> {
    tensor: NewTensor<'a>,
    id: TensorId,
}

impl<'a> HashedTensor<'a> {
    /// Hashes a tensor.
    pub fn new(tensor: NewTensor<'a>) -> Self {
        Self { id: TensorId::of(tensor.dtype, tensor.shape, tensor.bytes), tensor }
    }

    /// Its id.
    pub fn id(&self) -> TensorId {
        self.id
    }
}

/// Tensors of one operation, which stay until it is dropped, whoever else puts, names and removes
/// the same: hold it until the commit that names them is written.
pub struct Staging<'a> {
    store: &'a Store,
    held: Vec<TensorId>,
}

impl Staging<'_> {
    /// Stores tensors that are not stored yet, or are damaged. They become durable with the commit
    /// that names them, or by `Store::sync_tensors`.
    ///
    /// # Errors
    /// As `Store::put_tensors`.
    pub fn put(&mut self, tensors: &[HashedTensor<'_>]) -> Result<()> {
        self.store.put(tensors, |staged, id| {
            staged.held += 1;
            self.held.push(id);
        })
    }
}

impl Drop for Staging<'_> {
    fn drop(&mut self) {
        let mut staged = self.store.staged_mut();
        self.held.drain(..).for_each(|id| staged.release(id));
    }
}

/// Where the tensors lie that were put and not named yet.
#[derive(Default)]
pub(super) struct Staged(HashMap<TensorId, StagedTensor>);

struct StagedTensor {
    record: TensorRecord,
    /// How many live `Staging`s hold it.
    held: usize,
    /// Whether it waits for any commit that names it.
    waits: bool,
}

impl Staged {
    pub(super) fn get(&self, id: TensorId) -> Option<&TensorRecord> {
        self.0.get(&id).map(|staged| &staged.record)
    }

    /// Tells that a tensor lies elsewhere from now on.
    pub(super) fn relocate(&mut self, id: TensorId, place: &Place) {
        if let Some(staged) = self.0.get_mut(&id) {
            staged.record.place = place.clone();
        }
    }

    /// Tells that a commit has named these.
    pub(super) fn named(&mut self, ids: &[TensorId]) {
        for id in ids {
            if let Some(staged) = self.0.get_mut(id) {
                staged.waits = false;
                self.forget_unheld(*id);
            }
        }
    }

    /// Packs that hold any of them.
    pub(super) fn packs(&self) -> HashSet<u32> {
        let packs = self.0.values().filter_map(|staged| match staged.record.place {
            Place::Pack { pack, .. } => Some(pack),
            Place::Inline(_) => None,
        });
        packs.collect()
    }

    fn release(&mut self, id: TensorId) {
        if let Some(staged) = self.0.get_mut(&id) {
            staged.held -= 1;
            self.forget_unheld(id);
        }
    }

    fn forget_unheld(&mut self, id: TensorId) {
        if self.0.get(&id).is_some_and(|staged| staged.held == 0 && !staged.waits) {
            self.0.remove(&id);
        }
    }
}

impl Store {
    /// Stores tensors that are not stored yet, or are damaged; returns their ids in order. They become durable with
    /// the first commit that names them; those that none names before the store is closed are lost.
    ///
    /// # Errors
    /// `Error::Invalid` when the bytes do not fit dtype and shape; `Error::ReadOnly`;
    /// `Error::Poisoned` after an earlier failed sync; `Error::Io` when a write fails, after which
    /// it may be tried again.
    pub fn put_tensors(&self, tensors: &[NewTensor<'_>]) -> Result<Vec<TensorId>> {
        let hashed: Vec<HashedTensor<'_>> =
            tensors.iter().copied().map(HashedTensor::new).collect();
        self.put(&hashed, |staged, _| staged.waits = true)?;
        Ok(hashed.iter().map(HashedTensor::id).collect())
    }

    /// For an operation whose commit may come later than another one that names the same tensors.
    pub fn staging(&self) -> Staging<'_> {
        Staging { store: self, held: Vec::new() }
    }

    fn put(
        &self,
        tensors: &[HashedTensor<'_>],
        mut hold: impl FnMut(&mut StagedTensor, TensorId),
    ) -> Result<()> {
        tensors.iter().try_for_each(|hashed| require_consistent(&hashed.tensor))?;
        let mut writer = self.writer()?;
        for HashedTensor { tensor, id } in tensors {
            let known = self.staged().get(*id).cloned();
            let record = match known {
                Some(record) => record,
                None => self.find_or_append(&mut writer, *id, tensor)?,
            };
            let fresh = StagedTensor { record, held: 0, waits: false };
            hold(self.staged_mut().0.entry(*id).or_insert(fresh), *id);
        }
        Ok(())
    }

    /// One whose bytes are damaged is stored anew, which mends all that name it.
    fn find_or_append(
        &self,
        writer: &mut Writer,
        id: TensorId,
        tensor: &NewTensor<'_>,
    ) -> Result<TensorRecord> {
        let stored = record::get::<TensorRecord>(&self.db, Family::Tensor, &id.0)?;
        if let Some(sound) = stored.filter(|stored| self.packs.proven(id, stored).is_ok()) {
            return Ok(sound);
        }
        let place = if tensor.bytes.len() < INLINE_BYTES_END {
            Place::Inline(Bytes(tensor.bytes.to_vec()))
        } else {
            self.append(writer, tensor.bytes)?
        };
        let shape = tensor.shape.iter().map(|dim| *dim as u64).collect();
        Ok(TensorRecord { place, dtype: tensor.dtype, shape, references: 0 })
    }

    pub(super) fn staged(&self) -> RwLockReadGuard<'_, Staged> {
        self.staged.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn staged_mut(&self) -> RwLockWriteGuard<'_, Staged> {
        self.staged.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn require_consistent(tensor: &NewTensor<'_>) -> Result<()> {
    let NewTensor { dtype, shape, bytes } = tensor;
    let dims: Vec<u64> = shape.iter().map(|dim| *dim as u64).collect();
    let expected = dtype::byte_len(*dtype, &dims).filter(|_| dtype::is_known(*dtype));
    if expected == Some(bytes.len() as u64) {
        return Ok(());
    }
    Err(Error::Invalid(match expected {
        Some(expected) => format!(
            "expected {expected} bytes for a tensor {dtype} {shape:?}, found {}",
            bytes.len()
        ),
        None => format!("a tensor {dtype} {shape:?} cannot be stored"),
    }))
}
