//! Random operations on a store and on plain maps beside it: both must answer alike, also after
//! reopening.

mod common;

use common::{BACKBONE, assert_sound, model, put_blob, task};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use tans_storage::{Batch, Error, Mode, PairKind, Store, TaskId};

#[derive(Clone, Debug)]
enum Step {
    PutModel { row: u64, name: u8, blob: u8 },
    RemoveModel { row: u64 },
    PutTask { byte: u8, name: u8 },
    RemoveTask { byte: u8 },
    PutPair { byte: u8, row: u64, accuracy: f32 },
    PutEmbedding { encoder: u32, row: u64 },
    RemoveEncoder { encoder: u32 },
    Gc,
    Reopen,
}

#[derive(Clone, Default)]
struct Expected {
    models: BTreeMap<u64, (u8, u8)>,
    tasks: BTreeMap<u8, u8>,
    pairs: BTreeMap<(u8, u64), f32>,
    embeddings: BTreeMap<(u32, u64), ()>,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let row = 0..4u64;
    let small = 0..3u8;
    let step = prop_oneof![
        4 => (row.clone(), small.clone(), small.clone())
            .prop_map(|(row, name, blob)| Step::PutModel { row, name, blob }),
        1 => row.clone().prop_map(|row| Step::RemoveModel { row }),
        2 => (small.clone(), small.clone()).prop_map(|(byte, name)| Step::PutTask { byte, name }),
        1 => small.clone().prop_map(|byte| Step::RemoveTask { byte }),
        3 => (small, row.clone(), 0.0..1.2f32)
            .prop_map(|(byte, row, accuracy)| Step::PutPair { byte, row, accuracy }),
        2 => (0..3u32, row).prop_map(|(encoder, row)| Step::PutEmbedding { encoder, row }),
        1 => (0..3u32).prop_map(|encoder| Step::RemoveEncoder { encoder }),
        1 => Just(Step::Gc),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..25)
}

/// Does a step to the maps; returns whether it is allowed.
fn expect(maps: &mut Expected, step: &Step) -> bool {
    match *step {
        Step::PutModel { row, name, blob } => {
            // The id is made of the name, so both are unique.
            let taken = maps.models.iter().any(|(other, (used, _))| *other != row && *used == name);
            if !taken {
                maps.models.insert(row, (name, blob));
            }
            !taken
        }
        Step::RemoveModel { row } => {
            maps.pairs.retain(|(_, model), _| *model != row);
            maps.embeddings.retain(|(_, model), ()| *model != row);
            maps.models.remove(&row).is_some()
        }
        Step::PutTask { byte, name } => {
            let taken = maps.tasks.iter().any(|(other, used)| *other != byte && *used == name);
            if !taken {
                maps.tasks.insert(byte, name);
            }
            !taken
        }
        Step::RemoveTask { byte } => {
            maps.pairs.retain(|(task, _), _| *task != byte);
            maps.tasks.remove(&byte).is_some()
        }
        Step::PutPair { byte, row, accuracy } => {
            let allowed =
                accuracy <= 1.0 && maps.models.contains_key(&row) && maps.tasks.contains_key(&byte);
            if allowed {
                maps.pairs.insert((byte, row), accuracy);
            }
            allowed
        }
        Step::PutEmbedding { encoder, row } => {
            let allowed = maps.models.contains_key(&row);
            if allowed {
                maps.embeddings.insert((encoder, row), ());
            }
            allowed
        }
        Step::RemoveEncoder { encoder } => {
            maps.embeddings.retain(|(number, _), ()| *number != encoder);
            true
        }
        Step::Gc | Step::Reopen => true,
    }
}

fn change(store: &Store, batch: &mut Batch, step: &Step) {
    match *step {
        Step::PutModel { row, name, blob } => {
            // Too large for a record, so that packs have something to lose.
            let blob = put_blob(store, &vec![blob; 5_000]);
            batch.put_model(&model(row, &format!("n{name}"), &[blob]));
        }
        Step::RemoveModel { row } => batch.remove_model(row),
        Step::PutTask { byte, name } => batch.put_task(&task(byte, &format!("n{name}"))),
        Step::RemoveTask { byte } => batch.remove_task(TaskId([byte; 32])),
        Step::PutPair { byte, row, accuracy } => {
            batch.put_pair(TaskId([byte; 32]), row, PairKind::Probe, accuracy);
        }
        Step::PutEmbedding { encoder, row } => batch.put_embedding(encoder, row, &[row as f32]),
        Step::RemoveEncoder { encoder } => batch.remove_encoder(encoder),
        Step::Gc | Step::Reopen => {}
    }
}

fn compare(store: &Store, maps: &Expected) {
    let models: BTreeMap<u64, String> = store
        .models()
        .expect("models")
        .map(|model| model.map(|model| (model.row, model.name)).expect("decoded"))
        .collect();
    let expected: BTreeMap<u64, String> =
        maps.models.iter().map(|(row, (name, _))| (*row, format!("n{name}"))).collect();
    assert_eq!(models, expected);
    for (row, (_, blob)) in &maps.models {
        let model = store.model(*row).expect("read").expect("a model");
        let weights = store.tensor(model.weights[0].tensor).expect("weights");
        assert_eq!(weights.as_ref(), vec![*blob; 5_000]);
    }
    for name in 0..3u8 {
        let found = store.model_by_name(&format!("n{name}")).expect("read").map(|model| model.row);
        let row = maps.models.iter().find(|(_, (used, _))| *used == name).map(|(row, _)| *row);
        assert_eq!(found, row);
    }
    let tasks: Vec<u8> = store.tasks().expect("tasks").iter().map(|task| task.id.0[0]).collect();
    assert_eq!(tasks, maps.tasks.keys().copied().collect::<Vec<_>>());
    let pairs: BTreeMap<(u8, u64), f32> = store
        .pairs()
        .expect("pairs")
        .iter()
        .map(|pair| ((pair.task.0[0], pair.model), pair.accuracy))
        .collect();
    assert_eq!(pairs, maps.pairs);
    for row in 0..4u64 {
        let of_row = maps.pairs.keys().filter(|(_, model)| *model == row).count();
        assert_eq!(store.pairs_of_model(row).expect("pairs").len(), of_row);
    }
    for encoder in 0..3u32 {
        let rows: Vec<u64> = store
            .embeddings(encoder)
            .expect("embeddings")
            .map(|found| found.expect("decoded").0)
            .collect();
        let expected: Vec<u64> =
            maps.embeddings.keys().filter(|key| key.0 == encoder).map(|key| key.1).collect();
        assert_eq!(rows, expected);
    }
    assert_sound(store);
}

fn run(zoo: &Path, batches: &[Vec<Step>]) {
    let mut store = Store::create(zoo, BACKBONE).expect("create");
    let mut maps = Expected::default();
    for steps in batches {
        let mut after = maps.clone();
        let mut batch = Batch::new();
        let mut allowed = true;
        for step in steps {
            change(&store, &mut batch, step);
            allowed = allowed && expect(&mut after, step);
        }
        match store.commit(batch) {
            Ok(_) => {
                assert!(allowed, "expected a refusal of {steps:?}");
                maps = after;
            }
            Err(Error::Invalid(reason)) => assert!(!allowed, "{reason}: {steps:?}"),
            Err(error) => panic!("{error}"),
        }
        if steps.iter().any(|step| matches!(step, Step::Gc)) {
            store.gc(&mut |_, _| ControlFlow::Continue(())).expect("gc");
        }
        if steps.iter().any(|step| matches!(step, Step::Reopen)) {
            drop(store);
            store = Store::open(zoo, Mode::Write).expect("reopen");
        }
    }
    compare(&store, &maps);
    drop(store);
    compare(&Store::open(zoo, Mode::Read).expect("open"), &maps);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn one_step_a_commit(steps in steps()) {
        let folder = tempfile::tempdir().expect("temporary folder");
        let batches: Vec<Vec<Step>> = steps.into_iter().map(|step| vec![step]).collect();
        run(&folder.path().join("zoo"), &batches);
    }

    #[test]
    fn several_steps_a_commit(
        batches in prop::collection::vec(prop::collection::vec(
            (0..4u64, 0..3u8).prop_map(|(row, blob)| Step::PutModel { row, name: row as u8, blob }),
            1..4,
        ), 1..8),
        removed in 0..4u64,
    ) {
        let folder = tempfile::tempdir().expect("temporary folder");
        let mut batches = batches;
        batches[0].push(Step::PutEmbedding { encoder: 1, row: removed });
        batches[0].push(Step::RemoveModel { row: removed });
        run(&folder.path().join("zoo"), &batches);
    }
}
