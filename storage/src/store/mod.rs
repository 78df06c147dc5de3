//! The store: one handle on a zoo directory's durable state.

mod backup;
mod batch;
mod check;
mod commit;
mod gc;
mod read;
mod record;
mod restore;
mod stats;

pub use batch::Batch;
pub use check::{CheckReport, Damage};
pub use gc::GcReport;
pub use restore::RestoreReport;
pub use stats::StoreStats;

use crate::codec::Bytes;
use crate::files::{io_error, sync_folder};
use crate::lock::WriterLock;
use crate::pack::{Appender, INLINE_BYTES_END};
use crate::packs::Packs;
use crate::readers::Registration;
use crate::records::{Place, TensorRecord};
use crate::rocks::{Db, Family, Write};
use crate::{Error, FORMAT_VERSION, Result, TensorId, codec, dtype, failpoint, schema};
use batch::Change;
use record::{SYS_BACKBONE, SYS_FORMAT, SYS_NEXT_ROW, SYS_SEQUENCE};
use safetensors::Dtype;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
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
    /// Tensors that `put_tensors` has answered for and that no commit has named since. Collecting
    /// leaves them alone.
    staged: RwLock<HashMap<TensorId, TensorRecord>>,
    next_row: AtomicU64,
    /// Taken for writing while a reader catches up, so that it does so only between operations.
    catching_up: RwLock<()>,
    /// Commits that wait for a thread to write them.
    queue: Mutex<Queue>,
    /// Orders the writes; `None` in `Mode::Read`.
    writer: Option<Mutex<Writer>>,
    /// Held by what must not meet another of its kind: collecting and backing up.
    maintenance: Mutex<()>,
    /// Tells the writer's process what a reader has seen; `None` in a writer, and where the zoo
    /// cannot be written to.
    registration: Option<Registration>,
    // Declared last, so that the lock outlives the database.
    _lock: Option<WriterLock>,
}

struct Writer {
    appender: Appender,
    sequence: u64,
    /// Why an earlier write failed, if one did.
    failed: Option<String>,
}

/// Commits that wait. While one thread writes, the others wait for its answer; when it is done, it
/// makes the first that came meanwhile the next writer of all that came.
#[derive(Default)]
struct Queue {
    pending: Vec<Pending>,
    /// Whether a thread writes, or has been told to.
    led: bool,
}

/// A commit that waits to be written, and where its answer goes.
struct Pending {
    changes: Vec<Change>,
    answer: Sender<Answer>,
}

enum Answer {
    /// The commit is written, or refused.
    Done(Result<u64>),
    /// Write what is in the queue.
    Lead,
}

/// Passes the lead on when it is dropped, also by a panic.
struct Lead<'a>(&'a Store);

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        let mut queue = self.0.queue();
        let next = queue.pending.first();
        queue.led = next.is_some_and(|next| next.answer.send(Answer::Lead).is_ok());
    }
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
        step("create/unfinished", path)?;
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
        step("create/flushed", &self.path)?;
        schema::write_marker(&self.path, FORMAT_VERSION)?;
        step("create/marked", &self.path)?;
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
                let step = |name| failpoint::step(name).map_err(io_error("cannot open", path));
                step("open/locked")?;
                let db = Db::open(&database)?;
                step("open/database")?;
                Self::assemble(path, mode, db, Some(lock))
            }
            Mode::Read => {
                // Registered before the database is read: what it names then is not deleted.
                let registration = Registration::new(path);
                let mut store = Self::assemble(path, mode, Db::open_secondary(&database)?, None)?;
                if let Some(registration) = &registration {
                    registration.pass(store.db.position())?;
                }
                store.registration = registration;
                Ok(store)
            }
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
        if self.mode == Mode::Write || self.db.is_current() {
            return Ok(());
        }
        let _between = self.catching_up.write().unwrap_or_else(PoisonError::into_inner);
        self.db.catch_up()?;
        self.packs.forget_deleted();
        match &self.registration {
            Some(registration) => registration.pass(self.db.position()),
            None => Ok(()),
        }
    }

    /// Stores tensors that are not stored yet, or are damaged; returns their ids in order. They become durable with
    /// the commit that names them; those that no commit names before the store is closed are lost.
    ///
    /// # Errors
    /// `Error::Invalid` when the bytes do not fit dtype and shape; `Error::ReadOnly`;
    /// `Error::Poisoned` after an earlier failed sync; `Error::Io` when a write fails, after which
    /// it may be tried again.
    pub fn put_tensors(&self, tensors: &[NewTensor<'_>]) -> Result<Vec<TensorId>> {
        tensors.iter().try_for_each(require_consistent)?;
        let ids: Vec<TensorId> = tensors
            .iter()
            .map(|tensor| TensorId::of(tensor.dtype, tensor.shape, tensor.bytes))
            .collect();
        let mut writer = self.writer()?;
        for (id, tensor) in ids.iter().zip(tensors) {
            if self.staged().contains_key(id) {
                continue;
            }
            let stored = record::get::<TensorRecord>(&self.db, Family::Tensor, &id.0)?;
            // One whose bytes are damaged is stored anew, which mends all that name it.
            let record = match stored.filter(|stored| self.packs.proven(*id, stored).is_ok()) {
                Some(sound) => sound,
                None => writer.store(tensor)?,
            };
            self.staged.write().unwrap_or_else(PoisonError::into_inner).insert(*id, record);
        }
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
    /// log, returns its newest sequence number. Commits of several threads that wait for each other
    /// share one write. After an error nothing of the batch is stored, except that after a failed
    /// write only opening the zoo again can tell.
    ///
    /// # Errors
    /// `Error::Invalid` when a change contradicts what is stored (a name in use by another id, an
    /// accuracy outside 0..=1, a tensor, model, task or encoder that is missing, a record over
    /// 1 MB); `Error::ReadOnly`; `Error::Poisoned` after an earlier failure; `Error::Rocks` or
    /// `Error::Io` when the write fails.
    pub fn commit(&self, batch: Batch) -> Result<u64> {
        if self.mode == Mode::Read {
            return Err(Error::ReadOnly);
        }
        let lost = || Error::Poisoned { reason: "another thread's write failed".to_owned() };
        let (answer, answers) = mpsc::channel();
        let leads = {
            let mut queue = self.queue();
            queue.pending.push(Pending { changes: batch.changes, answer });
            !std::mem::replace(&mut queue.led, true)
        };
        if !leads {
            match answers.recv() {
                Ok(Answer::Done(result)) => return result,
                Ok(Answer::Lead) => {}
                Err(_) => return Err(lost()),
            }
        }
        let lead = Lead(self);
        let writer = self.writer();
        // Without a writer nobody will write these either; their threads see the sender go.
        let group = std::mem::take(&mut self.queue().pending);
        self.commit_group(&mut *writer?, group)?;
        drop(lead);
        match answers.recv() {
            Ok(Answer::Done(result)) => result,
            Ok(Answer::Lead) | Err(_) => Err(lost()),
        }
    }

    /// Where the engine keeps a derived file of a generation: `ZOO/segments/NAME`.
    pub fn segment_path(&self, name: &str) -> PathBuf {
        self.path.join(schema::SEGMENTS).join(name)
    }

    /// Plans each commit of a group on top of those before it, writes them as one, and answers.
    fn commit_group(&self, writer: &mut Writer, group: Vec<Pending>) -> Result<()> {
        let mut planner = match commit::Planner::new(&self.db, writer.sequence) {
            Ok(planner) => planner,
            Err(error) => return Err(refuse_all(group.into_iter().map(|it| it.answer), error)),
        };
        let mut accepted = Vec::with_capacity(group.len());
        for Pending { changes, answer } in group {
            // A caller that has gone away needs no answer.
            match planner.plan(&self.staged(), changes) {
                Ok(sequence) => accepted.push((answer, sequence)),
                Err(refusal) => drop(answer.send(Answer::Done(Err(refusal)))),
            }
        }
        let commit::Plan { write, sequence, next_row, tensors } = match planner.finish() {
            Ok(plan) => plan,
            Err(error) => return Err(refuse_all(accepted.into_iter().map(|(it, _)| it), error)),
        };
        self.step("commit/planned")?;
        if !write.is_empty() {
            self.write(writer, write)?;
        }
        writer.sequence = sequence;
        self.next_row.fetch_max(next_row, Ordering::Relaxed);
        let mut staged = self.staged.write().unwrap_or_else(PoisonError::into_inner);
        tensors.iter().for_each(|id| drop(staged.remove(id)));
        drop(staged);
        self.step("commit/unanswered")?;
        accepted
            .into_iter()
            .for_each(|(answer, sequence)| drop(answer.send(Answer::Done(Ok(sequence)))));
        Ok(())
    }

    /// Makes all that was appended to packs durable, and then the records that name it.
    fn write(&self, writer: &mut Writer, write: Write) -> Result<()> {
        let written = writer
            .appender
            .sync()
            .and_then(|()| self.step("commit/write"))
            .and_then(|()| self.db.write_synced(write))
            .and_then(|()| self.step("commit/written"));
        writer.noting_failure(written)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
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
            queue: Mutex::default(),
            writer,
            maintenance: Mutex::default(),
            registration: None,
            _lock: lock,
        })
    }

    /// Takes the write mutex; refuses when an earlier write failed.
    fn writer(&self) -> Result<MutexGuard<'_, Writer>> {
        let Ok(writer) = self.writer.as_ref().ok_or(Error::ReadOnly)?.lock() else {
            return Err(Error::Poisoned { reason: "a thread panicked while writing".to_owned() });
        };
        // Asked under the mutex: asked before, a failure could still happen while waiting.
        match &writer.failed {
            Some(reason) => Err(Error::Poisoned { reason: reason.clone() }),
            None => Ok(writer),
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // With the log moved into tables the next opening has nothing to replay, and every byte
        // that counts has a checksum that does not forgive. The log holds all of it if this fails.
        if let Some(Ok(writer)) = self.writer.as_mut().map(Mutex::get_mut)
            && writer.failed.is_none()
        {
            let _ = failpoint::step("close/flush")
                .map_err(io_error("cannot write", &self.path))
                .and_then(|()| self.db.flush());
            let _ = failpoint::step("close/flushed");
        }
    }
}

impl Writer {
    /// Puts a tensor where it belongs by its size; nothing names it yet.
    fn store(&mut self, tensor: &NewTensor<'_>) -> Result<TensorRecord> {
        let place = if tensor.bytes.len() < INLINE_BYTES_END {
            Place::Inline(Bytes(tensor.bytes.to_vec()))
        } else {
            self.append(tensor.bytes)?
        };
        let shape = tensor.shape.iter().map(|dim| *dim as u64).collect();
        Ok(TensorRecord { place, dtype: tensor.dtype, shape, references: 0 })
    }

    /// Appends to the open pack. A failed write leaves nothing behind that counts; a failed sync
    /// leaves doubts.
    fn append(&mut self, bytes: &[u8]) -> Result<Place> {
        let appended = self.appender.append(bytes);
        self.failed = self.failed.take().or_else(|| self.appender.failed_sync().map(str::to_owned));
        appended
    }

    /// Closes the open pack, so that it never changes again.
    fn seal(&mut self) -> Result<()> {
        let sealed = self.appender.seal();
        self.failed = self.failed.take().or_else(|| self.appender.failed_sync().map(str::to_owned));
        sealed
    }

    /// Remembers a failure of a write, after which what is on disk is uncertain.
    fn noting_failure<T>(&mut self, result: Result<T>) -> Result<T> {
        if let Err(error) = &result {
            self.failed = Some(error.to_string());
        }
        result
    }
}

/// Tells all of a group why nothing of it is written. Nothing is in doubt, so the store goes on.
fn refuse_all(group: impl Iterator<Item = Sender<Answer>>, error: Error) -> Error {
    for answer in group {
        let refusal = Error::Invalid(format!("the commits of this moment were refused: {error}"));
        // A caller that has gone away needs no answer.
        let _ = answer.send(Answer::Done(Err(refusal)));
    }
    error
}

/// Makes the folders and the database of a new zoo.
fn lay_out(path: &Path, backbone: [u8; 32]) -> Result<Db> {
    step("create/locked", path)?;
    for folder in [schema::PACKS, schema::SEGMENTS, schema::READERS] {
        let folder = path.join(folder);
        fs::create_dir(&folder).map_err(io_error("cannot create", &folder))?;
    }
    step("create/folders", path)?;
    let db = Db::create(&path.join(schema::DATABASE))?;
    step("create/database", path)?;
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
    step("create/records", path)?;
    Ok(db)
}

fn step(name: &'static str, zoo: &Path) -> Result<()> {
    failpoint::step(name).map_err(io_error("cannot create", zoo))
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
