//! Memory-mapped tensors; the only unsafe file of this crate.

use crate::files::io_error;
use crate::{Result, dtype};
use memmap2::Mmap;
use safetensors::{Dtype, View};
use std::borrow::Cow;
use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// The first byte of every tensor lies at a multiple of this, in memory as in a pack.
const ALIGNMENT: usize = 64;

/// A stored tensor: element type, shape and its bytes, mapped from a pack file (or held in memory,
/// where it is so small that it lies in its record). Cloning shares the bytes, which stay valid when
/// the store is closed and when the pack is collected.
#[derive(Clone)]
pub struct MappedTensor {
    dtype: Dtype,
    shape: Arc<[usize]>,
    source: Source,
    range: Range<usize>,
}

/// Where the bytes of a tensor are.
#[derive(Clone)]
enum Source {
    Map(Arc<Mmap>),
    Memory(Arc<Vec<u8>>),
}

impl Source {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Map(map) => map,
            Self::Memory(bytes) => bytes,
        }
    }
}

impl MappedTensor {
    /// Cuts a tensor out of a map; `None` when the range is not inside the map or its length is not
    /// that of the dtype and shape.
    pub(crate) fn new(
        dtype: Dtype,
        shape: Vec<usize>,
        map: Arc<Mmap>,
        range: Range<usize>,
    ) -> Option<Self> {
        Self::cut(dtype, shape, Source::Map(map), range)
    }

    /// Wraps the bytes of a small tensor; `None` when their length is not that of the dtype and
    /// shape.
    pub(crate) fn in_memory(dtype: Dtype, shape: Vec<usize>, bytes: &[u8]) -> Option<Self> {
        let mut padded: Vec<u8> = Vec::with_capacity(bytes.len() + ALIGNMENT);
        let start = padded.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        // The capacity suffices, so filling it moves nothing.
        padded.resize(start, 0);
        padded.extend_from_slice(bytes);
        let range = start..padded.len();
        Self::cut(dtype, shape, Source::Memory(Arc::new(padded)), range)
    }

    fn cut(dtype: Dtype, shape: Vec<usize>, source: Source, range: Range<usize>) -> Option<Self> {
        let dims: Vec<u64> = shape.iter().map(|dim| *dim as u64).collect();
        let expected = dtype::byte_len(dtype, &dims)?;
        let found = source.bytes().get(range.clone())?.len() as u64;
        (expected == found).then(|| Self { dtype, shape: shape.into(), source, range })
    }

    /// Element type.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Shape; empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The bytes: little-endian, row-major, the first at an address that is a multiple of 64.
    pub fn bytes(&self) -> &[u8] {
        &self.source.bytes()[self.range.clone()]
    }
}

impl AsRef<[u8]> for MappedTensor {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

impl View for MappedTensor {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(self.bytes())
    }

    fn data_len(&self) -> usize {
        self.range.len()
    }
}

impl std::fmt::Debug for MappedTensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MappedTensor({} {:?}, {} bytes)", self.dtype, self.shape, self.range.len())
    }
}

/// Maps a file as long as it is now.
pub(crate) fn map_file(path: &Path, file: &File) -> Result<Arc<Mmap>> {
    // SAFETY: the map is read-only, and pack files are only ever appended to beyond the length
    // mapped here and never truncated or rewritten by this crate, so the mapped bytes do not
    // change. Another program that truncates a pack while it is mapped breaks this; a pack that is
    // already short is caught by comparing each tensor's end with the file's length first.
    let map = unsafe { Mmap::map(file) }.map_err(io_error("cannot map", path))?;
    Ok(Arc::new(map))
}
