//! Element types on disk. The order of `safetensors::Dtype` changes when that crate grows a type,
//! so a record holds our own code and never the position in their enum.

use safetensors::Dtype;
use serde::{Deserialize, Deserializer, Serializer, de};

/// Code of an element type that this build does not know; such a tensor is refused.
const UNKNOWN: u8 = 255;

const CODES: [(u8, Dtype); 22] = [
    (0, Dtype::BOOL),
    (1, Dtype::U8),
    (2, Dtype::I8),
    (3, Dtype::U16),
    (4, Dtype::I16),
    (5, Dtype::U32),
    (6, Dtype::I32),
    (7, Dtype::U64),
    (8, Dtype::I64),
    (9, Dtype::F16),
    (10, Dtype::BF16),
    (11, Dtype::F32),
    (12, Dtype::F64),
    (13, Dtype::C64),
    (14, Dtype::F8_E5M2),
    (15, Dtype::F8_E4M3),
    (16, Dtype::F8_E8M0),
    (17, Dtype::F8_E4M3FNUZ),
    (18, Dtype::F8_E5M2FNUZ),
    (19, Dtype::F6_E2M3),
    (20, Dtype::F6_E3M2),
    (21, Dtype::F4),
];

/// The code of an element type on disk.
pub(crate) fn code(dtype: Dtype) -> u8 {
    CODES.iter().find(|(_, known)| *known == dtype).map_or(UNKNOWN, |(code, _)| *code)
}

/// Whether tensors of this type can be stored.
pub(crate) fn is_known(dtype: Dtype) -> bool {
    code(dtype) != UNKNOWN
}

/// Bytes of a tensor; `None` when the product overflows or does not end on a whole byte.
pub(crate) fn byte_len(dtype: Dtype, shape: &[u64]) -> Option<u64> {
    let scalars = shape.iter().try_fold(1u64, |product, dim| product.checked_mul(*dim))?;
    let bits = scalars.checked_mul(dtype.bitsize() as u64)?;
    (bits % 8 == 0).then_some(bits / 8)
}

/// Writes the code; for `#[serde(with)]`.
pub(crate) fn serialize<S: Serializer>(dtype: &Dtype, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u8(code(*dtype))
}

/// Reads the code; for `#[serde(with)]`.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Dtype, D::Error> {
    let code = u8::deserialize(deserializer)?;
    CODES
        .iter()
        .find(|(known, _)| *known == code)
        .map(|(_, dtype)| *dtype)
        .ok_or_else(|| de::Error::custom(format_args!("expected a dtype code, found {code}")))
}
