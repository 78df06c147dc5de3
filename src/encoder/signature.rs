//! What a network does, whatever its width: the projected Gram matrix of its penultimate activations.

use super::Error;
use crate::rows::Rows;

/// Numbers in a signature.
pub const SIGNATURE_LEN: usize = 512;

/// Version of probe images, projection and formula.
pub const SIGNATURE_VERSION: u32 = 1;

/// features: `[128, d]`, penultimate activations on the probe images -> 512 numbers.
///
/// G = P P' / |P P'| of centred P; its upper triangle times a seeded random matrix, so that the inner product of two
/// signatures approximates linear CKA.
pub fn signature(_features: &Rows) -> Result<Vec<f32>, Error> {
    todo!()
}
