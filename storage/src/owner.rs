//! The process that opened a zoo. A child that it forks shares its locks and files, but none of RocksDB's threads, and
//! must neither write nor let go of anything.

use crate::{Error, Result};

/// A process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner(u32);

impl Owner {
    /// This process.
    pub(crate) fn this() -> Self {
        Self(std::process::id())
    }

    /// Whether this process is the one, and no child of it.
    pub(crate) fn is_this(self) -> bool {
        self == Self::this()
    }

    /// # Errors
    /// `Error::Invalid` in a forked child.
    pub(crate) fn require(self) -> Result<()> {
        match self.is_this() {
            true => Ok(()),
            false => Err(Error::Invalid(format!(
                "expected the process that opened the zoo ({}), found a child that it forked: open the zoo there anew",
                self.0
            ))),
        }
    }
}
