//! Bilinear resizing with antialiasing: a triangle filter, widened by the factor of reduction.

use crate::sample::Image;

/// Source positions and shares of every target position along one axis.
struct Taps {
    /// (first source position, shares), normalised to a sum of 1.
    rows: Vec<(usize, Vec<f32>)>,
}

/// The whole image stretched to `[height, width, channels]` f32, values in 0..=255.
pub(super) fn resize(image: &Image, height: usize, width: usize) -> Vec<f32> {
    let (columns, rows) = (Taps::new(image.width(), width), Taps::new(image.height(), height));
    let narrow = match image.channels() {
        1 => resize_columns::<1>(image, &columns),
        _ => resize_columns::<3>(image, &columns),
    };
    resize_rows(&narrow, width * image.channels(), &rows)
}

impl Taps {
    fn new(source: usize, target: usize) -> Self {
        let ratio = source as f64 / target as f64;
        let reach = ratio.max(1.0);
        let tap = |index: usize| {
            let center = (index as f64 + 0.5) * ratio;
            let first = (center - reach + 0.5).max(0.0) as usize;
            let end = ((center + reach + 0.5) as usize).min(source);
            let share = |at: usize| (1.0 - ((at as f64 + 0.5 - center) / reach).abs()).max(0.0);
            let sum: f64 = (first..end).map(share).sum();
            (first, (first..end).map(|at| (share(at) / sum) as f32).collect())
        };
        Self { rows: (0..target).map(tap).collect() }
    }
}

fn resize_columns<const C: usize>(image: &Image, taps: &Taps) -> Vec<f32> {
    let mut out = Vec::with_capacity(image.height() * taps.rows.len() * C);
    for row in image.pixels().chunks_exact(image.width() * C) {
        let (pixels, _) = row.as_chunks::<C>();
        for (first, shares) in &taps.rows {
            let mut sum = [0.0_f32; C];
            for (pixel, share) in pixels[*first..].iter().zip(shares) {
                for channel in 0..C {
                    sum[channel] += f32::from(pixel[channel]) * share;
                }
            }
            out.extend(sum);
        }
    }
    out
}

fn resize_rows(pixels: &[f32], stride: usize, taps: &Taps) -> Vec<f32> {
    let mut out = vec![0.0_f32; taps.rows.len() * stride];
    for (target, (first, shares)) in out.chunks_exact_mut(stride).zip(&taps.rows) {
        for (source, share) in pixels.chunks_exact(stride).skip(*first).zip(shares) {
            target.iter_mut().zip(source).for_each(|(sum, value)| *sum += value * share);
        }
    }
    out
}
