use super::*;
use crate::graph::cost::params;
use crate::graph::exec::{Device, Network, calibrate};
use crate::graph::formats::{StateDict, onnx};
use crate::graph::input::InputContract;
use crate::graph::spaces::{generate, pretrained};
use crate::sample::Image;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

const TINY: &str = "mobilenetv3_tiny:supernet@32";

/// A supernet whose normalisations, biases and matrices are drawn, too, so that every slip of a channel shows.
fn supernet(spec: &str) -> (Supernet, Generated) {
    let mut made = generate(spec, 7, 3).unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(11);
    for (name, weight) in &mut made.graph.weights {
        if weight.shape.len() == 4 || name == "classifier.weight" {
            continue;
        }
        let is_positive = name.ends_with("running_var") || name.ends_with("bn.weight");
        let mut draw = |value: f32| match is_positive {
            true => random.random_range(0.5..1.5),
            false => value + random.random_range(-0.1..0.1),
        };
        let values: Vec<f32> = weight.floats().unwrap().into_iter().map(&mut draw).collect();
        *weight = Weight::from_f32(&weight.shape, &values);
    }
    (Supernet::parse(spec).unwrap(), made)
}

fn images(count: usize, side: usize) -> Vec<Image> {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut image = |_| {
        let pixels = (0..side * side * 3).map(|_| random.random()).collect();
        Image::new(side, side, 3, pixels).unwrap()
    };
    (0..count).map(&mut image).collect()
}

fn logits(graph: &Graph, input: &InputContract) -> Vec<f32> {
    let images = images(3, input.height);
    Network::new(graph, input, Device::Cpu).unwrap().logits(&images).unwrap().values().to_vec()
}

fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).fold(0.0, |most, (a, b)| most.max((a - b).abs()))
}

#[test]
fn the_whole_cut_is_the_supernet() {
    let (space, made) = supernet(TINY);
    let cut = space.largest().cut(&made.graph).unwrap();
    assert_eq!(cut.config, "d4-k7-e6");
    assert_eq!(cut.numbers, made.numbers);
    assert_eq!(logits(&cut.graph, &cut.input), logits(&made.graph, &made.input));
}

#[test]
fn sorted_channels_compute_the_same_and_are_in_order() {
    let (_, mut made) = supernet(TINY);
    let images = images(8, 32);
    let images: Vec<&Image> = images.iter().collect();
    made.graph = calibrate(&made.graph, &made.input, &images, 8, Device::Cpu).unwrap();
    let mut sorted = made.graph.clone();
    sort_channels(&mut sorted).unwrap();
    assert_ne!(
        sorted.weights["blocks.5.expand.conv.weight"].data(),
        made.graph.weights["blocks.5.expand.conv.weight"].data()
    );
    let (before, after) = (logits(&made.graph, &made.input), logits(&sorted, &made.input));
    let scale = before.iter().fold(1.0_f32, |most, value| most.max(value.abs()));
    assert!(distance(&before, &after) < 1e-5 * scale, "{} {scale}", distance(&before, &after));
    for block in 1..=20 {
        let order = order(&sorted, &format!("blocks.{block}.project.conv.weight")).unwrap();
        assert!(order.is_sorted(), "block {block}");
    }
}

#[test]
fn a_cut_has_the_shapes_of_its_space() {
    for (spec, codes) in [
        (TINY, &["d2-k3-e3", "d2.3.4.2.3-k3.5.7.5.3-e3.4.6.3.4"][..]),
        ("mobilenetv3:supernet@64", &["d3-k5-e4"]),
        ("mobilenetv3:supernet-w1.2@32", &["d2.4.2.2.3-k7-e3"]),
    ] {
        let (space, made) = supernet(spec);
        for code in codes {
            let subnet = space.subnet(code).unwrap();
            let cut = subnet.cut(&made.graph).unwrap();
            let own = generate(&subnet.spec(), 7, 0).unwrap();
            assert_eq!(params(&cut.graph), params(&own.graph), "{code}");
            assert_eq!((cut.config, &cut.numbers), (own.config, &own.numbers));
            let shapes = |graph: &Graph| -> Vec<(String, Vec<usize>)> {
                graph.weights.iter().map(|(name, it)| (name.clone(), it.shape.clone())).collect()
            };
            assert_eq!(shapes(&cut.graph), shapes(&own.graph), "{code}");
            let numbers: Vec<String> = own.numbers.iter().map(f32::to_string).collect();
            assert_eq!(space.subnet(&numbers.join(",")).unwrap(), subnet);
        }
    }
}

#[test]
fn identity_transforms_are_centre_crops() {
    let made = generate(TINY, 7, 3).unwrap();
    let space = Supernet::parse(TINY).unwrap();
    let cut = space.subnet("d4-k3-e6").unwrap().cut(&made.graph).unwrap();
    let name = "blocks.7.depthwise.conv.weight";
    let whole = made.graph.weights[name].floats().unwrap();
    let found = cut.graph.weights[name].floats().unwrap();
    for (kernel, small) in whole.chunks_exact(49).zip(found.chunks_exact(9)) {
        let centre: Vec<f32> =
            (2..5).flat_map(|row| kernel[row * 7 + 2..row * 7 + 5].to_vec()).collect();
        assert_eq!(centre, small);
    }
}

#[test]
fn transforms_multiply_the_flattened_centre() {
    // 2 * the pixel on the right, as a matrix over the flattened centre of a 5 x 5 kernel.
    let kernel: Vec<f32> = (0..25).map(|value| value as f32).collect();
    let mut matrix = vec![0.0; 81];
    (0..8).for_each(|row| matrix[row * 9 + row + 1] = 2.0);
    let found = shrink(&kernel, (5, 3), &matrix);
    assert_eq!(found, [14.0, 16.0, 22.0, 24.0, 26.0, 32.0, 34.0, 36.0, 0.0]);
    let steps = kernel_steps("blocks.2.depthwise.conv.weight", &[8, 1, 7, 7], 3);
    let names: Vec<&str> = steps.iter().map(|step| step.matrix.as_str()).collect();
    assert_eq!(names, ["blocks.2.depthwise.7to5.weight", "blocks.2.depthwise.5to3.weight"]);
    assert!(kernel_steps("blocks.2.expand.conv.weight", &[8, 4, 1, 1], 1).is_empty());
}

#[test]
fn blocks_of_a_cut_come_from_their_own_stage() {
    let (space, made) = supernet(TINY);
    let cut = space.subnet("d2-k7-e6").unwrap().cut(&made.graph).unwrap().graph;
    // The third block of the smallest depth opens the second stage: block 5 of the supernet.
    let weight = |graph: &Graph, name: &str| graph.weights[name].data().to_vec();
    for (own, source) in [(1, 1), (2, 2), (3, 5), (4, 6), (9, 17), (10, 18)] {
        let name = |block: usize| format!("blocks.{block}.project.conv.weight");
        assert_eq!(weight(&cut, &name(own)), weight(&made.graph, &name(source)), "{own}");
    }
}

#[test]
fn freedom_bounds_what_is_drawn() {
    let space = Supernet::parse(TINY).unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(0);
    assert_eq!(space.smallest(Freedom::Expansion).code(), "d2-k3-e3");
    assert_eq!(space.smallest(Freedom::Depth).code(), "d2-k3-e6");
    assert_eq!(space.draw(Freedom::Whole, &mut random), space.largest());
    let drawn = space.draw(Freedom::Kernel, &mut random);
    assert!(drawn.code().starts_with("d4-k") && drawn.code().ends_with("-e6"), "{}", drawn.code());
    let drawn = space.draw(Freedom::Expansion, &mut random);
    assert_eq!(space.subnet(&drawn.code()).unwrap(), drawn);
}

/// The names of a published checkpoint, by what its layers are made of.
fn published(name: &str) -> String {
    let (layer, leaf) = name.rsplit_once('.').unwrap();
    let Some((block, part)) = layer.strip_prefix("blocks.").and_then(|it| it.split_once('.'))
    else {
        return match layer {
            "feature_mix" => format!("feature_mix_layer.conv.{leaf}"),
            "classifier" => format!("classifier.linear.{leaf}"),
            _ => name.replace("final_expand", "final_expand_layer"),
        };
    };
    let dynamic = if block == "0" { "" } else { ".conv" };
    let norm = if block == "0" { "" } else { ".bn" };
    let part = match part {
        "expand.conv" => "inverted_bottleneck.conv.conv".to_owned(),
        "expand.bn" => "inverted_bottleneck.bn.bn".to_owned(),
        "depthwise.conv" => format!("depth_conv.conv{dynamic}"),
        "depthwise.bn" => format!("depth_conv.bn{norm}"),
        "project.conv" => format!("point_linear.conv{dynamic}"),
        "project.bn" => format!("point_linear.bn{norm}"),
        "se.reduce" | "se.expand" => part.replace("se.", "depth_conv.se.fc."),
        step => {
            return format!(
                "blocks.{block}.mobile_inverted_conv.depth_conv.conv.{}_matrix",
                step.trim_start_matches("depthwise.")
            );
        }
    };
    format!("blocks.{block}.mobile_inverted_conv.{part}.{leaf}")
}

/// The supernet's weights under their published names, with the counters of PyTorch's normalisations.
fn checkpoint(graph: &Graph, with_matrices: bool) -> Vec<(String, Weight)> {
    let weights = onnx::canonical(graph).unwrap().weights.into_iter();
    let mut entries: Vec<(String, Weight)> = weights
        .filter(|(name, _)| with_matrices || !is_matrix(name))
        .map(|(name, weight)| (published(&name), weight))
        .collect();
    entries.push(("first_conv.bn.num_batches_tracked".into(), Weight::from_i64(&[], &[9])));
    entries
}

#[test]
fn a_published_checkpoint_is_read_by_its_names() {
    let (_, made) = supernet("mobilenetv3:supernet@64");
    let entries = checkpoint(&made.graph, true);
    for name in [
        "first_conv.conv.weight",
        "blocks.0.mobile_inverted_conv.depth_conv.conv.weight",
        "blocks.3.mobile_inverted_conv.depth_conv.conv.conv.weight",
        "blocks.3.mobile_inverted_conv.depth_conv.conv.7to5_matrix",
        "blocks.6.mobile_inverted_conv.depth_conv.se.fc.reduce.bias",
        "blocks.20.mobile_inverted_conv.point_linear.bn.bn.running_var",
        "final_expand_layer.bn.weight",
        "feature_mix_layer.conv.weight",
        "classifier.linear.bias",
    ] {
        assert!(entries.iter().any(|(found, _)| found == name), "{name}");
    }
    let read =
        |entries| pretrained("mobilenetv3:supernet@64", StateDict { entries, is_ordered: true });
    let found = read(entries.clone()).unwrap();
    assert!(found.note.unwrap().contains("Once-for-all names"));
    for (name, weight) in &made.graph.weights {
        assert_eq!(found.network.graph.weights[name].data(), weight.data(), "{name}");
    }
    let modern = entries
        .iter()
        .map(|(name, weight)| (name.replace(".mobile_inverted_conv.", ".conv."), weight.clone()));
    assert!(read(modern.collect()).is_ok());
    // A network that was trained at full size only has no matrices: its kernels are cropped.
    let plain = read(checkpoint(&made.graph, false)).unwrap();
    assert!(plain.note.unwrap().contains("no kernel transforms"));
    let identity = plain.network.graph.weights["blocks.2.depthwise.5to3.weight"].floats().unwrap();
    assert_eq!(identity.iter().sum::<f32>(), 9.0);
    let mut damaged = entries;
    damaged.retain(|(name, _)| !name.contains("blocks.9.mobile_inverted_conv.point_linear.conv"));
    let error = read(damaged).err().unwrap().to_string();
    assert!(error.contains("blocks.9.project.conv.weight"), "{error}");
}

#[test]
fn what_is_no_supernet_or_no_subnet_is_refused() {
    let space = Supernet::parse(TINY).unwrap();
    for (code, expected) in [
        ("d5-k3-e4", "depths of 2, 3, 4"),
        ("supernet", "expected a subnet"),
        ("d2-k3-e4-w1.2", "mobilenetv3_tiny:d2-k3-e4@32"),
        ("d2-k3-e4@64", "images of 32 px"),
        ("1,2,3", "the numbers [1, 2, 3]"),
        ("2,2,2,2,x", "the numbers []"),
    ] {
        let error = space.subnet(code).err().unwrap().to_string();
        assert!(error.contains(expected), "{code}: {error}");
    }
    for spec in ["mobilenetv3:d4-k7-e6", "resnet:18", "small:cnn-w16"] {
        let error = Supernet::parse(spec).err().unwrap().to_string();
        assert!(error.contains("mobilenetv3:supernet"), "{spec}: {error}");
    }
    let other = generate("small:cnn-w16", 7, 0).unwrap();
    let error = space.largest().cut(&other.graph).err().unwrap().to_string();
    assert!(error.contains("classifier.weight"), "{error}");
    assert!(importance_order(&other.graph).is_err());
}
