//! Readers say in `readers/` how far they have read, so that the writer deletes no file that they
//! still look for: one file for each open reader, locked by it as long as it lives.

use crate::files::{self, io_error};
use crate::owner::Owner;
use crate::{Result, schema};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Digits of a position in a file; a fixed number, so that writing one replaces the one before.
const DIGITS: usize = 20;

/// A reader's file; removed when dropped.
pub(crate) struct Registration {
    path: PathBuf,
    file: File,
    owner: Owner,
    /// What the file says.
    passed: Mutex<u64>,
}

impl Registration {
    /// Registers a reader that has read nothing yet; `None` where the zoo cannot be written to, or
    /// its disk is full, which is no reason not to read it.
    pub(crate) fn new(zoo: &Path) -> Option<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let folder = zoo.join(schema::READERS);
        // The folder is there unless somebody copied the zoo without its empty folders.
        let _ = std::fs::create_dir(&folder);
        loop {
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = folder.join(format!("{}-{count}", std::process::id()));
            match register(&path) {
                Ok(Some(file)) => {
                    let (owner, passed) = (Owner::this(), Mutex::new(0));
                    return Some(Self { path, file, owner, passed });
                }
                // Taken by a reader with our process id on another machine, or removed as left
                // behind in the moment before it was locked.
                Ok(None) => {}
                Err(_) => return None,
            }
        }
    }

    /// Says that everything up to `position` has been read.
    pub(crate) fn pass(&self, position: u64) -> Result<()> {
        let mut passed = self.passed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if *passed == position {
            return Ok(());
        }
        let text = self::position(position);
        self.file.write_all_at(text.as_bytes(), 0).map_err(io_error("cannot write", &self.path))?;
        *passed = position;
        Ok(())
    }
}

fn position(position: u64) -> String {
    format!("{position:0DIGITS$}\n")
}

impl Drop for Registration {
    fn drop(&mut self) {
        // Left behind it is unlocked and means nothing.
        if self.owner.is_this() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn register(path: &Path) -> io::Result<Option<File>> {
    let file = match OpenOptions::new().read(true).write(true).create_new(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
        Err(error) => return Err(error),
    };
    file.lock()?;
    let still_there = file.metadata()?.nlink() > 0;
    // Takes its room on the disk now: later positions go into the same place.
    if let Err(error) = file.write_all_at(position(0).as_bytes(), 0) {
        let _ = std::fs::remove_file(path);
        return Err(error);
    }
    Ok(still_there.then_some(file))
}

/// The position that every living reader has passed, `None` without readers; removes the files that
/// readers left when they were killed.
///
/// # Errors
/// `Error::Io` when the folder cannot be read.
pub(crate) fn passed_by_all(zoo: &Path) -> Result<Option<u64>> {
    let folder = zoo.join(schema::READERS);
    let mut least = None;
    for name in files::names(&folder)? {
        let path = folder.join(name);
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(io_error("cannot open", &path)(error)),
        };
        if file.try_lock().is_ok() {
            files::remove_file(&path)?;
            continue;
        }
        let mut text = [0; DIGITS];
        // A reader that has not written its first position yet has passed nothing.
        let position = match file.read_exact_at(&mut text, 0) {
            Ok(()) => std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok()),
            Err(_) => None,
        };
        let position = position.unwrap_or(0);
        least = Some(least.map_or(position, |least: u64| least.min(position)));
    }
    Ok(least)
}
