use super::images;
use crate::data::open;
use crate::sample::Image;
use image::{DynamicImage, ImageFormat};
use std::fs;
use std::path::Path;

fn save(root: &Path, name: &str, image: &DynamicImage, format: ImageFormat) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    image.save_with_format(path, format).unwrap();
}

fn solid(color: [u8; 4]) -> DynamicImage {
    DynamicImage::ImageRgba8(image::RgbaImage::from_pixel(4, 3, image::Rgba(color)))
}

fn red() -> DynamicImage {
    DynamicImage::ImageRgb8(solid([255, 0, 0, 255]).into_rgb8())
}

/// Two classes of two red PNGs.
fn plain(root: &Path) {
    for name in ["a/1.png", "a/2.png", "b/1.png", "b/2.png"] {
        save(root, name, &red(), ImageFormat::Png);
    }
}

fn load_one(root: &Path, name: &str) -> Result<Image, String> {
    let dataset = images(open(root));
    let all: Vec<usize> = (0..dataset.len()).collect();
    let index = all.iter().find(|&&i| dataset.name_of(i).ends_with(name)).unwrap();
    let mut loaded = dataset.load(&[*index]);
    loaded.images.pop().ok_or_else(|| loaded.skipped.remove(0).1)
}

#[test]
fn formats_go_by_content_and_classes_by_folder() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    save(root, "b/x.png", &red(), ImageFormat::WebP);
    save(root, "b/deep/er/y.dat", &red(), ImageFormat::Gif);
    save(root, "a/2.JPG", &red(), ImageFormat::Jpeg);
    save(root, "a/1.bmp", &red(), ImageFormat::Bmp);
    save(root, "a/.hidden.png", &red(), ImageFormat::Png);
    fs::write(root.join("a/notes.txt"), "no image").unwrap();
    fs::write(root.join("README"), "no image").unwrap();
    let dataset = images(open(root));
    assert_eq!(dataset.class_names, ["a", "b"]);
    assert_eq!(dataset.labels, [0, 0, 1, 1]);
    assert_eq!(dataset.ignored, 3);
    let loaded = dataset.load(&[3, 0, 1, 2]);
    assert!(loaded.skipped.is_empty(), "{:?}", loaded.skipped);
    assert_eq!(loaded.labels, [1, 0, 0, 1]);
    for image in &loaded.images {
        assert_eq!((image.width(), image.height(), image.channels()), (4, 3, 3));
        let pixel = &image.pixels()[..3];
        assert!(pixel[0] > 250 && pixel[1] < 5 && pixel[2] < 5, "{pixel:?}");
    }
}

#[test]
fn splits_are_not_taken_for_classes() {
    let dir = tempfile::tempdir().unwrap();
    plain(&dir.path().join("train"));
    plain(&dir.path().join("Val"));
    let told = open(dir.path()).unwrap_err().to_string();
    assert!(told.contains("splits") && told.contains("Val, train"), "{told}");
    assert_eq!(images(open(&dir.path().join("train"))).class_names, ["a", "b"]);
    // Classes may be called so.
    let dir = tempfile::tempdir().unwrap();
    for name in ["train/1.png", "train/2.png", "test/1.png", "test/2.png"] {
        save(dir.path(), name, &red(), ImageFormat::Png);
    }
    assert_eq!(images(open(dir.path())).class_names, ["test", "train"]);
}

#[test]
fn alpha_is_put_on_white_and_grey_stays_one_channel() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    plain(root);
    save(root, "a/half.png", &solid([0, 100, 255, 128]), ImageFormat::Png);
    let grey = image::GrayImage::from_pixel(2, 2, image::Luma([7]));
    save(root, "a/grey.png", &DynamicImage::ImageLuma8(grey), ImageFormat::Png);
    let grey_alpha = image::GrayAlphaImage::from_pixel(2, 2, image::LumaA([7, 0]));
    save(root, "a/ga.png", &DynamicImage::ImageLumaA8(grey_alpha), ImageFormat::Png);
    let deep = image::ImageBuffer::from_pixel(2, 2, image::Rgb([65535u16, 257 * 9, 0]));
    save(root, "a/deep.png", &DynamicImage::ImageRgb16(deep), ImageFormat::Png);
    assert_eq!(load_one(root, "half.png").unwrap().pixels()[..3], [127, 177, 255]);
    assert_eq!(load_one(root, "grey.png"), Ok(Image::new(2, 2, 1, vec![7; 4]).unwrap()));
    assert_eq!(load_one(root, "ga.png"), Ok(Image::new(2, 2, 1, vec![255; 4]).unwrap()));
    assert_eq!(load_one(root, "deep.png").unwrap().pixels()[..3], [255, 9, 0]);
}

#[test]
fn cmyk_and_orientation_are_honoured() {
    let dir = tempfile::tempdir().unwrap();
    plain(dir.path());
    let cmyk = include_bytes!("../../../tests/data/datasets/red_cmyk.jpg");
    let turned = include_bytes!("../../../tests/data/datasets/rotated_exif6.jpg");
    fs::write(dir.path().join("a/cmyk.jpg"), cmyk).unwrap();
    fs::write(dir.path().join("a/turned.jpg"), turned).unwrap();
    let cmyk = load_one(dir.path(), "cmyk.jpg").unwrap();
    assert!(cmyk.pixels()[0] > 200 && cmyk.pixels()[1] < 60, "{:?}", &cmyk.pixels()[..3]);
    let turned = load_one(dir.path(), "turned.jpg").unwrap();
    assert_eq!((turned.width(), turned.height()), (8, 16));
    // Stored red left of blue; a quarter turn clockwise puts red on top.
    let (first, last) = (&turned.pixels()[..3], &turned.pixels()[8 * 15 * 3..]);
    assert!(first[0] > 200 && last[2] > 200, "{first:?} {:?}", &last[..3]);
}

#[test]
fn what_follows_the_end_of_a_jpeg_is_not_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    plain(root);
    save(root, "a/photo.jpg", &red(), ImageFormat::Jpeg);
    let photo = fs::read(root.join("a/photo.jpg")).unwrap();
    // A phone's video may hold any bytes, those of a start of scan or of an end marker included.
    let video = b"\0\0\0\x18ftypmp42\xff\xd9\xff\xc0\0\x11\xff\xda\0\x0c\xff\xd8".repeat(9);
    fs::write(root.join("a/motion.jpg"), [&photo[..], &video].concat()).unwrap();
    fs::write(root.join("a/cut.jpg"), &photo[..photo.len() - 20]).unwrap();
    // Nothing but its marker ends a photo: one may hold a whole other, its thumbnail, in a segment.
    let mut framed = photo[..2].to_vec();
    framed.extend([0xff, 0xe1]);
    framed.extend((photo.len() as u16 + 2).to_be_bytes());
    framed.extend(&photo);
    framed.extend(&photo[2..photo.len() - 20]);
    fs::write(root.join("a/framed.jpg"), framed).unwrap();
    let expected = load_one(root, "photo.jpg").unwrap();
    assert_eq!(load_one(root, "motion.jpg"), Ok(expected));
    for name in ["cut.jpg", "framed.jpg"] {
        assert!(load_one(root, name).unwrap_err().contains("end marker"), "{name}");
    }
}

#[test]
fn unreadable_files_are_skipped_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    plain(root);
    save(root, "a/cut.png", &red(), ImageFormat::Png);
    save(root, "a/cut.jpg", &red(), ImageFormat::Jpeg);
    for name in ["a/cut.png", "a/cut.jpg"] {
        let bytes = fs::read(root.join(name)).unwrap();
        fs::write(root.join(name), &bytes[..bytes.len() - 20]).unwrap();
    }
    fs::write(root.join("a/text.png"), "not an image").unwrap();
    fs::write(root.join("a/empty.gif"), "").unwrap();
    let dataset = images(open(root));
    let loaded = dataset.load(&(0..dataset.len() + 1).collect::<Vec<_>>());
    assert_eq!((loaded.images.len(), loaded.skipped.len()), (4, 5), "{:?}", loaded.skipped);
    assert!(dataset.check_loaded(&loaded).is_ok());
    let partial = dataset.load(&[0, 2, 3, 4, 5]);
    let message = dataset.check_loaded(&partial).unwrap_err().to_string();
    assert!(message.contains("skipped"), "{message}");
}

#[test]
fn a_picture_that_claims_to_be_huge_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    plain(dir.path());
    let mut bomb = fs::read(dir.path().join("a/1.png")).unwrap();
    // Width and height stand at bytes 16..24 of a PNG, the checksum of that chunk at 29..33.
    bomb[16..24].copy_from_slice(&[0, 0, 0x40, 0, 0, 0, 0x40, 0]);
    let mut checksum = flate2::Crc::new();
    checksum.update(&bomb[12..29]);
    bomb[29..33].copy_from_slice(&checksum.sum().to_be_bytes());
    fs::write(dir.path().join("a/bomb.png"), bomb).unwrap();
    let reason = load_one(dir.path(), "bomb.png").unwrap_err();
    assert!(reason.contains("512 MB") || reason.contains("imit"), "{reason}");
}

#[cfg(unix)]
#[test]
fn links_neither_loop_nor_pull_other_classes_in() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("set");
    plain(&root);
    save(dir.path(), "outside/9.png", &red(), ImageFormat::Png);
    symlink("..", root.join("a/up")).unwrap();
    symlink("../..", root.join("a/upper")).unwrap();
    symlink(".", root.join("a/self")).unwrap();
    symlink("/nowhere/at/all.png", root.join("a/lost.png")).unwrap();
    symlink(dir.path().join("outside"), root.join("b/more")).unwrap();
    let dataset = images(open(&root));
    assert_eq!(dataset.labels, [0, 0, 0, 1, 1, 1]);
    assert_eq!(dataset.ignored, 3);
    assert_eq!(dataset.load(&[0, 1, 2, 3, 4, 5]).skipped.len(), 1);
}

#[test]
fn what_is_no_dataset_is_refused_with_advice() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let refusal = |name: &str| open(&root.join(name)).unwrap_err().to_string();
    assert!(refusal("missing").contains("nothing at this path"));
    fs::create_dir(root.join("empty")).unwrap();
    assert!(refusal("empty").contains("no subfolder and no image"));
    save(root, "loose/1.png", &red(), ImageFormat::Png);
    assert!(refusal("loose").contains("no labels"));
    assert!(refusal("loose/1.png").contains("a single image"));
    fs::create_dir_all(root.join("hollow/a")).unwrap();
    assert!(refusal("hollow").contains("no sample"));
    save(root, "one/a/1.png", &red(), ImageFormat::Png);
    save(root, "one/a/2.png", &red(), ImageFormat::Png);
    assert!(refusal("one").contains("one class, \"a\""));
    save(root, "one/b/1.png", &red(), ImageFormat::Png);
    assert!(refusal("one").contains("class \"b\" with 1 sample;"));
    fs::write(root.join("text.npz"), "hello").unwrap();
    assert!(refusal("text.npz").contains("another kind"));
}
