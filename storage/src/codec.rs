//! Values on disk: one version byte, bincode, crc32c (little-endian) of all before it.

use crate::{Error, Result};
use bincode::config::{Configuration, Limit, LittleEndian, Varint, standard};
use serde::de::{DeserializeOwned, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// Version byte of every value.
const VALUE_VERSION: u8 = 1;

/// Bytes around the bincode part: version byte and checksum.
const FRAME_BYTES: usize = 5;

/// A value up to `SMALL_BYTES` may decode to at most `SMALL_LIMIT` bytes, so that a hostile length
/// cannot allocate more. Variable-length integers grow up to eightfold.
const SMALL_BYTES: usize = 1 << 20;
const SMALL_LIMIT: usize = 16 << 20;

/// Larger values: at most `LARGE_BYTES` on disk, `LARGE_LIMIT` decoded.
const LARGE_BYTES: usize = 128 << 20;
const LARGE_LIMIT: usize = 1 << 30;

const SMALL: Configuration<LittleEndian, Varint, Limit<SMALL_LIMIT>> =
    standard().with_limit::<SMALL_LIMIT>();
const LARGE: Configuration<LittleEndian, Varint, Limit<LARGE_LIMIT>> =
    standard().with_limit::<LARGE_LIMIT>();

/// Encodes a value as version byte + bincode + crc32c.
///
/// # Errors
/// `Error::Invalid` when the value cannot be encoded or is larger than 128 MiB.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    let body = bincode::serde::encode_to_vec(value, standard())
        .map_err(|error| Error::Invalid(format!("cannot encode a value: {error}")))?;
    if body.len() + FRAME_BYTES > LARGE_BYTES {
        return Err(Error::Invalid(format!(
            "expected a value of at most {LARGE_BYTES} bytes, found {}",
            body.len()
        )));
    }
    let mut bytes = Vec::with_capacity(body.len() + FRAME_BYTES);
    bytes.push(VALUE_VERSION);
    bytes.extend_from_slice(&body);
    let checksum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    Ok(bytes)
}

/// Decodes what `encode` wrote; `what` names the value in errors.
///
/// # Errors
/// `Error::Corrupt` when the length, the version, the checksum or the content is wrong, or when
/// bytes are left over.
pub fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T> {
    let body = checked_body(what, bytes)?;
    let decoded = if bytes.len() <= SMALL_BYTES {
        bincode::serde::decode_from_slice(body, SMALL)
    } else {
        bincode::serde::decode_from_slice(body, LARGE)
    };
    let (value, used) = decoded.map_err(|error| {
        corrupt(what, 1, format!("expected a value of format {VALUE_VERSION}, found: {error}"))
    })?;
    if used != body.len() {
        return Err(corrupt(
            what,
            1 + used,
            format!("expected a value of {used} bytes, found {}", body.len()),
        ));
    }
    Ok(value)
}

/// Bytes that are encoded in one piece instead of one by one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_byte_buf(BytesVisitor)
    }
}

struct BytesVisitor;

impl Visitor<'_> for BytesVisitor {
    type Value = Bytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> std::result::Result<Bytes, E> {
        Ok(Bytes(bytes.to_vec()))
    }

    fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> std::result::Result<Bytes, E> {
        Ok(Bytes(bytes))
    }
}

fn checked_body<'a>(what: &str, bytes: &'a [u8]) -> Result<&'a [u8]> {
    if bytes.len() < FRAME_BYTES || bytes.len() > LARGE_BYTES {
        return Err(corrupt(
            what,
            0,
            format!("expected {FRAME_BYTES} to {LARGE_BYTES} bytes, found {}", bytes.len()),
        ));
    }
    let (framed, stored) = bytes.split_at(bytes.len() - 4);
    let computed = crc32c::crc32c(framed).to_le_bytes();
    if stored != computed {
        return Err(corrupt(
            what,
            framed.len(),
            format!("expected checksum {computed:02x?}, found {stored:02x?}"),
        ));
    }
    if framed[0] != VALUE_VERSION {
        return Err(corrupt(
            what,
            0,
            format!("expected value version {VALUE_VERSION}, found {}", framed[0]),
        ));
    }
    Ok(&framed[1..])
}

fn corrupt(what: &str, offset: usize, message: String) -> Error {
    Error::Corrupt { file: what.to_owned(), offset: format!("byte {offset}"), what: message }
}
