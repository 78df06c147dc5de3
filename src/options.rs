//! How a zoo is opened.

use std::path::PathBuf;

/// Options that hold for an open zoo.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// Open for reading beside a writer; every operation that writes is refused.
    pub read_only: bool,
    /// Where backbone rows of images that were encoded before are kept; `None` keeps none.
    pub cache_dir: Option<PathBuf>,
    /// Where networks run. Default: CUDA where it is there, else the CPU.
    #[cfg(feature = "torch")]
    pub device: crate::graph::exec::Device,
}
