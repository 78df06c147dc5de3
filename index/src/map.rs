//! Memory-mapped files and the views of plain numbers over them.

use crate::{Error, Result};
use memmap2::Mmap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

#[cfg(target_endian = "big")]
compile_error!("segment files are little-endian and are used as they are mapped");

/// Numbers for which every pattern of bits is a value and which have no padding.
///
/// # Safety
/// Implement it only for such types.
pub(crate) unsafe trait Plain: Copy + 'static {}

// SAFETY: integers and floats of fixed size have no padding and no invalid patterns.
unsafe impl Plain for u8 {}
// SAFETY: as for u8.
unsafe impl Plain for i8 {}
// SAFETY: as for u8.
unsafe impl Plain for u32 {}
// SAFETY: as for u8.
unsafe impl Plain for u64 {}
// SAFETY: as for u8; a NaN is a value too.
unsafe impl Plain for f32 {}

/// A whole file, mapped for reading.
pub(crate) struct Map {
    file: File,
    map: Mmap,
}

impl Map {
    /// Maps `path`.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let io = |action| move |source| Error::Io { action, path: path.to_path_buf(), source };
        let file = File::open(path).map_err(io("open"))?;
        // SAFETY: a mapping is sound as long as nobody changes the file. Segments are written
        // once beside their final name, renamed, and never edited; whoever truncates a file of a
        // zoo in use breaks this process in any design that maps files.
        let map = unsafe { Mmap::map(&file) }.map_err(io("map"))?;
        Ok(Self { file, map })
    }

    /// All bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Reads numbers at an offset into `out`, without making the mapping larger in memory.
    ///
    /// A page that is touched in the mapping brings its neighbours along and counts as memory of
    /// the process from then on.
    pub(crate) fn read<T: Plain>(&self, offset: u64, out: &mut [T]) -> std::io::Result<()> {
        let len = size_of_val(out);
        // SAFETY: `Plain` promises that every pattern of bits is a `T`, u8 asks for no alignment,
        // and the length in bytes is that of the slice.
        let bytes = unsafe { std::slice::from_raw_parts_mut(out.as_mut_ptr().cast(), len) };
        self.file.read_exact_at(bytes, offset)
    }
}

/// Looks at bytes as numbers; `None` if they are not aligned or not a whole number of them.
pub(crate) fn view<T: Plain>(bytes: &[u8]) -> Option<&[T]> {
    // SAFETY: `Plain` promises that every pattern of bits is a `T`, and `align_to` puts into the
    // middle only what is aligned and whole.
    let (before, middle, after) = unsafe { bytes.align_to::<T>() };
    (before.is_empty() && after.is_empty()).then_some(middle)
}

/// The bytes of numbers, in the order of the machine, which is little-endian.
pub(crate) fn bytes_of<T: Plain>(numbers: &[T]) -> &[u8] {
    // SAFETY: `Plain` promises that there is no padding, the memory is initialised, u8 asks for
    // no alignment, and the length in bytes is that of the slice.
    unsafe { std::slice::from_raw_parts(numbers.as_ptr().cast(), size_of_val(numbers)) }
}
