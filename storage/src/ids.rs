//! Content addresses.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! content_id {
    ($name:ident, $doc:literal) => {
        #[doc = $doc]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub [u8; 32]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self:.0})", stringify!($name))
            }
        }
    };
}

content_id!(
    ModelId,
    "blake3 of (format tag, canonical graph bytes, ordered tensor ids, input contract); of (\"ref\", URI) for a reference model."
);
content_id!(
    TaskId,
    "blake3 of (sorted image hashes, labels); of (\"ref\", name) for a reference task."
);
content_id!(TensorId, "blake3 of (dtype, shape, bytes).");
