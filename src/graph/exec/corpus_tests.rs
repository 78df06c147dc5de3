//! The operator corpus of the ONNX project: every model runs, gives what it states, or is refused
//! with a reason. docs/OPERATORS.md is written from what is found here.

use super::budget::Budget;
use super::network::package;
use super::ops::{self, Mode};
use super::plan::{Feed, Plan};
use super::tensor;
use crate::graph::formats::{Limits, onnx};
use crate::graph::{Dtype, Error, Weight};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;
use tch::{Device, Kind, Tensor};

/// Folders of the corpus, each with one folder a test.
const SUITES: [&str; 4] = ["node", "simple", "pytorch-operator", "pytorch-converted"];

/// No test of the corpus takes a second.
const HANG: Duration = Duration::from_secs(60);

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/OPERATORS.md");

/// What became of one test.
enum Outcome {
    Passed,
    Failed(String),
    Refused(String),
}

struct Test {
    suite: &'static str,
    name: String,
    /// The operator that it is about, if it is about one.
    operator: Option<String>,
    outcome: Outcome,
}

/// A model, read and run in a thread of its own.
struct Run {
    operators: BTreeSet<String>,
    outcome: Outcome,
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a readable folder");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

fn file_name(path: &Path) -> String {
    path.file_name().expect("a name").to_string_lossy().into_owned()
}

fn refusal(error: Error) -> Outcome {
    match error {
        Error::NotRunnable { .. } | Error::Contract(_) | Error::Limit { .. } => {
            Outcome::Refused(error.to_string())
        }
        other => Outcome::Failed(other.to_string()),
    }
}

fn run(folder: &Path) -> Run {
    let bytes = std::fs::read(folder.join("model.onnx")).expect("a model");
    let graph = match onnx::read(&bytes, &Limits::default()) {
        Ok(file) => file.graph,
        Err(error) => return Run { operators: BTreeSet::new(), outcome: refusal(error) },
    };
    let name = |node: &crate::graph::Node| match node.domain.as_str() {
        "" => node.op.clone(),
        domain => format!("{domain}.{}", node.op),
    };
    let operators = graph.nodes.iter().map(name).collect();
    let sets = entries(folder).into_iter().filter(|path| path.is_dir());
    let outcome = sets.map(|set| one_set(&graph, &set)).find(|o| !matches!(o, Outcome::Passed));
    Run { operators, outcome: outcome.unwrap_or(Outcome::Passed) }
}

fn tensors(folder: &Path, start: &str) -> Result<Vec<(String, Weight)>, Error> {
    let numbered = |index: usize| folder.join(format!("{start}_{index}.pb"));
    let files = (0..).map(numbered).take_while(|path| path.is_file());
    files.map(|path| onnx::read_tensor(&std::fs::read(path).expect("a file"))).collect()
}

fn one_set(graph: &crate::graph::Graph, folder: &Path) -> Outcome {
    let found = || -> Result<(Vec<Tensor>, Vec<(String, Weight)>), Error> {
        let plan = Plan::new(graph)?;
        let given = tensors(folder, "input")?;
        let targets: Vec<&str> = graph.outputs.iter().map(|output| output.name.as_str()).collect();
        let program = plan.program(&targets)?;
        let mut inputs = Vec::new();
        for (index, input) in graph.inputs.iter().enumerate() {
            let named = given.iter().find(|(name, _)| *name == input.name);
            let (name, weight) = named.or_else(|| given.get(index)).ok_or_else(|| {
                Error::Contract(format!("no value for input {:?}", input.name))
            })?;
            inputs.push(loaded(name, weight)?);
        }
        let budget = Budget::strict(&Limits::default());
        let weights = plan.load(graph, Device::Cpu)?;
        let feed = Feed { weights: &weights, inputs, mode: &Mode::Inference, budget: &budget };
        let found = plan.run(&program, feed, &mut |_, _, _| Ok(()))?;
        Ok((found, tensors(folder, "output")?))
    };
    let (found, expected) = match found() {
        Ok(both) => both,
        Err(error) => return refusal(error),
    };
    for (index, (found, (name, expected))) in found.iter().zip(&expected).enumerate() {
        if let Err(why) = compare(found, name, expected) {
            return Outcome::Failed(format!("output {index}: {why}"));
        }
    }
    Outcome::Passed
}

fn loaded(name: &str, weight: &Weight) -> Result<Tensor, Error> {
    tensor::from_weight(weight, Device::Cpu).map_err(|fault| {
        Error::Contract(format!("value {name:?}: {fault:?}"))
    })
}

/// The tolerance of the corpus's own runner for f32; 16-bit types hold no more than this.
fn compare(found: &Tensor, name: &str, weight: &Weight) -> Result<(), String> {
    let expected = loaded(name, weight).map_err(|error| error.to_string())?;
    let (own, other) = (found.f_kind().expect("a kind"), expected.f_kind().expect("a kind"));
    if own != other || found.size() != expected.size() {
        let (size, wanted) = (found.size(), expected.size());
        return Err(format!("expected {other:?} {wanted:?}, found {own:?} {size:?}"));
    }
    let (relative, absolute) = match weight.dtype {
        Dtype::F16 | Dtype::BF16 => (1e-2, 1e-3),
        Dtype::F32 | Dtype::F64 => (1e-3, 1e-5),
        _ => (0.0, 0.0),
    };
    let numbers = |tensor: &Tensor| -> Vec<f64> {
        let wide = tensor.to_kind(Kind::Double).contiguous().reshape([-1]);
        Vec::<f64>::try_from(&wide).expect("numbers")
    };
    for (at, (a, b)) in numbers(found).into_iter().zip(numbers(&expected)).enumerate() {
        let same = a == b || (a.is_nan() && b.is_nan());
        if !same && !((a - b).abs() <= absolute + relative * b.abs()) {
            return Err(format!("value {at}: expected {b}, found {a}"));
        }
    }
    Ok(())
}

/// Runs one test; a panic is a failure, a test that hangs ends the run.
fn watched(folder: PathBuf) -> Run {
    let (sender, receiver) = mpsc::channel();
    let name = file_name(&folder);
    let worker = std::thread::spawn(move || _ = sender.send(run(&folder)));
    match receiver.recv_timeout(HANG) {
        Ok(run) => run,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("{name} hangs"),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            let why = worker.join().expect_err("a panic");
            let why = why.downcast_ref::<String>().cloned().unwrap_or_default();
            Run { operators: BTreeSet::new(), outcome: Outcome::Failed(format!("panic: {why}")) }
        }
    }
}

/// The operator that a test is about: the only one of its graph, or that of the test whose expanded
/// form it is.
fn operator(name: &str, runs: &BTreeMap<String, Run>) -> Option<String> {
    let base = name.split("_expanded").next().unwrap_or(name);
    let run = runs.get(base).or_else(|| runs.get(name))?;
    let plain = run.operators.iter().filter(|op| !matches!(op.as_str(), "Constant" | "Identity"));
    let plain: Vec<&String> = plain.collect();
    match plain.as_slice() {
        [one] => Some((*one).clone()),
        [] => run.operators.first().cloned(),
        _ => None,
    }
}

fn all(corpus: &Path) -> Vec<Test> {
    let mut tests = Vec::new();
    for suite in SUITES {
        let folders = entries(&corpus.join(suite)).into_iter().filter(|path| path.is_dir());
        let runs: BTreeMap<String, Run> =
            folders.map(|folder| (file_name(&folder), watched(folder))).collect();
        let operators: Vec<Option<String>> =
            runs.keys().map(|name| operator(name, &runs)).collect();
        for ((name, run), operator) in runs.into_iter().zip(operators) {
            tests.push(Test { suite, name, operator, outcome: run.outcome });
        }
    }
    tests
}

/// Passed, failed, refused.
#[derive(Clone, Copy, Default)]
struct Tally([usize; 3]);

impl Tally {
    fn add(&mut self, outcome: &Outcome) {
        self.0[match outcome {
            Outcome::Passed => 0,
            Outcome::Failed(_) => 1,
            Outcome::Refused(_) => 2,
        }] += 1;
    }
    fn cells(&self) -> String {
        let [passed, failed, refused] = self.0;
        format!("{passed} | {failed} | {refused}")
    }
    fn total(&self) -> usize {
        self.0.iter().sum()
    }
}

fn page(tests: &[Test]) -> String {
    let mut suites: BTreeMap<&str, Tally> = BTreeMap::new();
    let mut operators: BTreeMap<&str, Tally> = BTreeMap::new();
    for test in tests {
        suites.entry(test.suite).or_default().add(&test.outcome);
        if let Some(operator) = test.operator.as_deref().filter(|_| test.suite == "node") {
            operators.entry(operator).or_default().add(&test.outcome);
        }
    }
    let mut text = String::from(include_str!("corpus_tests/head.md"));
    for (suite, tally) in &suites {
        let share = 100.0 * tally.0[0] as f64 / tally.total() as f64;
        _ = writeln!(text, "| {suite} | {} | {share:.1} % |", tally.cells());
    }
    text.push_str(include_str!("corpus_tests/operators.md"));
    let known: BTreeSet<String> = ops::operators()
        .map(|(domain, op)| if domain.is_empty() { op.to_string() } else { format!("{domain}.{op}") })
        .collect();
    let listed: BTreeSet<&str> =
        known.iter().map(String::as_str).chain(operators.keys().copied()).collect();
    for operator in listed {
        let runs = if known.contains(operator) { "yes" } else { "no" };
        let cells = operators.get(operator).copied().unwrap_or_default().cells();
        _ = writeln!(text, "| {operator} | {runs} | {cells} |");
    }
    text.push_str(include_str!("corpus_tests/refused.md"));
    for test in tests {
        match &test.outcome {
            Outcome::Passed => {}
            Outcome::Failed(why) => _ = writeln!(text, "- `{}` **failed**: {why}", test.name),
            Outcome::Refused(why) => _ = writeln!(text, "- `{}`: {why}", test.name),
        }
    }
    text
}

#[test]
fn the_corpus_of_the_onnx_project_passes_or_is_refused() {
    let Some(corpus) = package("onnx-corpus") else { return };
    let tests = all(&corpus);
    let page = page(&tests);
    if std::env::var("TANS_WRITE_OPERATORS").is_ok_and(|value| value == "1") {
        std::fs::write(PAGE, &page).expect("docs/OPERATORS.md");
    }
    let failed: Vec<String> = tests
        .iter()
        .filter_map(|test| match &test.outcome {
            Outcome::Failed(why) => Some(format!("{}/{}: {why}", test.suite, test.name)),
            Outcome::Passed | Outcome::Refused(_) => None,
        })
        .collect();
    assert!(failed.is_empty(), "{} tests failed:\n{}", failed.len(), failed.join("\n"));
    let mut node = Tally::default();
    tests.iter().filter(|test| test.suite == "node").for_each(|test| node.add(&test.outcome));
    assert!(node.total() > 1700, "expected the whole corpus, found {} tests", node.total());
    assert!(node.0[0] * 10 >= node.total() * 8, "only {} of {} pass", node.0[0], node.total());
    let stored = std::fs::read_to_string(PAGE).expect("docs/OPERATORS.md");
    assert!(stored == page, "docs/OPERATORS.md is out of date: run make test-onnx");
}
