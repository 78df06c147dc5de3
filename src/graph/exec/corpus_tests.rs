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

/// Tests whose stated values are not what ONNX Runtime and PyTorch compute, with the reason.
const DIFFERENT: [(&str, &str); 2] = [
    (
        "test_resize_downsample_scales_cubic_align_corners",
        "corners are aligned to the size before rounding down; ONNX Runtime takes the real size",
    ),
    (
        "test_resize_downsample_scales_linear_align_corners",
        "corners are aligned to the size before rounding down; ONNX Runtime takes the real size",
    ),
];

/// No test of the corpus takes a second.
const HANG: Duration = Duration::from_secs(60);

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/OPERATORS.md");

type Named = Vec<(String, Weight)>;

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
    if let Err(why) = survives_a_file(&graph) {
        return Run { operators: BTreeSet::new(), outcome: Outcome::Failed(why) };
    }
    let name = |node: &crate::graph::Node| match node.domain.as_str() {
        "" => node.op.clone(),
        domain => format!("{domain}.{}", node.op),
    };
    let operators = graph.nodes.iter().map(name).collect();
    let sets = entries(folder).into_iter().filter(|path| path.is_dir());
    let outcome = sets.map(|set| one_set(&graph, &set)).find(|o| !matches!(o, Outcome::Passed));
    Run { operators, outcome: outcome.unwrap_or(Outcome::Passed) }
}

/// Written and read again, a network is the same: its identity rests on its canonical form.
fn survives_a_file(graph: &crate::graph::Graph) -> Result<(), String> {
    let canonical = |graph: &crate::graph::Graph| {
        let onnx::Canonical { graph, weights } = onnx::canonical(graph)?;
        let plain = |(_, weight): (String, Weight)| (weight.shape.clone(), weight.data().to_vec());
        Ok((graph, weights.into_iter().map(plain).collect::<Vec<_>>()))
    };
    let same = || -> Result<bool, Error> {
        let bytes = onnx::write(graph, &[])?;
        let back = onnx::read(&bytes, &Limits::default())?.graph;
        Ok(canonical(&back)? == canonical(graph)?)
    };
    match same() {
        Ok(true) => Ok(()),
        Ok(false) => Err("written and read again it is another network".to_string()),
        Err(error) => Err(format!("written and read again: {error}")),
    }
}

fn tensors(folder: &Path, start: &str) -> Result<Named, Error> {
    let numbered = |index: usize| folder.join(format!("{start}_{index}.pb"));
    let files = (0..).map(numbered).take_while(|path| path.is_file());
    files.map(|path| onnx::read_tensor(&std::fs::read(path).expect("a file"))).collect()
}

fn one_set(graph: &crate::graph::Graph, folder: &Path) -> Outcome {
    let found = || -> Result<(Vec<Tensor>, Named), Error> {
        let values = graph.inputs.iter().chain(&graph.outputs);
        if let Some(other) = values.into_iter().find(|value| value.dtype.is_none()) {
            let message = format!("{:?} is not a tensor of a type that tans can hold", other.name);
            return Err(Error::Contract(message));
        }
        let plan = Plan::new(graph)?;
        let given = tensors(folder, "input")?;
        let targets: Vec<&str> = graph.outputs.iter().map(|output| output.name.as_str()).collect();
        let program = plan.program(&targets)?;
        let mut inputs = Vec::new();
        for (index, input) in graph.inputs.iter().enumerate() {
            let named = given.iter().find(|(name, _)| *name == input.name);
            let (name, weight) = named
                .or_else(|| given.get(index))
                .ok_or_else(|| Error::Contract(format!("no value for input {:?}", input.name)))?;
            inputs.push(loaded(name, weight)?);
        }
        let budget = Budget::strict(&Limits::default(), graph);
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
    tensor::from_weight(weight, Device::Cpu)
        .map_err(|fault| Error::Contract(format!("value {name:?}: {fault:?}")))
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
        let close = (a - b).abs() <= absolute + relative * b.abs();
        if !(same || close) {
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
        .map(
            |(domain, op)| {
                if domain.is_empty() { op.to_string() } else { format!("{domain}.{op}") }
            },
        )
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
            Outcome::Failed(why) => {
                let why = different(&test.name).unwrap_or(why);
                _ = writeln!(text, "- `{}` **differs**: {why}", test.name);
            }
            Outcome::Refused(why) => _ = writeln!(text, "- `{}`: {why}", test.name),
        }
    }
    text
}

fn different(name: &str) -> Option<&'static str> {
    DIFFERENT.iter().find(|(known, _)| *known == name).map(|(_, why)| *why)
}

/// The networks of the suite `light`: files of a few kilobytes that make their weights.
fn light(corpus: &Path) -> Vec<(String, crate::graph::Graph, Weight)> {
    let files = entries(&corpus.join("light")).into_iter();
    let models = files.filter(|path| path.extension().is_some_and(|end| end == "onnx"));
    let model = |path: PathBuf| {
        let file = onnx::read(&std::fs::read(&path).expect("a model"), &Limits::default());
        let output = path.to_string_lossy().replace(".onnx", "_output_0.pb");
        let (_, output) =
            onnx::read_tensor(&std::fs::read(output).expect("values")).expect("values");
        (file_name(&path), file.expect("a network").graph, output)
    };
    models.map(model).collect()
}

/// Runs a network of the suite `light` on the input that its values are stated for: 0/n, 1/n, ...
fn run_light(graph: &crate::graph::Graph, limits: &Limits) -> Result<Tensor, Error> {
    let plan = Plan::new(graph)?;
    let program = plan.program(&[graph.outputs[0].name.as_str()])?;
    let shape: Vec<i64> =
        graph.inputs[0].dims.iter().map(|side| side.unwrap_or(1) as i64).collect();
    let count: i64 = shape.iter().product();
    let line = Tensor::arange(count, (Kind::Double, Device::Cpu)) / count as f64;
    let inputs = vec![line.to_kind(Kind::Float).reshape(&shape)];
    let budget = Budget::strict(limits, graph);
    let weights = plan.load(graph, Device::Cpu)?;
    let feed = Feed { weights: &weights, inputs, mode: &Mode::Inference, budget: &budget };
    Ok(plan.run(&program, feed, &mut |_, _, _| Ok(()))?.remove(0))
}

#[test]
fn files_that_expand_to_constants_hit_a_limit() {
    let Some(corpus) = package("onnx-corpus") else { return };
    let models = light(&corpus);
    assert_eq!(models.len(), 9);
    let _guard = tch::no_grad_guard();
    for (name, graph, _) in models {
        let limits = Limits { constant_bytes_max: 4 << 20, ..Limits::default() };
        let error = run_light(&graph, &limits).expect_err(&name).to_string();
        assert!(error.contains("of constants (bytes) takes"), "{name}: {error}");
    }
}

#[test]
#[ignore = "nine networks of up to 20 billion operations"]
fn networks_that_make_their_weights_agree_with_the_corpus() {
    let Some(corpus) = package("onnx-corpus") else { return };
    let _guard = tch::no_grad_guard();
    let mut refused = 0;
    for (name, graph, expected) in light(&corpus) {
        refused += usize::from(run_light(&graph, &Limits::default()).is_err());
        let limits = Limits { constant_bytes_max: 1 << 30, ..Limits::default() };
        let found = run_light(&graph, &limits).expect("a network within the raised limit");
        compare(&found, &name, &expected).unwrap_or_else(|why| panic!("{name}: {why}"));
    }
    // SqueezeNet, ShuffleNet, DenseNet-121 and both small Inceptions take less than 64 MiB.
    assert!(refused >= 4, "only {refused} are above the default limit");
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
        .filter(|test| different(&test.name).is_none())
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
