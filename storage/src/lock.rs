//! The writer lock: `flock` on our own file. RocksDB's own lock is an fcntl lock, which drops when
//! the same process closes another handle, and its refusal is plain text.

use crate::files::io_error;
use crate::owner::Owner;
use crate::{Error, Result, schema};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Holds the writer lock of a zoo until it is dropped or the process dies.
pub(crate) struct WriterLock {
    file: File,
    owner: Owner,
}

impl WriterLock {
    /// Takes the lock without waiting and writes the holder into the file.
    ///
    /// # Errors
    /// `Error::Locked` with the holder, or `Error::Io`.
    pub(crate) fn take(zoo: &Path) -> Result<Self> {
        let path = zoo.join(schema::LOCK);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(io_error("cannot open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Locked { path: zoo.to_owned(), holder: holder(&mut file) });
            }
            Err(TryLockError::Error(error)) => return Err(io_error("cannot lock", &path)(error)),
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(introduction().as_bytes()))
            .map_err(io_error("cannot write", &path))?;
        Ok(Self { file, owner: Owner::this() })
    }
}

impl Drop for WriterLock {
    fn drop(&mut self) {
        if !self.owner.is_this() {
            return;
        }
        // A stale name in the file misleads nobody, because only a held lock is ever reported; and
        // closing the file releases the lock even when unlocking fails.
        let _ = self.file.set_len(0);
        let _ = self.file.unlock();
    }
}

/// What the holder wrote, on one line.
fn holder(file: &mut File) -> String {
    let mut bytes = Vec::new();
    // The text only explains the refusal, so an unreadable one is no reason to fail differently.
    let _ = file.take(512).read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes);
    let words: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if words.is_empty() {
        return "another process".to_owned();
    }
    words.join(", ").chars().filter(|c| !c.is_control()).collect()
}

fn introduction() -> String {
    let command = std::env::args_os().next().unwrap_or_default();
    let command = Path::new(&command)
        .file_name()
        .map_or_else(|| "unknown".to_owned(), |name| name.to_string_lossy().into_owned());
    let started = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |past| past.as_secs());
    format!("process {}\ncommand {command}\nsince {} UTC\n", std::process::id(), utc(started))
}

/// `2026-11-25 01:02:03`, by the proleptic Gregorian calendar.
fn utc(unix_s: u64) -> String {
    let (mut days, seconds) = (unix_s / 86_400, unix_s % 86_400);
    let mut year = 1970;
    let leap = |year: u64| {
        (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400)
    };
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while days >= lengths[month] {
        days -= lengths[month];
        month += 1;
    }
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year}-{:02}-{:02} {hour:02}:{minute:02}:{second:02}", month + 1, days + 1)
}
