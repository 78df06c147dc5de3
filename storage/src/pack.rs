//! Pack files: append-only files of tensor bytes, `packs/NNNNNN.pack`.
//!
//! A pack is a 64-byte header and then tensors, each at a multiple of 64 bytes with zeros between.
//! Which bytes are a tensor stands in the family `tensor` alone: whatever follows a crash beyond
//! the last committed tensor is dead, and appending goes on behind it.

use crate::files::{io_error, sync_folder};
use crate::map::{self, MappedTensor};
use crate::{Error, Result, TensorId, TensorRecord, dtype};
use crate::{failpoint, store::NewTensor};
use memmap2::Mmap;
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Every tensor starts at a multiple of this.
pub(crate) const ALIGNMENT: u64 = 64;

/// A pack that would grow beyond this is closed, and the tensor starts the next one.
const PACK_BYTES_MAX: u64 = 1 << 30;

const HEADER_BYTES: usize = 64;
const MAGIC: &[u8; 8] = b"TANSPACK";
const PACK_VERSION: u32 = 1;

/// The pack that is appended to.
pub(crate) struct Appender {
    folder: PathBuf,
    /// Number of the newest pack in the folder, 0 if there is none.
    newest: u32,
    open: Option<OpenPack>,
}

struct OpenPack {
    number: u32,
    path: PathBuf,
    file: File,
    /// Where the next tensor goes; aligned.
    end: u64,
    synced: bool,
}

impl Appender {
    /// Finds the place where the next tensor goes: behind the newest pack, whatever a crash left
    /// there, or in a new pack when the newest has no sound header.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        let newest = numbers(folder)?.into_iter().max().unwrap_or(0);
        let mut appender = Self { folder: folder.to_owned(), newest, open: None };
        if newest == 0 {
            return Ok(appender);
        }
        let path = pack_path(folder, newest);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(io_error("cannot open", &path))?;
        let bytes = file.metadata().map_err(io_error("cannot inspect", &path))?.len();
        // A header that a crash tore belongs to a pack without any committed tensor.
        if check_header(&path, &file, newest).is_ok() {
            let end = bytes.next_multiple_of(ALIGNMENT);
            appender.open = Some(OpenPack { number: newest, path, file, end, synced: true });
        }
        Ok(appender)
    }

    /// Appends one tensor without making it durable; returns its record, with no references.
    pub(crate) fn append(&mut self, tensor: &NewTensor<'_>) -> Result<TensorRecord> {
        let bytes = tensor.bytes.len() as u64;
        let full = |pack: &OpenPack| {
            pack.end > ALIGNMENT && pack.end.saturating_add(bytes) > PACK_BYTES_MAX
        };
        if self.open.as_ref().is_none_or(full) {
            self.sync()?;
            self.open = Some(self.start_pack()?);
        }
        let Some(pack) = self.open.as_mut() else {
            return Err(Error::Invalid("no pack is open".to_owned()));
        };
        // An empty tensor lies anywhere in the file; behind the end there may be no file yet.
        let offset = if bytes == 0 { ALIGNMENT } else { pack.end };
        pack.synced = false;
        pack.file
            .write_all_at(tensor.bytes, offset)
            .map_err(io_error("cannot write", &pack.path))?;
        pack.end = (pack.end + bytes).next_multiple_of(ALIGNMENT);
        Ok(TensorRecord {
            pack: pack.number,
            offset,
            dtype: tensor.dtype,
            shape: tensor.shape.iter().map(|dim| *dim as u64).collect(),
            references: 0,
        })
    }

    /// Makes all that was appended durable.
    pub(crate) fn sync(&mut self) -> Result<()> {
        match self.open.as_mut() {
            Some(pack) if !pack.synced => {
                failpoint::step("put_tensors/sync")
                    .and_then(|()| pack.file.sync_all())
                    .map_err(io_error("cannot sync", &pack.path))?;
                pack.synced = true;
                Ok(())
            }
            Some(_) | None => Ok(()),
        }
    }

    fn start_pack(&mut self) -> Result<OpenPack> {
        let Some(number) = self.newest.checked_add(1) else {
            return Err(Error::Invalid("no pack number is left".to_owned()));
        };
        let path = pack_path(&self.folder, number);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(io_error("cannot create", &path))?;
        self.newest = number;
        file.write_all_at(&header(number), 0).map_err(io_error("cannot write", &path))?;
        file.sync_all().map_err(io_error("cannot sync", &path))?;
        sync_folder(&self.folder)?;
        Ok(OpenPack { number, path, file, end: ALIGNMENT, synced: true })
    }
}

/// Memory maps of the packs, made when first needed and renewed when a pack has grown.
pub(crate) struct Packs {
    folder: PathBuf,
    maps: Mutex<HashMap<u32, MappedPack>>,
}

struct MappedPack {
    file: File,
    map: Arc<Mmap>,
}

impl Packs {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder, maps: Mutex::new(HashMap::new()) }
    }

    /// Maps the bytes of one tensor.
    ///
    /// # Errors
    /// `Error::Corrupt` when the pack is missing, has a bad header or ends before the tensor does,
    /// or when the record contradicts itself.
    pub(crate) fn tensor(&self, id: TensorId, record: &TensorRecord) -> Result<MappedTensor> {
        let TensorRecord { pack, offset, dtype, shape, references: _ } = record;
        let wrong = |what: String| Error::Corrupt {
            file: pack_name(*pack),
            offset: format!("byte {offset}"),
            what: format!("tensor {id}: {what}"),
        };
        let end = dtype::byte_len(*dtype, shape).and_then(|bytes| bytes.checked_add(*offset));
        let Some(end) = end else {
            return Err(wrong(format!("expected a possible shape, found {dtype} {shape:?}")));
        };
        if *offset < ALIGNMENT || offset % ALIGNMENT != 0 {
            return Err(wrong(format!("expected an offset at a multiple of {ALIGNMENT}")));
        }
        let map = self.map(*pack, end)?;
        if end > map.len() as u64 {
            return Err(wrong(format!("expected {end} bytes in the file, found {}", map.len())));
        }
        // Both ends fit usize, because they lie in a map; so do the dimensions, unless one is 0.
        let dims: Option<Vec<usize>> = shape.iter().map(|dim| usize::try_from(*dim).ok()).collect();
        dims.and_then(|dims| MappedTensor::new(*dtype, dims, map, *offset as usize..end as usize))
            .ok_or_else(|| wrong("expected a tensor that fits its dtype and shape".to_owned()))
    }

    /// The map of a pack, at least up to `end` if the file is that long.
    fn map(&self, number: u32, end: u64) -> Result<Arc<Mmap>> {
        let path = pack_path(&self.folder, number);
        let mut maps = self.maps.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mapped) = maps.get(&number) {
            let bytes = mapped.file.metadata().map_err(io_error("cannot inspect", &path))?.len();
            // A map that is longer than its file would kill the process when read.
            if end <= mapped.map.len() as u64 && mapped.map.len() as u64 <= bytes {
                return Ok(mapped.map.clone());
            }
        }
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(bad_header(&path, "found no such file".to_owned()));
            }
            Err(error) => return Err(io_error("cannot open", &path)(error)),
        };
        check_header(&path, &file, number)?;
        let map = map::map_file(&path, &file)?;
        maps.insert(number, MappedPack { file, map: map.clone() });
        Ok(map)
    }
}

/// Name of a pack relative to the zoo.
pub(crate) fn pack_name(number: u32) -> String {
    format!("packs/{number:06}.pack")
}

fn pack_path(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("{number:06}.pack"))
}

fn numbers(folder: &Path) -> Result<Vec<u32>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder).map_err(io_error("cannot list", folder))? {
        let entry = entry.map_err(io_error("cannot list", folder))?;
        let name = entry.file_name();
        let number: Option<u32> =
            name.to_str().and_then(|name| name.strip_suffix(".pack")?.parse().ok());
        numbers.extend(number);
    }
    Ok(numbers)
}

fn header(number: u32) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&PACK_VERSION.to_le_bytes());
    bytes[12..16].copy_from_slice(&number.to_le_bytes());
    let checksum = crc32c::crc32c(&bytes[..16]);
    bytes[16..20].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

fn check_header(path: &Path, file: &File, number: u32) -> Result<()> {
    let mut found = [0; HEADER_BYTES];
    match file.read_exact_at(&mut found, 0) {
        Ok(()) if found == header(number) => Ok(()),
        Ok(()) => Err(bad_header(path, format!("found {:02x?}", &found[..20]))),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            Err(bad_header(path, "found a shorter file".to_owned()))
        }
        Err(error) => Err(io_error("cannot read", path)(error)),
    }
}

fn bad_header(path: &Path, found: String) -> Error {
    Error::Corrupt {
        file: path.display().to_string(),
        offset: "byte 0".to_owned(),
        what: format!("expected the header of a pack of version {PACK_VERSION}, {found}"),
    }
}
