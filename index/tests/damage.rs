//! Damaged segment files: never a panic, always refused or answered within bounds.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{OnDisk, assert_ordered, build, clustered, filters, serial};
use proptest::prelude::{ProptestConfig, any, proptest};
use std::path::Path;
use std::sync::OnceLock;
use tans_index::{Delta, Embedding, Error, SearchOptions, Segment, merged_entries, search};

const DIM: usize = 6;
/// Bytes of header and section table.
const HEADER: usize = 704;

fn small() -> Vec<u8> {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| build(&clustered(30, DIM, 4, 11), &serial())).clone()
}

/// Opens the file and, if that works, uses it without verifying. Returns whether it opened and
/// whether it verifies.
fn use_it(path: &Path) -> (bool, bool) {
    let segment = match Segment::open(path) {
        Ok(segment) => segment,
        Err(error) => {
            assert!(matches!(error, Error::Corrupt { .. } | Error::Version { .. }), "{error}");
            return (false, false);
        }
    };
    let (delta, query) = (Delta::new(DIM), Embedding::new(vec![0.3; DIM], DIM).unwrap());
    for (_, filter) in filters().into_iter().step_by(3) {
        for exact in [true, false] {
            let options = SearchOptions { k: 7, ef: 9, exact };
            let found = search(Some(&segment), &delta, &query, &filter, &options).unwrap();
            assert!(found.len() <= 7);
            assert!(found.iter().all(|hit| (-1.0..=1.0).contains(&hit.cosine)));
        }
    }
    if let Err(error) = merged_entries(Some(&segment), &delta) {
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    }
    let verified = segment.verify();
    if let Err(error) = &verified {
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    }
    (true, verified.is_ok())
}

#[test]
fn the_undamaged_file_is_accepted() {
    assert_eq!(use_it(&OnDisk::new(&small()).path), (true, true));
}

#[test]
fn every_changed_header_byte_is_refused_by_open() {
    let bytes = small();
    let disk = OnDisk::new(&bytes);
    for at in 0..HEADER {
        for change in [0x01, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] ^= change;
            std::fs::write(&disk.path, damaged).unwrap();
            assert_eq!(use_it(&disk.path), (false, false), "byte {at} ^ {change:02x}");
        }
    }
}

#[test]
fn every_truncation_and_extension_is_refused_by_open() {
    let bytes = small();
    let disk = OnDisk::new(&bytes);
    for len in (0..bytes.len()).rev() {
        let file = std::fs::OpenOptions::new().write(true).open(&disk.path).unwrap();
        file.set_len(len as u64).unwrap();
        assert_eq!(use_it(&disk.path), (false, false), "{len} bytes");
    }
    std::fs::write(&disk.path, [bytes.as_slice(), &[0]].concat()).unwrap();
    assert_eq!(use_it(&disk.path), (false, false));
}

#[test]
fn every_changed_byte_behind_the_header_is_refused_by_verify_at_the_latest() {
    let bytes = small();
    let disk = OnDisk::new(&bytes);
    for at in HEADER..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= [0x01, 0x40, 0xff][at % 3];
        std::fs::write(&disk.path, damaged).unwrap();
        assert!(!use_it(&disk.path).1, "byte {at}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// The checksums are made right again, so that only the bounded parser stands between the
    /// lie and the search.
    #[test]
    fn forged_headers_and_sections_never_panic(
        changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..6),
        in_header in any::<bool>(),
    ) {
        let mut bytes = small();
        let span = if in_header { 8..HEADER - 4 } else { HEADER..bytes.len() };
        for (at, value) in changes {
            let at = span.start + at % span.len();
            bytes[at] = value;
        }
        forge(&mut bytes);
        use_it(&OnDisk::new(&bytes).path);
    }
}

/// Writes the header's checksum anew.
fn forge(bytes: &mut [u8]) {
    let checksum = crc32c::crc32c(&bytes[..HEADER - 4]);
    bytes[HEADER - 4..HEADER].copy_from_slice(&checksum.to_le_bytes());
}

#[test]
fn lies_behind_right_checksums_are_named() {
    let put = |bytes: &mut Vec<u8>, at: usize, value: &[u8]| {
        bytes[at..at + value.len()].copy_from_slice(value);
    };
    // Offset in the file, value, and what the refusal says.
    let lies: [(usize, &[u8], &str); 9] = [
        (16, &0u32.to_le_bytes(), "dimensions"),
        (16, &u32::MAX.to_le_bytes(), "dimensions"),
        (24, &u64::MAX.to_le_bytes(), "vectors"),
        (24, &(1u64 << 30).to_le_bytes(), "does not fit"),
        (64, &257u32.to_le_bytes(), "m in"),
        (76, &200u32.to_le_bytes(), "levels"),
        (128, &u64::MAX.to_le_bytes(), "does not fit"),
        (136, &(u64::MAX - 3).to_le_bytes(), "does not fit"),
        (HEADER, &30u32.to_le_bytes(), "neighbour"),
    ];
    for (at, value, says) in lies {
        let mut bytes = small();
        put(&mut bytes, at, value);
        forge(&mut bytes);
        let error = Segment::open(&OnDisk::new(&bytes).path).unwrap_err().to_string();
        assert!(error.contains(says), "{at}: {error}");
    }
    let mut newer = small();
    put(&mut newer, 8, &3u32.to_le_bytes());
    let error = Segment::open(&OnDisk::new(&newer).path).unwrap_err();
    assert!(matches!(error, Error::Version { expected: 2, found: 3, .. }), "{error}");
    let missing = Segment::open(Path::new("no/such/segment")).unwrap_err();
    assert!(matches!(missing, Error::Io { action: "open", .. }), "{missing}");
}

#[test]
fn what_was_written_comes_back() {
    let entries = clustered(30, DIM, 4, 11);
    let disk = OnDisk::new(&small());
    let segment = Segment::open(&disk.path).unwrap();
    assert_eq!((segment.len(), segment.dim()), (30, DIM));
    assert_eq!(segment.fingerprint(), common::FINGERPRINT);
    assert_eq!(segment.build_options(), serial());
    let mut keys = segment.keys().to_vec();
    keys.sort_unstable();
    assert!(keys.iter().eq(entries.iter().map(|entry| &entry.key)));
    assert_eq!(merged_entries(Some(&segment), &Delta::new(DIM)).unwrap(), entries);
    assert!(segment.entry(30).unwrap().is_none() && segment.attributes(usize::MAX).is_none());
    let options = SearchOptions { k: 30, ..SearchOptions::default() };
    let everything = tans_index::Filter::default();
    let query = &entries[3].vector;
    let found = search(Some(&segment), &Delta::new(DIM), query, &everything, &options).unwrap();
    assert_ordered(&found);
    assert_eq!((found.len(), found[0].key), (30, entries[3].key));
}
