//! One image file to an 8-bit image: format by content, limits against bombs, alpha on white.

use crate::sample::Image;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};
use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

/// Longest side of an image.
pub(super) const SIDE_MAX: usize = 16_384;

/// Most bytes that one image may need, as a file and decoded.
const IMAGE_BYTES_MAX: u64 = 512 << 20;

/// The formats that are decoded.
pub(super) const FORMATS: &str = "PNG, JPEG, GIF, WebP or BMP";

/// Whether the first bytes of a file are those of a decodable format.
pub(super) fn is_image(start: &[u8]) -> bool {
    format_of(start).is_some()
}

fn format_of(start: &[u8]) -> Option<ImageFormat> {
    let format = image::guess_format(start).ok()?;
    let decodable = [
        ImageFormat::Png,
        ImageFormat::Jpeg,
        ImageFormat::Gif,
        ImageFormat::WebP,
        ImageFormat::Bmp,
    ];
    decodable.contains(&format).then_some(format)
}

/// Decodes a file; the error is the reason why it cannot be used.
pub(super) fn decode_file(path: &Path) -> Result<Image, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    let read = file.take(IMAGE_BYTES_MAX + 1).read_to_end(&mut bytes);
    read.map_err(|error| error.to_string())?;
    if bytes.len() as u64 > IMAGE_BYTES_MAX {
        return Err("expected at most 512 MB, found a larger file".into());
    }
    decode_bytes(&bytes)
}

/// Decodes one encoded image. Animations give their first frame.
fn decode_bytes(bytes: &[u8]) -> Result<Image, String> {
    if bytes.is_empty() {
        return Err("expected an image, found an empty file".into());
    }
    let format =
        format_of(bytes).ok_or_else(|| format!("expected {FORMATS}, found other content"))?;
    let bytes = match format {
        ImageFormat::Jpeg => &bytes[..jpeg_len(bytes)?],
        _ => bytes,
    };
    let (mut decoded, orientation) = decode_within_limits(bytes, format)?;
    decoded.apply_orientation(orientation);
    to_image(decoded).ok_or_else(|| "expected at least 1x1 pixels".into())
}

/// Bytes up to the end marker, found by walking the segments (ITU-T T.81, annex B).
///
/// The decoder fills what is missing with grey instead of failing, so completeness is ours to check. Phones append
/// whole videos to their photos, in which any two bytes may look like a marker: what follows the end is not looked at.
fn jpeg_len(bytes: &[u8]) -> Result<usize, String> {
    const END: u8 = 0xd9;
    // A zero stuffs the data of a scan, 0xff fills, and 0x01 and the restarts stand alone.
    let has_length = |code: u8| !matches!(code, 0x00 | 0x01 | 0xd0..=0xd8 | 0xff);
    let mut at = 0;
    while let Some(offset) = bytes[at..].windows(2).position(|pair| pair[0] == 0xff) {
        let code = bytes[at + offset + 1];
        at += offset + if code == 0xff { 1 } else { 2 };
        if code == END {
            return Ok(at);
        }
        if has_length(code) {
            let Some(&[high, low]) = bytes.get(at..at + 2) else { break };
            at = at.saturating_add(usize::from(u16::from_be_bytes([high, low]))).min(bytes.len());
        }
    }
    Err("truncated JPEG: the end marker is missing".into())
}

fn decode_within_limits(
    bytes: &[u8],
    format: ImageFormat,
) -> Result<(DynamicImage, Orientation), String> {
    let mut limits = Limits::default();
    limits.max_image_width = Some(SIDE_MAX as u32);
    limits.max_image_height = Some(SIDE_MAX as u32);
    limits.max_alloc = Some(IMAGE_BYTES_MAX);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(|error| error.to_string())?;
    // `from_decoder` allocates the whole picture without asking the limits.
    let (width, height) = decoder.dimensions();
    if width.max(height) as usize > SIDE_MAX || decoder.total_bytes() > IMAGE_BYTES_MAX {
        return Err(format!(
            "expected sides up to {SIDE_MAX} and at most 512 MB decoded, found {width}x{height}"
        ));
    }
    // An unreadable orientation tag says nothing about the pixels.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let decoded = DynamicImage::from_decoder(decoder).map_err(|error| error.to_string())?;
    Ok((decoded, orientation))
}

fn to_image(decoded: DynamicImage) -> Option<Image> {
    let (width, height) = (decoded.width() as usize, decoded.height() as usize);
    let color = decoded.color();
    match (color.has_color(), color.has_alpha()) {
        (false, false) => Image::new(width, height, 1, decoded.into_luma8().into_raw()),
        (true, false) => Image::new(width, height, 3, decoded.into_rgb8().into_raw()),
        (false, true) => on_white(width, height, 2, decoded.into_luma_alpha8().as_raw()),
        (true, true) => on_white(width, height, 4, decoded.into_rgba8().as_raw()),
    }
}

/// Composites pixels of `channels` (the last one is alpha) on white.
pub(super) fn on_white(
    width: usize,
    height: usize,
    channels: usize,
    pixels: &[u8],
) -> Option<Image> {
    let mut out = Vec::with_capacity(pixels.len() / channels * (channels - 1));
    for pixel in pixels.chunks_exact(channels) {
        let alpha = u32::from(pixel[channels - 1]);
        for &value in &pixel[..channels - 1] {
            out.push(((u32::from(value) * alpha + 255 * (255 - alpha) + 127) / 255) as u8);
        }
    }
    Image::new(width, height, channels - 1, out)
}
