//! What several operations share.

#[cfg(feature = "torch")]
mod fit;
