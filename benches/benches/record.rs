//! What threads that record at the same time gain from sharing the waits for the disk: many threads against one, on
//! one zoo in one run.
//!
//! `cargo bench --package tans --package tans-benches --bench record [-- RECORDS]`; the default is 400 results a turn.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::time::Instant;
use tans::{Database, InitOptions, OpenOptions};

const THREADS: [usize; 3] = [1, 8, 32];
const ROUNDS: usize = 5;

/// So few that no merge of the index gets in between.
const MODELS: usize = 500;

fn main() {
    let records = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(400);
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("zoo");
    let (zoo, _) =
        Database::init(&path, &InitOptions::default(), OpenOptions::default()).expect("init");
    let mut recorded = 0;
    let mut rates = THREADS.map(|_| Vec::new());
    // In turns, so that other work on the machine meets all alike.
    for _ in 0..ROUNDS {
        for (threads, rates) in THREADS.into_iter().zip(&mut rates) {
            rates.push(records as f64 / record(&zoo, threads, recorded..recorded + records));
            recorded += records;
        }
    }
    let medians = rates.map(median);
    println!("{records} results a turn, each by its own `Database::record`, medians of {ROUNDS}");
    for (threads, rate) in THREADS.into_iter().zip(medians) {
        println!("  {threads} threads {rate:.0}/s, ratio {:.2}", rate / medians[0]);
    }
}

/// Seconds that it takes to record these.
fn record(zoo: &Database, threads: usize, numbers: std::ops::Range<usize>) -> f64 {
    let start = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let own = numbers.clone().skip(thread).step_by(threads);
            scope.spawn(move || {
                for number in own {
                    // Another accuracy each time, because what is known is not written.
                    let accuracy = (number / MODELS) as f32 / 1000.0;
                    let model = format!("model-{}", number % MODELS);
                    zoo.record(&model, "task", accuracy).expect("a result");
                }
            });
        }
    });
    start.elapsed().as_secs_f64()
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}
