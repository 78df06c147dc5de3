//! The backbone knows what is on well-known photographs.

use super::{Backbone, FEATURE_DIM};
use crate::graph::exec::Device;
use crate::graph::exec::network::photos;
use crate::sample::Image;
use std::ops::ControlFlow;

/// (file, ImageNet class): tabby-like cat 281..=287 is class 285 here, espresso 967, missile 657,
/// moped 665, tripod 872.
const LABELS: [(&str, usize); 5] = [
    ("chelsea.png", 285),
    ("coffee.png", 967),
    ("rocket.jpg", 657),
    ("motorcycle_left.png", 665),
    ("camera.png", 872),
];

/// ImageNet networks are trained on squares cut from photographs, not on squeezed ones.
fn central_square(image: &Image) -> Image {
    let side = image.width().min(image.height());
    let (left, top) = ((image.width() - side) / 2, (image.height() - side) / 2);
    let start = |row: usize| ((top + row) * image.width() + left) * 3;
    let pixels = (0..side).flat_map(|row| &image.pixels()[start(row)..start(row) + side * 3]);
    Image::new(side, side, 3, pixels.copied().collect()).expect("a square")
}

#[test]
fn photographs_get_their_imagenet_labels() {
    let Some(images) = photos(&LABELS.map(|(file, _)| file)) else { return };
    let images: Vec<Image> = images.iter().map(central_square).collect();
    let backbone = Backbone::load(Device::Cpu).expect("load");
    let logits = backbone.logits(&images).expect("logits");
    for (row, (file, label)) in logits.iter().zip(LABELS) {
        let best = (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b]));
        assert_eq!(best, Some(label), "{file}");
    }
    let mut calls = Vec::new();
    let mut record = |done, total| {
        calls.push((done, total));
        ControlFlow::Continue(())
    };
    let rows = backbone.rows(&images, &mut record).expect("rows");
    assert_eq!((rows.len(), rows.dim()), (5, FEATURE_DIM));
    assert_eq!(calls, [(0, 5), (5, 5)]);
    let mut stop = |_, _| ControlFlow::Break(());
    let error = backbone.rows(&images, &mut stop).expect_err("a cancelled run");
    assert!(matches!(error, super::Error::Cancelled));
}

#[test]
fn no_images_give_no_rows() {
    let backbone = Backbone::load(Device::Cpu).expect("load");
    let rows = backbone.rows(&[], &mut |_, _| ControlFlow::Continue(())).expect("rows");
    assert!(rows.is_empty());
}

#[test]
fn the_fingerprint_known_without_libtorch_is_that_of_the_weights() {
    assert_eq!(super::fingerprint(), crate::encoder::BACKBONE_FINGERPRINT);
}
