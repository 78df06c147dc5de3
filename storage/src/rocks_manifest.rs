//! Damage in RocksDB's manifest that RocksDB takes for the end of the file.
//!
//! A piece of a record that seems to reach beyond the end of the file is one that a crash tore, and RocksDB goes on with
//! what stands before it. Where a flipped bit of its length makes it seem so, that is an earlier state of the database,
//! and silently a wrong one.

use crate::rocks_log::{HEADER, block_end, checksum, masked, payload_len, piece, stored};
use crate::{Error, Result, files::io_error};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// Refuses a manifest that is not a sequence of whole records, save for a last one that was torn.
///
/// # Errors
/// `Error::Corrupt` with the offset; `Error::Io`.
pub(crate) fn check(db: &Path) -> Result<()> {
    // A name that is none, and a manifest that has just been replaced, are RocksDB's to judge.
    let Some(name) = read(&db.join("CURRENT"))?.and_then(|text| manifest_name(&text)) else {
        return Ok(());
    };
    let Some(bytes) = read(&db.join(&name))? else { return Ok(()) };
    match first_damage(&bytes) {
        None => Ok(()),
        Some(offset) => Err(Error::Corrupt {
            file: format!("db/{name}"),
            offset: offset.to_string(),
            what: "expected a record with its checksum, found other bytes".to_owned(),
        }),
    }
}

fn manifest_name(text: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(text).ok()?.strip_suffix('\n')?;
    let number = name.strip_prefix("MANIFEST-")?;
    number.bytes().all(|byte| byte.is_ascii_digit()).then(|| name.to_owned())
}

fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error("cannot read", path)(error)),
    }
}

/// Where the first record begins that is neither whole nor torn.
fn first_damage(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    while at < bytes.len() {
        let block_end = block_end(bytes, at);
        let rest = &bytes[at..block_end];
        if rest.len() < HEADER {
            // Too short for a record: zeros that fill a block, or a header that was torn.
            at = block_end;
            continue;
        }
        if bytes[at..].iter().all(|&byte| byte == 0) {
            // A file system may have lengthened the file before it had the bytes.
            return None;
        }
        if let Some((_, payload)) = piece(bytes, at) {
            at += HEADER + payload.len();
            continue;
        }
        let seems_torn = HEADER + payload_len(rest) > rest.len() && block_end == bytes.len();
        return (!seems_torn || has_record(rest)).then_some(at);
    }
    None
}

/// Whether some length would make a whole record of these bytes.
fn has_record(rest: &[u8]) -> bool {
    let mut sum = checksum(rest[6], &[]);
    let stored = stored(rest);
    masked(sum) == stored
        || rest[HEADER..].iter().any(|byte| {
            sum = crc32c::crc32c_append(sum, &[*byte]);
            masked(sum) == stored
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rocks_log::written;

    #[test]
    fn every_flipped_bit_is_found_and_every_torn_end_is_let_through() {
        let bytes = written(&[b"one", b"", b"the third record", b"4"]);
        assert_eq!(first_damage(&bytes), None);
        for end in 0..bytes.len() {
            assert_eq!(first_damage(&bytes[..end]), None, "cut to {end}");
            let lengthened = [&bytes, &vec![0; end][..]].concat();
            assert_eq!(first_damage(&lengthened), None, "with {end} zeros");
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(first_damage(&flipped).is_some(), "bit {bit}");
        }
    }
}
