//! The store: one handle on a zoo directory's durable state.

mod batch;
mod check;
mod commit;
mod read;
mod record;
mod stats;

pub use batch::Batch;
pub use check::{CheckReport, Damage};
pub use stats::StoreStats;

use crate::files::{io_error, sync_folder};
use crate::lock::WriterLock;
use crate::pack::{Appender, Packs};
use crate::rocks::{Db, Family, Write};
use crate::{
    Error, FORMAT_VERSION, Result, TensorId, TensorRecord, codec, dtype, failpoint, schema,
};
use record::{SYS_BACKBONE, SYS_FORMAT, SYS_NEXT_ROW, SYS_SEQUENCE};
use safetensors::Dtype;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

/// How a zoo is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The one writer process; takes the writer lock.
    Write,
    /// One of any number of readers.
    Read,
}

/// A tensor (or an opaque blob: dtype U8, one dimension) to be stored. Its id is `TensorId::of`.
pub struct NewTensor<'a> {
    /// Element type.
    pub dtype: Dtype,
    /// Shape.
    pub shape: &'a [usize],
    /// Little-endian, row-major.
    pub bytes: &'a [u8],
}

/// A handle on the durable state of one zoo directory; share it through an `Arc`.
pub struct Store {
    path: PathBuf,
    mode: Mode,
    backbone: [u8; 32],
    db: Db,
    packs: Packs,
    /// Tensors that are durable in a pack but that no commit has named yet.
    staged: RwLock<HashMap<TensorId, TensorRecord>>,
    next_row: AtomicU64,
    /// Taken for writing while a reader catches up, so that it does so only between operations.
    catching_up: RwLock<()>,
    /// Orders the writes; `None` in `Mode::Read`.
    writer: Option<Mutex<Writer>>,
    // Declared last, so that the lock outlives the database.
    _lock: Option<WriterLock>,
}

struct Writer {
    appender: Appender,
    sequence: u64,
    /// Why an earlier write failed, if one did.
    failed: Option<String>,
}

impl Store {
    /// Creates a zoo directory (which must not exist, or be empty) and opens it for writing.
    ///
    /// # Errors
    /// As `begin` and `finish`.
    pub fn create(path: &Path, backbone: [u8; 32]) -> Result<Self> {
        let store = Self::begin(path, backbone)?;
        store.finish()?;
        Ok(store)
    }

    /// Lays out a zoo that is no zoo to anybody else until `finish`: killed before that, what is
    /// there makes way for the next `begin`.
    ///
    /// # Errors
    /// `Error::AlreadyExists` when something else is there; nothing is touched then.
    /// `Error::Locked` while another process makes a zoo there. `Error::Io` or `Error::Rocks` when a
    /// file cannot be made.
    pub fn begin(path: &Path, backbone: [u8; 32]) -> Result<Self> {
        schema::require_vacant(path)?;
        fs::create_dir_all(path).map_err(io_error("cannot create", path))?;
        // Before the lock, so that whatever this process leaves is known to be ours.
        schema::mark_unfinished(path)?;
        let lock = WriterLock::take(path)?;
        // Another process may have been faster between the first look and the lock.
        schema::require_vacant(path)?;
        schema::clear_unfinished(path)?;
        match lay_out(path, backbone) {
            Ok(db) => Self::assemble(path, Mode::Write, db, Some(lock)),
            Err(error) => {
                // What cannot be removed now makes way for the next `begin`.
                let _ = schema::clear_unfinished(path);
                let _ = fs::remove_file(path.join(schema::LOCK));
                let _ = fs::remove_file(path.join(schema::UNFINISHED));
                Err(error)
            }
        }
    }

    /// Makes what `begin` laid out a zoo, with its records in table files instead of the log.
    ///
    /// # Errors
    /// `Error::Io` or `Error::Rocks` when a file cannot be written.
    pub fn finish(&self) -> Result<()> {
        self.db.flush()?;
        schema::write_marker(&self.path)?;
        match self.path.canonicalize().ok().as_deref().and_then(Path::parent) {
            Some(parent) => sync_folder(parent),
            None => Ok(()),
        }
    }

    /// Opens a zoo directory.
    ///
    /// # Errors
    /// `Error::NotAZoo` and `Error::NewerFormat`, which touch nothing; `Error::Locked` when another
    /// process writes; `Error::Corrupt`, `Error::Io` or `Error::Rocks` when it cannot be read.
    pub fn open(path: &Path, mode: Mode) -> Result<Self> {
        schema::read_marker(path)?;
        let database = path.join(schema::DATABASE);
        if !database.is_dir() {
            return Err(Error::Corrupt {
                file: schema::DATABASE.to_owned(),
                offset: "the folder".to_owned(),
                what: "expected the database of a zoo, found no such folder".to_owned(),
            });
        }
        match mode {
            Mode::Write => {
                let lock = WriterLock::take(path)?;
                Self::assemble(path, mode, Db::open(&database)?, Some(lock))
            }
            Mode::Read => Self::assemble(path, mode, Db::open_secondary(&database)?, None),
        }
    }

    /// The zoo directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How it was opened.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Fingerprint of the backbone fixed at creation.
    pub fn backbone(&self) -> [u8; 32] {
        self.backbone
    }

    /// In `Mode::Read`: catches up with the writer. In `Mode::Write`: does nothing. Iterators that
    /// were started before go on with what they saw.
    ///
    /// # Errors
    /// `Error::Rocks` or `Error::Corrupt` when the writer's newest files cannot be read.
    pub fn refresh(&self) -> Result<()> {
        let _between = self.catching_up.write().unwrap_or_else(PoisonError::into_inner);
        self.db.catch_up()
    }

    /// Appends tensors that are not stored yet to a pack and makes them durable; returns their ids
    /// in order. They stay unreferenced until a committed record names them; those that are not
    /// named before the store is closed are lost.
    ///
    /// # Errors
    /// `Error::Invalid` when the bytes do not fit dtype and shape; `Error::ReadOnly`;
    /// `Error::Poisoned` after an earlier failure; `Error::Io` when this one fails.
    pub fn put_tensors(&self, tensors: &[NewTensor<'_>]) -> Result<Vec<TensorId>> {
        tensors.iter().try_for_each(require_consistent)?;
        let ids: Vec<TensorId> = tensors
            .iter()
            .map(|tensor| TensorId::of(tensor.dtype, tensor.shape, tensor.bytes))
            .collect();
        let mut writer = self.writer()?;
        let mut seen = HashSet::new();
        let mut missing = Vec::new();
        for (id, tensor) in ids.iter().zip(tensors) {
            let stored =
                self.staged().contains_key(id) || self.db.get(Family::Tensor, &id.0)?.is_some();
            if !stored && seen.insert(*id) {
                missing.push((*id, tensor));
            }
        }
        let appended = append_all(&mut writer.appender, missing);
        let appended = writer.noting_failure(appended)?;
        self.staged.write().unwrap_or_else(PoisonError::into_inner).extend(appended);
        Ok(ids)
    }

    /// Reserves the next dense row id (persisted by the commit that uses it).
    ///
    /// # Errors
    /// `Error::ReadOnly`.
    pub fn next_row(&self) -> Result<u64> {
        match self.mode {
            Mode::Write => Ok(self.next_row.fetch_add(1, Ordering::Relaxed)),
            Mode::Read => Err(Error::ReadOnly),
        }
    }

    /// The commit point: one synced RocksDB write. Adjusts tensor references, appends to the op
    /// log, returns its newest sequence number. After an error nothing of the batch is stored,
    /// except that after a failed write only opening the zoo again can tell.
    ///
    /// # Errors
    /// `Error::Invalid` when a change contradicts what is stored (a name in use by another id, an
    /// accuracy outside 0..=1, a tensor, model, task or encoder that is missing, a record over
    /// 1 MB); `Error::ReadOnly`; `Error::Poisoned` after an earlier failure; `Error::Rocks` or
    /// `Error::Io` when the write fails.
    pub fn commit(&self, batch: Batch) -> Result<u64> {
        let mut writer = self.writer()?;
        let plan = commit::plan(&self.db, &self.staged(), writer.sequence, batch.changes)?;
        let commit::Plan { write, sequence, next_row, tensors } = plan;
        let written = self.write_between_steps(write);
        writer.noting_failure(written)?;
        writer.sequence = sequence;
        self.next_row.fetch_max(next_row, Ordering::Relaxed);
        let mut staged = self.staged.write().unwrap_or_else(PoisonError::into_inner);
        for id in tensors {
            staged.remove(&id);
        }
        Ok(sequence)
    }

    /// Where the engine keeps a derived file of a generation: `ZOO/segments/NAME`.
    pub fn segment_path(&self, name: &str) -> PathBuf {
        self.path.join(schema::SEGMENTS).join(name)
    }

    fn assemble(path: &Path, mode: Mode, db: Db, lock: Option<WriterLock>) -> Result<Self> {
        let version: u32 = record::require(&db, Family::Sys, SYS_FORMAT)?;
        if version > FORMAT_VERSION {
            return Err(Error::NewerFormat {
                path: path.to_owned(),
                found: version,
                supported: FORMAT_VERSION,
            });
        }
        let packs = path.join(schema::PACKS);
        let writer = match mode {
            Mode::Write => Some(Mutex::new(Writer {
                appender: Appender::open(&packs)?,
                sequence: record::require(&db, Family::Sys, SYS_SEQUENCE)?,
                failed: None,
            })),
            Mode::Read => None,
        };
        Ok(Self {
            path: path.to_owned(),
            mode,
            backbone: record::require(&db, Family::Sys, SYS_BACKBONE)?,
            next_row: AtomicU64::new(record::require(&db, Family::Sys, SYS_NEXT_ROW)?),
            db,
            packs: Packs::new(packs),
            staged: RwLock::default(),
            catching_up: RwLock::default(),
            writer,
            _lock: lock,
        })
    }

    /// Takes the write mutex; refuses when an earlier write failed.
    fn writer(&self) -> Result<MutexGuard<'_, Writer>> {
        let mutex = self.writer.as_ref().ok_or(Error::ReadOnly)?;
        let Ok(writer) = mutex.lock() else {
            return Err(Error::Poisoned { reason: "a thread panicked while writing".to_owned() });
        };
        // Checked under the mutex: checked before, a failure could still happen while waiting.
        match &writer.failed {
            Some(reason) => Err(Error::Poisoned { reason: reason.clone() }),
            None => Ok(writer),
        }
    }

    fn write_between_steps(&self, write: Write) -> Result<()> {
        let step = |name| failpoint::step(name).map_err(io_error("cannot write", &self.path));
        step("commit/write")?;
        self.db.write_synced(write)?;
        step("commit/written")
    }
}

impl Writer {
    /// Remembers a failure of a write, after which what is on disk is uncertain.
    fn noting_failure<T>(&mut self, result: Result<T>) -> Result<T> {
        if let Err(error) = &result {
            self.failed = Some(error.to_string());
        }
        result
    }
}

/// Makes the folders and the database of a new zoo.
fn lay_out(path: &Path, backbone: [u8; 32]) -> Result<Db> {
    for folder in [schema::PACKS, schema::SEGMENTS] {
        let folder = path.join(folder);
        fs::create_dir(&folder).map_err(io_error("cannot create", &folder))?;
    }
    let db = Db::create(&path.join(schema::DATABASE))?;
    let mut write = Write::default();
    let values = [
        (SYS_FORMAT, codec::encode(&FORMAT_VERSION)?),
        (SYS_BACKBONE, codec::encode(&backbone)?),
        (SYS_NEXT_ROW, codec::encode(&0u64)?),
        (SYS_SEQUENCE, codec::encode(&0u64)?),
    ];
    for (key, value) in values {
        write.entries.insert((Family::Sys, key.to_vec()), Some(value));
    }
    db.write_synced(write)?;
    Ok(db)
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

fn append_all(
    appender: &mut Appender,
    missing: Vec<(TensorId, &NewTensor<'_>)>,
) -> Result<Vec<(TensorId, TensorRecord)>> {
    let mut appended = Vec::with_capacity(missing.len());
    for (id, tensor) in missing {
        failpoint::step("put_tensors/write")
            .map_err(io_error("cannot write", Path::new(schema::PACKS)))?;
        appended.push((id, appender.append(tensor)?));
    }
    appender.sync()?;
    Ok(appended)
}
