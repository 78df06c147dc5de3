//! Damage in RocksDB's log that RocksDB takes for its end.
//!
//! After a crash RocksDB replays its log up to the first record that is not whole, which is right for the end of a log
//! that was torn: nothing in it was acknowledged. Where a bit of an earlier record has flipped, commits that were
//! acknowledged are behind it, and would be gone without a word. Every commit therefore carries, in the batch that it is
//! in the log, how far the log was durable when it was written. Commits that are missing, and that a later one knows to
//! be durable, are damage.

use crate::rocks_log::{FIRST, FULL, HEADER, LAST, MIDDLE, block_end, piece};
use crate::{Error, Result, files::io_error};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// Sequence number (u64) and count (u32) before the entries of a batch.
const BATCH_HEADER: usize = 12;
/// An entry that goes to the log alone.
const LOG_DATA: u8 = 3;
/// Bytes of a batch that are looked at: the header and a first entry of kind, length and number.
const HEAD: usize = BATCH_HEADER + 2 + size_of::<u64>();

/// What a commit tells those that read the log: everything up to this sequence number is durable.
pub(crate) fn mark(synced: u64) -> [u8; 8] {
    synced.to_le_bytes()
}

/// Refuses logs that lack commits of which later ones know that they were durable.
///
/// # Errors
/// `Error::Corrupt` with the offset; `Error::Io`.
pub(crate) fn check(db: &Path) -> Result<()> {
    let logs = logs(db)?;
    let Some((log, offset)) = first_loss(&logs) else { return Ok(()) };
    Err(Error::Corrupt {
        file: format!("db/{}", logs[log].name),
        offset: offset.to_string(),
        what: format!(
            "expected a commit that was acknowledged, found other bytes: restore a backup, or cut the file to {offset} \
             bytes to go on without what was committed from there on"
        ),
    })
}

/// What an error of opening a log says where the last one ends with what a crash tore, which only a writer may drop.
pub(crate) fn explain(db: &Path, error: Error) -> Error {
    match error {
        Error::Corrupt { file, offset, what } => match torn_end(db) {
            Some((name, end)) => Error::Corrupt {
                file: format!("db/{name}"),
                offset: end.to_string(),
                what: format!(
                    "{what}: a crash tore the end of the log; open the zoo once for writing, which drops what was never acknowledged"
                ),
            },
            None => Error::Corrupt { file, offset, what },
        },
        other => other,
    }
}

/// Name of the newest log and the end of its last whole commit, if there is more.
fn torn_end(db: &Path) -> Option<(String, usize)> {
    let log = logs(db).ok()?.pop()?;
    let end = log.commits.last().map_or(0, |commit| commit.end);
    (end < log.len).then_some((log.name, end))
}

struct Log {
    name: String,
    commits: Vec<Commit>,
    len: usize,
}

/// A commit that is whole in the log.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Commit {
    /// Where it begins and ends.
    at: usize,
    end: usize,
    /// Its first sequence number, and the one behind its last.
    first: u64,
    next: u64,
    /// What it knows to be durable.
    synced: u64,
}

/// The logs by age.
fn logs(db: &Path) -> Result<Vec<Log>> {
    let mut numbers: Vec<u64> = fs::read_dir(db)
        .map_err(io_error("cannot list", db))?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_suffix(".log")?.parse().ok())
        .collect();
    numbers.sort_unstable();
    let mut logs = Vec::with_capacity(numbers.len());
    for number in numbers {
        let name = format!("{number:06}.log");
        let path = db.join(&name);
        match fs::read(&path) {
            Ok(bytes) => logs.push(Log { name, commits: commits(&bytes), len: bytes.len() }),
            // The writer has just moved it into tables.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(io_error("cannot read", &path)(error)),
        }
    }
    Ok(logs)
}

/// All commits that are whole, also those behind damage.
fn commits(bytes: &[u8]) -> Vec<Commit> {
    let mut found = Vec::new();
    // Beginning and first bytes of the record whose pieces are being read.
    let mut open: Option<(usize, Vec<u8>)> = None;
    let mut at = 0;
    while at < bytes.len() {
        let block_end = block_end(bytes, at);
        if block_end - at < HEADER {
            at = block_end;
            continue;
        }
        let Some((kind, payload)) = piece(bytes, at) else {
            open = None;
            at += 1;
            continue;
        };
        let end = at + HEADER + payload.len();
        open = match kind {
            FULL | FIRST => Some((at, Vec::with_capacity(HEAD))),
            MIDDLE | LAST => open,
            _ => None,
        };
        if let Some((_, head)) = &mut open {
            head.extend(payload.iter().take(HEAD - head.len()));
        }
        if matches!(kind, FULL | LAST) {
            found.extend(open.take().and_then(|(at, head)| commit(at, end, &head)));
        }
        at = end;
    }
    found
}

fn commit(at: usize, end: usize, head: &[u8]) -> Option<Commit> {
    let number = |from: usize| -> Option<u64> {
        Some(u64::from_le_bytes(head.get(from..from + 8)?.try_into().ok()?))
    };
    let first = number(0)?;
    let count = u32::from_le_bytes(head.get(8..BATCH_HEADER)?.try_into().ok()?);
    let is_marked = head.get(BATCH_HEADER..BATCH_HEADER + 2) == Some(&[LOG_DATA, 8]);
    let synced = if is_marked { number(BATCH_HEADER + 2)? } else { 0 };
    Some(Commit { at, end, first, next: first.saturating_add(u64::from(count)), synced })
}

/// Log and offset of the first missing commit that a later one knows to be durable.
fn first_loss(logs: &[Log]) -> Option<(usize, usize)> {
    let mut expected = None;
    let mut index = 0;
    // Where the last commit ended: what is missing was written there.
    let mut end = (0, 0);
    while index < logs.len() {
        let gap = logs[index].commits.iter().position(|commit| {
            let is_gap = match expected {
                Some(expected) => commit.first > expected && !is_new_log(logs, end, index),
                None => commit.at > 0 || logs[..index].iter().any(|log| log.len > 0),
            };
            if !is_gap {
                (expected, end) = (Some(commit.next), (index, commit.end));
            }
            is_gap
        });
        let Some(place) = gap else {
            index += 1;
            continue;
        };
        let behind = &logs[index].commits[place..];
        let missing = expected.unwrap_or_else(|| behind[0].first.saturating_sub(1));
        // RocksDB has noticed it before and gone on from there, so that it was the end of the log.
        let resumed = (index + 1..logs.len())
            .find(|&later| logs[later].commits.first().is_some_and(|it| it.first <= missing));
        let last = resumed.unwrap_or(logs.len());
        let later = logs[index + 1..last].iter().flat_map(|log| &log.commits);
        if behind.iter().chain(later).any(|commit| commit.synced >= missing) {
            return Some(end);
        }
        (expected, index) = (Some(missing), last);
    }
    None
}

/// Whether a commit of `index` follows a log that ends with its last commit: a log between the two was deleted.
fn is_new_log(logs: &[Log], (last, end): (usize, usize), index: usize) -> bool {
    last != index && (last..index).all(|log| logs[log].len == if log == last { end } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rocks_log::written;

    /// A batch of `count` entries, marked, as long as asked for.
    fn batch(first: u64, count: u32, synced: u64, len: usize) -> Vec<u8> {
        let mut bytes = [&first.to_le_bytes()[..], &count.to_le_bytes(), &[LOG_DATA, 8]].concat();
        bytes.extend(mark(synced));
        bytes.resize(HEAD + len, 7);
        bytes
    }

    /// Five commits of two entries; each knows that the one before the last was durable.
    fn batches(len: usize) -> Vec<Vec<u8>> {
        (0..5_u64).map(|at| batch(10 + 2 * at, 2, (9 + 2 * at).saturating_sub(2), len)).collect()
    }

    fn of(records: &[Vec<u8>]) -> Vec<u8> {
        written(&records.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }

    fn loss(files: &[&[u8]]) -> Option<(usize, usize)> {
        let log =
            |bytes: &&[u8]| Log { name: String::new(), commits: commits(bytes), len: bytes.len() };
        first_loss(&files.iter().map(log).collect::<Vec<_>>())
    }

    #[test]
    fn every_flipped_bit_of_what_was_acknowledged_is_found() {
        let bytes = of(&batches(20));
        assert_eq!(commits(&bytes).len(), 5);
        assert_eq!(loss(&[&bytes]), None);
        let record = bytes.len() / 5;
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            // The last commit knows of all but itself and the one before it.
            let at = bit / 8 / record;
            assert_eq!(loss(&[&flipped]), (at < 3).then_some((0, at * record)), "bit {bit}");
        }
    }

    #[test]
    fn a_torn_end_is_let_through_wherever_it_is() {
        let bytes = of(&batches(40_000));
        assert_eq!(loss(&[&bytes]), None);
        for end in (0..bytes.len()).step_by(997) {
            assert_eq!(loss(&[&bytes[..end]]), None, "cut to {end}");
            let lengthened = [&bytes[..end], &vec![0; 50_000][..]].concat();
            assert_eq!(loss(&[&lengthened]), None, "cut to {end}, with zeros");
        }
        // Of the last two, which nobody knows to be durable, any page may be missing.
        let unsynced = of(&batches(40_000)[..3]).len();
        for page in (unsynced..bytes.len()).step_by(4096) {
            let mut torn = bytes.clone();
            let end = (page + 4096).min(bytes.len());
            torn[page..end].fill(0);
            assert_eq!(loss(&[&torn]), None, "page {page}");
        }
    }

    #[test]
    fn damage_is_found_across_logs_and_a_new_start_is_none() {
        let [one, two, three, four, five] = batches(30).try_into().expect("five");
        let older = of(&[one.clone(), two.clone()]);
        let newer = of(&[three.clone(), four, five]);
        assert_eq!(loss(&[&older, &newer]), None);
        let mut flipped = older.clone();
        let last = older.len() - 1;
        flipped[last] ^= 1;
        assert_eq!(loss(&[&flipped, &newer]), Some((0, older.len() / 2)));
        assert_eq!(loss(&[&[9; 40], &newer]), Some((0, 0)));
        // Torn, noticed and gone on from: the new log begins with what was missing.
        let again = of(&[batch(12, 2, 11, 30), batch(14, 2, 13, 30)]);
        assert_eq!(loss(&[&flipped, &again]), None);
        // A log between the two was moved into tables.
        assert_eq!(loss(&[&of(&[one]), &newer]), None);
        // Commits of earlier versions know nothing.
        let mut unmarked = vec![batch(10, 2, 0, 30), two, three];
        unmarked.iter_mut().for_each(|batch| batch[BATCH_HEADER] = 1);
        let mut flipped = of(&unmarked);
        flipped[30] ^= 1;
        assert_eq!(loss(&[&flipped]), None);
    }
}
