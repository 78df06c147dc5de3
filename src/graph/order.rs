//! Order and scope: which values a node needs, subgraphs included.

use super::{Attribute, Graph, Node};
use std::collections::{BTreeSet, HashMap, HashSet};

impl Node {
    /// Subgraphs of control-flow nodes, by attribute name.
    pub fn subgraphs(&self) -> impl Iterator<Item = &Graph> {
        self.attributes.values().filter_map(|attribute| match attribute {
            Attribute::Graph(graph) => Some(&**graph),
            Attribute::Int(_)
            | Attribute::Float(_)
            | Attribute::String(_)
            | Attribute::Tensor(_)
            | Attribute::Ints(_)
            | Attribute::Floats(_)
            | Attribute::Strings(_) => None,
        })
    }

    /// Names of every value the node reads: its inputs in order, then what its subgraphs take from
    /// outside.
    pub fn reads(&self) -> Vec<&str> {
        let inputs = self.inputs.iter().map(String::as_str).filter(|name| !name.is_empty());
        inputs.chain(self.subgraphs().flat_map(captures)).collect()
    }
}

/// Names that a subgraph takes from the graphs around it, in an order that depends on the data flow
/// alone.
pub fn captures(graph: &Graph) -> Vec<&str> {
    let own: HashSet<&str> = own_names(graph).collect();
    let mut seen = BTreeSet::new();
    let mut names = Vec::new();
    let mut take = |name| {
        if !own.contains(name) && seen.insert(name) {
            names.push(name);
        }
    };
    let reads = reads(graph);
    for index in ordered(graph, &reads) {
        reads[index].iter().copied().for_each(&mut take);
    }
    graph.outputs.iter().for_each(|output| take(&output.name));
    names
}

/// What each node reads. Asked once: it looks into every subgraph below.
fn reads(graph: &Graph) -> Vec<Vec<&str>> {
    graph.nodes.iter().map(Node::reads).collect()
}

/// Node indices that the outputs depend on, each after what it reads, in an order that depends on
/// the data flow alone: depth first from the outputs, inputs from left to right. Nodes that no
/// output needs are left out.
pub fn flow_order(graph: &Graph) -> Vec<usize> {
    ordered(graph, &reads(graph))
}

fn ordered(graph: &Graph, reads: &[Vec<&str>]) -> Vec<usize> {
    let producers = producers(graph);
    let mut state = vec![Visit::New; graph.nodes.len()];
    let mut order = Vec::with_capacity(graph.nodes.len());
    let mut stack = Vec::new();
    let outputs = graph.outputs.iter().filter_map(|output| producers.get(output.name.as_str()));
    for &root in outputs {
        stack.push(root);
        while let Some(&index) = stack.last() {
            match state[index] {
                Visit::New => {
                    state[index] = Visit::Open;
                    let fresh = reads[index].iter().rev().filter_map(|name| producers.get(name));
                    stack.extend(fresh.filter(|&&other| matches!(state[other], Visit::New)));
                }
                Visit::Open => {
                    state[index] = Visit::Done;
                    order.push(index);
                    stack.pop();
                }
                Visit::Done => {
                    stack.pop();
                }
            }
        }
    }
    order
}

/// The nodes in an order in which each follows what it reads, as near to the present order as that
/// allows; the index of one node of a cycle if there is none.
pub(super) fn topological(graph: &Graph) -> Result<Vec<usize>, usize> {
    let producers = producers(graph);
    let mut waiting = vec![0_usize; graph.nodes.len()];
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); graph.nodes.len()];
    for (index, node) in graph.nodes.iter().enumerate() {
        let sources: BTreeSet<usize> =
            node.reads().iter().filter_map(|name| producers.get(name)).copied().collect();
        waiting[index] = sources.len();
        sources.into_iter().for_each(|source| readers[source].push(index));
    }
    let mut ready: BTreeSet<usize> = (0..waiting.len()).filter(|&i| waiting[i] == 0).collect();
    let mut order = Vec::with_capacity(graph.nodes.len());
    while let Some(index) = ready.pop_first() {
        order.push(index);
        for &reader in &readers[index] {
            waiting[reader] -= 1;
            if waiting[reader] == 0 {
                ready.insert(reader);
            }
        }
    }
    match waiting.iter().position(|&count| count > 0) {
        Some(stuck) => Err(stuck),
        None => Ok(order),
    }
}

/// Names defined in this graph: inputs, weights, outputs of nodes.
pub(super) fn own_names(graph: &Graph) -> impl Iterator<Item = &str> {
    let inputs = graph.inputs.iter().map(|input| input.name.as_str());
    let weights = graph.weights.keys().map(String::as_str);
    let outputs = graph.nodes.iter().flat_map(|node| &node.outputs).map(String::as_str);
    inputs.chain(weights).chain(outputs.filter(|name| !name.is_empty()))
}

#[derive(Clone, Copy)]
enum Visit {
    New,
    Open,
    Done,
}

fn producers(graph: &Graph) -> HashMap<&str, usize> {
    let mut producers = HashMap::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        let outputs = node.outputs.iter().filter(|name| !name.is_empty());
        producers.extend(outputs.map(|name| (name.as_str(), index)));
    }
    producers
}
