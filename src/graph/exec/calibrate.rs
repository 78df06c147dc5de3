//! Estimates the running statistics of batch normalisation anew.

use super::budget::Budget;
use super::network::{batch_tensor, channels_last, first_output};
use super::ops::{Fault, Mode};
use super::plan::{Feed, Plan, outside};
use super::{Device, tensor};
use crate::graph::formats::Limits;
use crate::graph::{Error, Graph, Node, Weight, input::InputContract};
use crate::sample::Image;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use tch::{Kind, Tensor};

/// Names of the statistics of one normalisation.
struct Place {
    mean: String,
    variance: String,
}

/// Sums over batches, weighted by their images.
#[derive(Default)]
struct Sums {
    images: f64,
    mean: Vec<f64>,
    variance: Vec<f64>,
}

/// The network with the running statistics of these images: in each batch, every normalisation uses the batch's own mean
/// and (unbiased) variance, and what it keeps is their average over the batches, weighted by their images. A network that
/// was cut out of a larger one needs this, for its statistics are those of the larger one's values (Yu & Huang 2019;
/// Once-for-all's `set_running_statistics`).
///
/// Images pass through the input contract, `batch_size` (at least 2) at a time; a last batch of one image is left out. A
/// network without batch normalisation stays as it is.
///
/// # Errors
/// `Error::Contract` for fewer than two images or a batch of less than two, `Error::NotRunnable` and `Error::Execution` as
/// for `Network`; also where a statistic is not finite.
pub fn calibrate(
    graph: &Graph,
    input: &InputContract,
    images: &[&Image],
    batch_size: usize,
    device: Device,
) -> Result<Graph, Error> {
    if images.len() < 2 || batch_size < 2 {
        let (images, batch) = (images.len(), batch_size);
        return Err(Error::Contract(format!(
            "expected at least 2 images, and 2 in a batch, to estimate statistics from, found {images} and {batch}"
        )));
    }
    let _guard = tch::no_grad_guard();
    let device = device.resolve()?;
    let dense = without_dropout(graph);
    let plan = Plan::new(&dense)?;
    let program = plan.program(&[first_output(graph)?])?;
    let weights = plan.load(&dense, device)?;
    let weights = weights.iter().map(channels_last).collect::<Result<Vec<_>, _>>()?;
    let places = places(graph);
    let mut sums: HashMap<String, Sums> = HashMap::new();
    let mode = Mode::Training(Box::new(RefCell::new(ChaCha8Rng::seed_from_u64(0))));
    for chunk in images.chunks(batch_size).filter(|chunk| chunk.len() > 1) {
        let batch = batch_tensor(input, chunk, device)?;
        if let Some(entry) = graph.inputs.first().filter(|it| places.contains_key(&it.name)) {
            let sums = sums.entry(entry.name.clone()).or_default();
            add(sums, &batch, chunk.len() as f64).map_err(outside("statistics"))?;
        }
        let budget = Budget::new(&Limits::default());
        let feed = Feed { weights: &weights, inputs: vec![batch], mode: &mode, budget: &budget };
        plan.run(&program, feed, &mut |_, name, value| {
            if places.contains_key(name) {
                let sums = sums.entry(name.to_owned()).or_default();
                add(sums, value, chunk.len() as f64).map_err(outside("statistics"))?;
            }
            Ok(())
        })?;
    }
    let mut graph = graph.clone();
    for (value, sums) in sums {
        for Place { mean, variance } in &places[&value] {
            put(&mut graph, mean, &sums.mean, sums.images)?;
            put(&mut graph, variance, &sums.variance, sums.images)?;
        }
    }
    Ok(graph)
}

/// The graph in which nothing is dropped, which would make values vary more than they do when the network is used.
fn without_dropout(graph: &Graph) -> Graph {
    let mut dense = graph.clone();
    let outputs = graph.outputs.iter().map(|output| output.name.as_str());
    let read: HashSet<&str> = graph.nodes.iter().flat_map(Node::reads).chain(outputs).collect();
    for node in dense.nodes.iter_mut().filter(|node| node.op == "Dropout") {
        let is_mask_read = node.outputs.iter().skip(1).any(|name| read.contains(name.as_str()));
        if !is_mask_read {
            node.op = "Identity".to_owned();
            node.inputs.truncate(1);
            node.outputs.truncate(1);
            node.attributes.clear();
        }
    }
    dense
}

/// The normalisations that read each value; those in training mode of their own keep none.
fn places(graph: &Graph) -> HashMap<String, Vec<Place>> {
    let mut places: HashMap<String, Vec<Place>> = HashMap::new();
    for node in graph.nodes.iter().filter(|node| node.op == "BatchNormalization") {
        let [value, _, _, mean, variance] = node.inputs.as_slice() else { continue };
        let place = Place { mean: mean.clone(), variance: variance.clone() };
        places.entry(value.clone()).or_default().push(place);
    }
    places
}

/// Adds a batch's mean and variance for each channel (axis 1).
fn add(sums: &mut Sums, value: &Tensor, images: f64) -> Result<(), Fault> {
    let dims: Vec<i64> = (0..value.dim() as i64).filter(|&dim| dim != 1).collect();
    let value = value.f_to_kind(Kind::Double)?;
    let mean = value.f_mean_dim(Some(&dims[..]), false, Kind::Double)?;
    let variance = value.f_var_dim(Some(&dims[..]), true, false)?;
    for (sum, batch) in [(&mut sums.mean, mean), (&mut sums.variance, variance)] {
        let batch = tensor::to_f32(&batch)?;
        sum.resize(batch.len(), 0.0);
        sum.iter_mut().zip(batch).for_each(|(sum, value)| *sum += f64::from(value) * images);
    }
    sums.images += images;
    Ok(())
}

fn put(graph: &mut Graph, name: &str, sums: &[f64], images: f64) -> Result<(), Error> {
    let values: Vec<f32> = sums.iter().map(|sum| (sum / images) as f32).collect();
    if let Some(value) = values.iter().find(|value| !value.is_finite()) {
        let message = format!("statistic {name}: expected finite numbers, found {value}");
        return Err(super::plan::failed("BatchNormalization", name, message));
    }
    // What is computed from other weights is no statistic that could be set.
    if let Some(weight) = graph.weights.get_mut(name) {
        *weight = Weight::from_f32(&[values.len()], &values);
    }
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]
mod tests {
    use super::*;
    use crate::graph::spaces::generate;
    use rand::Rng;

    fn images(count: usize) -> Vec<Image> {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let mut image = |number: usize| {
            let most = 60 + 20 * number as u32;
            let pixels = (0..32 * 32 * 3).map(|_| random.random_range(0..most.min(255)) as u8);
            Image::new(32, 32, 3, pixels.collect()).unwrap()
        };
        (0..count).map(&mut image).collect()
    }

    fn statistic(graph: &Graph, name: &str) -> Vec<f32> {
        graph.weights[name].floats().unwrap()
    }

    /// The first normalisation sees one convolution of the images alone, so that its statistics can be computed by hand.
    #[test]
    fn statistics_are_those_of_the_batches() {
        let made = generate("mobilenetv3_tiny:d2-k3-e3@32", 4, 2).unwrap();
        let images = images(7);
        let images: Vec<&Image> = images.iter().collect();
        let found = calibrate(&made.graph, &made.input, &images, 3, Device::Cpu).unwrap();
        let kernel = made.graph.weights["first_conv.conv.weight"].floats().unwrap();
        // The seventh image would be a batch of its own.
        let mut expected = [[0.0_f64; 2]; 16];
        for batch in images[..6].chunks(3) {
            for (channel, expected) in expected.iter_mut().enumerate() {
                let kernel = &kernel[channel * 27..(channel + 1) * 27];
                let values: Vec<f64> =
                    batch.iter().flat_map(|image| convolved(&made.input, image, kernel)).collect();
                let mean = values.iter().sum::<f64>() / values.len() as f64;
                let square = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
                expected[0] += mean / 2.0;
                expected[1] += square / (values.len() - 1) as f64 / 2.0;
            }
        }
        for (at, name) in ["running_mean", "running_var"].into_iter().enumerate() {
            let found = statistic(&found, &format!("first_conv.bn.{name}"));
            for (found, expected) in found.iter().zip(expected) {
                let expected = expected[at] as f32;
                assert!((found - expected).abs() < 1e-4 * (1.0 + expected.abs()), "{name}");
            }
        }
        // Nothing but statistics has changed, and all of them have.
        for (name, weight) in &made.graph.weights {
            let is_statistic = name.contains(".running_");
            assert_eq!(weight.data() != found.weights[name].data(), is_statistic, "{name}");
        }
    }

    /// A 3x3 convolution of one image with padding 1.
    fn convolved(input: &InputContract, image: &Image, kernel: &[f32]) -> Vec<f64> {
        let mut pixels = Vec::new();
        input.apply(image, &mut pixels);
        let at = |channel: usize, row: i64, column: i64| {
            let inside = (0..32).contains(&row) && (0..32).contains(&column);
            let at = || pixels[channel * 1024 + row as usize * 32 + column as usize];
            if inside { f64::from(at()) } else { 0.0 }
        };
        let value = |place: i64| -> f64 {
            let (row, column) = (place / 32, place % 32);
            let taps = (0..27).map(|tap| {
                let (channel, rest) = (tap / 9, tap % 9);
                let (dy, dx) = (rest as i64 / 3 - 1, rest as i64 % 3 - 1);
                f64::from(kernel[tap]) * at(channel, row + dy, column + dx)
            });
            taps.sum()
        };
        (0..1024).map(value).collect()
    }

    /// With one batch, inference by the new statistics is what training by the batch's own gives, up to the unbiased
    /// variance: normalised values have mean 0 in every layer.
    #[test]
    fn calibrated_statistics_are_a_fixed_point() {
        let made = generate("mobilenetv3_tiny:d2-k3-e3@32", 4, 2).unwrap();
        let images = images(6);
        let images: Vec<&Image> = images.iter().collect();
        let once = calibrate(&made.graph, &made.input, &images, 6, Device::Cpu).unwrap();
        let twice = calibrate(&once, &made.input, &images, 6, Device::Cpu).unwrap();
        for name in ["blocks.4.depthwise.bn.running_mean", "final_expand.bn.running_var"] {
            assert_eq!(statistic(&once, name), statistic(&twice, name));
            assert_ne!(statistic(&once, name), statistic(&made.graph, name));
        }
    }

    #[test]
    fn a_single_image_has_no_variance() {
        let made = generate("mobilenetv3_tiny:d2-k3-e3@32", 4, 2).unwrap();
        let image = images(1);
        for (images, batch) in [(&[&image[0]][..], 8), (&[&image[0], &image[0]], 1)] {
            let refused = calibrate(&made.graph, &made.input, images, batch, Device::Cpu);
            let error = refused.err().unwrap().to_string();
            assert!(error.contains("at least 2 images"), "{error}");
        }
    }
}
