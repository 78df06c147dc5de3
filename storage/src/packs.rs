//! Reading tensors out of packs: memory maps, made when first needed.

use crate::files::{self, io_error};
use crate::map::{self, MappedTensor};
use crate::pack::{self, ALIGNMENT, bad_header, pack_name, pack_path};
use crate::records::{Place, TensorRecord};
use crate::{Error, Result, TensorId, dtype};
use memmap2::Mmap;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Places that are remembered as proven; beyond this number all are proven anew.
const PROVEN_MAX: usize = 1 << 20;

/// Memory maps of the packs, made when first needed and renewed when a pack has grown.
pub(crate) struct Packs {
    folder: PathBuf,
    maps: Mutex<HashMap<u32, MappedPack>>,
    /// Places whose bytes were found to have their hash.
    proven: Mutex<HashSet<(u32, u64)>>,
}

/// No descriptor is kept: a large zoo has more packs than a process may have open files.
struct MappedPack {
    /// Device and number of the file.
    file: (u64, u64),
    map: Arc<Mmap>,
}

impl Packs {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder, maps: Mutex::default(), proven: Mutex::default() }
    }

    /// The folder of the pack files.
    pub(crate) fn folder(&self) -> &std::path::Path {
        &self.folder
    }

    /// A tensor whose bytes have the hash that is its id; they are hashed the first time that this
    /// process reads them.
    ///
    /// # Errors
    /// As `unproven`; `Error::Corrupt` when the hash is another one.
    pub(crate) fn proven(&self, id: TensorId, record: &TensorRecord) -> Result<MappedTensor> {
        let tensor = self.unproven(id, record)?;
        let Place::Pack { pack, offset } = record.place else {
            // The checksum of the record has proven it.
            return Ok(tensor);
        };
        if locked(&self.proven).contains(&(pack, offset)) {
            return Ok(tensor);
        }
        prove(id, &tensor, (pack, offset))?;
        let mut proven = locked(&self.proven);
        if proven.len() >= PROVEN_MAX {
            proven.clear();
        }
        proven.insert((pack, offset));
        Ok(tensor)
    }

    /// The same, hashed now whatever was found before: what is copied must not have rotted meanwhile.
    ///
    /// # Errors
    /// As `proven`.
    pub(crate) fn proven_now(&self, id: TensorId, record: &TensorRecord) -> Result<MappedTensor> {
        let tensor = self.unproven(id, record)?;
        if let Place::Pack { pack, offset } = record.place {
            prove(id, &tensor, (pack, offset))?;
        }
        Ok(tensor)
    }

    /// Maps the bytes of one tensor.
    ///
    /// # Errors
    /// `Error::Corrupt` when the pack is missing or ends before the tensor does, or when the record contradicts itself.
    pub(crate) fn unproven(&self, id: TensorId, record: &TensorRecord) -> Result<MappedTensor> {
        let TensorRecord { place, dtype, shape, references: _ } = record;
        let dims: Option<Vec<usize>> = shape.iter().map(|dim| usize::try_from(*dim).ok()).collect();
        let (pack, offset) = match place {
            Place::Pack { pack, offset } => (*pack, *offset),
            Place::Inline(bytes) => {
                let tensor = dims.and_then(|dims| MappedTensor::in_memory(*dtype, dims, &bytes.0));
                return tensor.ok_or_else(|| Error::Corrupt {
                    file: "db/tensor".to_owned(),
                    offset: format!("key {id}"),
                    what: format!("expected bytes that fit {dtype} {shape:?}"),
                });
            }
        };
        let wrong = |what: String| Error::Corrupt {
            file: pack_name(pack),
            offset: format!("byte {offset}"),
            what: format!("tensor {id}: {what}"),
        };
        let end = dtype::byte_len(*dtype, shape).and_then(|bytes| bytes.checked_add(offset));
        let Some(end) = end else {
            return Err(wrong(format!("expected a possible shape, found {dtype} {shape:?}")));
        };
        if offset < ALIGNMENT || offset % ALIGNMENT != 0 {
            return Err(wrong(format!("expected an offset at a multiple of {ALIGNMENT}")));
        }
        let map = self.map(pack, end)?;
        if end > map.len() as u64 {
            return Err(wrong(format!("expected {end} bytes in the file, found {}", map.len())));
        }
        // Both ends fit usize, because they lie in a map; so do the dimensions, unless one is 0.
        dims.and_then(|dims| MappedTensor::new(*dtype, dims, map, offset as usize..end as usize))
            .ok_or_else(|| wrong("expected a tensor that fits its dtype and shape".to_owned()))
    }

    /// Length of a pack.
    ///
    /// # Errors
    /// `Error::Corrupt` when it is missing.
    pub(crate) fn bytes(&self, number: u32) -> Result<u64> {
        let path = pack_path(&self.folder, number);
        Ok(open(&path)?.metadata().map_err(io_error("cannot inspect", &path))?.len())
    }

    /// Proves the header of a pack, which nothing that is read from it needs: tensors have hashes.
    ///
    /// # Errors
    /// `Error::Corrupt` when it is missing or another one.
    pub(crate) fn check_header(&self, number: u32) -> Result<()> {
        let path = pack_path(&self.folder, number);
        pack::check_header(&path, &open(&path)?, number)
    }

    /// Whether a pack is there; one that was collected is not.
    pub(crate) fn exists(&self, number: u32) -> bool {
        pack_path(&self.folder, number).exists()
    }

    /// Lets go of packs that were deleted, so that the disk gets their space back when the last
    /// tensor in use is dropped.
    pub(crate) fn forget_deleted(&self) {
        locked(&self.maps).retain(|&number, mapped| {
            let now = pack_path(&self.folder, number).metadata();
            now.is_ok_and(|now| (now.dev(), now.ino()) == mapped.file)
        });
    }

    /// The map of a pack, at least up to `end` if the file is that long.
    fn map(&self, number: u32, end: u64) -> Result<Arc<Mmap>> {
        let path = pack_path(&self.folder, number);
        let mut maps = locked(&self.maps);
        if let Some(mapped) = maps.get(&number) {
            // A map that is longer than its file would kill the process when read. One of a file that is gone is whole.
            let bytes = match path.metadata() {
                Ok(now) if (now.dev(), now.ino()) == mapped.file => Some(now.len()),
                Ok(_) => None,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Some(u64::MAX),
                Err(error) => return Err(io_error("cannot inspect", &path)(error)),
            };
            let is_whole = bytes.is_some_and(|bytes| mapped.map.len() as u64 <= bytes);
            if end <= mapped.map.len() as u64 && is_whole {
                return Ok(mapped.map.clone());
            }
        }
        let file = open(&path)?;
        let map = map::map_file(&path, &file)?;
        let metadata = file.metadata().map_err(io_error("cannot inspect", &path))?;
        maps.insert(
            number,
            MappedPack { file: (metadata.dev(), metadata.ino()), map: map.clone() },
        );
        Ok(map)
    }
}

fn prove(id: TensorId, tensor: &MappedTensor, (pack, offset): (u32, u64)) -> Result<()> {
    let found = TensorId::of(tensor.dtype(), tensor.shape(), tensor.bytes());
    if found == id {
        return Ok(());
    }
    Err(Error::Corrupt {
        file: pack_name(pack),
        offset: format!("byte {offset}"),
        what: format!("expected a tensor with hash {id}, found {found}"),
    })
}

fn open(pack: &Path) -> Result<File> {
    files::open(pack).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => bad_header(pack, "found no such file".to_owned()),
        _ => io_error("cannot open", pack)(error),
    })
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
