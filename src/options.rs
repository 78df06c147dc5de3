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
    /// Threads of every computation on libtorch in this process; `None` leaves libtorch's choice, all cores.
    #[cfg(feature = "torch")]
    pub threads: Option<usize>,
    /// The `lib` folder of an installed PyTorch, for its CUDA part; it must be named before the first network runs.
    #[cfg(feature = "torch")]
    pub torch_lib: Option<PathBuf>,
}
