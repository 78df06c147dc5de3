//! A small image folder that any network can learn from.

use image::{Rgb, RgbImage};
use std::path::{Path, PathBuf};

const CLASSES: [(&str, [u8; 3]); 3] =
    [("blue", [30, 40, 200]), ("green", [30, 190, 50]), ("red", [210, 40, 30])];

/// Writes three classes of `per_class` images of `side` pixels: one colour each, with stripes that
/// tell the images of a class apart.
pub fn colours(folder: &Path, side: u32, per_class: u32) -> PathBuf {
    for (name, colour) in CLASSES {
        let class = folder.join(name);
        std::fs::create_dir_all(&class).expect("the tempdir takes folders");
        for number in 0..per_class {
            let image = RgbImage::from_fn(side, side, |x, y| {
                let stripe = ((x * (number + 1) + y * 3) % 7 * 5) as u8;
                let shade = (number * 4) as u8;
                Rgb(colour.map(|value| value.saturating_add(stripe).saturating_sub(shade)))
            });
            image.save(class.join(format!("{number}.png"))).expect("the tempdir takes images");
        }
    }
    folder.to_path_buf()
}
