//! Learning on a synthetic world: tasks and models with hidden factors, and rows in which a task's factors show.

use super::evaluate::{Contestant, Estimates, Evaluation, Protocol, Scores, leave_tasks_out};
use super::{
    FitOptions, Recipe, TrainingModel, TrainingPair, TrainingSet, TrainingTask, closed_form, fit,
};
use crate::encoder::closed_form::{MISJUDGED, NOISE, OWN};
use crate::encoder::{Encoders, Error, Evidence, Kind, ModelEvidence, TaskSample};
use crate::rows::Rows;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::ops::ControlFlow;

const FACTORS: usize = 2;

fn normal(random: &mut ChaCha8Rng) -> f32 {
    (0..12).map(|_| random.random_range(0.0..1.0_f32)).sum::<f32>() - 6.0
}

fn id(index: usize) -> [u8; 32] {
    let mut id = [7; 32];
    id[0] = (index % 251) as u8;
    id[1] = (index / 251) as u8;
    id
}

/// Rows of 3 classes around a centre that shows the task's factors.
fn sample(random: &mut ChaCha8Rng, factors: &[f32], shape: (usize, usize)) -> TaskSample {
    let (count, dim) = shape;
    let labels: Vec<u32> = (0..count).map(|index| (index % 3) as u32).collect();
    let classes: Vec<f32> = (0..3 * dim).map(|_| normal(random)).collect();
    let mut values = Vec::new();
    for &label in &labels {
        for column in 0..dim {
            let centre = factors[column % FACTORS] * if column % 2 == 0 { 1.5 } else { -1.0 };
            let class = classes[label as usize * dim + column];
            values.push(centre + 0.3 * class + 0.5 * normal(random));
        }
    }
    TaskSample::measure(&Rows::new(dim, values).unwrap(), &labels, None, 0).unwrap()
}

/// A world in which a model's accuracy is the task's level + the model's own quality + how their factors agree + noise.
pub(crate) fn world(tasks: usize, models: usize, shape: (usize, usize)) -> TrainingSet {
    let mut random = ChaCha8Rng::seed_from_u64(11);
    let mut draw = |count: usize| -> Vec<f32> { (0..count).map(|_| normal(&mut random)).collect() };
    let task_factors = draw(tasks * FACTORS);
    let model_factors = draw(models * FACTORS);
    let quality = draw(models);
    let level = draw(tasks);
    let noise = draw(tasks * models);
    let mut set = TrainingSet::default();
    for task in 0..tasks {
        let factors = &task_factors[task * FACTORS..(task + 1) * FACTORS];
        let sample = sample(&mut random, factors, shape);
        let family = format!("family {}", task / 2);
        set.tasks.push(TrainingTask {
            id: id(task),
            family,
            sample: Some(sample.into()),
            prior: None,
        });
    }
    for model in 0..models {
        let factors = &model_factors[model * FACTORS..(model + 1) * FACTORS];
        let mut signature = vec![0.0; 16];
        signature[model % 5] = 0.2;
        signature[10] = 0.5 * quality[model];
        set.models.push(TrainingModel {
            numbers: [].into(),
            topology: [1.0, model as f32].into(),
            signature: Some(signature.into()),
            params: 1000 + (model * 37 % 11) as u64,
            seen: vec![model % tasks],
            is_trained: true,
        });
        for task in 0..tasks {
            let agreement: f32 =
                (0..FACTORS).map(|k| factors[k] * task_factors[task * FACTORS + k]).sum();
            let accuracy = 0.6
                + 0.08 * level[task]
                + 0.03 * quality[model]
                + 0.05 * agreement
                + 0.01 * noise[task * models + model];
            let accuracy = accuracy.clamp(0.02, 0.98);
            set.pairs.push(TrainingPair { task, model, kind: Kind::Probe, accuracy });
        }
    }
    set
}

fn fitted(set: &TrainingSet) -> Encoders {
    fit(set, &FitOptions::default(), &mut |_, _, _| ControlFlow::Continue(())).unwrap()
}

fn evaluated(set: &TrainingSet, recipes: &[FitOptions]) -> Evaluation {
    let contestants: Vec<_> = recipes.iter().copied().map(Contestant::new).collect();
    leave_tasks_out(set, &contestants, &protocol(None), &mut |_, _| ControlFlow::Continue(()))
        .unwrap()
}

fn protocol(scores: Option<&Scores>) -> Protocol<'_> {
    Protocol { folds: Some(8), scores, ..Protocol::default() }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[test]
fn default_beats_static_beats_random_on_unseen_families() {
    let set = world(60, 30, (60, 12));
    let result = evaluated(&set, &[FitOptions::default()]);
    let row = |name: &str| result.rows.iter().find(|row| row.method == name).unwrap();
    let (random, fixed, learned) = (row("random"), row("static"), row("default"));
    assert_eq!(result.tasks.len(), 60);
    assert!(fixed.loss < 0.8 * random.loss, "{} {}", fixed.loss, random.loss);
    assert!(
        learned.loss < 0.6 * fixed.loss,
        "{} {}: {:?}",
        learned.loss,
        fixed.loss,
        result
            .rows
            .iter()
            .map(|r| (&r.method, r.loss, r.spearman, r.mae, r.cover))
            .collect::<Vec<_>>()
    );
    assert!(learned.spearman > fixed.spearman + 0.1, "{}", learned.spearman);
    let (difference, [_, high]) = learned.against_static.unwrap();
    assert!(difference < 0.0 && high < 0.0, "{difference} {high}");
    let cover = learned.cover.unwrap();
    assert!((0.75..=1.0).contains(&cover), "{cover}");
    assert!(random.best5 < random.loss && learned.best5 <= learned.loss);
}

#[test]
fn larger_models_than_asked_for_are_no_candidates() {
    let mut set = world(30, 20, (30, 12));
    for pair in set.pairs.iter_mut().filter(|pair| pair.model == 3) {
        pair.accuracy = 1.0;
    }
    (set.models[3].params, set.models[4].params) = (1_000_000, 0);
    let best = |params_max| {
        let protocol = Protocol { params_max, ..protocol(None) };
        let contestants = [Contestant::new(FitOptions::default())];
        let mut go_on = |_, _| ControlFlow::Continue(());
        let result = leave_tasks_out(&set, &contestants, &protocol, &mut go_on).unwrap();
        (result.tasks.len(), result.best_accuracy)
    };
    let (all, below) = (best(None), best(Some(999_999)));
    assert!(all.1 > below.1 + 0.1 && all.0 == below.0, "{all:?} {below:?}");
    assert_eq!(best(Some(1_000_000)), all);
    assert_eq!(best(Some(0)).0, 0, "what is not known meets no limit");
}

/// Here fine-tuning turns the order of the probes around.
#[test]
fn candidates_are_judged_by_the_kind_of_results_that_is_named() {
    let mut set = world(30, 20, (30, 12));
    let tuned = |pair: &TrainingPair| TrainingPair {
        kind: Kind::Finetune,
        accuracy: 1.0 - pair.accuracy,
        ..*pair
    };
    let tuned: Vec<TrainingPair> = set.pairs.iter().map(tuned).collect();
    set.pairs.extend(tuned);
    let gain = |judge| {
        let protocol = Protocol { judge, ..protocol(None) };
        let contestants = [Contestant::new(FitOptions::default())];
        let mut go_on = |_, _| ControlFlow::Continue(());
        let result = leave_tasks_out(&set, &contestants, &protocol, &mut go_on).unwrap();
        let of = |name: &str| result.rows.iter().find(|row| row.method == name).unwrap().loss;
        of("random") - of("default")
    };
    assert_eq!(gain(None), gain(Some(Kind::Probe)));
    assert!(gain(Some(Kind::Probe)) > 0.0 && gain(Some(Kind::Finetune)) < 0.0);
}

/// What a probe would say of each network: its accuracy with little noise, in half a second.
fn scores_of(set: &TrainingSet, held_out: fn(f32) -> Option<f32>) -> Scores {
    let mut random = ChaCha8Rng::seed_from_u64(3);
    let estimates = |pair: &TrainingPair| {
        let loo = (pair.accuracy + 0.01 * normal(&mut random)).clamp(0.0, 1.0);
        let (held_out, seconds) = (held_out(pair.accuracy), Some(0.5));
        ((pair.task, pair.model), Estimates { loo, logme: 3.0 * loo - 1.0, held_out, seconds })
    };
    set.pairs.iter().map(estimates).collect()
}

fn with_scores(set: &TrainingSet, scores: &Scores) -> Evaluation {
    let contestants = [Contestant::new(FitOptions::default())];
    let go_on = &mut |_, _| ControlFlow::Continue(());
    leave_tasks_out(set, &contestants, &protocol(Some(scores)), go_on).unwrap()
}

/// Here the test part says the opposite of the training part: who was probed is judged by the test part, and so is who
/// is compared with it.
#[test]
fn probes_are_judged_on_images_that_they_did_not_see() {
    let set = world(60, 30, (60, 12));
    let plain = with_scores(&set, &scores_of(&set, |_| None));
    let split = with_scores(&set, &scores_of(&set, |accuracy| Some(1.0 - accuracy)));
    let row = |result: &Evaluation, name: &str| {
        result.rows.iter().find(|row| row.method == name).unwrap().clone()
    };
    assert_eq!(row(&split, "default").losses, row(&plain, "default").losses);
    let (probe, own) = (row(&split, "probe"), row(&split, "default held-out"));
    assert!(probe.spearman < -0.9 && own.spearman < -0.5, "{} {}", probe.spearman, own.spearman);
    let (difference, _) = probe.against_static.unwrap();
    let fixed = row(&split, "static held-out");
    assert!((difference - (probe.loss - fixed.loss)).abs() < 1e-3, "{difference}");
    let logme = &split.verdict[1];
    let expected = own.loss - row(&split, "logme").loss;
    assert!((logme.difference - expected).abs() < 1e-3, "{} {expected}", logme.difference);
}

/// With what a probe says of each network, a few probes in a good order are worth almost as much as all of them.
#[test]
fn some_probes_close_most_of_the_gap() {
    let set = world(60, 30, (60, 12));
    let result = with_scores(&set, &scores_of(&set, |_| None));
    let row = |name: &str| result.rows.iter().find(|row| row.method == name).unwrap();
    let names: Vec<&str> = result.rows.iter().map(|row| row.method.as_str()).collect();
    assert_eq!(names[4..], ["default", "logme", "probe", "default+3", "default+5", "default+10"]);
    let (bare, five, all) = (row("default"), row("default+5"), row("probe"));
    assert!(five.loss < 0.6 * bare.loss, "{} {}", five.loss, bare.loss);
    assert!(all.loss < 1.0 && row("logme").losses == all.losses, "{}", all.loss);
    assert!(five.mae.unwrap() < bare.mae.unwrap() && five.spearman > bare.spearman);
    let cover = five.cover.unwrap();
    assert!((0.8..=1.0).contains(&cover), "{cover}");
    // Every probe costs half a second, and no more than five are made.
    assert!((500.0..=2500.0).contains(&five.ms.unwrap()) && bare.ms == Some(0.0));
    let compared: Vec<&str> = result.verdict.iter().map(|one| one.method.as_str()).collect();
    assert_eq!(compared, ["static", "logme"]);
    assert!(result.verdict[0].is_better() && !result.verdict[1].is_better());
}

/// What a new network is and does tells something, what it measured tells more.
#[test]
fn networks_without_results_are_ranked_by_their_kin() {
    let set = world(60, 40, (60, 12));
    let contestants = [Contestant::new(FitOptions::default())];
    let cold = Protocol { cold: true, ..protocol(None) };
    let go_on = &mut |_, _| ControlFlow::Continue(());
    let rows = leave_tasks_out(&set, &contestants, &cold, go_on).unwrap().rows;
    let spearman =
        |name: &str| rows.iter().find(|row| row.method == name).map(|row| row.spearman).unwrap();
    assert!(spearman("cold") > 0.15, "{}", spearman("cold"));
    assert!(spearman("cold+32") > spearman("cold") + 0.2, "{}", spearman("cold+32"));
    let cover = rows.last().and_then(|row| row.cover).unwrap();
    assert!((0.75..=1.0).contains(&cover), "{cover}");
}

#[test]
fn older_encoders_are_judged_by_the_tasks_that_they_know() {
    let set = world(60, 30, (60, 12));
    let known: Vec<[u8; 32]> = (0..60).step_by(6).map(id).collect();
    let options = FitOptions::default();
    let contestants = [
        Contestant::new(options),
        Contestant { name: "older", options, tasks: Some(&known) },
        Contestant { name: "same", options, tasks: Some(&(0..60).map(id).collect::<Vec<_>>()) },
    ];
    let go_on = &mut |_, _| ControlFlow::Continue(());
    let rows = leave_tasks_out(&set, &contestants, &protocol(None), go_on).unwrap().rows;
    let row = |name: &str| rows.iter().find(|row| row.method == name).unwrap();
    assert!(row("older").loss > row("default").loss + 0.5, "{rows:?}");
    assert_eq!(row("same").losses, row("default").losses);
}

/// The served cosine against the Gaussian process over all pairs, by its dense covariance.
#[test]
fn the_cosine_is_the_posterior_of_a_process_over_tasks_and_networks() {
    let mut set = world(12, 10, (60, 12));
    // Too few results to know the mean of: what they tell is doubtful.
    let doubtful = 5;
    set.pairs.retain(|pair| pair.task != doubtful || pair.model < 2);
    let encoders = fitted(&set);
    let Encoders::Default(form) = &encoders else { panic!("another recipe") };
    let kinship = form.kinship.as_ref().unwrap();
    let known = closed_form::known(&set, &|_| None);
    let kernel = super::basis::kernel(&form.basis);
    let mut results = Vec::new();
    for (model, known) in known.iter().enumerate() {
        let evidence = closed_form::evidence(&set, model, known);
        for standing in form.standings(evidence.history) {
            let task = form.basis.position(&standing.task).unwrap();
            results.push((model, task, standing.level, standing.z));
        }
    }
    let kin: Vec<Vec<f32>> = kinship
        .members
        .chunks_exact(kinship.members.len() / 10)
        .map(|member| kinship.similarities(member, 1.0))
        .collect();
    let covariance = |a: (usize, usize, f32), b: (usize, usize, f32)| -> f64 {
        let tasks = a.2 * b.2 + kernel[a.1 * 12 + b.1];
        let own = if a.0 == b.0 { OWN } else { 0.0 };
        f64::from(tasks) * (f64::from(kin[a.0][b.0]) + own)
    };
    let at = |index: usize| (results[index].0, results[index].1, results[index].2);
    let count = results.len();
    let entry = |(i, j): (usize, usize)| {
        let doubt = if i == j && results[i].1 == doubtful { MISJUDGED } else { 0.0 };
        covariance(at(i), at(j)) + doubt
    };
    let gram: Vec<f64> = (0..count * count).map(|i| entry((i / count, i % count))).collect();
    let right: Vec<f64> = results.iter().map(|result| f64::from(result.3)).collect();
    let dual = crate::encoder::linalg::solve_ridge(&gram, NOISE, &right).unwrap();
    let task = encoders.encode_task(set.tasks[3].sample.as_ref().unwrap()).unwrap();
    for (model, known) in known.iter().enumerate() {
        let vector = encoders.encode_model(&closed_form::evidence(&set, model, known));
        let standing = dot(&vector, &task.vector) * task.scale;
        let expected: f64 = (0..count).map(|i| covariance((model, 3, 1.0), at(i)) * dual[i]).sum();
        assert!((f64::from(standing) - expected).abs() < 5e-3, "{standing} not {expected}");
        let predicted = encoders.predict(&task, standing / task.scale).accuracy;
        let by_hand = (task.accuracy_mean + task.accuracy_sd * standing).clamp(0.0, 1.0);
        assert!((predicted - by_hand).abs() < 1e-5);
    }
    assert_eq!(task.nearest[0].0, 3);
    assert!((task.nearest[0].1 - 1.0).abs() < 1e-4);
}

#[test]
fn same_set_and_seed_give_the_same_bytes() {
    let set = world(9, 12, (60, 600));
    let bytes = |encoders: &Encoders| serde_json::to_vec(encoders).unwrap();
    assert_eq!(bytes(&fitted(&set)), bytes(&fitted(&set)));
    let stored: Encoders = serde_json::from_slice(&bytes(&fitted(&set))).unwrap();
    let sample = set.tasks[0].sample.as_ref().unwrap();
    assert_eq!(stored.encode_task(sample).unwrap(), fitted(&set).encode_task(sample).unwrap());
}

/// A result at chance level says nothing for a network, whatever the predictor makes of its dataset.
#[test]
fn guessing_does_not_raise_a_network() {
    let mut set = world(8, 12, (60, 12));
    set.pairs.iter_mut().for_each(|pair| pair.accuracy *= 0.3);
    let encoders = fitted(&set);
    let query = set.tasks[0].sample.as_ref().unwrap();
    let task = encoders.encode_task(query).unwrap();
    assert_eq!(task.accuracy_mean, query.chance(), "the tasks that were learned from are harder");
    let history = [Evidence {
        task: [9; 32],
        kind: Kind::Probe,
        accuracy: query.chance(),
        encoding: Some(&task),
        is_own: false,
    }];
    let trained = ModelEvidence { is_trained: true, ..ModelEvidence::default() };
    let before = encoders.encode_model(&trained);
    let after = encoders.encode_model(&ModelEvidence { history: &history, ..trained });
    assert!(dot(&after, &task.vector) <= dot(&before, &task.vector) + 1e-6);
}

#[test]
fn generation_zero_answers_and_learns_from_one_result() {
    for tasks in [0, 1, 2, 8] {
        let mut set = world(tasks.max(1), 0, (30, 12));
        set.tasks.truncate(tasks);
        for task in &mut set.tasks {
            task.prior = Some((0.6, 0.1));
        }
        let encoders = fitted(&set);
        let trained = ModelEvidence { is_trained: true, ..ModelEvidence::default() };
        let neutral = encoders.encode_model(&trained);
        assert_eq!(neutral.len(), encoders.dim());
        assert!(neutral[..neutral.len() - 1].iter().all(|&value| value == 0.0));
        let query = world(1, 0, (30, 12)).tasks.remove(0).sample.unwrap();
        let task = encoders.encode_task(&query).unwrap();
        assert!((dot(&task.vector, &task.vector) - 1.0).abs() < 1e-5);
        assert_eq!(dot(&neutral, &task.vector), 0.0);
        let raw = encoders.encode_model(&ModelEvidence::default());
        assert!(dot(&raw, &task.vector) < 0.0, "nothing speaks for a network without training");
        // A new task, outside the basis: a good result there must raise the model there.
        let history = [Evidence {
            task: [9; 32],
            kind: Kind::Probe,
            accuracy: task.accuracy_mean + 2.0 * task.accuracy_sd,
            encoding: Some(&task),
            is_own: false,
        }];
        let model = ModelEvidence { history: &history, ..ModelEvidence::default() };
        let good = encoders.encode_model(&model);
        assert!(dot(&good, &task.vector) > 0.0, "{tasks} tasks");
        let predicted = encoders.predict(&task, dot(&good, &task.vector));
        assert!(predicted.accuracy > task.accuracy_mean);
        assert!(predicted.interval[0] <= predicted.accuracy);
    }
}

#[test]
fn a_model_without_history_borrows_from_its_signature() {
    let set = world(16, 40, (40, 12));
    let encoders = fitted(&set);
    let task = encoders.encode_task(set.tasks[0].sample.as_ref().unwrap()).unwrap();
    let standing = |quality: f32| {
        let mut signature = vec![0.0; 16];
        signature[10] = 0.5 * quality;
        let model = ModelEvidence {
            signature: Some(&signature),
            is_trained: true,
            ..ModelEvidence::default()
        };
        dot(&encoders.encode_model(&model), &task.vector)
    };
    assert!(standing(1.5) > standing(0.0) && standing(0.0) > standing(-1.5));
    let short =
        ModelEvidence { signature: Some(&[1.0; 3]), is_trained: true, ..ModelEvidence::default() };
    assert_eq!(dot(&encoders.encode_model(&short), &task.vector), 0.0);
}

#[test]
fn reference_tasks_count_for_the_mean_standing_only() {
    let mut set = world(8, 6, (30, 12));
    for task in &mut set.tasks {
        task.sample = None;
    }
    let encoders = fitted(&set);
    assert_eq!((encoders.dim(), encoders.basis().len()), (2, 0));
    let best =
        set.pairs.iter().filter(|p| p.task == 0).max_by(|a, b| a.accuracy.total_cmp(&b.accuracy));
    let known = |task: [u8; 32]| {
        let accuracy = best.unwrap().accuracy;
        [Evidence { task, kind: Kind::Probe, accuracy, encoding: None, is_own: false }]
    };
    let vector = |history: &[Evidence<'_>]| {
        encoders.encode_model(&ModelEvidence { history, ..ModelEvidence::default() })
    };
    assert!(vector(&known(id(0)))[0] > 0.0);
    assert_eq!(vector(&known([200; 32]))[0], 0.0);
}

#[test]
fn hostile_sets_are_refused() {
    let refused = |spoil: &dyn Fn(&mut TrainingSet)| {
        let mut set = world(4, 4, (30, 12));
        spoil(&mut set);
        let result = fit(&set, &FitOptions::default(), &mut |_, _, _| ControlFlow::Continue(()));
        assert!(matches!(result, Err(Error::Input { .. })), "{:?}", result.err());
    };
    refused(&|set| set.pairs[0].accuracy = 1.7);
    refused(&|set| set.pairs[0].accuracy = f32::NAN);
    refused(&|set| set.pairs[0].task = 99);
    refused(&|set| set.tasks[1].id = set.tasks[0].id);
    refused(&|set| set.models[1].signature = Some([f32::NAN; 16].into()));
    refused(&|set| set.models[1].signature = Some([1.0; 3].into()));
    refused(&|set| set.tasks[0].prior = Some((f32::NAN, 0.1)));
    refused(&|set| set.tasks[1].sample = world(1, 0, (30, 7)).tasks.remove(0).sample);
    let set = world(4, 4, (30, 12));
    let encoders = fitted(&set);
    let other = world(1, 0, (30, 7)).tasks.remove(0).sample.unwrap();
    assert!(matches!(encoders.encode_task(&other), Err(Error::Input { .. })));
    let stopped = fit(&set, &FitOptions::default(), &mut |_, _, _| ControlFlow::Break(()));
    assert!(matches!(stopped, Err(Error::Cancelled)));
    #[cfg(not(feature = "torch"))]
    {
        for recipe in [Recipe::Tans2021, Recipe::Listwise] {
            let options = FitOptions { recipe, ..FitOptions::default() };
            let refused = fit(&set, &options, &mut |_, _, _| ControlFlow::Continue(()));
            assert!(refused.unwrap_err().to_string().contains("torch"));
        }
    }
}

/// Candidates that saw a task of the query's family are dropped, and with too few left the task is skipped.
#[test]
fn contaminated_models_are_no_candidates() {
    let mut set = world(6, 4, (30, 12));
    for model in &mut set.models {
        model.seen = vec![0];
    }
    let result = evaluated(&set, &[FitOptions { recipe: Recipe::Default, ..Default::default() }]);
    assert_eq!(result.tasks, [2, 3, 4, 5]);
    let empty = evaluated(&TrainingSet::default(), &[FitOptions::default()]);
    assert!(empty.tasks.is_empty() && empty.rows.is_empty(), "{empty:?}");
}
