//! One image of a dataset: the vocabulary that data, graph and encoder share.

/// An 8-bit image, height x width x channels, row-major. One channel is grey, three are red, green, blue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    width: usize,
    height: usize,
    channels: usize,
    pixels: Vec<u8>,
}

impl Image {
    /// Wraps pixels; `None` unless `channels` is 1 or 3, both sides are at least 1 and the length fits.
    pub fn new(width: usize, height: usize, channels: usize, pixels: Vec<u8>) -> Option<Self> {
        let fits = width >= 1 && height >= 1 && matches!(channels, 1 | 3);
        let length = width.checked_mul(height)?.checked_mul(channels)?;
        (fits && pixels.len() == length).then_some(Self { width, height, channels, pixels })
    }
    /// Columns.
    pub fn width(&self) -> usize {
        self.width
    }
    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }
    /// 1 or 3.
    pub fn channels(&self) -> usize {
        self.channels
    }
    /// `[height, width, channels]`.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }
    /// blake3 of (width, height, channels, pixels): the identity of this image everywhere in the zoo.
    pub fn hash(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        for side in [self.width, self.height, self.channels] {
            hasher.update(&(side as u64).to_le_bytes());
        }
        hasher.update(&self.pixels);
        *hasher.finalize().as_bytes()
    }
}
