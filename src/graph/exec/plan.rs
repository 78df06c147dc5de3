//! A graph resolved to functions and numbered values, and the loop that runs it.

use super::budget::Budget;
use super::ops::{self, Call, Fault, Mode, Run};
use super::{tensor, unsigned};
use crate::graph::order::captures;
use crate::graph::{Attribute, Dtype, Error, Graph, Node};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;
use tch::{Device, Kind, TchError, Tensor};

/// A graph whose operators all exist here. Values are numbered: weights first (in name order), then
/// the rest.
pub(crate) struct Plan {
    nodes: Vec<Node>,
    functions: Vec<Run>,
    /// Subgraphs by node.
    bodies: Vec<Vec<Body>>,
    /// The type of each node's first input, if that is an unsigned one of more than 8 bits.
    unsigned: Vec<Option<Dtype>>,
    opsets: HashMap<String, i64>,
    names: Vec<String>,
    slots: HashMap<String, usize>,
    weight_count: usize,
    inputs: Vec<Input>,
}

/// A runtime input; one that is declared as integers or f64 is turned into that.
struct Input {
    slot: usize,
    kind: Option<Kind>,
}

/// A subgraph of a node, resolved.
pub(crate) struct Body {
    /// The attribute that holds it.
    pub attribute: String,
    /// The subgraph.
    pub graph: Graph,
    /// Its plan, whose inputs are its own and then those that it takes from outside.
    pub plan: Plan,
    /// Computes its outputs.
    pub program: Program,
    /// Where in the node's inputs those from outside lie.
    pub captures: Range<usize>,
}

/// The nodes that lead to some targets, with the moment at which each value may be freed.
pub(crate) struct Program {
    steps: Vec<Step>,
    targets: Vec<usize>,
}

struct Step {
    node: usize,
    inputs: Vec<Option<usize>>,
    outputs: Vec<Option<usize>>,
    frees: Vec<usize>,
    /// Whether it depends on weights alone.
    constant: bool,
}

/// What one run needs beside the program.
pub(crate) struct Feed<'a> {
    /// Weights in name order.
    pub weights: &'a [Tensor],
    /// The inputs in the graph's order; the first is the batch.
    pub inputs: Vec<Tensor>,
    /// Inference or training.
    pub mode: &'a Mode,
    /// What the run may take.
    pub budget: &'a Budget,
}

impl Plan {
    /// Resolves every operator.
    pub fn new(graph: &Graph) -> Result<Self, Error> {
        Self::with_captures(graph, &[])
    }

    /// Resolves every operator of a graph that takes values from around it.
    fn with_captures(graph: &Graph, outside: &[&str]) -> Result<Self, Error> {
        let opsets: HashMap<String, i64> =
            graph.opsets.iter().map(|(domain, version)| (domain.clone(), *version)).collect();
        let newest = opset_of(&opsets, "");
        if let Some(node) = graph.nodes.first().filter(|_| newest > OPSET_MAX) {
            let why = format!("expected opset {OPSET_MAX} or older, whose operators are known");
            return Err(not_runnable(node, newest, why));
        }
        let functions = graph.nodes.iter().map(|node| {
            ops::find(&node.domain, &node.op).ok_or_else(|| {
                let opset = opset_of(&opsets, &node.domain);
                not_runnable(node, opset, "the operator is not known".to_string())
            })
        });
        let types = unsigned::types(graph);
        let mut plan = Self {
            unsigned: graph.nodes.iter().map(|node| unsigned::of_first(node, &types)).collect(),
            functions: functions.collect::<Result<_, _>>()?,
            bodies: graph.nodes.iter().map(bodies).collect::<Result<_, _>>()?,
            nodes: graph.nodes.clone(),
            opsets,
            names: Vec::new(),
            slots: HashMap::new(),
            weight_count: graph.weights.len(),
            inputs: Vec::new(),
        };
        graph.weights.keys().for_each(|name| _ = plan.slot(name));
        for input in &graph.inputs {
            let kind = input.dtype.and_then(tensor::kind_of).filter(|kind| *kind != Kind::Float);
            let slot = plan.slot(&input.name);
            plan.inputs.push(Input { slot, kind });
        }
        for name in outside {
            let slot = plan.slot(name);
            plan.inputs.push(Input { slot, kind: None });
        }
        for name in graph.nodes.iter().flat_map(|node| &node.outputs) {
            plan.slot(name);
        }
        Ok(plan)
    }

    fn slot(&mut self, name: &str) -> usize {
        if let Some(&slot) = self.slots.get(name) {
            return slot;
        }
        self.names.push(name.to_string());
        self.slots.insert(name.to_string(), self.names.len() - 1);
        self.names.len() - 1
    }

    fn known(&self, name: &str, user: &str) -> Result<usize, Error> {
        self.slots.get(name).copied().ok_or_else(|| {
            Error::Contract(format!("{user} needs value {name:?}, which nothing produces"))
        })
    }

    /// The nodes that lead to `targets`.
    pub fn program(&self, targets: &[&str]) -> Result<Program, Error> {
        let targets = targets.iter().map(|name| self.known(name, "an output"));
        let targets = targets.collect::<Result<Vec<_>, _>>()?;
        let mut needed: BTreeSet<usize> = targets.iter().copied().collect();
        let mut freed = needed.clone();
        let mut steps = Vec::new();
        for (index, node) in self.nodes.iter().enumerate().rev() {
            let slot = |name: &String| self.slots.get(name).copied().filter(|_| !name.is_empty());
            let outputs: Vec<Option<usize>> = node.outputs.iter().map(slot).collect();
            if !outputs.iter().flatten().any(|output| needed.contains(output)) {
                continue;
            }
            let inputs = self.reads(index)?;
            needed.extend(inputs.iter().flatten());
            // Walking backwards, the first user met is the last one to run.
            let used = inputs.iter().chain(&outputs).flatten().copied();
            let frees = used.filter(|&value| value >= self.weight_count && freed.insert(value));
            let frees = frees.collect();
            steps.push(Step { node: index, inputs, outputs, frees, constant: false });
        }
        steps.reverse();
        self.mark_constants(&mut steps);
        Ok(Program { steps, targets })
    }

    /// The slots that a node reads: its inputs, then what its subgraphs take from outside.
    fn reads(&self, node: usize) -> Result<Vec<Option<usize>>, Error> {
        let Node { op, inputs, .. } = &self.nodes[node];
        let own = inputs.iter().map(String::as_str);
        let taken = self.bodies[node].iter().flat_map(|body| captures(&body.graph));
        own.chain(taken)
            .map(|name| (!name.is_empty()).then(|| self.known(name, op)).transpose())
            .collect()
    }

    fn mark_constants(&self, steps: &mut [Step]) {
        let mut varying: HashSet<usize> = self.inputs.iter().map(|input| input.slot).collect();
        for step in steps {
            step.constant = !step.inputs.iter().flatten().any(|slot| varying.contains(slot));
            if !step.constant {
                varying.extend(step.outputs.iter().flatten());
            }
        }
    }

    /// Names of the weights in the order of `load`.
    pub fn weight_names(&self) -> &[String] {
        &self.names[..self.weight_count]
    }

    /// The graph's weights as tensors, in name order.
    pub fn load(&self, graph: &Graph, device: Device) -> Result<Vec<Tensor>, Error> {
        let load = |(name, weight)| {
            tensor::from_weight(weight, device).map_err(|fault| match fault {
                Fault::Unsupported(why) => Error::NotRunnable {
                    op: "weight".to_string(),
                    domain: String::new(),
                    opset: opset_of(&self.opsets, ""),
                    node: String::clone(name),
                    why,
                },
                Fault::Failed(message) => failed("weight", name, message),
                Fault::Device(message) => device_failed("weight", name, message),
                other @ (Fault::Limit { .. } | Fault::Inner(_)) => outside("weight")(other),
            })
        };
        graph.weights.iter().map(load).collect()
    }

    /// Runs a program; `observe` sees the node and each value right after it was computed.
    pub fn run(
        &self,
        program: &Program,
        feed: Feed<'_>,
        observe: &mut dyn FnMut(&Node, &str, &Tensor) -> Result<(), Error>,
    ) -> Result<Vec<Tensor>, Error> {
        let Feed { weights, inputs, mode, budget } = feed;
        let batch = inputs.first().and_then(|input| input.size().first().copied()).unwrap_or(1);
        let mut values: Vec<Option<Tensor>> = self.names.iter().map(|_| None).collect();
        for (slot, weight) in values.iter_mut().zip(weights) {
            *slot = Some(weight.shallow_clone());
        }
        self.enter(inputs, &mut values, budget)?;
        for step in &program.steps {
            let node = &self.nodes[step.node];
            let explain = |fault| self.explain(node, fault);
            budget.step(step.constant).map_err(explain)?;
            let inputs = step.inputs.iter().map(|slot| slot.and_then(|slot| values[slot].as_ref()));
            let call = Call {
                node,
                opset: opset_of(&self.opsets, &node.domain),
                inputs: inputs.collect(),
                mode,
                batch,
                constant: step.constant,
                bodies: &self.bodies[step.node],
                unsigned: self.unsigned[step.node],
                budget,
            };
            let outputs = ops::guarded(|| self.functions[step.node](&call)).map_err(explain)?;
            for (slot, value) in step.outputs.iter().zip(outputs) {
                let Some(slot) = *slot else { continue };
                let value = ops::guarded(|| unsigned::cut(node, self.unsigned[step.node], value))
                    .map_err(explain)?;
                observe(node, &self.names[slot], &value)?;
                budget.take(&value).map_err(explain)?;
                values[slot] = Some(value);
            }
            for &slot in &step.frees {
                values[slot].take().iter().for_each(|value| budget.release(value));
            }
        }
        let take = |&slot: &usize| {
            let value = values[slot].as_ref().map(Tensor::shallow_clone);
            value.iter().filter(|_| slot >= self.weight_count).for_each(|v| budget.release(v));
            value.ok_or_else(|| {
                failed("output", &self.names[slot], "it was not computed".to_string())
            })
        };
        program.targets.iter().map(take).collect()
    }

    /// Puts the inputs into their slots.
    fn enter(
        &self,
        inputs: Vec<Tensor>,
        values: &mut [Option<Tensor>],
        budget: &Budget,
    ) -> Result<(), Error> {
        if inputs.len() != self.inputs.len() {
            let (expected, found) = (self.inputs.len(), inputs.len());
            return Err(Error::Contract(format!("expected {expected} inputs, found {found}")));
        }
        for (Input { slot, kind }, value) in self.inputs.iter().zip(inputs) {
            let value = match kind {
                Some(kind) => as_kind(&value, *kind).map_err(|e| outside("input")(e.into()))?,
                None => value,
            };
            budget.take(&value).map_err(outside("input"))?;
            values[*slot] = Some(value);
        }
        Ok(())
    }

    fn explain(&self, node: &Node, fault: Fault) -> Error {
        match fault {
            Fault::Unsupported(why) => {
                not_runnable(node, opset_of(&self.opsets, &node.domain), why)
            }
            Fault::Failed(message) => failed(&node.op, place(node), message),
            Fault::Device(message) => device_failed(&node.op, place(node), message),
            Fault::Limit { what, found, limit } => {
                let what = format!("node {:?} ({}): {what}", place(node), node.op);
                Error::Limit { what, found, limit }
            }
            Fault::Inner(error) => *error,
        }
    }
}

/// Whole numbers are the nearest ones.
fn as_kind(value: &Tensor, kind: Kind) -> Result<Tensor, TchError> {
    let is_whole = matches!(kind, Kind::Uint8 | Kind::Int8 | Kind::Int16 | Kind::Int | Kind::Int64);
    if is_whole && value.is_floating_point() {
        value.f_round()?.f_to_kind(kind)
    } else {
        value.f_to_kind(kind)
    }
}

/// The subgraphs of a node.
fn bodies(node: &Node) -> Result<Vec<Body>, Error> {
    let mut start = node.inputs.len();
    let mut bodies = Vec::new();
    for (attribute, value) in &node.attributes {
        let Attribute::Graph(graph) = value else { continue };
        let outside = captures(graph);
        let plan = Plan::with_captures(graph, &outside)?;
        let targets: Vec<&str> = graph.outputs.iter().map(|output| output.name.as_str()).collect();
        let captures = start..start + outside.len();
        start = captures.end;
        bodies.push(Body {
            attribute: attribute.clone(),
            program: plan.program(&targets)?,
            graph: Graph::clone(graph),
            plan,
            captures,
        });
    }
    Ok(bodies)
}

/// The newest version of the standard operators whose meaning is known.
const OPSET_MAX: i64 = 27;

fn opset_of(opsets: &HashMap<String, i64>, domain: &str) -> i64 {
    let domain = if domain == "ai.onnx" { "" } else { domain };
    opsets.get(domain).copied().unwrap_or(if domain.is_empty() { 17 } else { 1 })
}

/// A node's name, or that of its first output.
pub(super) fn place(node: &Node) -> &str {
    if !node.name.is_empty() {
        return &node.name;
    }
    node.outputs.first().map_or("", String::as_str)
}

/// An execution error.
pub(super) fn failed(op: &str, node: &str, message: String) -> Error {
    Error::Execution { node: node.to_string(), op: op.to_string(), message }
}

fn device_failed(op: &str, node: &str, message: String) -> Error {
    Error::Device { node: node.to_string(), op: op.to_string(), message }
}

/// An error outside any node.
pub(super) fn outside(what: &'static str) -> impl Fn(Fault) -> Error {
    move |fault| match fault {
        Fault::Unsupported(message) | Fault::Failed(message) => failed(what, "", message),
        Fault::Device(message) => device_failed(what, "", message),
        Fault::Limit { what, found, limit } => Error::Limit { what: what.into(), found, limit },
        Fault::Inner(error) => *error,
    }
}

fn not_runnable(node: &Node, opset: i64, why: String) -> Error {
    Error::NotRunnable {
        op: node.op.clone(),
        domain: node.domain.clone(),
        opset,
        node: place(node).to_string(),
        why,
    }
}
