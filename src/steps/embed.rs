//! A model's vector from its record, signature and history.

use crate::Result;
use crate::encoder::{Encoders, Evidence, Kind, ModelEvidence, Source, TaskEncoding};
use crate::state::Encoded;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use tans_storage::{ModelRecord, PairKind, Store, TaskId, TaskRecord};

/// Encodings of the tasks that the encoders were not trained on, so that results on them count as well.
pub struct Context<'a> {
    encoders: &'a Encoders,
    /// What was encoded before: a task takes milliseconds, and each recorded result asks for all of them.
    encoded: &'a Encoded,
    fresh: HashMap<TaskId, Arc<TaskEncoding>>,
}

/// One known result: task, how it was measured, accuracy.
pub type Known = (TaskId, PairKind, f32);

impl<'a> Context<'a> {
    /// Encodes every stored task that lies outside the encoders' basis.
    pub fn load(store: &Store, encoders: &'a Encoders, encoded: &'a Encoded) -> Result<Self> {
        let mut context = Self { encoders, encoded, fresh: HashMap::new() };
        for task in store.tasks()? {
            context.include(store, &task)?;
        }
        Ok(context)
    }

    /// Encodes a task that is committed together with the models.
    pub fn include(&mut self, store: &Store, task: &TaskRecord) -> Result<()> {
        if self.encoders.basis().contains(&task.id.0) {
            return Ok(());
        }
        let Some(record) = &task.sample else { return Ok(()) };
        let key = (record.rows, record.class_means);
        let known = self.encoded.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        let encoding = match known {
            Some(encoding) => encoding,
            None => {
                let Some(sample) = super::readable_sample(store, task)? else { return Ok(()) };
                let encoding = Arc::new(self.encoders.encode_task(&sample)?);
                let mut encoded = self.encoded.lock().unwrap_or_else(PoisonError::into_inner);
                encoded.insert(key, encoding.clone());
                encoding
            }
        };
        self.fresh.insert(task.id, encoding);
        Ok(())
    }

    /// E_M for one model; `newer` results replace stored ones of the same task and kind.
    pub fn embed(&self, store: &Store, model: &ModelRecord, newer: &[Known]) -> Result<Vec<f32>> {
        let signature = super::stored_signature(store, model.row)?;
        let stored = store.pairs_of_model(model.row)?;
        let stored = stored.iter().map(|pair| (pair.task, pair.kind, pair.accuracy));
        self.embed_with(model, signature.as_deref(), &merge(stored, newer))
    }

    /// What networks like it let expect of a model before its own results, in the form of E_M.
    pub fn expected(&self, store: &Store, model: &ModelRecord) -> Result<Vec<f32>> {
        let signature = super::stored_signature(store, model.row)?;
        // A model with results has been trained, whatever is known of it.
        let is_trained = !model.seen.is_empty() || !store.pairs_of_model(model.row)?.is_empty();
        self.embed_evidence(model, signature.as_deref(), (&[], is_trained))
    }

    /// E_M from a given signature and history.
    pub fn embed_with(
        &self,
        model: &ModelRecord,
        signature: Option<&[f32]>,
        history: &[Known],
    ) -> Result<Vec<f32>> {
        self.embed_evidence(model, signature, (history, !model.seen.is_empty()))
    }

    fn embed_evidence(
        &self,
        model: &ModelRecord,
        signature: Option<&[f32]>,
        (history, is_trained): (&[Known], bool),
    ) -> Result<Vec<f32>> {
        let encoding = |task: &TaskId| self.fresh.get(task).map(Arc::as_ref);
        let history: Vec<Evidence<'_>> = history
            .iter()
            .map(|&(task, kind, accuracy)| Evidence {
                task: task.0,
                kind: evidence_kind(kind),
                accuracy,
                encoding: encoding(&task),
                is_own: kind == PairKind::Probe && model.seen.contains(&task),
            })
            .collect();
        let sources: Vec<Source<'_>> = model
            .seen
            .iter()
            .map(|task| Source { task: task.0, encoding: encoding(task) })
            .collect();
        let numbers = model.architecture.as_ref().map_or(&[][..], |space| &space.numbers);
        Ok(self.encoders.encode_model(&ModelEvidence {
            numbers,
            topology: &model.topology,
            signature,
            history: &history,
            sources: &sources,
            is_trained,
        }))
    }
}

/// A history with `newer` results in place of stored ones of the same task and kind.
pub fn merge(stored: impl Iterator<Item = Known>, newer: &[Known]) -> Vec<Known> {
    let replaced = |(task, kind, _): &Known| {
        newer.iter().any(|(new_task, new_kind, _)| (new_task, new_kind) == (task, kind))
    };
    stored.filter(|known| !replaced(known)).chain(newer.iter().copied()).collect()
}

/// The encoders' word for how a pair was measured.
pub fn evidence_kind(kind: PairKind) -> Kind {
    match kind {
        PairKind::Probe => Kind::Probe,
        PairKind::Finetune => Kind::Finetune,
        PairKind::Reported => Kind::Reported,
    }
}
