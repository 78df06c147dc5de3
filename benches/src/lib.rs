//! The benchmarks are in `benches/`; cargo wants a library in every package.
