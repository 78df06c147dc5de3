//! The store: one handle on a zoo directory's durable state.

mod backup;
mod batch;
mod check;
mod commit;
mod gc;
mod read;
mod record;
mod restore;
mod staging;
mod stats;
mod write;

pub use batch::Batch;
pub use check::{CheckReport, Damage};
pub use gc::GcReport;
pub use restore::RestoreReport;
pub use staging::{HashedTensor, NewTensor, Staging};
pub use stats::StoreStats;

use crate::files::{self, io_error, sync_folder};
use crate::lock::WriterLock;
use crate::owner::Owner;
use crate::pack::Appender;
use crate::packs::Packs;
use crate::readers::Registration;
use crate::rocks::{Db, Family, Write};
use crate::syncs::Syncs;
use crate::{Error, FORMAT_VERSION, Result, codec, failpoint, schema};
use record::{SYS_BACKBONE, SYS_FORMAT, SYS_NEXT_ROW, SYS_SEQUENCE};
use staging::Staged;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError, RwLock};

/// How a zoo is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The one writer process; takes the writer lock.
    Write,
    /// One of any number of readers.
    Read,
}

/// A handle on the durable state of one zoo directory; share it through an `Arc`.
pub struct Store {
    path: PathBuf,
    mode: Mode,
    backbone: [u8; 32],
    db: Db,
    packs: Packs,
    staged: RwLock<Staged>,
    next_row: AtomicU64,
    /// Taken for writing while a reader catches up, so that it does so only between operations.
    catching_up: RwLock<()>,
    /// Orders the writes; `None` in `Mode::Read`.
    writer: Option<Mutex<Writer>>,
    /// By the database's position.
    synced: Syncs,
    /// Why an earlier write or sync failed, if one did.
    failed: OnceLock<String>,
    owner: Owner,
    /// Held by what must not meet another of its kind: collecting and backing up.
    maintenance: Mutex<()>,
    /// Tells the writer's process what a reader has seen; `None` in a writer, and where the zoo
    /// cannot be written to.
    registration: Option<Registration>,
    // Declared last, so that the lock outlives the database.
    lock: Option<WriterLock>,
}

struct Writer {
    appender: Appender,
    sequence: u64,
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
        files::create_folders(path)?;
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
                schema::remove_unfinished(path);
                Err(error)
            }
        }
    }

    /// Removes what `begin` laid out, and nothing else: the directory stays, and what cannot be removed makes way for the
    /// next `begin`.
    pub fn abandon(mut self) {
        let lock = self.lock.take();
        let path = std::mem::take(&mut self.path);
        drop(self);
        schema::remove_unfinished(&path);
        drop(lock);
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
        let database = database(path)?;
        match mode {
            Mode::Write => Self::open_locked(path, WriterLock::take(path)?),
            Mode::Read => {
                // Registered before the database is read: what it names then is not deleted.
                let registration = Registration::new(path);
                let mut store = Self::assemble(path, mode, Db::open_secondary(&database)?, None)?;
                store.registration = registration;
                store.tell_position();
                Ok(store)
            }
        }
    }

    /// Opens a zoo for writing whose lock is held.
    pub(crate) fn open_locked(path: &Path, lock: WriterLock) -> Result<Self> {
        let step = |name| failpoint::step(name).map_err(io_error("cannot open", path));
        step("open/locked")?;
        let db = Db::open(&database(path)?)?;
        step("open/database")?;
        Self::assemble(path, Mode::Write, db, Some(lock))
    }

    /// Lets the collector know how far this reader is. Where it cannot be written (a full disk), an earlier position
    /// stays, and what that names is kept.
    fn tell_position(&self) {
        if let Some(registration) = &self.registration {
            let _ = registration.pass(self.db.position());
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
        if self.mode == Mode::Write {
            return Ok(());
        }
        self.owner.require()?;
        if !self.db.is_current() {
            let _between = self.catching_up.write().unwrap_or_else(PoisonError::into_inner);
            self.db.catch_up()?;
        }
        self.packs.forget_deleted();
        self.tell_position();
        Ok(())
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
            synced: Syncs::default(),
            failed: OnceLock::new(),
            owner: Owner::this(),
            maintenance: Mutex::default(),
            registration: None,
            lock,
        })
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // With the log moved into tables the next opening has nothing to replay, and every byte
        // that counts has a checksum that does not forgive. The log holds all of it if this fails.
        if self.writer.as_ref().is_some_and(|writer| !writer.is_poisoned())
            && self.failed.get().is_none()
            && self.owner.is_this()
        {
            let _ = failpoint::step("close/flush")
                .map_err(io_error("cannot write", &self.path))
                .and_then(|()| self.db.flush());
            let _ = failpoint::step("close/flushed");
        }
    }
}

/// Where the database of a zoo is.
fn database(path: &Path) -> Result<PathBuf> {
    let database = path.join(schema::DATABASE);
    if database.is_dir() {
        return Ok(database);
    }
    Err(Error::Corrupt {
        file: schema::DATABASE.to_owned(),
        offset: "the folder".to_owned(),
        what: "expected the database of a zoo, found no such folder".to_owned(),
    })
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
    db.write(write, 0)?;
    db.sync()?;
    step("create/records", path)?;
    Ok(db)
}

fn step(name: &'static str, zoo: &Path) -> Result<()> {
    failpoint::step(name).map_err(io_error("cannot create", zoo))
}
