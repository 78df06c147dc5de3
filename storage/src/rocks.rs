//! The only file that speaks RocksDB: opening, reading, iterating, the one write and the one sync.

use crate::owner::Owner;
use crate::{Error, Result, files::io_error, keys, rocks_manifest, rocks_wal};
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompressionType, DBWithThreadMode,
    Direction, ErrorKind, FlushOptions, IteratorMode, LogLevel, MultiThreaded, Options,
    ReadOptions, WriteBatch, WriteOptions,
};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Memory for cached blocks; an embedded library stays modest.
const BLOCK_CACHE_BYTES: usize = 32 << 20;
/// Memory for writes that are not in a table file yet, over all families.
const WRITE_BUFFERS_BYTES: usize = 32 << 20;
const WRITE_BUFFER_BYTES: usize = 8 << 20;
const WAL_BYTES_MAX: u64 = 64 << 20;

/// Numbers of the system errors that a disk gives rise to, the same on all platforms that we build
/// for: EIO, ENOSPC, EMFILE, ENFILE, EDQUOT, EROFS, EACCES, EFBIG and ENOENT.
const OS_ERRORS: [i32; 9] = [5, 28, 24, 23, 122, 30, 13, 27, ENOENT];
const ENOENT: i32 = 2;

/// How often a secondary reads what a writer is replacing, with growing pauses between: a second in all.
const TRIES: u32 = 20;
/// Open files of a database that is only asked for its tables' names: it opens none that it need not.
const LISTING_OPEN_FILES: i32 = 1;

/// A column family. All of them exist from the creation of a zoo on, because a reader does not see
/// families that are created later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    Model,
    Name,
    Task,
    Pair,
    Signature,
    Embedding,
    Encoder,
    Tensor,
    Oplog,
    Job,
    Sys,
}

impl Family {
    pub(crate) const ALL: [Self; 11] = [
        Self::Model,
        Self::Name,
        Self::Task,
        Self::Pair,
        Self::Signature,
        Self::Embedding,
        Self::Encoder,
        Self::Tensor,
        Self::Oplog,
        Self::Job,
        Self::Sys,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Name => "name",
            Self::Task => "task",
            Self::Pair => "pair",
            Self::Signature => "signature",
            Self::Embedding => "embedding",
            Self::Encoder => "encoder",
            Self::Tensor => "tensor",
            Self::Oplog => "oplog",
            Self::Job => "job",
            Self::Sys => "sys",
        }
    }
}

/// Key and value as stored.
pub(crate) type Entry = (Box<[u8]>, Box<[u8]>);

/// Puts (`Some`) and deletes (`None`) by family and key, and prefixes to delete before them.
#[derive(Clone, Default)]
pub(crate) struct Write {
    pub(crate) cleared: Vec<(Family, Vec<u8>)>,
    pub(crate) entries: BTreeMap<(Family, Vec<u8>), Option<Vec<u8>>>,
}

impl Write {
    /// Whether there is nothing to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.cleared.is_empty() && self.entries.is_empty()
    }
}

type Rocks = DBWithThreadMode<MultiThreaded>;
/// Name and size.
type WriterFile = (OsString, u64);

/// An open database, as its writer or as a secondary.
pub(crate) struct Db {
    inner: Arc<Rocks>,
    owner: Owner,
    // Declared after the database, so that the folder goes only when nobody writes to it any more.
    secondary: Option<Secondary>,
}

/// What a database that follows a writer knows of it.
struct Secondary {
    // Kept for its end, which removes it.
    _folder: SecondaryFolder,
    /// The writer's folder.
    primary: PathBuf,
    /// The writer's files when it was last caught up with.
    seen: Mutex<Option<Vec<WriterFile>>>,
}

impl Drop for Db {
    fn drop(&mut self) {
        if !self.owner.is_this() {
            // Closing it would wait for threads that are not there.
            std::mem::forget(Arc::clone(&self.inner));
        }
    }
}

impl Db {
    fn new(inner: Rocks, secondary: Option<Secondary>) -> Self {
        Self { inner: Arc::new(inner), owner: Owner::this(), secondary }
    }

    /// Creates the database with all families.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let mut options = options();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_error_if_exists(true);
        Self::open_primary(&options, path)
    }

    /// Opens the database for writing.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        rocks_manifest::check(path)?;
        rocks_wal::check(path)?;
        Self::open_primary(&options(), path)
    }

    /// Opens the database for reading beside a writer.
    pub(crate) fn open_secondary(path: &Path) -> Result<Self> {
        let (db, files) = attempted(path, || Self::follow(path))
            .map_err(|error| rocks_wal::explain(path, error))?;
        let is_settled = is_same_set(files.as_deref(), writer_files(path).as_deref());
        let present = tables(&db.inner)?;
        if is_settled && listed_tables(path).is_ok_and(|listed| listed == present) {
            db.saw(files);
            return Ok(db);
        }
        let ((), files) = settled(path, || {
            db.inner.try_catch_up_with_primary().map_err(failure)?;
            if tables(&db.inner)? == listed_tables(path)? {
                return Ok(());
            }
            open_read_only(&reading(), path)?;
            Err(Error::Rocks("table files were left out; try again".to_owned()))
        })?;
        db.saw(files);
        Ok(db)
    }

    fn follow(path: &Path) -> Result<Self> {
        rocks_manifest::check(path)?;
        rocks_wal::check(path)?;
        let folder = SecondaryFolder::create()?;
        let inner = Rocks::open_cf_descriptors_as_secondary(
            &reading(),
            path,
            folder.path.as_path(),
            descriptors(),
        )
        .map_err(failure)?;
        let secondary =
            Secondary { _folder: folder, primary: path.to_owned(), seen: Mutex::default() };
        Ok(Self::new(inner, Some(secondary)))
    }

    fn open_primary(options: &Options, path: &Path) -> Result<Self> {
        let inner =
            DBWithThreadMode::open_cf_descriptors(options, path, descriptors()).map_err(failure)?;
        Ok(Self::new(inner, None))
    }

    /// Whether nothing was written since a secondary caught up. Far cheaper than catching up, for which RocksDB reads its
    /// manifest and log each time.
    pub(crate) fn is_current(&self) -> bool {
        let Some(secondary) = &self.secondary else { return true };
        let seen = secondary.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.is_some() && *seen == writer_files(&secondary.primary)
    }

    /// Brings a secondary up to the writer's last commit; does nothing on a writer.
    pub(crate) fn catch_up(&self) -> Result<()> {
        let Some(secondary) = &self.secondary else { return Ok(()) };
        let read = || self.inner.try_catch_up_with_primary().map_err(failure);
        let ((), files) = settled(&secondary.primary, read)?;
        self.saw(files);
        Ok(())
    }

    /// Notes the writer's files as they were before a secondary read them.
    fn saw(&self, files: Option<Vec<WriterFile>>) {
        if let Some(secondary) = &self.secondary {
            *secondary.seen.lock().unwrap_or_else(PoisonError::into_inner) = files;
        }
    }

    /// Grows with every write. A secondary stands where the writer stood when it caught up.
    pub(crate) fn position(&self) -> u64 {
        self.inner.latest_sequence_number()
    }

    /// Moves the log into table files.
    pub(crate) fn flush(&self) -> Result<()> {
        let handles = Family::ALL.iter().map(|family| self.handle(*family));
        let handles: Vec<_> = handles.collect::<Result<_>>()?;
        let handles: Vec<&_> = handles.iter().collect();
        self.inner.flush_cfs_opt(&handles, &FlushOptions::default()).map_err(failure)
    }

    /// Makes a copy of the database as it is now in a new folder, with hard links to its table files
    /// where the file system is the same.
    pub(crate) fn checkpoint(&self, folder: &Path) -> Result<()> {
        let checkpoint = Checkpoint::new(&self.inner).map_err(failure)?;
        checkpoint.create_checkpoint(folder).map_err(failure)
    }

    pub(crate) fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.inner.get_cf(&self.handle(family)?, key).map_err(failure)
    }

    /// Entries whose key starts with `prefix`, by ascending key, from `from` on. It sees the
    /// database as it is now, whatever is committed or caught up with later.
    pub(crate) fn scan<'a>(
        &'a self,
        family: Family,
        prefix: &[u8],
        from: &[u8],
    ) -> Result<impl Iterator<Item = Result<Entry>> + use<'a>> {
        let mut options = ReadOptions::default();
        if let Some(end) = keys::after(prefix) {
            options.set_iterate_upper_bound(end);
        }
        let start = if from > prefix { from } else { prefix };
        let mode = IteratorMode::From(start, Direction::Forward);
        let iterator = self.inner.iterator_cf_opt(&self.handle(family)?, options, mode);
        Ok(iterator.map(|entry| entry.map_err(failure)))
    }

    /// Last key of a family.
    pub(crate) fn last_key(&self, family: Family) -> Result<Option<Box<[u8]>>> {
        let mut iterator = self.inner.iterator_cf(&self.handle(family)?, IteratorMode::End);
        match iterator.next() {
            None => Ok(None),
            Some(entry) => entry.map(|(key, _)| Some(key)).map_err(failure),
        }
    }

    /// Writes everything, or nothing: behind all that was written before, and durable after `sync`. `synced`: the
    /// position up to which everything is durable already.
    pub(crate) fn write(&self, write: Write, synced: u64) -> Result<()> {
        let Write { cleared, entries } = write;
        let mut batch = WriteBatch::default();
        batch.put_log_data(rocks_wal::mark(synced));
        for (family, prefix) in cleared {
            let handle = self.handle(family)?;
            match keys::after(&prefix) {
                Some(end) => batch.delete_range_cf(&handle, prefix, end),
                None => self.delete_each(family, &prefix, &mut batch)?,
            }
        }
        for ((family, key), value) in entries {
            let handle = self.handle(family)?;
            match value {
                Some(value) => batch.put_cf(&handle, key, value),
                None => batch.delete_cf(&handle, key),
            }
        }
        self.inner.write_opt(batch, &WriteOptions::default()).map_err(failure)
    }

    /// Returns when everything that was written before the call is durable.
    pub(crate) fn sync(&self) -> Result<()> {
        self.inner.flush_wal(true).map_err(failure)
    }

    /// Deletes a prefix after which no key can follow, for which a range has no end.
    fn delete_each(&self, family: Family, prefix: &[u8], batch: &mut WriteBatch) -> Result<()> {
        let handle = self.handle(family)?;
        for entry in self.scan(family, prefix, prefix)? {
            batch.delete_cf(&handle, entry?.0);
        }
        Ok(())
    }

    fn handle(&self, family: Family) -> Result<std::sync::Arc<rocksdb::BoundColumnFamily<'_>>> {
        self.inner
            .cf_handle(family.name())
            .ok_or_else(|| Error::Rocks(format!("column family {} is missing", family.name())))
    }
}

/// Names and sizes of what grows or changes its name with every write: the log and the manifest. `None` where they
/// cannot be listed.
fn writer_files(db: &Path) -> Option<Vec<WriterFile>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(db).ok()? {
        let entry = entry.ok()?;
        let name = entry.file_name();
        let text = name.to_string_lossy();
        if text.ends_with(".log") || text.starts_with("MANIFEST-") {
            // One that has just gone makes another list.
            files.push((name, entry.metadata().map_or(u64::MAX, |metadata| metadata.len())));
        }
    }
    files.sort_unstable();
    Some(files)
}

/// What is read while the writer replaces no file, and the files from before it was read: what is written from there on
/// makes them other files.
///
/// RocksDB reads the manifest, then lists the logs, then reads those. What the writer flushes and deletes meanwhile it
/// finds in neither, and says nothing.
fn settled<T>(
    db: &Path,
    mut read: impl FnMut() -> Result<T>,
) -> Result<(T, Option<Vec<WriterFile>>)> {
    for turn in 0..TRIES {
        let (found, before) = attempted(db, &mut read)?;
        if is_same_set(before.as_deref(), writer_files(db).as_deref()) {
            return Ok((found, before));
        }
        std::thread::sleep(pause(turn));
    }
    Err(Error::Rocks(
        "the writer replaces its files faster than this reader follows; try again".to_owned(),
    ))
}

/// The same, whether or not the writer replaced files meanwhile; an error counts only if it did not, because it may be of
/// a file that has just gone.
fn attempted<T>(
    db: &Path,
    mut read: impl FnMut() -> Result<T>,
) -> Result<(T, Option<Vec<WriterFile>>)> {
    let mut turn = 0;
    loop {
        let before = writer_files(db);
        match read() {
            Ok(found) => return Ok((found, before)),
            Err(error) => {
                let is_final = is_same_set(before.as_deref(), writer_files(db).as_deref());
                if is_final || turn == TRIES {
                    return Err(error);
                }
            }
        }
        std::thread::sleep(pause(turn));
        turn += 1;
    }
}

fn pause(turn: u32) -> Duration {
    Duration::from_millis(1 << turn.min(6))
}

/// Whether no log came or went, and nothing was added to the manifest. Logs may have grown.
fn is_same_set(before: Option<&[WriterFile]>, after: Option<&[WriterFile]>) -> bool {
    let (Some(before), Some(after)) = (before, after) else { return before.is_none() };
    let fixed = |files: &[WriterFile]| -> Vec<WriterFile> {
        let is_log = |name: &OsString| name.to_string_lossy().ends_with(".log");
        files
            .iter()
            .map(|(name, size)| (name.clone(), if is_log(name) { 0 } else { *size }))
            .collect()
    };
    fixed(before) == fixed(after)
}

/// Names of the table files that the manifest has, without opening more than a few of them. A secondary silently leaves
/// out those that it cannot open, and with them all that they hold.
fn listed_tables(path: &Path) -> Result<BTreeSet<String>> {
    let mut options = options();
    options.set_max_open_files(LISTING_OPEN_FILES);
    tables(&open_read_only(&options, path)?)
}

fn tables(db: &Rocks) -> Result<BTreeSet<String>> {
    let files = db.live_files().map_err(failure)?;
    Ok(files.into_iter().map(|file| file.name).collect())
}

fn open_read_only(options: &Options, path: &Path) -> Result<Rocks> {
    Rocks::open_cf_descriptors_read_only(options, path, descriptors(), false).map_err(failure)
}

/// Name of every reader's private folder, before its process and number.
const READER_PREFIX: &str = "tans-reader-";
/// A folder that is made at this moment may not be locked yet.
const YOUNG: Duration = Duration::from_secs(60);

/// Private folder of a secondary, in which RocksDB keeps its log; removed when dropped.
struct SecondaryFolder {
    path: PathBuf,
    /// Locked as long as the reader lives, so that others know a folder that was left behind.
    _held: fs::File,
    owner: Owner,
}

impl SecondaryFolder {
    fn create() -> Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let parent = std::env::temp_dir();
        remove_left_behind(&parent);
        loop {
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = parent.join(format!("{READER_PREFIX}{}-{count}", std::process::id()));
            match fs::create_dir(&path) {
                Ok(()) => {
                    let held = fs::File::open(&path).map_err(io_error("cannot open", &path))?;
                    held.lock_shared().map_err(io_error("cannot lock", &path))?;
                    return Ok(Self { path, _held: held, owner: Owner::this() });
                }
                // Left by a reader that was killed and had our process id.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(io_error("cannot create", &path)(error)),
            }
        }
    }
}

/// Removes the folders of readers that were killed.
fn remove_left_behind(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.filter_map(std::result::Result::ok) {
        if !entry.file_name().to_string_lossy().starts_with(READER_PREFIX) {
            continue;
        }
        let path = entry.path();
        let modified = entry.metadata().and_then(|metadata| metadata.modified()).ok();
        let is_old = modified.and_then(|time| time.elapsed().ok()).is_some_and(|age| age > YOUNG);
        // Another user's folder cannot be opened and stays.
        let is_free = || fs::File::open(&path).is_ok_and(|folder| folder.try_lock().is_ok());
        if is_old && is_free() {
            let _ = fs::remove_dir_all(&path);
        }
    }
}

impl Drop for SecondaryFolder {
    fn drop(&mut self) {
        // A later reader removes it if this fails.
        if self.owner.is_this() {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Options of a reader.
fn reading() -> Options {
    let mut options = options();
    // With fewer, a table file that the writer has compacted away could not be opened again.
    options.set_max_open_files(-1);
    options
}

fn options() -> Options {
    let mut options = Options::default();
    options.set_db_write_buffer_size(WRITE_BUFFERS_BYTES);
    options.set_max_total_wal_size(WAL_BYTES_MAX);
    options.set_max_background_jobs(2);
    options.set_max_open_files(256);
    options.set_log_level(LogLevel::Fatal);
    options.set_keep_log_file_num(1);
    options.set_stats_dump_period_sec(0);
    options
}

fn descriptors() -> Vec<ColumnFamilyDescriptor> {
    let cache = Cache::new_lru_cache(BLOCK_CACHE_BYTES);
    Family::ALL
        .iter()
        .map(|family| ColumnFamilyDescriptor::new(family.name(), family_options(*family, &cache)))
        .collect()
}

fn family_options(family: Family, cache: &Cache) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_bloom_filter(10.0, false);
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_size(WRITE_BUFFER_BYTES);
    options.set_max_write_buffer_number(2);
    let (upper, lowest) = match family {
        // Half floats, floats and hashes do not compress.
        Family::Signature | Family::Embedding => (DBCompressionType::None, DBCompressionType::None),
        Family::Model
        | Family::Name
        | Family::Task
        | Family::Pair
        | Family::Encoder
        | Family::Tensor
        | Family::Oplog
        | Family::Job
        | Family::Sys => (DBCompressionType::Lz4, DBCompressionType::Zstd),
    };
    options.set_compression_type(upper);
    options.set_bottommost_compression_type(lowest);
    options
}

fn failure(error: rocksdb::Error) -> Error {
    match error.kind() {
        ErrorKind::Corruption => Error::Corrupt {
            file: "db".to_owned(),
            offset: "an unknown place".to_owned(),
            what: error.into_string(),
        },
        ErrorKind::IOError => io_failure(error.into_string()),
        ErrorKind::NotFound
        | ErrorKind::NotSupported
        | ErrorKind::InvalidArgument
        | ErrorKind::MergeInProgress
        | ErrorKind::Incomplete
        | ErrorKind::ShutdownInProgress
        | ErrorKind::TimedOut
        | ErrorKind::Aborted
        | ErrorKind::Busy
        | ErrorKind::Expired
        | ErrorKind::TryAgain
        | ErrorKind::CompactionTooLarge
        | ErrorKind::ColumnFamilyDropped
        | ErrorKind::Unknown => Error::Rocks(error.into_string()),
    }
}

/// RocksDB keeps of a failed system call the words of the operating system, which lead back to its
/// number, and often the path.
fn io_failure(text: String) -> Error {
    let number = OS_ERRORS.into_iter().find(|number| {
        let words = std::io::Error::from_raw_os_error(*number).to_string();
        words.split(" (os error").next().is_some_and(|words| text.contains(words))
    });
    // A table that is not there is missing from the truth; nothing else may delete it.
    let table = text.contains(".sst");
    match number {
        Some(ENOENT) if table => {
            let offset = "the file".to_owned();
            Error::Corrupt { file: "db".to_owned(), offset, what: text }
        }
        Some(number) => Error::Io {
            action: "rocksdb cannot use",
            path: path_in(&text),
            source: std::io::Error::from_raw_os_error(number),
        },
        None => Error::Rocks(text),
    }
}

fn path_in(text: &str) -> PathBuf {
    let part = text.split(": ").find(|part| part.contains('/'));
    let path = part.map(|part| match part.find('/') {
        // What was done comes before the path, or stands in a part of its own.
        Some(slash) if part.starts_with("While ") => {
            part[..slash].rfind(' ').map_or(part, |space| &part[space + 1..])
        }
        Some(_) | None => part,
    });
    PathBuf::from(path.unwrap_or("db"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_a_failure_is_whole() {
        let texts = [
            "IO error: No space left on device: While appending to file: small/z/db/MANIFEST-000028: No space left on device",
            "IO error: No such file or directory: While open a file for random read: small/z/db/000012.sst: No such file",
            "IO error: While mkdir if missing small/z/db: Permission denied",
            "IO error: While lock file: /my zoos/z/db/LOCK: Resource temporarily unavailable",
            "Corruption: nothing is named",
        ];
        let paths = [
            "small/z/db/MANIFEST-000028",
            "small/z/db/000012.sst",
            "small/z/db",
            "/my zoos/z/db/LOCK",
            "db",
        ];
        for (text, path) in texts.into_iter().zip(paths) {
            assert_eq!(path_in(text), PathBuf::from(path), "{text}");
        }
    }
}
