//! Random changes of an image that keep its class.

use crate::sample::Image;
use rand::Rng;

/// Glyphs, digits and icons are small, and a mirrored glyph is another glyph.
const GLYPH_SIDE_MAX: usize = 64;

/// A shifted, scaled and brightened copy; photographs (over 64 pixels) are also mirrored half of
/// the time.
pub(super) fn augment(image: &Image, generator: &mut impl Rng) -> Image {
    let (width, height) = (image.width() as f32, image.height() as f32);
    let photo = image.width().max(image.height()) > GLYPH_SIDE_MAX;
    let spread = if photo { 0.15 } else { 0.08 };
    let mut within = |limit: f32| generator.random_range(-limit..=limit);
    let scale = 1.0 + within(spread);
    let (dx, dy) = (within(0.1) * width, within(0.1) * height);
    let brightness = 1.0 + within(0.15);
    let mirror = photo && generator.random::<bool>();
    let (center_x, center_y) = ((width - 1.0) / 2.0, (height - 1.0) / 2.0);
    let mut pixels = Vec::with_capacity(image.pixels().len());
    for row in 0..image.height() {
        let y = (row as f32 - center_y) * scale + center_y + dy;
        for column in 0..image.width() {
            let x = (column as f32 - center_x) * scale;
            let x = if mirror { -x } else { x } + center_x + dx;
            for channel in 0..image.channels() {
                pixels.push((sample(image, x, y, channel) * brightness).round() as u8);
            }
        }
    }
    let copy = Image::new(image.width(), image.height(), image.channels(), pixels);
    copy.unwrap_or_else(|| image.clone())
}

/// Bilinear; outside the image its nearest edge goes on.
fn sample(image: &Image, x: f32, y: f32, channel: usize) -> f32 {
    let x = x.clamp(0.0, (image.width() - 1) as f32);
    let y = y.clamp(0.0, (image.height() - 1) as f32);
    let (left, top) = (x as usize, y as usize);
    let (right, bottom) = ((left + 1).min(image.width() - 1), (top + 1).min(image.height() - 1));
    let at = |column: usize, row: usize| {
        f32::from(image.pixels()[(row * image.width() + column) * image.channels() + channel])
    };
    let (fx, fy) = (x - left as f32, y - top as f32);
    let upper = at(left, top) + (at(right, top) - at(left, top)) * fx;
    let lower = at(left, bottom) + (at(right, bottom) - at(left, bottom)) * fx;
    upper + (lower - upper) * fy
}

#[cfg(test)]
mod tests {
    use super::augment;
    use crate::sample::Image;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    /// Bright on the left, dark on the right.
    fn half(side: usize) -> Image {
        let pixels = (0..side * side).map(|index| if index % side < side / 2 { 200 } else { 10 });
        Image::new(side, side, 1, pixels.collect()).expect("an image")
    }

    fn mirrored(side: usize) -> usize {
        let mut generator = ChaCha8Rng::seed_from_u64(5);
        let left_is_dark = |_: &usize| {
            let copy = augment(&half(side), &mut generator);
            copy.pixels()[0] < copy.pixels()[side - 1]
        };
        (0..40).filter(left_is_dark).count()
    }

    #[test]
    fn glyphs_are_never_mirrored_and_photographs_are_half_of_the_time() {
        assert_eq!(mirrored(32), 0);
        assert!((10..30).contains(&mirrored(80)));
        let mut generator = ChaCha8Rng::seed_from_u64(5);
        let one = Image::new(1, 1, 3, vec![9, 255, 0]).expect("an image");
        assert_eq!(augment(&one, &mut generator).width(), 1);
        assert_ne!(augment(&half(16), &mut generator), augment(&half(16), &mut generator));
    }
}
