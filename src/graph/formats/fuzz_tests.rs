//! Seeded damage to network files, and the readers under it: whatever the bytes, an answer or an error.

use super::pytorch::tests::samples;
use super::{Limits, onnx, pytorch, safetensors};
use crate::graph::spaces;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// A damaged file of this size that takes longer computes without end.
const HANG: Duration = Duration::from_secs(120);

/// How long a long run goes on, unless TANS_FUZZ_SECONDS says otherwise.
const LONG: Duration = Duration::from_secs(150);

/// What a run may take in all, in kB: far more than the limits of one file, far less than the machine.
const PEAK_KB_MAX: u64 = 2 << 20;

/// One to four changes of a kind that files suffer: flips, extreme bytes, cuts, copies.
pub(crate) fn damage(bytes: &mut Vec<u8>, generator: &mut ChaCha8Rng) {
    for _ in 0..generator.random_range(1..=4) {
        if bytes.is_empty() {
            return;
        }
        let at = generator.random_range(0..bytes.len());
        let end = (at + generator.random_range(1..=16)).min(bytes.len());
        match generator.random_range(0..7) {
            0 => bytes[at] ^= 1 << generator.random_range(0..8),
            1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][generator.random_range(0..5)],
            2 => bytes[at] = generator.random(),
            3 => _ = bytes.drain(at..end),
            4 => {
                let copy = bytes[at..end].to_vec();
                let to = generator.random_range(0..=bytes.len());
                bytes.splice(to..to, copy);
            }
            5 => _ = bytes.splice(at..end, [0xff; 9].into_iter().chain([1])),
            _ if generator.random_bool(0.2) => bytes.truncate(at),
            _ => bytes[at] = bytes[at].wrapping_add(1),
        }
    }
}

/// Damages each seed in turn until `more` says no; a run that hangs fails with its number. Gives the number of damaged
/// files and of those that `take_in` still took.
pub(crate) fn run(
    seeds: Vec<Vec<u8>>,
    take_in: fn(&[u8]) -> bool,
    more: impl Fn(u64) -> bool + Send + 'static,
) -> (u64, u64) {
    let (sender, receiver) = mpsc::channel();
    let worker = std::thread::spawn(move || {
        let (mut round, mut taken) = (0, 0);
        while more(round) {
            let mut generator = ChaCha8Rng::seed_from_u64(round);
            let mut bytes = seeds[round as usize % seeds.len()].clone();
            damage(&mut bytes, &mut generator);
            _ = sender.send(round);
            taken += u64::from(take_in(&bytes));
            round += 1;
        }
        (round, taken)
    });
    let mut last = None;
    loop {
        match receiver.recv_timeout(HANG) {
            Ok(round) => last = Some(round),
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("round {last:?} hangs"),
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        }
    }
    worker.join().unwrap_or_else(|_| panic!("round {last:?} panics"))
}

/// The same for a stated time; the memory of the whole process must stay small.
pub(crate) fn run_long(seeds: Vec<Vec<u8>>, take_in: fn(&[u8]) -> bool) {
    let seconds = std::env::var("TANS_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    let end = Instant::now() + seconds.map_or(LONG, Duration::from_secs);
    let (rounds, taken) = run(seeds, take_in, move |_| Instant::now() < end);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak: u64 = peak.and_then(|text| text.trim().split(' ').next()?.parse().ok()).unwrap_or(0);
    assert!(peak < PEAK_KB_MAX, "{rounds} damaged files took {peak} kB at most");
    #[expect(clippy::print_stderr, reason = "the figures are the result")]
    {
        eprintln!("{rounds} damaged files, {taken} still read, {peak} kB of memory at most");
    }
}

const LIMITS: Limits = Limits {
    weight_bytes_max: 16 << 20,
    nodes_max: 10_000,
    constant_bytes_max: 4 << 20,
    value_bytes_max: 16 << 20,
};

fn read_onnx(bytes: &[u8]) -> bool {
    onnx::read(bytes, &LIMITS).is_ok()
}

fn read_pytorch(bytes: &[u8]) -> bool {
    let Ok(state) = pytorch::read(bytes, &LIMITS) else { return false };
    let total: usize = state.entries.iter().map(|(_, weight)| weight.data().len()).sum();
    assert!(total <= 2 * bytes.len(), "{total} bytes out of {}", bytes.len());
    assert!(state.entries.iter().all(|(_, w)| w.byte_size() == Some(w.data().len())));
    _ = spaces::pretrained("small:cnn-w16", state);
    true
}

fn read_safetensors(bytes: &[u8]) -> bool {
    let Ok((state, _)) = safetensors::read(bytes) else { return false };
    assert!(state.entries.iter().all(|(_, w)| w.byte_size() == Some(w.data().len())));
    _ = spaces::pretrained("small:cnn-w16", state);
    true
}

fn onnx_seeds() -> Vec<Vec<u8>> {
    let made = spaces::generate("small:cnn-w16", 3, 0).expect("a network");
    vec![onnx::write(&made.graph, &made.input.to_metadata()).expect("a file")]
}

fn safetensors_seeds() -> Vec<Vec<u8>> {
    let made = spaces::generate("small:cnn-w16", 3, 0).expect("a network");
    let weights: Vec<_> = made.graph.weights.into_iter().collect();
    vec![safetensors::write(&weights, &made.input.to_metadata()).expect("a file")]
}

/// Every reader with files that it takes undamaged.
type Reader = (&'static str, fn() -> Vec<Vec<u8>>, fn(&[u8]) -> bool);

const READERS: [Reader; 3] = [
    ("ONNX", onnx_seeds, read_onnx),
    ("PyTorch", samples, read_pytorch),
    ("safetensors", safetensors_seeds, read_safetensors),
];

#[test]
fn every_reader_answers_damaged_files() {
    for (name, seeds, take_in) in READERS {
        for seed in seeds() {
            assert!(take_in(&seed), "{name}: an undamaged file is read");
        }
        let (rounds, taken) = run(seeds(), take_in, |round| round < 3000);
        assert!(taken > 0 && taken < rounds, "{name}: {taken} of {rounds} are read");
    }
}

#[test]
#[ignore = "runs for 150 s each, or TANS_FUZZ_SECONDS"]
fn every_reader_answers_damaged_files_for_long() {
    for (_, seeds, take_in) in READERS {
        run_long(seeds(), take_in);
    }
}
