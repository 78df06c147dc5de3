//! The files of records that RocksDB's manifest and log are: blocks of 32 KiB; a piece of a record is a masked crc32c of
//! kind and payload, the payload's length (u16), the kind, the payload (RocksDB wiki, "Write Ahead Log File Format").

pub(crate) const BLOCK: usize = 32 << 10;
pub(crate) const HEADER: usize = 7;
/// Kinds of pieces: a record in one, and the first, middle and last of one that is in several.
pub(crate) const FULL: u8 = 1;
pub(crate) const FIRST: u8 = 2;
pub(crate) const MIDDLE: u8 = 3;
pub(crate) const LAST: u8 = 4;
/// What RocksDB adds to a checksum that it has rotated, so that checksums of checksums differ.
const MASK: u32 = 0xa282_ead8;

/// End of the block of a file that holds the byte at `at`, or of the file.
pub(crate) fn block_end(bytes: &[u8], at: usize) -> usize {
    ((at / BLOCK + 1) * BLOCK).min(bytes.len())
}

/// Kind and payload of the piece at `at`, if it is whole.
pub(crate) fn piece(bytes: &[u8], at: usize) -> Option<(u8, &[u8])> {
    let rest = &bytes[at..block_end(bytes, at)];
    if rest.len() < HEADER || rest[6] == 0 {
        return None;
    }
    let payload = rest.get(HEADER..HEADER + payload_len(rest))?;
    (masked(checksum(rest[6], payload)) == stored(rest)).then_some((rest[6], payload))
}

pub(crate) fn payload_len(header: &[u8]) -> usize {
    usize::from(u16::from_le_bytes([header[4], header[5]]))
}

pub(crate) fn checksum(kind: u8, payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&[kind]), payload)
}

pub(crate) fn masked(sum: u32) -> u32 {
    sum.rotate_right(15).wrapping_add(MASK)
}

/// The checksum in a header.
pub(crate) fn stored(header: &[u8]) -> u32 {
    u32::from_le_bytes([header[0], header[1], header[2], header[3]])
}

/// Bytes of a file of these records, split into pieces where blocks end.
#[cfg(test)]
pub(crate) fn written(records: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for record in records {
        let mut rest = *record;
        let mut is_first = true;
        loop {
            let mut room = BLOCK - bytes.len() % BLOCK;
            if room < HEADER {
                bytes.extend(vec![0; room]);
                room = BLOCK;
            }
            let (payload, behind) = rest.split_at(rest.len().min(room - HEADER));
            let kind = match (is_first, behind.is_empty()) {
                (true, true) => FULL,
                (true, false) => FIRST,
                (false, true) => LAST,
                (false, false) => MIDDLE,
            };
            bytes.extend(masked(checksum(kind, payload)).to_le_bytes());
            bytes.extend((payload.len() as u16).to_le_bytes());
            bytes.push(kind);
            bytes.extend(payload);
            (rest, is_first) = (behind, false);
            if rest.is_empty() {
                break;
            }
        }
    }
    bytes
}
