use super::{ChannelOrder, InputContract, InputHints, Layout};
use crate::graph::{Dtype, Graph, ValueInfo};
use crate::sample::Image;
use proptest::prelude::{ProptestConfig, any, prop_assert, prop_assert_eq, proptest};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn graph(dims: &[Option<usize>]) -> Graph {
    let input = ValueInfo { name: "x".into(), dtype: Some(Dtype::F32), dims: dims.to_vec() };
    Graph { inputs: vec![input], ..Graph::default() }
}

fn infer(dims: &[Option<usize>], hints: &InputHints) -> Result<InputContract, String> {
    InputContract::infer(&graph(dims), &[], hints).map_err(|error| error.to_string())
}

fn plain(height: usize, width: usize) -> InputContract {
    let hints = InputHints { scale: Some(1.0), ..InputHints::default() };
    infer(&[None, Some(3), Some(height), Some(width)], &hints).expect("declared")
}

fn image(width: usize, height: usize, channels: usize, seed: u64) -> Image {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let pixels = (0..width * height * channels).map(|_| rng.random()).collect();
    Image::new(width, height, channels, pixels).expect("fits")
}

fn applied(contract: &InputContract, image: &Image) -> Vec<f32> {
    let mut out = Vec::new();
    contract.apply(image, &mut out);
    out
}

#[test]
fn declared_dimensions_decide() {
    let none = InputHints::default();
    let nchw = infer(&[None, Some(3), Some(48), Some(192)], &none).expect("declared");
    assert_eq!((nchw.layout, nchw.height, nchw.width), (Layout::Nchw, 48, 192));
    assert_eq!((nchw.scale, nchw.mean, nchw.std), (1.0 / 255.0, vec![0.0; 3], vec![1.0; 3]));
    let nhwc = infer(&[None, Some(224), Some(220), Some(3)], &none).expect("declared");
    assert_eq!((nhwc.layout, nhwc.height, nhwc.width), (Layout::Nhwc, 224, 220));
    assert_eq!(nhwc.batch_shape(5), [5, 224, 220, 3]);
    let grey = infer(&[Some(1), Some(1), Some(28), Some(28)], &none).expect("declared");
    assert_eq!((grey.order, grey.channels()), (ChannelOrder::Grey, 1));
}

#[test]
fn missing_sizes_ask_for_input() {
    let dims = [None, Some(3), None, None];
    let message = infer(&dims, &InputHints::default()).expect_err("no size");
    assert!(message.contains("--input 3xHEIGHTxWIDTH"), "{message}");
    let hints = InputHints { shape: Some((3, 48, 192)), ..InputHints::default() };
    let stated = infer(&dims, &hints).expect("stated");
    assert_eq!((stated.height, stated.width), (48, 192));
    let hints = InputHints { shape: Some((1, 48, 192)), ..InputHints::default() };
    assert!(infer(&dims, &hints).expect_err("a contradiction").contains("declares 3 channels"));
    let grey = InputHints { order: Some(ChannelOrder::Grey), ..InputHints::default() };
    let message = infer(&[None, Some(3), Some(48), Some(48)], &grey).expect_err("a contradiction");
    assert!(message.contains("declares 3 channels, --channel-order states one"), "{message}");
    let vast = infer(&[None, Some(3), Some(9000), Some(9000)], &InputHints::default());
    assert!(vast.expect_err("too large").contains("pixels"));
    let fixed = [None, Some(3), Some(48), Some(192)];
    let hints = InputHints { shape: Some((3, 48, 100)), ..InputHints::default() };
    assert!(infer(&fixed, &hints).expect_err("a contradiction").contains("declares 192 columns"));
}

#[test]
fn numbers_must_fit_the_channels() {
    let dims = [None, Some(3), Some(8), Some(8)];
    let wrong = [
        InputHints { mean: Some(vec![0.5]), ..InputHints::default() },
        InputHints { std: Some(vec![1.0, 0.0, 1.0]), ..InputHints::default() },
        InputHints { std: Some(vec![f32::NAN; 3]), ..InputHints::default() },
        InputHints { scale: Some(0.0), ..InputHints::default() },
        InputHints { shape: Some((3, 0, 8)), ..InputHints::default() },
        InputHints {
            order: Some(ChannelOrder::Grey),
            mean: Some(vec![0.0; 3]),
            ..InputHints::default()
        },
    ];
    for hints in wrong {
        assert!(infer(&dims, &hints).is_err(), "{hints:?}");
    }
    assert!(infer(&[None, Some(4), Some(8), Some(8)], &InputHints::default()).is_err());
    assert!(infer(&[None, Some(3)], &InputHints::default()).is_err());
}

#[test]
fn metadata_returns_the_contract_and_hints_win() {
    let contract = InputContract {
        height: 40,
        width: 50,
        layout: Layout::Nhwc,
        order: ChannelOrder::Bgr,
        scale: 1.0,
        mean: vec![104.0, 117.0, 123.0],
        std: vec![0.1, 1.0 / 3.0, 58.0],
    };
    let metadata = contract.to_metadata();
    let bare = graph(&[None, None, None, None]);
    let back = InputContract::infer(&bare, &metadata, &InputHints::default()).expect("stored");
    assert_eq!(back, contract);
    let hints = InputHints { order: Some(ChannelOrder::Rgb), ..InputHints::default() };
    let back = InputContract::infer(&bare, &metadata, &hints).expect("stored");
    assert_eq!(back, InputContract { order: ChannelOrder::Rgb, ..contract });
    let damaged = [("tans.input".to_owned(), "{".to_owned())];
    assert!(InputContract::infer(&bare, &damaged, &InputHints::default()).is_err());
}

#[test]
fn values_pass_scale_mean_std_and_order() {
    let pixel = Image::new(1, 1, 3, vec![10, 20, 30]).expect("fits");
    let mut contract = plain(1, 2);
    contract.scale = 0.5;
    contract.mean = vec![1.0, 2.0, 3.0];
    contract.std = vec![2.0, 4.0, 8.0];
    assert_eq!(applied(&contract, &pixel), [2.0, 2.0, 2.0, 2.0, 1.5, 1.5]);
    contract.order = ChannelOrder::Bgr;
    assert_eq!(applied(&contract, &pixel), [7.0, 7.0, 2.0, 2.0, 0.25, 0.25]);
    contract.layout = Layout::Nhwc;
    assert_eq!(applied(&contract, &pixel), [7.0, 2.0, 0.25, 7.0, 2.0, 0.25]);
}

#[test]
fn grey_and_colour_meet() {
    let grey = Image::new(1, 1, 1, vec![100]).expect("fits");
    assert_eq!(applied(&plain(1, 1), &grey), [100.0; 3]);
    let colour = Image::new(1, 1, 3, vec![200, 100, 50]).expect("fits");
    let hints = InputHints { scale: Some(1.0), ..InputHints::default() };
    let contract = infer(&[None, Some(1), Some(1), Some(1)], &hints).expect("declared");
    let luminance = applied(&contract, &colour)[0];
    assert!((luminance - 124.2).abs() < 1e-3, "{luminance}");
}

#[test]
fn a_row_is_resized_as_by_hand() {
    // Two target pixels of width 2 over four of the source: the triangle reaches 2 source pixels to
    // each side.
    let row = Image::new(4, 1, 1, vec![0, 40, 80, 120]).expect("fits");
    let values = applied(&plain(1, 2), &row);
    let first = (0.75 * 0.0 + 0.75 * 40.0 + 0.25 * 80.0) / 1.75;
    assert!((values[0] - first).abs() < 1e-4, "{values:?}");
    // Upwards it is the plain bilinear rule, with the border repeated.
    let row = Image::new(2, 1, 1, vec![0, 100]).expect("fits");
    assert_eq!(applied(&plain(1, 4), &row)[..4], [0.0, 25.0, 75.0, 100.0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn resizing_keeps_bounds_and_constants(
        seed in any::<u64>(),
        (width, height) in (1_usize..40, 1_usize..40),
        (target_width, target_height) in (1_usize..40, 1_usize..40),
    ) {
        let contract = plain(target_height, target_width);
        let source = image(width, height, 3, seed);
        let values = applied(&contract, &source);
        prop_assert_eq!(values.len(), 3 * target_height * target_width);
        prop_assert!(values.iter().all(|value| (-1e-3..=255.001).contains(value)));
        prop_assert_eq!(&values, &applied(&contract, &source));
        let even = Image::new(width, height, 3, vec![77; 3 * width * height]).expect("fits");
        prop_assert!(applied(&contract, &even).iter().all(|value| (value - 77.0).abs() < 1e-3));
        let same = applied(&plain(height, width), &source);
        let red: Vec<f32> = source.pixels().iter().step_by(3).map(|&p| p.into()).collect();
        prop_assert_eq!(&same[..red.len()], &red[..]);
    }
}
