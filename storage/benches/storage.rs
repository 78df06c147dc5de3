//! What the store costs over the bare disk and bare RocksDB, on the same machine in the same run.
//!
//! `cargo bench --package tans --package tans-storage --bench storage [-- MODELS RECORDS]`; the
//! defaults are 10,000 models of 100 kB and 1,000,000 records.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

#[path = "../tests/common/records.rs"]
mod records;

use records::{BACKBONE, model, task};
use rocksdb::{ColumnFamilyDescriptor, DB, Options, WriteOptions};
use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::path::Path;
use std::time::Instant;
use tans_storage::{Batch, Dtype, Mode, ModelId, NewTensor, Store, TensorId};

/// Sizes of a model's weights: 100 kB in all, one of them small enough to lie in its record.
const WEIGHTS: [usize; 4] = [60_000, 30_000, 9_000, 1_000];

/// Their sum, in megabytes.
const MODEL_MB: f64 = 0.1;

/// Models that one side writes before the other has its turn.
const TURN: usize = 1_000;

/// Models that share a commit, so that one sync covers 4 MB.
const GROUP: usize = 40;

/// Threads that write at the same time, in turns.
const THREADS: [usize; 3] = [1, 2, 4];

fn main() {
    let numbers: Vec<usize> = std::env::args().skip(1).filter_map(|arg| arg.parse().ok()).collect();
    let models = numbers.first().copied().unwrap_or(10_000);
    let records = numbers.get(1).copied().unwrap_or(1_000_000);
    let folder = tempfile::tempdir().expect("temporary folder");
    let zoo = folder.path().join("zoo");
    ingest(folder.path(), &zoo, models);
    get(&zoo);
    single_put(folder.path());
    open(folder.path(), records);
}

/// Random bytes, made before anything is timed.
struct Noise(Vec<u8>);

impl Noise {
    /// For so many models.
    fn new(models: usize) -> Self {
        let mut state = 1_u64;
        let mut made = Vec::new();
        while made.len() < WEIGHTS[0] + 8 * models {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            made.extend_from_slice(&state.to_le_bytes());
        }
        Self(made)
    }

    /// Weights that no other model has.
    fn weights(&self, number: usize) -> [&[u8]; WEIGHTS.len()] {
        WEIGHTS.map(|bytes| &self.0[8 * number..][..bytes])
    }
}

fn put(store: &Store, batch: &mut Batch, noise: &Noise, number: usize) -> Vec<TensorId> {
    let weights = noise.weights(number);
    let shapes: Vec<[usize; 1]> = weights.iter().map(|bytes| [bytes.len()]).collect();
    let tensors: Vec<NewTensor<'_>> = weights
        .iter()
        .zip(&shapes)
        .map(|(bytes, shape)| NewTensor { dtype: Dtype::U8, shape, bytes })
        .collect();
    let ids = store.put_tensors(&tensors).expect("put");
    let row = store.next_row().expect("row");
    batch.put_model(&model(row, &format!("m{number}"), &ids));
    batch.put_signature(row, &[0; 513]);
    batch.put_embedding(0, row, &[0.5; 128]);
    ids
}

/// Two files with the syncs of a commit: weights first, then a log of what the records take.
struct Bare {
    weights: File,
    log: File,
}

/// Bytes of a model's records.
const RECORDS: usize = 2_500;

impl Bare {
    fn new(folder: &Path) -> Self {
        let file = |name: &str| File::create(folder.join(name)).expect("file");
        Self { weights: file("bare.weights"), log: file("bare.log") }
    }

    fn write(&self, noise: &Noise, numbers: Range<usize>) {
        for group in groups(numbers) {
            let records = vec![0; RECORDS * group.len()];
            for number in group {
                for bytes in noise.weights(number) {
                    (&self.weights).write_all(bytes).expect("write");
                }
            }
            self.weights.sync_data().expect("sync");
            (&self.log).write_all(&records).expect("write");
            self.log.sync_data().expect("sync");
        }
    }
}

/// Models of a commit each.
fn groups(numbers: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let end = numbers.end;
    numbers.step_by(GROUP).map(move |first| first..(first + GROUP).min(end))
}

fn write(store: &Store, noise: &Noise, numbers: Range<usize>, threads: usize) {
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let own = groups(numbers.clone()).skip(thread).step_by(threads);
            scope.spawn(move || {
                for group in own {
                    let mut batch = Batch::new();
                    for number in group {
                        put(store, &mut batch, noise, number);
                    }
                    store.commit(batch).expect("commit");
                }
            });
        }
    });
}

fn ingest(folder: &Path, zoo: &Path, models: usize) {
    let store = Store::create(zoo, BACKBONE).expect("create");
    let noise = Noise::new(models);
    let megabytes = models as f64 * MODEL_MB;
    let bare = Bare::new(folder);
    // Models that were written, and the seconds that both sides took, by threads.
    let mut sides = THREADS.map(|_| (0, 0.0, 0.0));
    // In turns, because the disk of a shared machine is not equally fast for long.
    for (turn, first) in (0..models).step_by(TURN).enumerate() {
        let numbers = first..(first + TURN).min(models);
        let side = turn % THREADS.len();
        let (written, ours, theirs) = &mut sides[side];
        *written += numbers.len();
        let start = Instant::now();
        write(&store, &noise, numbers.clone(), THREADS[side]);
        *ours += start.elapsed().as_secs_f64();
        let start = Instant::now();
        bare.write(&noise, numbers);
        *theirs += start.elapsed().as_secs_f64();
    }
    println!("ingest of {models} models, {megabytes:.0} MB, syncs each {GROUP}");
    for (threads, (written, ours, theirs)) in
        THREADS.into_iter().zip(sides).filter(|(_, side)| side.0 > 0)
    {
        let [ours, theirs] = [ours, theirs].map(|seconds| written as f64 * MODEL_MB / seconds);
        println!("  store, {threads} threads: {ours:.0} MB/s, bare files {theirs:.0} MB/s");
        println!("  ratio {:.2} (target: at least 0.70)", ours / theirs);
    }
    let (written, ours, _) = sides[0];
    let ours = ours / written as f64 * models as f64;
    let before = store.stats().expect("stats").disk_bytes;
    let start = Instant::now();
    for number in 0..models {
        // What an ingest does to find that it has nothing to do: hash, and look the model up.
        for bytes in noise.weights(number) {
            std::hint::black_box(TensorId::of(Dtype::U8, &[bytes.len()], bytes));
        }
        let id = ModelId(TensorId::of(Dtype::U8, &[], format!("m{number}").as_bytes()).0);
        assert!(store.model_by_id(id).expect("read").is_some());
    }
    let again = start.elapsed().as_secs_f64();
    let fresh = store.stats().expect("stats").disk_bytes.saturating_sub(before);
    println!(
        "ingest of the same again: {:.1} x faster (target: 10), {fresh} new bytes",
        ours / again
    );
}

/// Time of one call, from as many as fit into a moment; the median of nine.
fn nanoseconds(mut call: impl FnMut(usize)) -> f64 {
    let mut medians: Vec<f64> = (0..9)
        .map(|_| {
            let start = Instant::now();
            let mut calls = 0;
            while start.elapsed().as_millis() < 50 {
                (0..100).for_each(|at| call(calls + at));
                calls += 100;
            }
            start.elapsed().as_nanos() as f64 / calls as f64
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    medians[4]
}

fn get(zoo: &Path) {
    let store = Store::open(zoo, Mode::Read).expect("open");
    let ids: Vec<TensorId> = store
        .models()
        .expect("models")
        .take(1_000)
        .map(|model| model.expect("a record").weights[0].tensor)
        .collect();
    let ours = nanoseconds(|at| {
        let tensor = store.tensor(ids[at % ids.len()]).expect("tensor");
        std::hint::black_box(tensor.bytes()[0]);
    });
    let families = DB::list_cf(&Options::default(), zoo.join("db")).expect("families");
    let db = DB::open_cf_for_read_only(&Options::default(), zoo.join("db"), families, false);
    let db = db.expect("open");
    let family = db.cf_handle("tensor").expect("family");
    let bare = nanoseconds(|at| {
        std::hint::black_box(db.get_cf(&family, ids[at % ids.len()].0).expect("read"));
    });
    println!("get of weights, warm: {ours:.0} ns, bare point read {bare:.0} ns");
    println!("  ratio {:.2} (target: at most 3)", ours / bare);
    let tensor = store.tensor(ids[0]).expect("tensor");
    let sum = nanoseconds(|_| {
        std::hint::black_box(tensor.bytes().iter().map(|byte| u64::from(*byte)).sum::<u64>());
    });
    println!(
        "  sum over its {} bytes: {:.1} GB/s",
        tensor.bytes().len(),
        tensor.bytes().len() as f64 / sum
    );
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn single_put(folder: &Path) {
    let store = Store::create(&folder.join("single"), BACKBONE).expect("create");
    let db = DB::open_default(folder.join("bare")).expect("open");
    let file = File::create(folder.join("bare.pack")).expect("file");
    let mut synced = WriteOptions::default();
    synced.set_sync(true);
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    let noise = Noise::new(200);
    for number in 0..200 {
        let start = Instant::now();
        let mut batch = Batch::new();
        put(&store, &mut batch, &noise, number);
        store.commit(batch).expect("commit");
        ours.push(start.elapsed().as_secs_f64());
        let start = Instant::now();
        for bytes in noise.weights(number) {
            (&file).write_all(bytes).expect("write");
        }
        file.sync_all().expect("sync");
        db.put_opt(number.to_be_bytes(), [0; 2_000], &synced).expect("put");
        bare.push(start.elapsed().as_secs_f64());
    }
    let (ours, bare) = (median(ours) * 1e3, median(bare) * 1e3);
    println!("one model put: {ours:.2} ms, bare file sync and bare synced put {bare:.2} ms");
    println!("  ratio {:.2} (target: at most 1.3)", ours / bare);
}

fn open(folder: &Path, records: usize) {
    let zoo = folder.join("records");
    let store = Store::create(&zoo, BACKBONE).expect("create");
    for first in (0..records).step_by(10_000) {
        let mut batch = Batch::new();
        batch.put_task(&task(1, "task"));
        for row in first..(first + 10_000).min(records) {
            batch.put_model(&model(row as u64, &format!("model number {row}"), &[]));
        }
        store.commit(batch).expect("commit");
    }
    drop(store);
    let timed = |open: &dyn Fn()| {
        let times = (0..7).map(|_| {
            let start = Instant::now();
            open();
            start.elapsed().as_secs_f64() * 1e3
        });
        median(times.collect())
    };
    let read = timed(&|| drop(Store::open(&zoo, Mode::Read).expect("open")));
    let write = timed(&|| drop(Store::open(&zoo, Mode::Write).expect("open")));
    let bare = timed(&|| {
        let names = DB::list_cf(&Options::default(), zoo.join("db")).expect("families");
        let families =
            names.iter().map(|name| ColumnFamilyDescriptor::new(name, Options::default()));
        drop(DB::open_cf_descriptors(&Options::default(), zoo.join("db"), families).expect("open"));
    });
    println!(
        "open with {records} records: reader {read:.1} ms, writer {write:.1} ms, bare {bare:.1} ms"
    );
    println!("  ratios {:.2} and {:.2} (target: at most 2)", read / bare, write / bare);
}
