//! Damage in RocksDB's manifest that RocksDB takes for the end of the file.
//!
//! The manifest is a log of blocks of 32 KiB; a record is a masked crc32c of type and payload, the payload's length
//! (u16), the type, the payload (RocksDB wiki, "Write Ahead Log File Format"). A record that seems to reach beyond the
//! end of the file is one that a crash tore, and RocksDB goes on with what stands before it. Where a flipped bit of its
//! length makes it seem so, that is an earlier state of the database, and silently a wrong one.

use crate::{Error, Result, files::io_error};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

const BLOCK: usize = 32 << 10;
const HEADER: usize = 7;
/// What RocksDB adds to a checksum that it has rotated, so that checksums of checksums differ.
const MASK: u32 = 0xa282_ead8;

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
        let block_end = (at / BLOCK + 1) * BLOCK;
        let rest = &bytes[at..block_end.min(bytes.len())];
        if rest.len() < HEADER {
            // Too short for a record: zeros that fill a block, or a header that was torn.
            at = block_end;
            continue;
        }
        if bytes[at..].iter().all(|&byte| byte == 0) {
            // A file system may have lengthened the file before it had the bytes.
            return None;
        }
        let length = usize::from(u16::from_le_bytes([rest[4], rest[5]]));
        match rest.get(HEADER..HEADER + length) {
            Some(payload) if masked(checksum(rest[6], payload)) == stored(rest) => {
                at += HEADER + length;
            }
            Some(_) => return Some(at),
            None => return (block_end < bytes.len() || has_record(rest)).then_some(at),
        }
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

fn checksum(kind: u8, payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&[kind]), payload)
}

fn masked(sum: u32) -> u32 {
    sum.rotate_right(15).wrapping_add(MASK)
}

fn stored(record: &[u8]) -> u32 {
    u32::from_le_bytes([record[0], record[1], record[2], record[3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(payloads: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for payload in payloads {
            bytes.extend(masked(checksum(1, payload)).to_le_bytes());
            bytes.extend((payload.len() as u16).to_le_bytes());
            bytes.push(1);
            bytes.extend(*payload);
        }
        bytes
    }

    #[test]
    fn every_flipped_bit_is_found_and_every_torn_end_is_let_through() {
        let bytes = log(&[b"one", b"", b"the third record", b"4"]);
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
