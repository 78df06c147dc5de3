//! What the index asks of the allocator: nothing in a search but its answer, and never more than a
//! damaged file deserves.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{OnDisk, build, clustered, filters, segment, serial};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use tans_index::{Delta, Embedding, Error, Filter, SearchOptions, Segment, merged_entries, search};

struct Counting;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        LARGEST.set(LARGEST.get().max(layout.size()));
        // SAFETY: the caller keeps the rules of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the rules of `dealloc`.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_search_allocates_its_answer_and_nothing_else() {
    let entries = clustered(6_000, 24, 60, 3);
    let (_disk, segment) = segment(&entries, &serial());
    let (everything, mut delta) = (Filter::default(), Delta::new(24));
    for entry in &entries[..20] {
        delta.insert(entry.key, &entry.vector, entry.attributes.clone()).unwrap();
    }
    delta.remove(entries[30].key);
    for delta in [&Delta::new(24), &delta] {
        for exact in [false, true] {
            let options = SearchOptions { k: 10, ef: 80, exact };
            let ask = |entry: usize| {
                let query = &entries[entry].vector;
                search(Some(&segment), delta, query, &everything, &options).unwrap()
            };
            (0..200).for_each(|at| drop(ask(at * 29)));
            let before = COUNT.get();
            (0..100).for_each(|at| drop(ask(at * 51)));
            assert_eq!(COUNT.get() - before, 100, "exact: {exact}");
        }
    }
}

/// Seeded mutations of a whole file, with the header's checksum made right again in two cases of
/// three: single bytes, numbers at the ends of their range, blocks copied elsewhere, other lengths.
#[test]
fn mutated_files_never_panic_nor_ask_for_much_memory() {
    let bytes = build(&clustered(40, 6, 4, 17), &serial());
    let disk = OnDisk::new(&bytes);
    let mut noise = StdRng::seed_from_u64(2026);
    let (mut opened, mut refused) = (0, 0);
    for round in 0..3_000 {
        let mutated = mutate(&bytes, &mut noise, round);
        std::fs::write(&disk.path, &mutated).unwrap();
        LARGEST.set(0);
        match Segment::open(&disk.path) {
            Ok(segment) => {
                opened += 1;
                use_it(&segment, round);
            }
            Err(error) => {
                refused += 1;
                let named = matches!(error, Error::Corrupt { .. } | Error::Version { .. });
                assert!(named, "{round}: {error}");
            }
        }
        assert!(LARGEST.get() <= 8 * bytes.len(), "{round}: {} bytes at once", LARGEST.get());
    }
    assert!(opened > 300 && refused > 300, "{opened} opened, {refused} refused");
}

fn use_it(segment: &Segment, round: usize) {
    // A changed dimension that still fits the rows is only found by `verify`.
    let dim = segment.dim().max(1);
    let (delta, query) = (Delta::new(dim), Embedding::new(vec![0.3; dim], dim).unwrap());
    for (_, filter) in filters().into_iter().skip(round % 3).step_by(3) {
        for exact in [true, false] {
            let options = SearchOptions { k: 7, ef: 9, exact };
            let found = search(Some(segment), &delta, &query, &filter, &options).unwrap();
            assert!(found.iter().all(|hit| (-1.0..=1.0).contains(&hit.cosine)), "{round}");
        }
    }
    for position in 0..segment.len() {
        segment.attributes(position).unwrap();
    }
    if let Err(error) = merged_entries(Some(segment), &delta) {
        assert!(matches!(error, Error::Corrupt { .. }), "{round}: {error}");
    }
    let _ = segment.verify();
}

fn mutate(bytes: &[u8], noise: &mut StdRng, round: usize) -> Vec<u8> {
    let mut mutated = bytes.to_vec();
    for _ in 0..=noise.random_range(0..4) {
        // Half of the changes fall into the header, which is a small part of the file.
        let span = if noise.random_range(0..2) == 0 { 128 } else { mutated.len() };
        let at = noise.random_range(0..span.min(mutated.len()));
        match noise.random_range(0..6) {
            0 => mutated[at] = noise.random(),
            1 => mutated[at] ^= 1 << noise.random_range(0..8),
            2 => put(&mut mutated, at / 4 * 4, &noise.random::<u32>().to_le_bytes()),
            3 => put(&mut mutated, at / 8 * 8, &[0xff; 8]),
            4 => {
                let from = noise.random_range(0..mutated.len());
                let block = mutated[from..mutated.len().min(from + 64)].to_vec();
                put(&mut mutated, at, &block);
            }
            _ => mutated
                .resize((mutated.len() + noise.random_range(0..99)).saturating_sub(50).max(1), 0),
        }
    }
    if !round.is_multiple_of(3) && mutated.len() >= 704 {
        let len = mutated.len() as u64;
        put(&mut mutated, 88, &len.to_le_bytes());
        let checksum = crc32c::crc32c(&mutated[..700]);
        put(&mut mutated, 700, &checksum.to_le_bytes());
    }
    mutated
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    let end = bytes.len().min(at + value.len());
    if at < end {
        bytes[at..end].copy_from_slice(&value[..end - at]);
    }
}
