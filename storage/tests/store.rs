//! One store through its public API: round trips, conflicts, dedup, readers, refusals.

mod common;

use common::{BACKBONE, assert_sound, model, put_blob, task};
use safetensors::View;
use std::fs;
use std::path::Path;
use tans_storage::{
    Batch, Dtype, EncoderRecord, Error, GenerationRecord, JobRecord, Mode, ModelRecord, NewTensor,
    Operation, PairKind, Store, TaskId, TaskRecord, TaskSampleRecord, TensorId, install_file,
};

fn shareable<T: Send + Sync>() {}

/// One record of each kind, as it was committed.
struct Written {
    bytes: Vec<u8>,
    ids: Vec<TensorId>,
    model: ModelRecord,
    task: TaskRecord,
    encoder: EncoderRecord,
    generation: GenerationRecord,
    job: JobRecord,
}

fn write_one_of_each(store: &Store) -> Written {
    let weight = [1.5f32, -2.0, 0.0, 4.0, 5.0, 6.0];
    let bytes: Vec<u8> = weight.iter().flat_map(|scalar| scalar.to_le_bytes()).collect();
    let tensors = [
        NewTensor { dtype: Dtype::F32, shape: &[2, 3], bytes: &bytes },
        NewTensor { dtype: Dtype::F16, shape: &[0, 9], bytes: &[] },
        NewTensor { dtype: Dtype::U8, shape: &[4], bytes: b"blob" },
    ];
    let ids = store.put_tensors(&tensors).expect("put tensors");
    assert_eq!(ids[0], TensorId::of(Dtype::F32, &[2, 3], &bytes));
    let mut model = model(store.next_row().expect("row"), "first", &[ids[0], ids[0]]);
    model.graph = Some(ids[2]);
    let mut task = task(9, "sampled");
    task.sample = Some(TaskSampleRecord {
        backbone: BACKBONE,
        rows: ids[1],
        labels: vec![0, 1],
        class_means: ids[0],
        scalars: [Some(0.5), None, None, None, None, None, None, None, None, Some(-1.0)],
        image_hashes: Some(ids[2]),
    });
    let encoder = EncoderRecord {
        number: 4,
        fingerprint: [1; 32],
        blob: ids[2],
        recipe: "default".to_owned(),
        notes: "{}".to_owned(),
        created: 5,
    };
    let generation = GenerationRecord { number: 0, encoder: 4, segment: None, sequence: 0 };
    let job = JobRecord { kind: "finetune".to_owned(), state: vec![0; 1000] };
    let mut batch = Batch::new();
    batch.put_signature(model.row, &[1, 0xffff]);
    batch.put_embedding(4, model.row, &[1.0, -0.5]);
    batch.put_model(&model);
    batch.put_task(&task);
    batch.put_pair(task.id, model.row, PairKind::Probe, 0.25);
    batch.put_pair(task.id, model.row, PairKind::Probe, 0.75);
    batch.put_encoder(&encoder);
    batch.install_generation(&generation);
    batch.put_job("job", &job);
    assert_eq!(store.commit(batch).expect("commit"), 5);
    Written { bytes, ids, model, task, encoder, generation, job }
}

fn assert_all_there(store: &Store, written: &Written) {
    let Written { bytes, ids, model, task, encoder, generation, job } = written;
    let row = model.row;
    assert_eq!(store.backbone(), BACKBONE);
    assert_eq!(store.model(row).expect("model").as_ref(), Some(model));
    assert_eq!(store.model_by_name("first").expect("model").as_ref(), Some(model));
    assert_eq!(store.model_by_id(model.id).expect("model").as_ref(), Some(model));
    assert_eq!(store.models().expect("models").count(), 1);
    assert_eq!(store.task(task.id).expect("task").as_ref(), Some(task));
    assert_eq!(store.task_by_name("sampled").expect("task").as_ref(), Some(task));
    assert_eq!(store.tasks().expect("tasks"), std::slice::from_ref(task));
    let pairs = store.pairs().expect("pairs");
    assert_eq!((pairs.len(), pairs[0].accuracy, pairs[0].sequence), (1, 0.75, 4));
    assert_eq!(store.pairs_of_model(row).expect("pairs"), pairs);
    assert_eq!(store.pairs_of_task(task.id).expect("pairs"), pairs);
    assert_eq!(store.signature(row).expect("signature"), Some(vec![1, 0xffff]));
    assert_eq!(store.embedding(4, row).expect("embedding"), Some(vec![1.0, -0.5]));
    let vectors: Vec<_> =
        store.embeddings(4).expect("embeddings").collect::<Result<_, _>>().expect("decoded");
    assert_eq!(vectors, vec![(row, vec![1.0, -0.5])]);
    assert_eq!(store.encoder(4).expect("encoder").as_ref(), Some(encoder));
    assert_eq!(store.generation().expect("generation").as_ref(), Some(generation));
    assert_eq!(store.job("job").expect("job").as_ref(), Some(job));
    let operations = store.operations_after(4).expect("operations");
    assert_eq!(operations, vec![(5, Operation::GenerationInstalled { number: 0 })]);
    let tensor = store.tensor(ids[0]).expect("tensor");
    assert_eq!((tensor.dtype(), tensor.shape()), (Dtype::F32, [2, 3].as_slice()));
    assert_eq!((tensor.as_ref(), tensor.data_len()), (bytes.as_slice(), 24));
    assert_eq!(tensor.as_ref().as_ptr() as usize % 64, 0);
    assert!(store.tensor(ids[1]).expect("empty tensor").as_ref().is_empty());
    assert_sound(store);
}

#[test]
fn every_record_comes_back_after_reopening() {
    shareable::<Store>();
    let folder = tempfile::tempdir().expect("temporary folder");
    let zoo = folder.path().join("a/zoo");
    let store = Store::create(&zoo, BACKBONE).expect("create");
    let written = write_one_of_each(&store);
    drop(store);
    for mode in [Mode::Write, Mode::Read, Mode::Write] {
        assert_all_there(&Store::open(&zoo, mode).expect("open"), &written);
    }
    let store = Store::open(&zoo, Mode::Write).expect("open");
    assert_eq!(store.next_row().expect("row"), written.model.row + 1);
}

#[test]
fn equal_tensors_are_stored_once_and_references_are_released() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let zoo = folder.path().join("zoo");
    let store = Store::create(&zoo, BACKBONE).expect("create");
    let blob = vec![5u8; 10_000];
    let pack = zoo.join("packs/000001.pack");
    let one = put_blob(&store, &blob);
    let bytes = fs::metadata(&pack).expect("pack").len();
    let new = || NewTensor { dtype: Dtype::U8, shape: &[10_000], bytes: &blob };
    assert_eq!(store.put_tensors(&[new(), new()]).expect("again"), vec![one, one]);
    let mut batch = Batch::new();
    batch.put_model(&model(store.next_row().expect("row"), "a", &[one]));
    batch.put_model(&model(store.next_row().expect("row"), "b", &[one, one]));
    store.commit(batch).expect("commit");
    assert_eq!(put_blob(&store, &blob), one);
    assert_eq!(fs::metadata(&pack).expect("pack").len(), bytes);
    let stats = store.stats().expect("stats");
    assert_eq!((stats.models, stats.tensors), (2, 1));
    assert_eq!((stats.logical_bytes, stats.distinct_bytes), (30_000, 10_000));

    let mut batch = Batch::new();
    batch.remove_model(0);
    batch.put_model(&model(1, "b", &[one]));
    store.commit(batch).expect("commit");
    assert_eq!(store.stats().expect("stats").logical_bytes, 10_000);
    assert_sound(&store);
}

#[test]
fn removing_a_model_removes_all_that_belongs_to_it() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = Store::create(&folder.path().join("zoo"), BACKBONE).expect("create");
    let mut batch = Batch::new();
    batch.put_task(&task(1, "task"));
    for row in 0..3 {
        batch.put_model(&model(row, &format!("m{row}"), &[]));
        batch.put_signature(row, &[1]);
        for encoder in [0, 1, u32::MAX] {
            batch.put_embedding(encoder, row, &[1.0]);
        }
        batch.put_pair(TaskId([1; 32]), row, PairKind::Reported, 0.5);
    }
    store.commit(batch).expect("commit");
    let mut batch = Batch::new();
    batch.put_pair(TaskId([1; 32]), 1, PairKind::Finetune, 0.5);
    batch.remove_model(1);
    batch.remove_encoder(u32::MAX);
    store.commit(batch).expect("commit");
    assert_eq!(store.model_by_name("m1").expect("read"), None);
    assert_eq!(store.signature(1).expect("read"), None);
    assert_eq!(store.embedding(0, 1).expect("read"), None);
    assert_eq!(store.embeddings(u32::MAX).expect("read").count(), 0);
    assert_eq!(store.embeddings(1).expect("read").count(), 2);
    assert_eq!(store.pairs_of_model(1).expect("read"), vec![]);
    assert_eq!(store.pairs_of_task(TaskId([1; 32])).expect("read").len(), 2);
    assert_sound(&store);
    let mut batch = Batch::new();
    batch.remove_task(TaskId([1; 32]));
    store.commit(batch).expect("commit");
    assert_eq!(store.pairs().expect("read"), vec![]);
    assert_sound(&store);
}

#[test]
fn a_refused_commit_changes_nothing() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = Store::create(&folder.path().join("zoo"), BACKBONE).expect("create");
    let mut batch = Batch::new();
    batch.put_model(&model(0, "taken", &[]));
    batch.put_task(&task(1, "task"));
    let sequence = store.commit(batch).expect("commit");

    type Edit = Box<dyn Fn(&mut Batch)>;
    let known = TaskId([1; 32]);
    let job = JobRecord { kind: "large".to_owned(), state: vec![0; 1_100_000] };
    let wrong: Vec<Edit> = vec![
        Box::new(|batch| batch.put_model(&model(5, "taken", &[]))),
        Box::new(|batch| batch.put_model(&model(5, "", &[]))),
        Box::new(|batch| batch.put_model(&model(5, "unstored", &[TensorId([0; 32])]))),
        Box::new(|batch| batch.put_task(&task(2, "task"))),
        Box::new(move |batch| batch.put_pair(known, 0, PairKind::Probe, 1.7)),
        Box::new(move |batch| batch.put_pair(known, 0, PairKind::Probe, f32::NAN)),
        Box::new(move |batch| batch.put_pair(known, 9, PairKind::Probe, 0.5)),
        Box::new(|batch| batch.put_pair(TaskId([8; 32]), 0, PairKind::Probe, 0.5)),
        Box::new(|batch| batch.put_signature(9, &[1])),
        Box::new(|batch| batch.remove_model(9)),
        Box::new(|batch| batch.remove_task(TaskId([8; 32]))),
        Box::new(move |batch| batch.put_job("job", &job)),
        Box::new(|batch| {
            let generation = GenerationRecord { number: 0, encoder: 3, segment: None, sequence: 0 };
            batch.install_generation(&generation);
        }),
    ];
    for (at, edit) in wrong.iter().enumerate() {
        let mut batch = Batch::new();
        batch.put_model(&model(1, "innocent", &[]));
        edit(&mut batch);
        let result = store.commit(batch);
        assert!(matches!(result, Err(Error::Invalid(_))), "case {at}: {result:?}");
    }
    assert_eq!(store.model(1).expect("read"), None);
    assert_eq!(store.stats().expect("stats").sequence, sequence);
    let short = NewTensor { dtype: Dtype::F32, shape: &[2], bytes: &[0; 7] };
    assert!(matches!(store.put_tensors(&[short]), Err(Error::Invalid(_))));
    assert_sound(&store);
}

#[test]
fn a_reader_sees_new_records_after_refresh_and_cannot_write() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let zoo = folder.path().join("zoo");
    let writer = Store::create(&zoo, BACKBONE).expect("create");
    let reader = Store::open(&zoo, Mode::Read).expect("open");
    let blob = put_blob(&writer, b"weights");
    let mut batch = Batch::new();
    batch.put_model(&model(0, "new", &[blob]));
    writer.commit(batch).expect("commit");
    assert_eq!(reader.model_by_name("new").expect("read"), None);
    let before = reader.models().expect("iterate");
    reader.refresh().expect("refresh");
    assert_eq!(before.count(), 0);
    assert!(reader.model_by_name("new").expect("read").is_some());
    assert_eq!(reader.tensor(blob).expect("tensor").as_ref(), b"weights");
    assert_sound(&reader);
    assert!(matches!(reader.commit(Batch::new()), Err(Error::ReadOnly)));
    assert!(matches!(reader.next_row(), Err(Error::ReadOnly)));
    assert!(matches!(reader.put_tensors(&[]), Err(Error::ReadOnly)));
}

#[test]
fn a_second_writer_is_refused_with_the_holder_named() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let zoo = folder.path().join("zoo");
    let store = Store::create(&zoo, BACKBONE).expect("create");
    let Err(Error::Locked { holder, .. }) = Store::open(&zoo, Mode::Write) else {
        panic!("the second writer was not refused");
    };
    assert!(holder.contains(&format!("process {},", std::process::id())), "{holder}");
    assert!(holder.contains("since 20"), "{holder}");
    drop(store);
    Store::open(&zoo, Mode::Write).expect("open when the first is gone");
}

#[test]
fn what_is_no_zoo_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let empty = folder.path().join("empty");
    let other = folder.path().join("other");
    fs::create_dir(&empty).expect("folder");
    fs::create_dir(&other).expect("folder");
    fs::write(other.join("FORMAT"), "something else").expect("file");
    let missing = folder.path().join("missing");
    let file = other.join("FORMAT");
    for path in [&empty, &other, &missing, &file] {
        for mode in [Mode::Write, Mode::Read] {
            let result = Store::open(path, mode).err();
            assert!(matches!(result, Some(Error::NotAZoo { .. })), "{path:?}: {result:?}");
        }
    }
    for path in [&other, &file] {
        let result = Store::create(path, BACKBONE).err();
        assert!(matches!(result, Some(Error::AlreadyExists { .. })), "{path:?}: {result:?}");
    }
    fs::write(other.join("FORMAT"), "tans zoo\nformat 99\nmore\n").expect("file");
    for mode in [Mode::Write, Mode::Read] {
        let result = Store::open(&other, mode).err();
        assert!(
            matches!(result, Some(Error::NewerFormat { found: 99, .. })),
            "{mode:?}: {result:?}"
        );
    }
    assert_eq!(names(&empty), Vec::<String>::new());
    assert_eq!(names(&other), vec!["FORMAT"]);
    assert!(!missing.exists());
}

#[test]
fn install_file_replaces_or_leaves_alone() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("file");
    install_file(&path, |file| std::io::Write::write_all(file, b"one")).expect("install");
    let failed = install_file(&path, |file| {
        std::io::Write::write_all(file, b"two")?;
        Err(std::io::Error::other("no"))
    });
    assert!(matches!(failed, Err(Error::Io { .. })));
    assert_eq!(fs::read(&path).expect("read"), b"one");
    assert_eq!(names(folder.path()), vec!["file"]);
}

fn names(folder: &Path) -> Vec<String> {
    fs::read_dir(folder)
        .expect("list")
        .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
        .collect()
}
