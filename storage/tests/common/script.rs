//! A random but reproducible life of a zoo: the same seed gives the same operations, so whoever knows
//! how many were acknowledged knows what the zoo must hold.

use super::records::{BACKBONE, model, task};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use tans_storage::{
    Batch, Dtype, EncoderRecord, Error, GenerationRecord, Mode, NewTensor, PairKind, Result, Store,
    TaskId, install_file,
};

/// Operations of one life, the creation of the zoo included.
pub const OPERATIONS: usize = 24;

#[derive(Clone, Debug)]
pub enum Operation {
    Create,
    Put { name: u64, blobs: Vec<u64> },
    Bulk { models: Vec<(u64, Vec<u64>)> },
    Remove { names: Vec<u64> },
    Record { name: u64, accuracy: f32 },
    Train { number: u64 },
    Gc,
    Backup,
    Restore,
    Reopen,
}

/// What a zoo must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// Weights of each model, as seeds of their bytes.
    pub models: BTreeMap<u64, Vec<u64>>,
    pub accuracies: BTreeMap<u64, f32>,
    /// Number of the generation and the models that its segment was built of.
    pub generation: Option<(u64, Vec<u64>)>,
}

/// Everything that happens, and what must be there after each operation.
pub struct Life {
    pub operations: Vec<Operation>,
    /// One more than operations: the first is before the zoo is made.
    pub states: Vec<State>,
}

impl Life {
    pub fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let mut state = State::default();
        let (mut names, mut generations, mut backups) = (0, 0, 0);
        let mut life = Self { operations: Vec::new(), states: vec![state.clone()] };
        let mut next = Some(Operation::Create);
        while life.operations.len() < OPERATIONS {
            let some_name = state.models.keys().nth(random.below(state.models.len().max(1)));
            let operation = next.take().unwrap_or_else(|| match (random.below(20), some_name) {
                (0..4, _) => Operation::Put { name: fresh(&mut names), blobs: random.blobs() },
                (4..6, _) => {
                    let models = (0..6).map(|_| (fresh(&mut names), random.blobs())).collect();
                    Operation::Bulk { models }
                }
                (6..8, Some(&name)) => Operation::Remove { names: vec![name] },
                (8..10, Some(&name)) => {
                    let others = state.models.keys().copied().filter(|other| *other != name);
                    Operation::Remove { names: others.collect() }
                }
                (10..11, Some(&name)) => {
                    Operation::Record { name, accuracy: random.below(100) as f32 / 100.0 }
                }
                (11..13, _) => Operation::Train { number: fresh(&mut generations) },
                (13..16, _) => Operation::Gc,
                (16..18, _) => {
                    backups += 1;
                    Operation::Backup
                }
                (18, _) if backups > 0 => Operation::Restore,
                _ => Operation::Reopen,
            });
            if matches!(&operation, Operation::Remove { names } if names.len() > 1) {
                // Most bytes of a pack are dead now.
                next = Some(Operation::Gc);
            }
            state = after(state, &operation);
            life.operations.push(operation);
            life.states.push(state.clone());
        }
        life
    }
}

fn fresh(count: &mut u64) -> u64 {
    *count += 1;
    *count - 1
}

fn after(mut state: State, operation: &Operation) -> State {
    match operation {
        Operation::Put { name, blobs } => drop(state.models.insert(*name, blobs.clone())),
        Operation::Bulk { models } => state.models.extend(models.iter().cloned()),
        Operation::Remove { names } => {
            state.models.retain(|name, _| !names.contains(name));
            state.accuracies.retain(|name, _| !names.contains(name));
        }
        Operation::Record { name, accuracy } => drop(state.accuracies.insert(*name, *accuracy)),
        Operation::Train { number } => {
            state.generation = Some((*number, state.models.keys().copied().collect()));
        }
        Operation::Create
        | Operation::Gc
        | Operation::Backup
        | Operation::Restore
        | Operation::Reopen => {}
    }
    state
}

/// Where a life happens.
pub struct Place(pub PathBuf);

impl Place {
    pub fn zoo(&self) -> PathBuf {
        self.0.join("zoo")
    }

    pub fn backups(&self) -> PathBuf {
        self.0.join("backups")
    }

    pub fn restored(&self) -> PathBuf {
        self.0.join("restored")
    }
}

/// Does one operation; `store` is `None` before the zoo is made.
pub fn apply(
    place: &Place,
    store: &mut Option<Store>,
    before: &State,
    operation: &Operation,
) -> Result<()> {
    if let Operation::Create = operation {
        *store = Some(Store::create(&place.zoo(), BACKBONE)?);
        return Ok(());
    }
    if let Operation::Reopen = operation {
        drop(store.take());
        *store = Some(Store::open(&place.zoo(), Mode::Write)?);
        return Ok(());
    }
    let store = store.as_ref().ok_or(Error::ReadOnly)?;
    match operation {
        Operation::Put { name, blobs } => put(store, before, &[(*name, blobs.clone())]),
        Operation::Bulk { models } => put(store, before, models),
        Operation::Remove { names } => {
            let mut batch = Batch::new();
            for name in names {
                batch.remove_model(row(store, *name)?);
            }
            store.commit(batch).map(|_| ())
        }
        Operation::Record { name, accuracy } => {
            let mut batch = Batch::new();
            batch.put_task(&task(1, "task"));
            batch.put_pair(TaskId([1; 32]), row(store, *name)?, PairKind::Probe, *accuracy);
            store.commit(batch).map(|_| ())
        }
        Operation::Train { number } => train(store, before, *number),
        Operation::Gc => store.gc(&mut go_on).map(|_| ()),
        Operation::Backup => store.backup(&place.backups(), &mut go_on).map(|_| ()),
        Operation::Restore => {
            let restored = Store::restore(&place.backups(), &place.restored(), &mut go_on)?;
            assert!(restored.damages.is_empty(), "{:?}", restored.damages);
            fs::remove_dir_all(place.restored()).expect("a folder can be removed");
            Ok(())
        }
        Operation::Create | Operation::Reopen => Ok(()),
    }
}

pub fn go_on(_: usize, _: usize) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Stores models as an ingest does: tensors of each, then all records by one commit.
pub fn put(store: &Store, before: &State, models: &[(u64, Vec<u64>)]) -> Result<()> {
    let mut batch = Batch::new();
    for (name, blobs) in models {
        let bytes: Vec<Vec<u8>> = blobs.iter().map(|seed| blob(*seed)).collect();
        let mut ids = Vec::new();
        for bytes in &bytes {
            let shape = [bytes.len()];
            let tensor = NewTensor { dtype: Dtype::U8, shape: &shape, bytes };
            ids.extend(store.put_tensors(&[tensor])?);
        }
        let row = store.next_row()?;
        batch.put_model(&model(row, &format!("m{name}"), &ids));
        batch.put_signature(row, &[*name as u16]);
        if let Some((number, _)) = &before.generation {
            batch.put_embedding(*number as u32, row, &vector(*number, *name));
        }
    }
    store.commit(batch).map(|_| ())
}

/// Installs a generation as training does: encoders, vectors and segment, then one commit.
fn train(store: &Store, before: &State, number: u64) -> Result<()> {
    let bytes = blob(1_000_000 + number);
    let shape = [bytes.len()];
    let ids = store.put_tensors(&[NewTensor { dtype: Dtype::U8, shape: &shape, bytes: &bytes }])?;
    let mut batch = Batch::new();
    for name in before.models.keys() {
        batch.put_embedding(number as u32, row(store, *name)?, &vector(number, *name));
    }
    let segment = segment_name(number);
    install_file(&store.segment_path(&segment), |file| {
        file.write_all(segment_text(before.models.keys()).as_bytes())
    })?;
    batch.put_encoder(&EncoderRecord {
        number: number as u32,
        fingerprint: [number as u8; 32],
        blob: ids[0],
        recipe: "default".to_owned(),
        notes: String::new(),
        created: 0,
    });
    let (sequence, segment) = (store.sequence()?, Some(segment));
    let encoder = number as u32;
    batch.install_generation(&GenerationRecord { number, encoder, segment, sequence });
    if let Some((previous, _)) = &before.generation {
        batch.remove_encoder(*previous as u32);
    }
    store.commit(batch)?;
    store.delete_old_segments()
}

fn row(store: &Store, name: u64) -> Result<u64> {
    let model = store.model_by_name(&format!("m{name}"))?;
    model.map(|model| model.row).ok_or_else(|| Error::Invalid(format!("no model m{name}")))
}

fn segment_name(number: u64) -> String {
    format!("{number:010}.segment")
}

fn segment_text<'a>(names: impl Iterator<Item = &'a u64>) -> String {
    names.map(|name| format!("m{name}\n")).collect()
}

/// What an encoder makes of a model: the answers of a generation follow from it.
fn vector(number: u64, name: u64) -> Vec<f32> {
    vec![number as f32, name as f32]
}

/// What a store holds, with every byte read and compared with what it must be.
pub fn observe(store: &Store) -> State {
    let state = try_observe(store).expect("everything can be read");
    let report = store.check().expect("check runs");
    assert!(report.damages.is_empty(), "{:#?}", report.damages);
    state
}

/// As `observe`, where reading may fail; what is read must be right all the same.
pub fn try_observe(store: &Store) -> Result<State> {
    let mut state = State::default();
    let mut vectors: BTreeMap<u64, Vec<f32>> = BTreeMap::new();
    if let Some(generation) = store.generation()? {
        let name = generation.segment.clone().expect("a segment");
        let text = fs::read_to_string(store.segment_path(&name)).expect("a segment");
        let names = text.lines().map(|line| line[1..].parse().expect("a name")).collect();
        state.generation = Some((generation.number, names));
        let encoder = store.encoder(generation.encoder)?.expect("encoders");
        assert_eq!(store.tensor(encoder.blob)?.as_ref(), blob(1_000_000 + generation.number));
        vectors = store.embeddings(generation.encoder)?.collect::<Result<_>>()?;
    }
    for model in store.models()? {
        let model = model?;
        let name: u64 = model.name[1..].parse().expect("a name");
        let mut blobs = Vec::new();
        for weight in &model.weights {
            let tensor = store.tensor(weight.tensor)?;
            let seed = u64::from_le_bytes(tensor.as_ref()[..8].try_into().expect("a seed"));
            assert_eq!(tensor.as_ref(), blob(seed), "weights of m{name}");
            blobs.push(seed);
        }
        state.models.insert(name, blobs);
        assert_eq!(store.signature(model.row)?, Some(vec![name as u16]));
        let expected = state.generation.as_ref().map(|(number, _)| vector(*number, name));
        assert_eq!(vectors.remove(&model.row), expected, "the vector of m{name}");
        for pair in store.pairs_of_model(model.row)? {
            state.accuracies.insert(name, pair.accuracy);
        }
    }
    assert!(vectors.is_empty(), "vectors of no model: {vectors:?}");
    Ok(state)
}

/// After whatever happened: the zoo opens, holds one of the `allowed` states, is sound, can be
/// collected and written to, and its newest backup restores.
pub fn survive(place: &Place, allowed: &[&State], backed_up: &[&State]) {
    if matches!(Store::open(&place.zoo(), Mode::Read), Err(Error::NotAZoo { .. })) {
        assert!(allowed.contains(&&State::default()), "the zoo is gone");
        let made = Store::create(&place.zoo(), BACKBONE).expect("what is left makes way");
        assert_eq!(observe(&made), State::default());
        return;
    }
    let reader = Store::open(&place.zoo(), Mode::Read).expect("the zoo opens for reading");
    let found = observe(&reader);
    drop(reader);
    assert!(allowed.contains(&&found), "found {found:?}, expected one of {allowed:?}");
    let store = Store::open(&place.zoo(), Mode::Write).expect("the zoo opens");
    assert_eq!(observe(&store), found);
    store.gc(&mut go_on).expect("gc");
    assert_eq!(observe(&store), found);
    put(&store, &found, &[(999, vec![1, 777])]).expect("the zoo can be written to");
    let mut grown = found;
    grown.models.insert(999, vec![1, 777]);
    assert_eq!(observe(&store), grown);
    if restorable(&place.backups()) {
        // A death behind the rename leaves a whole zoo there.
        if !matches!(Store::open(&place.restored(), Mode::Read), Err(Error::NotAZoo { .. })) {
            is_restored(place, backed_up);
            fs::remove_dir_all(place.restored()).expect("a folder can be removed");
        }
        Store::restore(&place.backups(), &place.restored(), &mut go_on).expect("restore");
        is_restored(place, backed_up);
    }
}

fn is_restored(place: &Place, backed_up: &[&State]) {
    let restored = observe(&Store::open(&place.restored(), Mode::Write).expect("open"));
    assert!(backed_up.contains(&&restored), "restored {restored:?}");
}

fn restorable(backups: &Path) -> bool {
    let Ok(entries) = fs::read_dir(backups) else { return false };
    entries
        .flatten()
        .any(|entry| entry.path().join("MANIFEST").exists() && is_number(&entry.path()))
}

fn is_number(path: &Path) -> bool {
    path.extension().is_none()
}

/// Bytes that follow from a seed, which they begin with: of four sizes, one of them below 4 kB.
fn blob(seed: u64) -> Vec<u8> {
    let length = [300, 5_000, 20_000, 70_000][(seed % 4) as usize];
    let mut random = Random(seed);
    let mut bytes = seed.to_le_bytes().to_vec();
    while bytes.len() < length {
        bytes.extend_from_slice(&random.next().to_le_bytes());
    }
    bytes
}

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// One to three weights, some of which other models have too.
    fn blobs(&mut self) -> Vec<u64> {
        let kinds = [8, 500];
        let count = 1 + self.below(3);
        (0..count)
            .map(|_| {
                let end = kinds[self.below(2)];
                self.below(end) as u64
            })
            .collect()
    }
}

/// A folder in memory where there is one: a killed process leaves what it wrote there as on a disk.
pub fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("temporary folder")
}
