//! One numpy array: own parser of the npy format, versions 1 to 3, nothing executed.

use super::Error;
use std::io::Read;
use std::path::Path;

/// Longest header that is read; numpy itself refuses more than 10,000 bytes.
const HEADER_BYTES_MAX: usize = 64 << 10;

/// Type of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Signed,
    Unsigned,
    Float,
    /// UTF-32, padded with zeros.
    Text,
    /// Single bytes, padded with zeros.
    Bytes,
}

/// A C-ordered, little-endian array.
#[derive(Debug)]
pub(super) struct Array {
    pub shape: Vec<usize>,
    pub kind: Kind,
    /// Bytes of one element.
    pub width: usize,
    pub bytes: Vec<u8>,
}

/// Where an array comes from, for messages, and how large it may be.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub path: &'a Path,
    pub name: &'a str,
    pub bytes_max: u64,
}

impl Place<'_> {
    pub(super) fn refuse(&self, expected: &str, found: &str, advice: &str) -> Error {
        Error::unusable(self.path, format!("{expected} in {:?}", self.name), found, advice)
    }
    fn reading(&self, source: std::io::Error) -> Error {
        Error::reading(self.path, &format!("array {:?}", self.name), source)
    }
}

/// Reads a whole array. Memory grows with the bytes that really come, never with what the header
/// claims.
pub(super) fn read(mut reader: &mut dyn Read, place: &Place<'_>) -> Result<Array, Error> {
    let header = read_header(reader, place)?;
    let swap = header.descr.starts_with('>');
    let (kind, width) = element(&header.descr, place)?;
    if header.fortran_order && header.shape.len() > 1 {
        return Err(place.refuse(
            "an array in C order",
            "Fortran order",
            "save it with numpy.ascontiguousarray",
        ));
    }
    let mut length = Some(width as u64);
    for &side in &header.shape {
        length = length.and_then(|length| length.checked_mul(side as u64));
    }
    let length = length.filter(|&length| length <= place.bytes_max).ok_or_else(|| {
        let expected = format!("at most {} bytes", place.bytes_max);
        place.refuse(&expected, &format!("shape {:?}", header.shape), "use a part of the dataset")
    })?;
    let mut bytes = Vec::new();
    (&mut reader).take(length).read_to_end(&mut bytes).map_err(|error| place.reading(error))?;
    // Reading on proves that nothing follows, and lets the archive compare its checksum.
    let mut rest = [0; 1];
    let more = reader.read(&mut rest).map_err(|error| place.reading(error))?;
    if bytes.len() as u64 != length || more != 0 {
        return Err(place.refuse(
            &format!("{length} bytes for shape {:?}", header.shape),
            if more == 0 { "fewer" } else { "more" },
            "write the file again",
        ));
    }
    if swap {
        let unit = if kind == Kind::Text { 4 } else { width };
        bytes.chunks_exact_mut(unit.max(1)).for_each(<[u8]>::reverse);
    }
    Ok(Array { shape: header.shape, kind, width, bytes })
}

struct Header {
    descr: String,
    fortran_order: bool,
    shape: Vec<usize>,
}

fn read_header(reader: &mut dyn Read, place: &Place<'_>) -> Result<Header, Error> {
    let mut start = [0; 8];
    reader.read_exact(&mut start).map_err(|error| place.reading(error))?;
    if !start.starts_with(b"\x93NUMPY") {
        return Err(place.refuse("a numpy array", "other content", "save it with numpy.save"));
    }
    let size = match start[6] {
        1 => {
            let mut size = [0; 2];
            reader.read_exact(&mut size).map_err(|error| place.reading(error))?;
            usize::from(u16::from_le_bytes(size))
        }
        2 | 3 => {
            let mut size = [0; 4];
            reader.read_exact(&mut size).map_err(|error| place.reading(error))?;
            u32::from_le_bytes(size) as usize
        }
        other => {
            let found = format!("version {other}");
            return Err(place.refuse("npy version 1, 2 or 3", &found, "save it with numpy.save"));
        }
    };
    if size > HEADER_BYTES_MAX {
        let found = format!("{size} bytes");
        return Err(place.refuse("a header of at most 64 kB", &found, "save one plain array"));
    }
    let mut text = vec![0; size];
    reader.read_exact(&mut text).map_err(|error| place.reading(error))?;
    let parsed = std::str::from_utf8(&text).ok().and_then(parse_header);
    parsed.ok_or_else(|| {
        let found = format!("{:?}", String::from_utf8_lossy(&text[..size.min(120)]).trim_end());
        let expected = "a header with one type, an order and a shape of whole numbers";
        place.refuse(expected, &found, "save one plain array with numpy.save")
    })
}

/// The Python literal `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`.
fn parse_header(text: &str) -> Option<Header> {
    let mut rest = text.trim().strip_prefix('{')?.strip_suffix('}')?.trim();
    let (mut descr, mut fortran_order, mut shape) = (None, None, None);
    while !rest.is_empty() {
        let (key, after) = quoted(rest)?;
        let value = after.trim_start().strip_prefix(':')?.trim_start();
        rest = match key {
            "descr" => {
                let (found, after) = quoted(value)?;
                descr = Some(found.to_string());
                after
            }
            "fortran_order" => {
                let after = value.strip_prefix("True");
                fortran_order = Some(after.is_some());
                after.or_else(|| value.strip_prefix("False"))?
            }
            "shape" => {
                let (inside, after) = value.strip_prefix('(')?.split_once(')')?;
                shape = Some(parse_shape(inside)?);
                after
            }
            _ => return None,
        };
        rest = rest.trim_start();
        rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
    }
    Some(Header { descr: descr?, fortran_order: fortran_order?, shape: shape? })
}

fn quoted(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|quote| matches!(quote, '\'' | '"'))?;
    text[1..].split_once(quote)
}

/// `3, 4,`; numpy under Python 2 wrote `3L`.
fn parse_shape(text: &str) -> Option<Vec<usize>> {
    let text = text.trim().strip_suffix(',').unwrap_or(text.trim());
    if text.is_empty() {
        return Some(Vec::new());
    }
    text.split(',').map(|side| side.trim().trim_end_matches('L').parse().ok()).collect()
}

fn element(descr: &str, place: &Place<'_>) -> Result<(Kind, usize), Error> {
    let code = descr.trim_start_matches(['<', '>', '|', '=']);
    if code.starts_with('O') {
        return Err(place.refuse(
            "plain numbers or strings",
            "an object array (pickle), which is never loaded",
            "save images and labels as numbers, class names as numpy.array(names, dtype=str)",
        ));
    }
    let mut letters = code.chars();
    let letter = letters.next();
    let size = letters.as_str().parse::<usize>().ok().filter(|&size| size <= HEADER_BYTES_MAX);
    let known = match (letter, size) {
        (Some('b'), Some(1)) => Some((Kind::Bool, 1)),
        (Some('i'), Some(size @ (1 | 2 | 4 | 8))) => Some((Kind::Signed, size)),
        (Some('u'), Some(size @ (1 | 2 | 4 | 8))) => Some((Kind::Unsigned, size)),
        (Some('f'), Some(size @ (2 | 4 | 8))) => Some((Kind::Float, size)),
        (Some('U'), Some(size)) => Some((Kind::Text, size * 4)),
        (Some('S'), Some(size)) => Some((Kind::Bytes, size)),
        _ => None,
    };
    known.ok_or_else(|| {
        place.refuse("bool, int, uint, float or str", &format!("dtype {descr:?}"), "convert it")
    })
}

impl Array {
    /// Number of elements.
    pub(super) fn len(&self) -> usize {
        self.shape.iter().fold(1, |count: usize, &side| count.saturating_mul(side))
    }

    /// Elements in order, as bytes.
    fn elements(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.chunks_exact(self.width.max(1))
    }

    /// Elements as numbers; `None` for strings. Integers beyond 2^53 lose digits.
    pub(super) fn floats(&self) -> Option<impl Iterator<Item = f64>> {
        let (kind, width) = (self.kind, self.width);
        let numeric = !matches!(kind, Kind::Text | Kind::Bytes);
        numeric.then(|| self.elements().map(move |bytes| float(kind, width, bytes)))
    }

    /// Elements as whole numbers; the error is the first that is none.
    pub(super) fn integers(&self) -> Result<Vec<i64>, String> {
        let floats = self.floats().ok_or_else(|| "strings".to_string())?;
        let exact = |value: f64| {
            let whole = value.fract() == 0.0 && value.abs() <= 9e15;
            whole.then_some(value as i64).ok_or_else(|| value.to_string())
        };
        floats.map(exact).collect()
    }

    /// Elements as strings; `None` for numbers and for damaged text.
    pub(super) fn strings(&self) -> Option<Vec<String>> {
        // Elements of width 0 are not in the bytes at all.
        if self.width == 0 {
            return Some(vec![String::new(); self.len().min(HEADER_BYTES_MAX)]);
        }
        self.elements().map(|bytes| string(self.kind, bytes)).collect()
    }
}

fn float(kind: Kind, width: usize, bytes: &[u8]) -> f64 {
    let mut wide = [0; 8];
    wide[..width].copy_from_slice(bytes);
    let bits = u64::from_le_bytes(wide);
    match (kind, width) {
        (Kind::Signed, _) => {
            let unused = 64 - 8 * width as u32;
            (((bits << unused) as i64) >> unused) as f64
        }
        (Kind::Float, 2) => half::f16::from_bits(bits as u16).to_f64(),
        (Kind::Float, 4) => f64::from(f32::from_bits(bits as u32)),
        (Kind::Float, _) => f64::from_bits(bits),
        (Kind::Bool | Kind::Unsigned | Kind::Text | Kind::Bytes, _) => bits as f64,
    }
}

fn string(kind: Kind, bytes: &[u8]) -> Option<String> {
    let text = match kind {
        Kind::Text => bytes
            .chunks_exact(4)
            .map(|unit| char::from_u32(u32::from_le_bytes([unit[0], unit[1], unit[2], unit[3]])))
            .collect::<Option<String>>()?,
        Kind::Bytes => String::from_utf8(bytes.to_vec()).ok()?,
        Kind::Bool | Kind::Signed | Kind::Unsigned | Kind::Float => return None,
    };
    Some(text.trim_end_matches('\0').to_string())
}

/// The bytes of a version-1 npy file.
///
/// descr: numpy's name of the little-endian element type; data: all elements in C order.
pub(super) fn write(descr: &str, shape: &[usize], data: &[u8]) -> Vec<u8> {
    let sides: String = shape.iter().map(|side| format!("{side}, ")).collect();
    let sides = if shape.len() == 1 { sides.trim_end() } else { sides.trim_end_matches(", ") };
    let mut header =
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({sides}), }}");
    // The format asks for data that starts at a multiple of 64 and a header that ends in a newline.
    let used = 10 + header.len() + 1;
    header.push_str(&" ".repeat(used.next_multiple_of(64) - used));
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.into_bytes());
    bytes.extend(data);
    bytes
}
