//! Pack files: append-only files of tensor bytes, `packs/NNNNNN.pack`.
//!
//! A pack is a 64-byte header and then tensors, each at a multiple of 64 bytes with zeros between.
//! Which bytes are a tensor stands in the family `tensor` alone: whatever follows a crash beyond
//! the last committed tensor is dead, and appending goes on behind it. A number is never used again,
//! because the newest pack is never deleted.

use crate::files::{self, io_error, sync_folder};
use crate::records::Place;
use crate::syncs::Syncs;
use crate::{Error, Result, failpoint};
use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Every tensor starts at a multiple of this.
pub(crate) const ALIGNMENT: u64 = 64;

/// Smaller tensors lie in their records: in a pack they would cost an fsync and padding.
pub(crate) const INLINE_BYTES_END: usize = 4096;

/// A pack that would grow beyond this is closed, and the tensor starts the next one.
const PACK_BYTES_MAX: u64 = 1 << 30;

pub(crate) const HEADER_BYTES: usize = 64;
const MAGIC: &[u8; 8] = b"TANSPACK";
const PACK_VERSION: u32 = 1;

/// The pack that is appended to.
pub(crate) struct Appender {
    folder: PathBuf,
    /// Number of the newest pack in the folder, 0 if there is none.
    newest: u32,
    open: Option<Arc<OpenPack>>,
    /// Why a sync failed, if one did.
    failed_sync: Option<String>,
}

/// A pack that one thread at a time appends to, and that many make durable together.
pub(crate) struct OpenPack {
    number: u32,
    path: PathBuf,
    file: File,
    /// Where the next tensor goes; aligned.
    end: AtomicU64,
    synced: Syncs,
}

impl OpenPack {
    fn new(number: u32, path: PathBuf, file: File, end: u64) -> Arc<Self> {
        let (synced, end) = (Syncs::new(end), AtomicU64::new(end));
        Arc::new(Self { number, path, file, end, synced })
    }

    /// Where the next tensor goes.
    pub(crate) fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    /// Returns when everything before `end` is durable.
    ///
    /// # Errors
    /// `Error::Io` when the sync fails; `Error::Poisoned` for all that waited for it, and later.
    pub(crate) fn sync_to(&self, end: u64) -> Result<()> {
        let step = |name| failpoint::step(name).map_err(io_error("cannot sync", &self.path));
        let sync = || {
            step("pack/sync")?;
            files::sync(&self.path, &self.file)?;
            step("pack/synced")
        };
        self.synced.reach(end, || self.end(), sync)
    }
}

impl Appender {
    /// Finds the place where the next tensor goes: behind the newest pack, whatever a crash left
    /// there, or in a new pack when the newest has no sound header.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        let newest = numbers(folder)?.into_iter().max().unwrap_or(0);
        let mut appender =
            Self { folder: folder.to_owned(), newest, open: None, failed_sync: None };
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
            appender.open = Some(OpenPack::new(newest, path, file, end));
        }
        Ok(appender)
    }

    /// Number of the newest pack; packs below it are never appended to.
    pub(crate) fn newest(&self) -> u32 {
        self.newest
    }

    /// The open pack; those before it are durable.
    pub(crate) fn open_pack(&self) -> Option<&Arc<OpenPack>> {
        self.open.as_ref()
    }

    /// Appends the bytes of one tensor without making them durable.
    ///
    /// # Errors
    /// `Error::Io`; the bytes are then as good as never written, and the next ones take their place.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<Place> {
        let length = bytes.len() as u64;
        let full = |pack: &Arc<OpenPack>| {
            pack.end() > ALIGNMENT && pack.end().saturating_add(length) > PACK_BYTES_MAX
        };
        if self.open.as_ref().is_none_or(full) {
            self.start_next()?;
        }
        let Some(pack) = &self.open else {
            return Err(Error::Invalid("no pack is open".to_owned()));
        };
        let offset = pack.end();
        files::write_at(&pack.path, &pack.file, bytes, offset)?;
        pack.end.store((offset + length).next_multiple_of(ALIGNMENT), Ordering::Release);
        Ok(Place::Pack { pack: pack.number, offset })
    }

    /// Makes a tensor durable that was appended at this place.
    ///
    /// # Errors
    /// As `OpenPack::sync_to`.
    pub(crate) fn sync_place(&self, place: &Place) -> Result<()> {
        match (place, &self.open) {
            // The tensor begins before the end that its bytes were synced to.
            (Place::Pack { pack, offset }, Some(open)) if *pack == open.number => {
                open.sync_to(offset + 1)
            }
            (Place::Pack { .. } | Place::Inline(_), _) => Ok(()),
        }
    }

    /// Makes all that was appended durable.
    ///
    /// # Errors
    /// As `OpenPack::sync_to`.
    pub(crate) fn sync(&mut self) -> Result<()> {
        let Some(pack) = &self.open else { return Ok(()) };
        let synced = pack.sync_to(pack.end());
        if let Err(error) = &synced {
            self.failed_sync = Some(error.to_string());
        }
        synced
    }

    /// Why a sync failed, if one did: then what was appended before it is uncertain.
    pub(crate) fn failed_sync(&self) -> Option<&str> {
        self.failed_sync.as_deref()
    }

    /// Closes the newest pack, so that it never changes again, unless it holds nothing.
    pub(crate) fn seal(&mut self) -> Result<()> {
        let holds_something =
            self.open.as_ref().map_or(self.newest > 0, |pack| pack.end() > ALIGNMENT);
        if holds_something { self.start_next() } else { Ok(()) }
    }

    fn start_next(&mut self) -> Result<()> {
        self.sync()?;
        let Some(number) = self.newest.checked_add(1) else {
            return Err(Error::Invalid("no pack number is left".to_owned()));
        };
        let path = pack_path(&self.folder, number);
        let step = |name| failpoint::step(name).map_err(io_error("cannot create", &path));
        step("pack/create")?;
        let file = files::create_new(&path)?;
        self.newest = number;
        self.open = None;
        step("pack/created")?;
        files::write_at(&path, &file, &header(number, random_id()), 0)?;
        files::sync(&path, &file)?;
        sync_folder(&self.folder)?;
        step("pack/started")?;
        self.open = Some(OpenPack::new(number, path, file, ALIGNMENT));
        Ok(())
    }
}

/// Name of a pack relative to the zoo.
pub(crate) fn pack_name(number: u32) -> String {
    format!("packs/{number:06}.pack")
}

/// The number in a `pack_name`; `None` for any other path.
pub(crate) fn number_in(name: &str) -> Option<u32> {
    number_of(name.strip_prefix("packs/")?)
}

fn number_of(file: &str) -> Option<u32> {
    file.strip_suffix(".pack")?.parse().ok()
}

pub(crate) fn pack_path(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("{number:06}.pack"))
}

/// Numbers of the packs in a folder, ascending.
pub(crate) fn numbers(folder: &Path) -> Result<Vec<u32>> {
    let names = files::names(folder)?;
    let mut numbers: Vec<u32> = names.iter().filter_map(|name| number_of(name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

fn header(number: u32, id: [u8; 16]) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&PACK_VERSION.to_le_bytes());
    bytes[12..16].copy_from_slice(&number.to_le_bytes());
    bytes[16..32].copy_from_slice(&id);
    let checksum = crc32c::crc32c(&bytes[..32]);
    bytes[32..36].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// Tells packs with equal numbers of two copies of a zoo apart.
fn random_id() -> [u8; 16] {
    let mut id = [0; 16];
    for half in id.chunks_exact_mut(8) {
        // The keys of a fresh `RandomState` are random, and so is the hash of nothing under them.
        half.copy_from_slice(&RandomState::new().build_hasher().finish().to_le_bytes());
    }
    id
}

/// Proves the header of a pack.
pub(crate) fn check_header(path: &Path, file: &File, number: u32) -> Result<()> {
    let mut found = [0; HEADER_BYTES];
    match file.read_exact_at(&mut found, 0) {
        Ok(()) => {
            let mut id = [0; 16];
            id.copy_from_slice(&found[16..32]);
            if found == header(number, id) {
                return Ok(());
            }
            Err(bad_header(path, format!("found {:02x?}", &found[..36])))
        }
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            Err(bad_header(path, "found a shorter file".to_owned()))
        }
        Err(error) => Err(io_error("cannot read", path)(error)),
    }
}

pub(crate) fn bad_header(path: &Path, found: String) -> Error {
    Error::Corrupt {
        file: path.display().to_string(),
        offset: "byte 0".to_owned(),
        what: format!("expected the header of a pack of version {PACK_VERSION}, {found}"),
    }
}
