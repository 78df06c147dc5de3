//! Damaged bytes: found by `check`, returned as `Error::Corrupt`, never a panic.

mod common;

use common::{BACKBONE, assert_sound, model, put_blob, task};
use proptest::prelude::*;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use tans_storage::{
    Batch, CheckReport, Dtype, Error, Mode, NewTensor, PairKind, Store, TaskId, TensorId, decode,
    encode,
};

/// A closed zoo with one model of two weights.
fn small_zoo(zoo: &Path) -> Vec<TensorId> {
    let store = Store::create(zoo, BACKBONE).expect("create");
    let ids = vec![put_blob(&store, &[1; 5000]), put_blob(&store, &[2; 5000])];
    let mut batch = Batch::new();
    batch.put_model(&model(0, "m", &ids));
    batch.put_task(&task(1, "t"));
    batch.put_pair(TaskId([1; 32]), 0, PairKind::Probe, 0.5);
    store.commit(batch).expect("commit");
    ids
}

#[test]
fn a_flipped_bit_in_a_tensor_is_found() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let zoo = folder.path().join("zoo");
    let ids = small_zoo(&zoo);
    let pack = zoo.join("packs/000001.pack");
    let mut bytes = fs::read(&pack).expect("read");
    bytes[64 + 5056 + 4999] ^= 4;
    fs::write(&pack, bytes).expect("write");
    let store = Store::open(&zoo, Mode::Write).expect("open");
    assert!(matches!(store.tensor(ids[1]), Err(Error::Corrupt { .. })), "never wrong weights");
    assert_eq!(store.tensor(ids[0]).expect("the other tensor").as_ref(), [1; 5000]);
    let report = store.check().expect("check");
    assert_eq!(report.damages.len(), 1, "{:?}", report.damages);
    assert_eq!(report.damages[0].file, "packs/000001.pack");
    assert_eq!(report.damages[0].offset, Some(64 + 5056));
    // Putting the tensor again mends every record that names it.
    assert_eq!(put_blob(&store, &[2; 5000]), ids[1]);
    let mut batch = Batch::new();
    batch.put_model(&model(1, "n", &[ids[1]]));
    store.commit(batch).expect("commit");
    assert_eq!(store.tensor(ids[1]).expect("mended").as_ref(), [2; 5000]);
    assert_sound(&store);
}

#[test]
fn a_short_or_missing_pack_is_corrupt() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let zoo = folder.path().join("zoo");
    let ids = small_zoo(&zoo);
    let pack = zoo.join("packs/000001.pack");
    let sound = fs::read(&pack).expect("read");
    let damaged = [Some(sound[..6000].to_vec()), Some(sound[..3].to_vec()), None];
    for bytes in damaged {
        match &bytes {
            Some(bytes) => fs::write(&pack, bytes).expect("write"),
            None => fs::remove_file(&pack).expect("remove"),
        }
        let store = Store::open(&zoo, Mode::Write).expect("open");
        assert!(matches!(store.tensor(ids[1]), Err(Error::Corrupt { .. })));
        assert!(!store.check().expect("check").damages.is_empty());
    }
    fs::write(&pack, sound).expect("write");
    assert_sound(&Store::open(&zoo, Mode::Write).expect("open"));
}

#[test]
fn a_damaged_header_costs_no_tensor_and_gc_mends_it() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let zoo = folder.path().join("zoo");
    let ids = small_zoo(&zoo);
    let pack = zoo.join("packs/000001.pack");
    let mut bytes = fs::read(&pack).expect("read");
    bytes[20] ^= 1;
    fs::write(&pack, bytes).expect("write");
    let store = Store::open(&zoo, Mode::Write).expect("open");
    let read = |id| store.tensor(id).map(|tensor| tensor.as_ref().to_vec());
    assert_eq!(read(ids[0]).expect("the tensor behind it"), [1; 5000]);
    let report = store.check().expect("check");
    assert_eq!(report.damages.len(), 1, "{:?}", report.damages);
    assert_eq!(
        (&*report.damages[0].file, report.damages[0].offset),
        ("packs/000001.pack", Some(0))
    );
    let collected = store.gc(&mut |_, _| ControlFlow::Continue(())).expect("collect");
    assert_eq!((collected.tensors_moved, collected.packs_deleted), (2, 1));
    assert_eq!(read(ids[1]).expect("moved"), [2; 5000]);
    assert_sound(&store);
}

#[test]
fn a_pack_that_shrinks_while_it_is_mapped_is_corrupt() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let zoo = folder.path().join("zoo");
    let ids = small_zoo(&zoo);
    let store = Store::open(&zoo, Mode::Write).expect("open");
    store.tensor(ids[1]).expect("mapped");
    let pack = fs::OpenOptions::new().write(true).open(zoo.join("packs/000001.pack"));
    pack.expect("open").set_len(70).expect("truncate");
    assert!(matches!(store.tensor(ids[1]), Err(Error::Corrupt { .. })));
}

#[test]
fn a_torn_tail_does_not_confuse_the_next_tensors() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let zoo = folder.path().join("zoo");
    let mut ids = small_zoo(&zoo);
    let pack = zoo.join("packs/000001.pack");
    let mut bytes = fs::read(&pack).expect("read");
    bytes.extend_from_slice(&[0xee; 77]);
    fs::write(&pack, bytes).expect("write");
    let store = Store::open(&zoo, Mode::Write).expect("open");
    ids.push(put_blob(&store, &[3; 5000]));
    let mut batch = Batch::new();
    batch.put_model(&model(1, "n", &ids));
    store.commit(batch).expect("commit");
    assert_eq!(store.tensor(ids[2]).expect("tensor").as_ref(), [3; 5000]);
    assert_sound(&store);
    drop(store);
    // A crash while a pack was made leaves a torn header: the next tensor goes to a new pack.
    fs::write(zoo.join("packs/000002.pack"), b"TANS").expect("write");
    let store = Store::open(&zoo, Mode::Write).expect("open");
    let blob = NewTensor { dtype: Dtype::U8, shape: &[5000], bytes: &[4; 5000] };
    let id = store.put_tensors(&[blob]).expect("put")[0];
    assert_eq!(store.tensor(id).expect("tensor").as_ref(), [4; 5000]);
    assert!(zoo.join("packs/000003.pack").exists());
}

#[test]
fn flipped_bits_in_the_database_are_errors() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let zoo = folder.path().join("zoo");
    small_zoo(&zoo);
    // Opening moves the records from the log into table files.
    drop(Store::open(&zoo, Mode::Write).expect("open"));
    let tables: Vec<_> = fs::read_dir(zoo.join("db"))
        .expect("list")
        .map(|entry| entry.expect("entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "sst"))
        .collect();
    assert!(!tables.is_empty());
    for table in tables {
        let sound = fs::read(&table).expect("read");
        let mut damaged = sound.clone();
        damaged[8] ^= 0x20;
        fs::write(&table, damaged).expect("write");
        let found = match Store::open(&zoo, Mode::Read) {
            Ok(store) => !store.check().expect("check").damages.is_empty(),
            Err(error) => matches!(error, Error::Corrupt { .. }),
        };
        assert!(found, "{table:?}");
        fs::write(&table, sound).expect("write");
    }
}

#[test]
fn a_value_made_by_hand_from_the_specification_decodes() {
    // Version 1; a string of 3 bytes; crc32c of the five bytes before it.
    let mut bytes = vec![1, 3, b'a', b'b', b'c'];
    bytes.extend_from_slice(&0x496e_0c6d_u32.to_le_bytes());
    assert_eq!(decode::<String>("value", &bytes).expect("decode"), "abc");
    assert_eq!(encode(&"abc").expect("encode"), bytes);
}

#[test]
fn a_hostile_length_is_refused() {
    // A string of 2^62 bytes with a right checksum.
    let mut bytes = vec![1, 253];
    bytes.extend_from_slice(&(1u64 << 62).to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(&bytes.clone()).to_le_bytes());
    assert!(matches!(decode::<String>("value", &bytes), Err(Error::Corrupt { .. })));
    let mut longer = encode(&7u32).expect("encode");
    longer.insert(2, 0);
    let end = longer.len() - 4;
    let checksum = crc32c::crc32c(&longer[..end]).to_le_bytes();
    longer[end..].copy_from_slice(&checksum);
    assert!(matches!(decode::<u32>("value", &longer), Err(Error::Corrupt { .. })));
}

proptest! {
    #[test]
    fn changed_or_random_values_never_decode(
        name in ".{0,20}", at in any::<prop::sample::Index>(), bit in 0..8u8,
        noise in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let sound = encode(&model(3, &name, &[TensorId([1; 32])])).expect("encode");
        let mut flipped = sound.clone();
        let at = at.index(flipped.len());
        flipped[at] ^= 1 << bit;
        let result = decode::<tans_storage::ModelRecord>("model", &flipped);
        prop_assert!(matches!(result, Err(Error::Corrupt { .. })), "no damage at byte {}", at);
        let cut = decode::<tans_storage::ModelRecord>("model", &sound[..at]);
        prop_assert!(cut.is_err());
        prop_assert!(decode::<tans_storage::ModelRecord>("model", &noise).is_err());
    }
}

#[test]
fn a_cut_pack_is_one_finding_whatever_lies_beyond_its_end() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let zoo = folder.path().join("zoo");
    let store = Store::create(&zoo, BACKBONE).expect("create");
    let mut batch = Batch::new();
    for row in 0..500u64 {
        let blob = put_blob(&store, &row.to_le_bytes().repeat(600));
        batch.put_model(&model(row, &format!("m{row}"), &[blob]));
    }
    store.commit(batch).expect("commit");
    drop(store);
    let pack = zoo.join("packs/000001.pack");
    let bytes = fs::read(&pack).expect("read");
    let reader = || Store::open(&zoo, Mode::Read).expect("open");
    let damage = |store: &Store, check: fn(&Store) -> tans_storage::Result<CheckReport>| {
        let report = check(store).expect("check runs");
        let [damage] = &report.damages[..] else { panic!("{:#?}", report.damages) };
        assert_eq!(report.tensors as usize + damage.tensors.len(), 500);
        (damage.offset, damage.tensors.len(), damage.what.clone())
    };
    // The header, and 100 tensors of 4800 bytes.
    let end = 64 + 100 * 4800;
    fs::write(&pack, &bytes[..end]).expect("write");
    for check in [Store::check, Store::check_records] {
        let (offset, lost, what) = damage(&reader(), check);
        assert_eq!((offset, lost), (Some(end as u64), 400));
        assert!(what.contains("expected 2400064 bytes, found 480064: 400 tensors"), "{what}");
    }
    fs::write(&pack, b"no pack").expect("write");
    assert_eq!(damage(&reader(), Store::check).1, 500);
    fs::remove_file(&pack).expect("remove");
    assert_eq!(damage(&reader(), Store::check_records).1, 500);
    fs::write(&pack, &bytes).expect("write");
    assert_sound(&reader());
}
