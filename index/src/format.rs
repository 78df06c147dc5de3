//! The segment file's header and section table, byte by byte as docs/FORMAT.md has them.

use crate::embedding::{DIM_MAX, padded_dim};
use crate::{Error, Result};
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// First bytes of every segment file.
const MAGIC: [u8; 8] = *b"TANSSEG\0";
/// Version that this code writes; it reads no other one.
const VERSION: u32 = 2;
/// Sections start at multiples of this: a cache line.
const ALIGN: u64 = 64;
/// Bytes of header, section table and their checksum.
pub(crate) const HEADER_LEN: usize = 704;
/// Where the section table starts.
const TABLE: usize = 128;
/// Bytes of one row of the section table.
const TABLE_ROW: usize = 24;
/// Where the section table ends.
const TABLE_END: usize = TABLE + SECTIONS * TABLE_ROW;
/// Where the header's checksum stands; it covers everything before it.
const CHECKSUM: usize = HEADER_LEN - 4;
/// Levels above level 0 that a graph may have.
pub(crate) const LEVELS_MAX: usize = 15;
/// Neighbours per point and level that hnsw_rs can build.
pub(crate) const M_MAX: usize = 256;
/// Fills the unused end of a row of neighbours.
pub(crate) const NO_LINK: u32 = u32::MAX;
/// Most points that a segment may have.
pub(crate) const COUNT_MAX: usize = (1 << 31) - 1;

/// The sections, in the order of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Section {
    /// Level 0: one row of 2m positions a point, u32.
    Links,
    /// Points that reach level 1, 2, ..: u32.
    LevelCounts,
    /// Upper levels, one after the other: one row of m positions a point, u32.
    UpperLinks,
    /// Vectors: one row of the padded dimension a point, f32.
    Vectors,
    /// Vectors in 8 bits: as `Vectors`, i8.
    Codes,
    /// What codes stand for: f32, the component of code 0 for each dimension, then the step.
    Ranges,
    /// Keys: u64 a point.
    Keys,
    /// Which attributes are known: u8 a point.
    Flags,
    /// Parameters: u64 a point.
    Params,
    /// Multiply-accumulate operations: u64 a point.
    Macs,
    /// Latency in milliseconds: f32 a point.
    Latency,
    /// License: u32 a point, a string's number.
    License,
    /// Where each point's tags start in `Tags`, and their end: u32, one more than points.
    TagOffsets,
    /// Tags: u32, strings' numbers, ascending within a point.
    Tags,
    /// Where each string starts in `Strings`, and their end: u32, one more than strings.
    StringOffsets,
    /// The strings, UTF-8, ascending.
    Strings,
    /// Points whose parameters are known, by rising parameters: u32.
    ParamsOrder,
    /// The same for operations.
    MacsOrder,
    /// The same for latency.
    LatencyOrder,
    /// Where each string's points start in `Postings`, and their end: u32, one more than strings.
    PostingOffsets,
    /// Points that have a string as license or tag, ascending within a string: u32.
    Postings,
}

/// Number of sections.
pub(crate) const SECTIONS: usize = 21;

impl Section {
    /// All, in the order of the file.
    pub(crate) const ALL: [Self; SECTIONS] = [
        Self::Links,
        Self::LevelCounts,
        Self::UpperLinks,
        Self::Vectors,
        Self::Codes,
        Self::Ranges,
        Self::Keys,
        Self::Flags,
        Self::Params,
        Self::Macs,
        Self::Latency,
        Self::License,
        Self::TagOffsets,
        Self::Tags,
        Self::StringOffsets,
        Self::Strings,
        Self::ParamsOrder,
        Self::MacsOrder,
        Self::LatencyOrder,
        Self::PostingOffsets,
        Self::Postings,
    ];

    /// Place in the section table.
    pub(crate) fn index(self) -> usize {
        self as usize
    }

    /// Bytes that one entry has, and entries where the header alone tells their number.
    pub(crate) fn shape(self, header: &Header) -> (u64, Option<u64>) {
        let (count, m) = (header.count, u64::from(header.m));
        let stride = header.stride() as u64;
        match self {
            Self::Links => (4, Some(count * 2 * m)),
            Self::LevelCounts => (4, Some(u64::from(header.levels))),
            Self::Vectors => (4, Some(count * stride)),
            Self::Codes => (1, Some(count * stride)),
            Self::Ranges => (4, Some(2 * stride)),
            Self::Latency | Self::License => (4, Some(count)),
            Self::Keys | Self::Params | Self::Macs => (8, Some(count)),
            Self::Flags => (1, Some(count)),
            Self::TagOffsets => (4, Some(count + 1)),
            Self::UpperLinks | Self::Tags | Self::StringOffsets => (4, None),
            Self::ParamsOrder | Self::MacsOrder | Self::LatencyOrder => (4, None),
            Self::PostingOffsets | Self::Postings => (4, None),
            Self::Strings => (1, None),
        }
    }
}

/// What the header says about the whole segment.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Header {
    /// Dimensions; 0 only if there is no point.
    pub(crate) dim: u32,
    /// Points.
    pub(crate) count: u64,
    /// Fingerprint of the encoders.
    pub(crate) fingerprint: [u8; 32],
    /// Neighbours per point and upper level.
    pub(crate) m: u32,
    /// Candidates among which links were chosen.
    pub(crate) ef_construction: u32,
    /// Threads of the build.
    pub(crate) threads: u32,
    /// Levels above level 0.
    pub(crate) levels: u32,
    /// Seed of the build.
    pub(crate) seed: u64,
}

impl Header {
    /// Components of a stored vector.
    pub(crate) fn stride(&self) -> usize {
        padded_dim(self.dim as usize)
    }
}

/// A section as the table has it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Extent {
    /// Its bytes in the file.
    pub(crate) range: Range<usize>,
    /// CRC-32C of these bytes.
    pub(crate) checksum: u32,
}

/// Writes header and sections, in the order of `Section::ALL`.
pub(crate) fn write(
    header: &Header,
    sections: &[&[u8]; SECTIONS],
    out: &mut dyn Write,
) -> Result<()> {
    let bytes = encode_header(header, sections);
    write_all(out, &bytes)?;
    let mut at = HEADER_LEN as u64;
    for section in sections {
        let start = at.next_multiple_of(ALIGN);
        write_all(out, &[0; ALIGN as usize][..(start - at) as usize])?;
        write_all(out, section)?;
        at = start + section.len() as u64;
    }
    Ok(())
}

fn write_all(out: &mut dyn Write, bytes: &[u8]) -> Result<()> {
    // The caller owns the file and knows its name; here it is only a place to write to.
    out.write_all(bytes).map_err(|source| Error::Io {
        action: "write",
        path: PathBuf::from("the new segment"),
        source,
    })
}

fn encode_header(header: &Header, sections: &[&[u8]; SECTIONS]) -> [u8; HEADER_LEN] {
    let Header { dim, count, fingerprint, m, ef_construction, threads, levels, seed } = header;
    let mut bytes = [0; HEADER_LEN];
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    put(0, &MAGIC);
    put(8, &VERSION.to_le_bytes());
    put(12, &(SECTIONS as u32).to_le_bytes());
    put(16, &dim.to_le_bytes());
    put(20, &(header.stride() as u32).to_le_bytes());
    put(24, &count.to_le_bytes());
    put(32, fingerprint);
    put(64, &m.to_le_bytes());
    put(68, &ef_construction.to_le_bytes());
    put(72, &threads.to_le_bytes());
    put(76, &levels.to_le_bytes());
    put(80, &seed.to_le_bytes());
    let mut end = HEADER_LEN as u64;
    for (index, section) in sections.iter().enumerate() {
        let start = end.next_multiple_of(ALIGN);
        end = start + section.len() as u64;
        let at = TABLE + index * TABLE_ROW;
        put(at, &start.to_le_bytes());
        put(at + 8, &(section.len() as u64).to_le_bytes());
        put(at + 16, &crc32c::crc32c(section).to_le_bytes());
        put(at + 20, &(index as u32 + 1).to_le_bytes());
    }
    put(88, &end.to_le_bytes());
    let checksum = crc32c::crc32c(&bytes[..CHECKSUM]);
    bytes[CHECKSUM..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// Reads and proves header and section table of a file of these bytes. What the sections hold is
/// not looked at.
pub(crate) fn read(path: &Path, bytes: &[u8]) -> Result<(Header, [Extent; SECTIONS])> {
    let found = bytes.len();
    let head = bytes.get(..HEADER_LEN).ok_or_else(|| {
        corrupt(path, 0, format!("expected a header of {HEADER_LEN} bytes, found {found}"))
    })?;
    if head[..8] != MAGIC {
        return Err(corrupt(path, 0, "expected the magic of a segment".into()));
    }
    let version = u32_at(head, 8);
    if version != VERSION {
        return Err(Error::Version { path: path.to_path_buf(), expected: VERSION, found: version });
    }
    let (expected, found) = (crc32c::crc32c(&head[..CHECKSUM]), u32_at(head, CHECKSUM));
    if expected != found {
        let what = format!("expected checksum {expected:08x}, found {found:08x}");
        return Err(corrupt(path, CHECKSUM, what));
    }
    let header = read_fields(path, head)?;
    let extents = read_table(path, head, &header, bytes.len() as u64)?;
    Ok((header, extents))
}

fn read_fields(path: &Path, head: &[u8]) -> Result<Header> {
    let header = Header {
        dim: u32_at(head, 16),
        count: u64_at(head, 24),
        fingerprint: std::array::from_fn(|at| head[32 + at]),
        m: u32_at(head, 64),
        ef_construction: u32_at(head, 68),
        threads: u32_at(head, 72),
        levels: u32_at(head, 76),
        seed: u64_at(head, 80),
    };
    let no_points = header.count == 0;
    let checks = [
        (12, u32_at(head, 12) as usize == SECTIONS, "21 sections"),
        (16, header.dim as usize <= DIM_MAX, "at most 65536 dimensions"),
        (16, header.dim > 0 || no_points, "dimensions for its vectors"),
        (20, u32_at(head, 20) as usize == header.stride(), "dimensions padded to 16"),
        (24, header.count <= COUNT_MAX as u64, "at most 2^31 - 1 vectors"),
        (64, (2..=M_MAX).contains(&(header.m as usize)), "m in 2..=256"),
        (68, header.ef_construction > 0, "ef_construction above 0"),
        (72, header.threads > 0, "threads above 0"),
        (76, header.levels as usize <= LEVELS_MAX, "at most 15 upper levels"),
        (76, header.levels == 0 || !no_points, "no levels without vectors"),
        (96, head[96..TABLE].iter().all(|&byte| byte == 0), "zeros"),
        (TABLE_END, head[TABLE_END..CHECKSUM].iter().all(|&byte| byte == 0), "zeros"),
    ];
    match checks.iter().find(|(_, holds, _)| !holds) {
        Some((offset, _, expected)) => Err(corrupt(path, *offset, format!("expected {expected}"))),
        None => Ok(header),
    }
}

/// The bounds of `read_fields` keep every product of `Section::shape` far below 2^64.
fn read_table(
    path: &Path,
    head: &[u8],
    header: &Header,
    file_len: u64,
) -> Result<[Extent; SECTIONS]> {
    let mut extents: [Extent; SECTIONS] = Default::default();
    let mut end = HEADER_LEN as u64;
    for section in Section::ALL {
        let at = TABLE + section.index() * TABLE_ROW;
        let (start, len) = (u64_at(head, at), u64_at(head, at + 8));
        let (width, entries) = section.shape(header);
        let expected_start = end.next_multiple_of(ALIGN);
        let len_holds = match entries {
            Some(entries) => len == entries * width,
            None => len % width == 0,
        };
        let section_end = start.checked_add(len).filter(|&section_end| section_end <= file_len);
        let kind_holds = u32_at(head, at + 20) as usize == section.index() + 1;
        let (true, true, true, Some(section_end)) =
            (start == expected_start, len_holds, kind_holds, section_end)
        else {
            let what = format!("section {section:?} of {len} bytes at {start} does not fit");
            return Err(corrupt(path, at, what));
        };
        extents[section.index()] =
            Extent { range: start as usize..section_end as usize, checksum: u32_at(head, at + 16) };
        end = section_end;
    }
    if u64_at(head, 88) != end || file_len != end {
        return Err(corrupt(path, 88, format!("expected {end} bytes, found {file_len}")));
    }
    Ok(extents)
}

/// An error that names file and place.
pub(crate) fn corrupt(path: &Path, offset: usize, what: String) -> Error {
    Error::Corrupt { path: path.to_path_buf(), offset: offset as u64, what }
}

/// Reads inside the header, whose length was proven.
fn u32_at(head: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|byte| head[at + byte]))
}

fn u64_at(head: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|byte| head[at + byte]))
}
