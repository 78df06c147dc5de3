//! Small records for the storage tests.

use std::collections::BTreeMap;
use tans_storage::{Cost, Dtype, ModelId, ModelRecord, TaskId, TaskRecord, TensorId, WeightRef};

pub const BACKBONE: [u8; 32] = [7; 32];

/// A model whose weights are `weights`.
pub fn model(row: u64, name: &str, weights: &[TensorId]) -> ModelRecord {
    ModelRecord {
        id: ModelId(TensorId::of(Dtype::U8, &[], name.as_bytes()).0),
        row,
        name: name.to_owned(),
        parent: None,
        seen: vec![TaskId([3; 32])],
        license: Some("MIT".to_owned()),
        tags: BTreeMap::from([("source".to_owned(), "test".to_owned())]),
        uri: None,
        graph: None,
        weights: weights
            .iter()
            .enumerate()
            .map(|(at, tensor)| WeightRef { name: format!("t{at}"), tensor: *tensor })
            .collect(),
        input: vec![1, 2, 3],
        cost: Cost { params: 10, macs: 20, peak_activation_bytes: 30, latency: None },
        not_runnable: None,
        architecture: None,
        topology: vec![0.5, -1.0],
        class_names: vec!["cat".to_owned(), "dog".to_owned()],
        created: 1_700_000_000,
    }
}

/// A reference task.
pub fn task(byte: u8, name: &str) -> TaskRecord {
    TaskRecord {
        id: TaskId([byte; 32]),
        name: name.to_owned(),
        family: None,
        class_names: vec![],
        sample: None,
        benchmark: false,
        created: 1,
    }
}
