//! The canonical form: one byte string for all files that hold the same network.

use super::proto::{GraphProto, NodeProto, TensorProto};
use super::read::{Scope, to_graph};
use super::write::{Data, entry, graph_proto, opsets_in_use};
use super::{Canonical, malformed, tensor};
use crate::graph::order::flow_order;
use crate::graph::{Attribute, Error, Graph, Node, Weight};
use prost::Message;
use std::collections::{BTreeMap, HashMap, HashSet};

pub(super) fn canonical(graph: &Graph) -> Result<Canonical, Error> {
    let mut renaming = Renaming::default();
    let graph_renamed = renaming.graph(graph)?;
    let mut proto = graph_proto(&graph_renamed, Data::Absent)?;
    // A GraphProto has no field for operator sets, and the function depends on them.
    let opsets = opsets_in_use(graph);
    proto.metadata_props =
        opsets.iter().map(|(domain, version)| entry(domain, &version.to_string())).collect();
    Ok(Canonical { graph: proto.encode_to_vec(), weights: renaming.weights })
}

pub(super) fn from_canonical(bytes: &[u8], weights: Vec<Weight>) -> Result<Graph, Error> {
    let mut proto = GraphProto::decode(bytes)
        .map_err(|error| malformed(format!("expected a canonical graph: {error}")))?;
    let mut opsets = BTreeMap::new();
    for entry in std::mem::take(&mut proto.metadata_props) {
        let version = entry.value().parse().map_err(|_| {
            malformed(format!("operator set version {:?} is not a number", entry.value()))
        })?;
        opsets.insert(entry.key.unwrap_or_default(), version);
    }
    let mut taken = vec![false; weights.len()];
    fill(&mut proto, &weights, &mut taken)?;
    if let Some(unused) = taken.iter().position(|taken| !taken) {
        let found = weights.len();
        return Err(malformed(format!(
            "{found} weights for a canonical graph that has no t{unused}"
        )));
    }
    let mut graph = to_graph(proto, &opsets, &Scope { names: HashSet::new(), outer: None })?;
    // Nodes have no names in the canonical form, but messages about them need one.
    for (index, node) in graph.nodes.iter_mut().enumerate() {
        node.name = format!("{}_{index}", node.op);
    }
    Ok(graph)
}

/// Gives each initialiser `t{i}`, at any depth, the bytes of weight `i`.
fn fill(proto: &mut GraphProto, weights: &[Weight], taken: &mut [bool]) -> Result<(), Error> {
    for initializer in &mut proto.initializer {
        let name = initializer.name().to_owned();
        let index = name.strip_prefix('t').and_then(|digits| digits.parse::<usize>().ok());
        let Some((index, weight)) = index.and_then(|i| Some((i, weights.get(i)?))) else {
            let found = weights.len();
            return Err(malformed(format!("canonical weight {name:?}, and {found} weights given")));
        };
        let expected = TensorProto { raw_data: None, ..initializer.clone() };
        let filled = tensor::from_weight(&name, weight)?;
        if expected != (TensorProto { raw_data: None, ..filled.clone() }) {
            return Err(malformed(format!(
                "weight {name} has ONNX type {:?} and shape {:?}, expected {:?} and {:?}",
                filled.data_type, filled.dims, expected.data_type, expected.dims
            )));
        }
        if std::mem::replace(&mut taken[index], true) {
            return Err(malformed(format!("canonical weight {name} is defined twice")));
        }
        *initializer = filled;
    }
    let attributes = proto.node.iter_mut().flat_map(|node: &mut NodeProto| &mut node.attribute);
    attributes.filter_map(|a| a.g.as_mut()).try_for_each(|graph| fill(graph, weights, taken))
}

/// New names by first use, over nested scopes.
#[derive(Default)]
struct Renaming {
    scopes: Vec<Level>,
    /// Names of the outermost inputs and outputs, which stay.
    interface: HashSet<String>,
    values: usize,
    weights: Vec<(String, Weight)>,
}

#[derive(Default)]
struct Level {
    names: HashMap<String, String>,
    /// Weights of this graph that nothing has used so far, by old name.
    unused: BTreeMap<String, Weight>,
    /// Weights of this graph by new name.
    used: BTreeMap<String, Weight>,
}

impl Renaming {
    fn graph(&mut self, graph: &Graph) -> Result<Graph, Error> {
        let mut level = Level { unused: graph.weights.clone(), ..Level::default() };
        if self.scopes.is_empty() {
            let interface = graph.inputs.iter().chain(&graph.outputs).map(|value| &value.name);
            let inner = |name: &&String| !graph.weights.contains_key(*name);
            self.interface = interface.filter(inner).cloned().collect();
            level.names = kept_names(&self.interface);
            self.interface = level.names.values().cloned().collect();
        }
        self.scopes.push(level);
        let mut renamed = Graph::default();
        for input in &graph.inputs {
            let name = self.define(&input.name);
            renamed.inputs.push(crate::graph::ValueInfo { name, ..input.clone() });
        }
        for index in flow_order(graph) {
            let node = self.node(&graph.nodes[index])?;
            renamed.nodes.push(node);
        }
        for output in &graph.outputs {
            let name = self.resolve(&output.name)?;
            renamed.outputs.push(crate::graph::ValueInfo { name, ..output.clone() });
        }
        renamed.weights = self.scopes.pop().unwrap_or_default().used;
        Ok(renamed)
    }

    fn node(&mut self, node: &Node) -> Result<Node, Error> {
        let Node { name: _, op, domain, inputs, outputs, attributes } = node;
        let present =
            |names: &[String]| names.iter().rposition(|n| !n.is_empty()).map_or(0, |i| i + 1);
        let mut renamed = Node {
            name: String::new(),
            op: op.clone(),
            domain: domain.clone(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            attributes: BTreeMap::new(),
        };
        for input in &inputs[..present(inputs)] {
            renamed.inputs.push(self.resolve(input)?);
        }
        for (name, attribute) in attributes {
            let value = match attribute {
                Attribute::Graph(graph) => Attribute::Graph(Box::new(self.graph(graph)?)),
                plain => plain.clone(),
            };
            renamed.attributes.insert(name.clone(), value);
        }
        for output in &outputs[..present(outputs)] {
            let name = if output.is_empty() { String::new() } else { self.define(output) };
            renamed.outputs.push(name);
        }
        Ok(renamed)
    }

    /// The new name of a value that comes into being in the innermost graph.
    fn define(&mut self, old: &str) -> String {
        if let [outermost] = self.scopes.as_slice()
            && let Some(kept) = outermost.names.get(old)
        {
            return kept.clone();
        }
        let name = loop {
            let name = format!("v{}", self.values);
            self.values += 1;
            if !self.interface.contains(&name) {
                break name;
            }
        };
        if let Some(level) = self.scopes.last_mut() {
            level.names.insert(old.to_owned(), name.clone());
        }
        name
    }

    /// The new name of a value that is read; a weight gets its number here, at its first use.
    fn resolve(&mut self, old: &str) -> Result<String, Error> {
        if old.is_empty() {
            return Ok(String::new());
        }
        for level in self.scopes.iter_mut().rev() {
            if let Some(name) = level.names.get(old) {
                return Ok(name.clone());
            }
            if let Some(weight) = level.unused.remove(old) {
                let name = format!("t{}", self.weights.len());
                level.names.insert(old.to_owned(), name.clone());
                level.used.insert(name.clone(), weight.clone());
                self.weights.push((old.to_owned(), weight));
                return Ok(name);
            }
        }
        Err(malformed(format!("a node or output reads {old:?}, which nothing defines")))
    }
}

/// Interface names stay, but for those that look like a weight's new name: `t7` becomes `t7'`.
fn kept_names(interface: &HashSet<String>) -> HashMap<String, String> {
    let is_weight_name = |name: &str| {
        name.strip_prefix('t').is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let keep = |name: &String| {
        let mut kept = name.clone();
        while is_weight_name(&kept) || (kept != *name && interface.contains(&kept)) {
            kept.push('\'');
        }
        (name.clone(), kept)
    };
    interface.iter().map(keep).collect()
}
