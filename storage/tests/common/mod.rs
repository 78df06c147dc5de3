//! What the storage tests share.

mod records;

pub use records::{BACKBONE, model, task};

use tans_storage::{Dtype, NewTensor, Store, TensorId};

/// Stores `bytes` as a blob.
pub fn put_blob(store: &Store, bytes: &[u8]) -> TensorId {
    let blob = NewTensor { dtype: Dtype::U8, shape: &[bytes.len()], bytes };
    store.put_tensors(&[blob]).expect("a blob can be stored")[0]
}

/// Fails unless `check` finds nothing.
pub fn assert_sound(store: &Store) {
    let report = store.check().expect("check runs");
    assert!(report.damages.is_empty(), "{:#?}", report.damages);
}
