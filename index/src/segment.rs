//! The immutable, memory-mapped segment file.

use crate::columns::Columns;
use crate::format::{self, Extent, HEADER_LEN, Header, NO_LINK, SECTIONS, Section, corrupt};
use crate::map::{Map, Plain, view};
use crate::walk::Graph;
use crate::{Attributes, BuildOptions, Embedding, Entry, Result};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Vectors of up to this many bytes are used where they are mapped; of more, a search reads the
/// few that it needs, or in time all of them would be resident.
const MAPPED_BYTES: usize = 128 << 20;

/// Bytes that a proof reads at a time.
const READ_BYTES: usize = 1 << 20;

/// An open segment.
pub struct Segment {
    path: PathBuf,
    map: Map,
    header: Header,
    extents: [Extent; SECTIONS],
    licenses: OnceLock<Vec<u32>>,
}

impl Segment {
    /// Maps a segment file and proves its structure: the header's checksum, the place and length
    /// of each section, and that every neighbour, offset and string number stays inside its
    /// table. After that no search can leave the file, whatever the sections hold; whether they
    /// hold what was written is for [`Segment::verify`].
    ///
    /// # Errors
    /// `Error::Io`, `Error::Corrupt`, or `Error::Version` for a file of another format version.
    pub fn open(path: &Path) -> Result<Self> {
        let map = Map::open(path)?;
        let (header, extents) = format::read(path, map.bytes())?;
        let (path, licenses) = (path.to_path_buf(), OnceLock::new());
        let segment = Self { path, map, header, extents, licenses };
        segment.check_alignment()?;
        segment.check_graph()?;
        let columns = segment.columns().check();
        columns.map_err(|what| segment.damaged(Section::Flags, what))?;
        Ok(segment)
    }

    /// Number of vectors.
    pub fn len(&self) -> usize {
        self.header.count as usize
    }

    /// Whether it holds no vector.
    pub fn is_empty(&self) -> bool {
        self.header.count == 0
    }

    /// Dimensions of its vectors; 0 for a segment that was built of none.
    pub fn dim(&self) -> usize {
        self.header.dim as usize
    }

    /// Fingerprint of the encoders whose vectors it holds.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.header.fingerprint
    }

    /// The options with which it was built.
    pub fn build_options(&self) -> BuildOptions {
        BuildOptions {
            m: self.header.m as usize,
            ef_construction: self.header.ef_construction as usize,
            threads: self.header.threads as usize,
            seed: self.header.seed,
        }
    }

    /// All keys, ascending by position.
    pub fn keys(&self) -> &[u64] {
        self.section(Section::Keys)
    }

    /// The vectors of those of these keys that it holds, in one pass over all keys.
    ///
    /// # Errors
    /// `Error::Corrupt` if a vector is not of length 1.
    pub fn find(&self, keys: &[u64]) -> Result<HashMap<u64, Embedding>> {
        let wanted: HashSet<u64> = keys.iter().copied().collect();
        let mut found = HashMap::new();
        for (position, key) in self.keys().iter().enumerate() {
            if wanted.contains(key) {
                found.insert(*key, self.vector(position)?);
            }
        }
        Ok(found)
    }

    /// The attributes at a position below `len()`, `None` elsewhere.
    pub fn attributes(&self, position: usize) -> Option<Attributes> {
        (position < self.len()).then(|| self.columns().attributes(position))
    }

    /// Key, vector and attributes at a position below `len()`, `None` elsewhere.
    ///
    /// # Errors
    /// `Error::Corrupt` if the vector is not of length 1.
    pub fn entry(&self, position: usize) -> Result<Option<Entry>> {
        let Some(attributes) = self.attributes(position) else { return Ok(None) };
        let vector = self.vector(position)?;
        Ok(Some(Entry { key: self.keys()[position], vector, attributes }))
    }

    /// The vector at a position below `len()`.
    pub(crate) fn vector(&self, position: usize) -> Result<Embedding> {
        let values = self.vectors()[position * self.header.stride()..][..self.dim()].to_vec();
        Embedding::from_unit(values)
            .map_err(|error| self.damaged(Section::Vectors, &error.to_string()))
    }

    /// Proves every checksum, and that the gaps between sections are zeros.
    ///
    /// # Errors
    /// `Error::Corrupt` with the offset of the first section that is not as it was written.
    pub fn verify(&self) -> Result<()> {
        let mut end = HEADER_LEN;
        for section in Section::ALL {
            let Extent { range, checksum } = &self.extents[section.index()];
            if self.map.bytes()[end..range.start].iter().any(|&byte| byte != 0) {
                return Err(corrupt(&self.path, end, "expected zeros before a section".into()));
            }
            let found = self.checksum(range.clone())?;
            if found != *checksum {
                let what = format!("expected checksum {checksum:08x}, found {found:08x}");
                return Err(self.damaged(section, &what));
            }
            end = range.end;
        }
        Ok(())
    }

    /// Size of the file in bytes.
    pub fn byte_len(&self) -> usize {
        self.map.bytes().len()
    }

    /// Reads instead of looking into the mapping, so that the bytes do not stay resident.
    fn checksum(&self, range: Range<usize>) -> Result<u32> {
        let mut buffer = vec![0_u8; READ_BYTES.min(range.len())];
        let mut checksum = 0;
        for start in range.clone().step_by(READ_BYTES) {
            let part = &mut buffer[..READ_BYTES.min(range.end - start)];
            self.map.read(start as u64, part).map_err(|source| crate::Error::Io {
                action: "read",
                path: self.path.clone(),
                source,
            })?;
            checksum = crc32c::crc32c_append(checksum, part);
        }
        Ok(checksum)
    }

    pub(crate) fn graph(&self) -> Graph<'_> {
        Graph {
            links: self.section(Section::Links),
            level_counts: self.section(Section::LevelCounts),
            upper: self.section(Section::UpperLinks),
            codes: self.section(Section::Codes),
            m: self.header.m as usize,
            stride: self.header.stride(),
            count: self.len(),
        }
    }

    /// Padded unit vectors, one after the other.
    pub(crate) fn vectors(&self) -> &[f32] {
        self.section(Section::Vectors)
    }

    /// Copies the padded vectors at these positions into `rows`, one after the other, without
    /// keeping them in memory; false if they are better looked at where they are mapped.
    ///
    /// # Errors
    /// `Error::Io`.
    pub(crate) fn read_vectors(&self, positions: &[u32], rows: &mut Vec<f32>) -> Result<bool> {
        let range = &self.extents[Section::Vectors.index()].range;
        if range.len() <= MAPPED_BYTES {
            return Ok(false);
        }
        let stride = self.header.stride();
        rows.resize(positions.len() * stride, 0.0);
        for (&position, row) in positions.iter().zip(rows.chunks_exact_mut(stride)) {
            let offset = range.start + position as usize * stride * size_of::<f32>();
            self.map.read(offset as u64, row).map_err(|source| crate::Error::Io {
                action: "read",
                path: self.path.clone(),
                source,
            })?;
        }
        Ok(true)
    }

    /// What codes stand for.
    pub(crate) fn ranges(&self) -> &[f32] {
        self.section(Section::Ranges)
    }

    pub(crate) fn columns(&self) -> Columns<'_> {
        Columns {
            flags: self.section(Section::Flags),
            params: self.section(Section::Params),
            macs: self.section(Section::Macs),
            latency: self.section(Section::Latency),
            license: self.section(Section::License),
            tag_offsets: self.section(Section::TagOffsets),
            tags: self.section(Section::Tags),
            string_offsets: self.section(Section::StringOffsets),
            strings: self.section(Section::Strings),
            params_order: self.section(Section::ParamsOrder),
            macs_order: self.section(Section::MacsOrder),
            latency_order: self.section(Section::LatencyOrder),
            posting_offsets: self.section(Section::PostingOffsets),
            postings: self.section(Section::Postings),
        }
    }

    /// Numbers of the strings that are a point's license; listed when a filter asks first.
    pub(crate) fn licenses(&self) -> &[u32] {
        self.licenses.get_or_init(|| self.columns().distinct_licenses())
    }

    /// A section's numbers. `open` proved place and alignment, so that the empty slice for a
    /// section that is not where it should be is never seen.
    fn section<T: Plain>(&self, section: Section) -> &[T] {
        let range = self.extents[section.index()].range.clone();
        self.map.bytes().get(range).and_then(view).unwrap_or_default()
    }

    /// Sections start at multiples of 64 and a mapping at a page: this holds on every system that
    /// maps files, and if it did not, `section` would hand out empty slices.
    fn check_alignment(&self) -> Result<()> {
        if self.map.bytes().as_ptr().align_offset(8) != 0 {
            return Err(corrupt(&self.path, 0, "expected a mapping at a page".into()));
        }
        Ok(())
    }

    fn check_graph(&self) -> Result<()> {
        let graph = self.graph();
        let count = self.header.count as u32;
        // Positions are ordered by level: each level holds a part of the points of the one below.
        let below = std::iter::once(&count).chain(graph.level_counts);
        if below.zip(graph.level_counts).any(|(below, level)| level > below || *level == 0) {
            return Err(self.damaged(Section::LevelCounts, "level counts that rise or are 0"));
        }
        let rows: usize = graph.level_counts.iter().map(|&count| count as usize).sum();
        if graph.upper.len() != rows * graph.m {
            let what = format!("expected {rows} rows, found {} links", graph.upper.len());
            return Err(self.damaged(Section::UpperLinks, &what));
        }
        if !all_below(graph.links, count) {
            return Err(self.damaged(Section::Links, "a neighbour that does not exist"));
        }
        let mut start = 0;
        for &level_count in graph.level_counts {
            let end = start + level_count as usize * graph.m;
            if !all_below(&graph.upper[start..end], level_count) {
                return Err(self.damaged(Section::UpperLinks, "a neighbour not of this level"));
            }
            start = end;
        }
        Ok(())
    }

    fn damaged(&self, section: Section, what: &str) -> crate::Error {
        let start = self.extents[section.index()].range.start;
        corrupt(&self.path, start, format!("section {section:?}: {what}"))
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, map: _, header, extents: _, licenses: _ } = self;
        out.debug_struct("Segment").field("path", path).field("header", header).finish()
    }
}

/// Whether every link leads to a position below `count` or is unused. It has no early way out,
/// because the compiler turns it into wide comparisons this way.
fn all_below(links: &[u32], count: u32) -> bool {
    links.chunks(4096).all(|chunk| {
        chunk.iter().fold(true, |holds, &link| holds & (link < count || link == NO_LINK))
    })
}
