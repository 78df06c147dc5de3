//! A toy problem is learned, and a run can be repeated and resumed to the byte.

use super::{Data, EpochReport, FitOptions, FitState, Fitted, resume, schedule, trained_on};
use crate::graph::Error;
use crate::graph::exec::{Device, Evaluation, Network, Optimizer, Trainer, TrainerOptions};
use crate::graph::formats::onnx;
use crate::graph::spaces::{self, Generated};
use crate::sample::Image;
use std::ops::ControlFlow;

fn toy() -> (Vec<Image>, Vec<u32>) {
    let labels: Vec<u32> = (0..60).map(|index| index % 3).collect();
    // Bright at the top, in the middle or at the bottom, on uneven ground.
    let image = |(index, &label): (usize, &u32)| {
        let pixel = |at: usize| {
            let ground = ((at * 31 + index * 17) % 61) as u8;
            let bright = at / 3 / 32 / 11 == label as usize;
            ground + if bright { 120 } else { 0 }
        };
        Image::new(32, 32, 3, (0..32 * 32 * 3).map(pixel).collect()).expect("an image")
    };
    (labels.iter().enumerate().map(image).collect(), labels)
}

fn fit(
    trainer: Trainer,
    images: &[Image],
    labels: &[u32],
    options: &FitOptions,
    progress: &mut dyn FnMut(&EpochReport) -> ControlFlow<()>,
) -> Result<Fitted, Error> {
    let mut report = |state: &FitState| progress(state.epochs.last().expect("an epoch"));
    resume(trainer, Data { images, labels, groups: None }, options, None, &mut report)
}

fn network() -> Generated {
    spaces::generate("small:resnet8-w16@32x3", 10, 1).expect("a network")
}

fn trainer(made: &Generated) -> Trainer {
    trainer_of(made, false)
}

fn trainer_of(made: &Generated, head_only: bool) -> Trainer {
    let options = TrainerOptions {
        classes: 3,
        new_head: true,
        head_only,
        from_scratch: false,
        optimizer: Optimizer::AdamW,
        weight_decay: 0.01,
        label_smoothing: 0.0,
        augment: true,
        seed: 4,
        device: Device::Cpu,
    };
    Trainer::new(&made.graph, &made.input, &options).expect("a trainer")
}

fn options(epochs: usize) -> FitOptions {
    FitOptions {
        epochs,
        batch_size: 16,
        learning_rate: 5e-3,
        validation_share: 0.2,
        ..FitOptions::default()
    }
}

#[test]
fn a_toy_problem_is_learned_and_the_result_can_be_run() {
    let (images, labels) = toy();
    let made = network();
    let mut seen = 0;
    let mut progress = |_: &_| {
        seen += 1;
        ControlFlow::Continue(())
    };
    let fitted = fit(trainer(&made), &images, &labels, &options(6), &mut progress).expect("a fit");
    assert_eq!((seen, fitted.epochs.len()), (6, 6));
    let best = fitted.epochs[fitted.best_epoch - 1];
    assert!(best.validation_accuracy >= Some(0.9), "{:?}", fitted.epochs);
    assert!(fitted.epochs[5].train_loss < 0.5 * fitted.epochs[0].train_loss);
    let network = Network::new(&fitted.graph, &made.input, Device::Cpu).expect("a network");
    assert_eq!(network.head().map(|head| head.classes), Some(3));
    let logits = network.logits(&images).expect("logits");
    let right = logits.iter().zip(&labels).filter(|(row, label)| {
        let best = (0..3).max_by(|&a, &b| row[a].total_cmp(&row[b]));
        best == Some(**label as usize)
    });
    assert!(right.count() >= 54);
}

#[test]
fn a_resumed_run_ends_in_the_same_bytes_as_an_unbroken_one() {
    let (images, labels) = toy();
    let made = network();
    let bytes = |graph| onnx::write(&graph, &[]).expect("a file");
    let mut go_on = |_: &_| ControlFlow::Continue(());
    let whole = fit(trainer(&made), &images, &labels, &options(3), &mut go_on).expect("a fit");
    let mut saved: Option<FitState> = None;
    let mut stop = |state: &FitState| {
        saved = Some(state.clone());
        ControlFlow::Break(())
    };
    let data = Data { images: &images, labels: &labels, groups: None };
    let first = resume(trainer(&made), data, &options(3), None, &mut stop).expect("a start");
    assert_eq!(first.epochs.len(), 1);
    let mut go_on = |_: &FitState| ControlFlow::Continue(());
    let rest = resume(trainer(&made), data, &options(3), saved, &mut go_on).expect("the rest");
    assert_eq!(rest.best_epoch, whole.best_epoch);
    assert!(bytes(whole.graph) == bytes(rest.graph));
}

#[test]
fn of_equals_the_last_is_kept() {
    let (images, labels) = toy();
    let made = network();
    let mut go_on = |_: &_| ControlFlow::Continue(());
    // At rate 0 a head learns nothing.
    let idle = FitOptions { learning_rate: 0.0, patience: 2, start_counts: true, ..options(5) };
    let head = trainer_of(&made, true);
    let fitted = fit(head, &images, &labels, &idle, &mut go_on).expect("a fit");
    assert_eq!((fitted.epochs.len(), fitted.best_epoch), (5, 5));
    assert!(fitted.diverged.is_none());
}

#[test]
fn a_run_that_only_gets_worse_ends_early_and_leaves_its_start() {
    let (images, labels) = toy();
    let made = network();
    let mut go_on = |_: &_| ControlFlow::Continue(());
    let learned = fit(trainer(&made), &images, &labels, &options(6), &mut go_on).expect("a fit");
    let own_head = TrainerOptions { head_only: true, ..TrainerOptions::scoring(3, Device::Cpu) };
    let trainer = || Trainer::new(&learned.graph, &made.input, &own_head).expect("a trainer");
    let bytes = |graph: &_| onnx::write(graph, &[]).expect("a file");
    let start = bytes(&trainer().graph().expect("a graph"));
    let ruin = FitOptions { learning_rate: 1e3, patience: 1, start_counts: true, ..options(5) };
    let fitted = fit(trainer(), &images, &labels, &ruin, &mut go_on).expect("a fit");
    assert_eq!((fitted.epochs.len(), fitted.best_epoch), (1, 0), "{:?}", fitted.epochs);
    assert!(bytes(&fitted.graph) == start);
}

#[test]
fn validation_takes_whole_groups() {
    let labels: Vec<u32> = (0..120).map(|index| index % 3).collect();
    let groups: Vec<u32> = (0..120).map(|index| index / 6).collect();
    for seed in 0..5 {
        let options = FitOptions { seed, validation_share: 0.1, ..FitOptions::default() };
        let train = trained_on(&labels, Some(&groups), &options);
        assert_eq!(train.len(), 108);
        let whole = |group: u32| train.iter().filter(|&&at| groups[at] == group).count();
        assert!((0..20).all(|group| [0, 6].contains(&whole(group))));
        // Groups that are too large are no reason to go without validation.
        let halves: Vec<u32> = (0..120).map(|index| index / 60).collect();
        assert_eq!(trained_on(&labels, Some(&halves), &options).len(), 108);
    }
}

#[test]
fn what_few_images_cannot_tell_apart_counts_as_equal() {
    let epoch = |epoch: usize, accuracy: f32| EpochReport {
        epoch,
        train_loss: 1.0,
        validation_loss: Some(1.0),
        validation_accuracy: Some(accuracy),
        learning_rate: 1e-3,
        seconds: 1.0,
    };
    let epochs = vec![epoch(1, 0.8), epoch(2, 0.72)];
    let state =
        FitState { current: Vec::new(), best: Vec::new(), best_epoch: 2, start: None, epochs };
    let follows =
        |accuracy, images| state.is_followed_by(Some(Evaluation { loss: 1.0, accuracy }), images);
    // One standard error of 0.8 is 0.08 of 25 images and 0.01 of 1600.
    assert_eq!([0.7, 0.73, 0.9].map(|found| follows(found, 25)), [false, true, true]);
    assert_eq!([0.78, 0.795].map(|found| follows(found, 1600)), [false, true]);
    assert!(state.is_followed_by(None, 0));
}

#[test]
fn one_image_a_class_trains_without_validation() {
    let (images, labels) = toy();
    let mut go_on = |_: &_| ControlFlow::Continue(());
    let few = (&images[..3], &labels[..3]);
    let fitted = fit(trainer(&network()), few.0, few.1, &options(1), &mut go_on).expect("a fit");
    assert_eq!(fitted.epochs[0].validation_accuracy, None);
    assert_eq!(fitted.best_epoch, 1);
    let none = fit(trainer(&network()), &[], &[], &options(1), &mut go_on);
    assert!(none.is_err());
}

#[test]
fn the_schedule_rises_then_falls_to_zero() {
    let options = FitOptions { epochs: 10, learning_rate: 1.0, warmup_epochs: 1.0, ..options(10) };
    let rates: Vec<f32> = (0..100).map(|step| schedule(step, 10, &options)).collect();
    assert!(rates[0] > 0.0 && rates[..10].is_sorted());
    assert!(rates[10..].is_sorted_by(|a, b| a >= b));
    assert!((rates[10] - 1.0).abs() < 1e-6 && rates[99] < 0.001);
}
