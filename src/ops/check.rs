//! Proves that everything in a zoo is as it was written. Needs the records alone, so that damaged encoders or a damaged
//! segment are findings and not the end of the check.

use crate::Result;
use crate::state;
use crate::steps::{self, network_file};
use serde::Serialize;
use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use tans_index::Segment;
use tans_storage::{Damage, GenerationRecord, Mode, ModelRecord, Store, TensorId};

/// Options of `check`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckOptions {
    /// Read every record and reference, but hash no tensor, rebuild no network and sum no section of the index: packs and
    /// segment must be there, as long as their records say and of sound structure. Default false.
    pub fast: bool,
}

/// One finding.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// File or column family.
    pub file: String,
    /// Byte offset, where known.
    pub offset: Option<u64>,
    /// What was expected and what was found.
    pub what: String,
    /// Names of the models that it concerns.
    pub models: Vec<String>,
    /// What to do.
    pub remedy: String,
}

/// Answer of `check`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CheckReport {
    /// Whether nothing is wrong.
    pub sound: bool,
    /// Records decoded.
    pub records: u64,
    /// Tensors whose place is proven; hashed again unless `fast`.
    pub tensors: u64,
    /// Networks rebuilt from graph and weights; none if `fast`.
    pub networks: u64,
    /// Vectors that the current generation holds.
    pub vectors: usize,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

/// How often a look that a writer has disturbed is repeated.
const LOOKS_MAX: usize = 1_000;

const REINDEX: &str = "the models are untouched: `tans reindex ZOO` writes it anew";
const RESTORE: &str = "restore a backup; what is not named here can still be read";
const MANY: &str = "restore a backup, or remove each model and task that it concerns, `tans gc ZOO`, and add them again";
const UNOWNED: &str = "`tans gc ZOO` drops it if no record names it any more; restore a backup if it is still found then";
const ENCODERS: &str = "no model is touched: the next command that writes learns them again, such as `tans reindex ZOO`";

/// Checks a zoo that may be too damaged to be opened.
pub(crate) fn at(path: &Path, options: CheckOptions) -> Result<CheckReport> {
    run(&Store::open(path, Mode::Read)?, options)
}

pub(crate) fn run(store: &Store, options: CheckOptions) -> Result<CheckReport> {
    let stored = if options.fast { store.check_records()? } else { store.check()? };
    let owners = owners(store)?;
    let mut report = CheckReport {
        records: stored.records,
        tensors: stored.tensors,
        findings: stored.damages.into_iter().map(|damage| owners.finding(damage)).collect(),
        ..CheckReport::default()
    };
    let rebuilt = if options.fast { &[] } else { &owners.models[..] };
    rebuilt.iter().for_each(|model| rebuild(store, model, &mut report));
    check_generation(store, options, &mut report)?;
    report.sound = report.findings.is_empty();
    Ok(report)
}

/// Who holds which tensor; damaged records hold none.
struct Owners {
    models: Vec<ModelRecord>,
    names: HashMap<TensorId, Vec<String>>,
    tasks: HashMap<TensorId, String>,
    encoders: Vec<TensorId>,
}

fn owners(store: &Store) -> Result<Owners> {
    let mut owners = Owners {
        models: store.models()?.filter_map(tans_storage::Result::ok).collect(),
        names: HashMap::new(),
        tasks: HashMap::new(),
        encoders: Vec::new(),
    };
    for model in &owners.models {
        for tensor in network_file::tensors(model) {
            owners.names.entry(tensor).or_default().push(model.name.clone());
        }
    }
    // Damaged records were found already; here they only cannot say what they hold.
    for task in store.tasks().unwrap_or_default() {
        for tensor in network_file::task_tensors(&task) {
            owners.tasks.insert(tensor, task.name.clone());
        }
    }
    if let Ok(Some(generation)) = store.generation()
        && let Ok(Some(encoders)) = store.encoder(generation.encoder)
    {
        owners.encoders.push(encoders.blob);
    }
    Ok(owners)
}

impl Owners {
    fn finding(&self, damage: Damage) -> Finding {
        let Damage { file, offset, tensors, what } = damage;
        let models: BTreeSet<&String> =
            tensors.iter().filter_map(|tensor| self.names.get(tensor)).flatten().collect();
        let tasks: BTreeSet<&String> =
            tensors.iter().filter_map(|tensor| self.tasks.get(tensor)).collect();
        let remedy = match (models.first(), tasks.first()) {
            _ if models.len().max(tasks.len()) > 1 => MANY.to_owned(),
            (Some(model), _) => again(model),
            (None, Some(task)) => format!(
                "restore a backup, or `tans task remove ZOO {task}`, `tans gc ZOO`, and add its dataset again"
            ),
            (None, None) if tensors.is_empty() => RESTORE.to_owned(),
            (None, None) if tensors.iter().all(|tensor| self.encoders.contains(tensor)) => {
                ENCODERS.to_owned()
            }
            (None, None) => UNOWNED.to_owned(),
        };
        Finding { file, offset, what, models: models.into_iter().cloned().collect(), remedy }
    }
}

fn again(model: &str) -> String {
    format!(
        "restore a backup, or `tans remove ZOO {model}`, `tans gc ZOO`, and ingest its file again"
    )
}

/// A graph that the pieces do not add up to is damage even where every piece has its hash.
fn rebuild(store: &Store, model: &ModelRecord, report: &mut CheckReport) {
    if model.graph.is_none() {
        return;
    }
    report.networks += 1;
    let rebuilt = steps::stored_graph(store, model).and_then(|_| steps::input_contract(model));
    let is_known = report.findings.iter().any(|finding| finding.models.contains(&model.name));
    if let Err(error) = rebuilt
        && !is_known
    {
        report.findings.push(Finding {
            file: format!("model {}", model.name),
            offset: None,
            what: error.to_string(),
            models: vec![model.name.clone()],
            remedy: again(&model.name),
        });
    }
}

fn check_generation(store: &Store, options: CheckOptions, report: &mut CheckReport) -> Result<()> {
    // A damaged record was found with the others, and what it names cannot be looked for.
    let Ok(record) = store.generation() else { return Ok(()) };
    let damaged = record.as_ref().and_then(|record| check_segment(store, record, options));
    // It has been proven as far as it was asked for, and is summed no second time.
    let load = if damaged.is_some() { state::load_without_segment } else { state::load_unproven };
    report.findings.extend(damaged);
    let number = record.map_or_else(|| "none".to_owned(), |record| record.number.to_string());
    let generation = format!("generation {number}");
    let (loaded, models) = while_still(store, || {
        let models = store.models()?.filter(std::result::Result::is_ok).count();
        Ok((load(store), models))
    })?;
    match loaded {
        Ok(loaded) => {
            report.vectors = loaded.vector_count();
            if report.vectors != models {
                let found = report.vectors;
                let what = format!("expected a vector for each of {models} models, found {found}");
                report.findings.push(finding(generation, what, REINDEX));
            }
        }
        // Encoders whose bytes have another hash were found already.
        Err(_) if report.findings.iter().any(|finding| finding.remedy == ENCODERS) => {}
        Err(error) => report.findings.push(finding(generation, error.to_string(), ENCODERS)),
    }
    Ok(())
}

/// Looks at the store while nothing is committed to it; what is looked at beside writers is looked at again.
fn while_still<T>(store: &Store, look: impl Fn() -> Result<T>) -> Result<T> {
    for _ in 0..LOOKS_MAX {
        let before = store.sequence()?;
        let seen = look()?;
        if store.sequence()? == before {
            return Ok(seen);
        }
    }
    Err(crate::Error::input(format!(
        "expected a moment without a commit to check in, found none in {LOOKS_MAX} tries: check again when less is written"
    )))
}

fn check_segment(
    store: &Store,
    record: &GenerationRecord,
    options: CheckOptions,
) -> Option<Finding> {
    let name = record.segment.as_ref()?;
    let fingerprint = store.encoder(record.encoder).ok()??.fingerprint;
    let what = match Segment::open(&store.segment_path(name)) {
        Ok(segment) if segment.fingerprint() != fingerprint => {
            "expected vectors of the generation's encoders, found those of others".to_owned()
        }
        Ok(_) if options.fast => return None,
        Ok(segment) => segment.verify().err()?.to_string(),
        Err(error) => error.to_string(),
    };
    Some(finding(format!("segments/{name}"), what, REINDEX))
}

fn finding(file: String, what: String, remedy: &str) -> Finding {
    Finding { file, offset: None, what, models: Vec::new(), remedy: remedy.to_owned() }
}
