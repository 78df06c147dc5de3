//! A graph resolved to functions and numbered values, and the loop that runs it.

use super::ops::{self, Call, Fault, Mode, Run};
use super::tensor;
use crate::graph::{Error, Graph, Node};
use std::collections::{BTreeSet, HashMap};
use tch::{Device, Tensor};

/// A graph whose operators all exist here. Values are numbered: weights first (in name order), then
/// the rest.
pub(super) struct Plan {
    nodes: Vec<Node>,
    functions: Vec<Run>,
    opset: i64,
    names: Vec<String>,
    slots: HashMap<String, usize>,
    weight_count: usize,
    input: usize,
}

/// The nodes that lead to some targets, with the moment at which each value may be freed.
pub(super) struct Program {
    steps: Vec<Step>,
    targets: Vec<usize>,
}

struct Step {
    node: usize,
    inputs: Vec<Option<usize>>,
    outputs: Vec<Option<usize>>,
    frees: Vec<usize>,
}

/// What one run needs beside the program.
pub(super) struct Feed<'a> {
    /// Weights in name order.
    pub weights: &'a [Tensor],
    /// The input batch.
    pub input: Tensor,
    /// Inference or training.
    pub mode: &'a Mode,
}

impl Plan {
    /// Resolves every operator.
    pub fn new(graph: &Graph) -> Result<Self, Error> {
        let input = match graph.inputs.as_slice() {
            [input] => &input.name,
            inputs => {
                let count = inputs.len();
                return Err(Error::Contract(format!("expected one runtime input, found {count}")));
            }
        };
        let standard = ["", "ai.onnx"].iter().find_map(|domain| graph.opsets.get(*domain));
        let opset = standard.copied().unwrap_or(17);
        let functions = graph.nodes.iter().map(|node| {
            ops::find(&node.domain, &node.op)
                .ok_or_else(|| not_runnable(node, opset, "the operator is not known".to_string()))
        });
        let mut plan = Self {
            functions: functions.collect::<Result<_, _>>()?,
            nodes: graph.nodes.clone(),
            opset,
            names: Vec::new(),
            slots: HashMap::new(),
            weight_count: graph.weights.len(),
            input: 0,
        };
        graph.weights.keys().for_each(|name| _ = plan.slot(name));
        plan.input = plan.slot(input);
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
            let mut inputs = Vec::new();
            for name in &node.inputs {
                let found = (!name.is_empty()).then(|| self.known(name, &node.op)).transpose()?;
                inputs.push(found);
            }
            needed.extend(inputs.iter().flatten());
            // Walking backwards, the first user met is the last one to run.
            let used = inputs.iter().chain(&outputs).flatten().copied();
            let frees = used.filter(|&value| value >= self.weight_count && freed.insert(value));
            let frees = frees.collect();
            steps.push(Step { node: index, inputs, outputs, frees });
        }
        steps.reverse();
        Ok(Program { steps, targets })
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
                    opset: self.opset,
                    node: String::clone(name),
                    why,
                },
                Fault::Failed(message) => failed("weight", name, message),
                Fault::Device(message) => device_failed("weight", name, message),
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
        let batch = feed.input.size().first().copied().unwrap_or(1);
        let mut values: Vec<Option<Tensor>> = self.names.iter().map(|_| None).collect();
        for (slot, weight) in values.iter_mut().zip(feed.weights) {
            *slot = Some(weight.shallow_clone());
        }
        values[self.input] = Some(feed.input);
        for step in &program.steps {
            let node = &self.nodes[step.node];
            let inputs = step.inputs.iter().map(|slot| slot.and_then(|slot| values[slot].as_ref()));
            let inputs = inputs.collect();
            let call = Call { node, opset: self.opset, inputs, mode: feed.mode, batch };
            let outputs =
                self.functions[step.node](&call).map_err(|fault| self.explain(node, fault))?;
            for (slot, value) in step.outputs.iter().zip(outputs) {
                let Some(slot) = *slot else { continue };
                observe(node, &self.names[slot], &value)?;
                values[slot] = Some(value);
            }
            step.frees.iter().for_each(|&slot| values[slot] = None);
        }
        let take = |&slot: &usize| {
            values[slot].as_ref().map(Tensor::shallow_clone).ok_or_else(|| {
                failed("output", &self.names[slot], "it was not computed".to_string())
            })
        };
        program.targets.iter().map(take).collect()
    }

    fn explain(&self, node: &Node, fault: Fault) -> Error {
        match fault {
            Fault::Unsupported(why) => not_runnable(node, self.opset, why),
            Fault::Failed(message) => failed(&node.op, place(node), message),
            Fault::Device(message) => device_failed(&node.op, place(node), message),
        }
    }
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
