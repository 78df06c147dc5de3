//! ONNX bytes to a network.

use super::proto::{AttributeProto, GraphProto, ModelProto, NodeProto, ValueInfoProto};
use super::{OnnxFile, malformed, tensor};
use crate::graph::formats::Limits;
use crate::graph::order::{self, own_names};
use crate::graph::{Attribute, Error, Graph, Node, ValueInfo, Weight};
use prost::Message;
use std::collections::{BTreeMap, HashMap, HashSet};

pub(super) fn read(bytes: &[u8], limits: &Limits) -> Result<OnnxFile, Error> {
    let model = ModelProto::decode(bytes).map_err(|error| {
        malformed(format!("expected an ONNX model, found {}: {error}", describe(bytes)))
    })?;
    let Some(graph) = model.graph else {
        let found = describe(bytes);
        return Err(malformed(format!("expected an ONNX model with a graph, found {found}")));
    };
    if let Some(function) = model.functions.first() {
        return Err(Error::Contract(format!(
            "the file defines its own function {:?}; inline it first: in Python \
            onnx.inliner.inline_local_functions",
            function.name()
        )));
    }
    let mut opsets = BTreeMap::new();
    for opset in &model.opset_import {
        opsets.insert(standard_domain(opset.domain()), opset.version());
    }
    // Operator sets entered the format with version 3; a newer file without one has lost its end.
    if opsets.is_empty() {
        if model.ir_version.unwrap_or(3) >= 3 {
            return Err(malformed("no operator set is declared: the file may be truncated".into()));
        }
        opsets.insert(String::new(), 1);
    }
    check_limits(&graph, limits)?;
    let graph = to_graph(graph, &opsets, &Scope { names: HashSet::new(), outer: None })?;
    if !graph.opsets.contains_key("") && uses_standard(&graph) {
        return Err(malformed("no version of the standard operator set is declared".into()));
    }
    let metadata = model.metadata_props.into_iter();
    let metadata = metadata.map(|e| (e.key.unwrap_or_default(), e.value.unwrap_or_default()));
    Ok(OnnxFile { graph, metadata: metadata.collect() })
}

/// Whether any node is of the standard operator set.
fn uses_standard(graph: &Graph) -> bool {
    graph
        .nodes
        .iter()
        .any(|node| standard_domain(&node.domain).is_empty() || node.subgraphs().any(uses_standard))
}

/// Reads a GraphProto with its subgraphs; `outer` holds the names that are visible from around it.
pub(super) fn to_graph(
    proto: GraphProto,
    opsets: &BTreeMap<String, i64>,
    outer: &Scope,
) -> Result<Graph, Error> {
    if !proto.sparse_initializer.is_empty() {
        return Err(Error::Contract(
            "the file has sparse initialisers; make them dense first".into(),
        ));
    }
    let mut graph = Graph { opsets: opsets.clone(), ..Graph::default() };
    for initializer in proto.initializer {
        let name = initializer.name().to_owned();
        let weight = tensor::to_weight(initializer)?;
        add_weight(&mut graph, name, weight)?;
    }
    let inputs = proto.input.into_iter().map(to_value_info);
    graph.inputs = inputs.filter(|input| !graph.weights.contains_key(&input.name)).collect();
    graph.outputs = proto.output.into_iter().map(to_value_info).collect();
    let mut scope = Scope { names: names_before(&proto.node), outer: Some(outer) };
    scope.names.extend(graph.inputs.iter().map(|input| input.name.clone()));
    scope.names.extend(graph.weights.keys().cloned());
    for node in proto.node {
        add_node(&mut graph, node, opsets, &scope)?;
    }
    check_names(&graph)?;
    check_known(&graph, &scope)?;
    sort(&mut graph)?;
    Ok(graph)
}

/// Names visible inside a graph.
pub(super) struct Scope<'a> {
    pub(super) names: HashSet<String>,
    pub(super) outer: Option<&'a Scope<'a>>,
}

impl Scope<'_> {
    fn knows(&self, name: &str) -> bool {
        self.names.contains(name) || self.outer.is_some_and(|outer| outer.knows(name))
    }
}

fn names_before(nodes: &[NodeProto]) -> HashSet<String> {
    let outputs = nodes.iter().flat_map(|node| &node.output);
    outputs.filter(|name| !name.is_empty()).cloned().collect()
}

fn add_weight(graph: &mut Graph, name: String, weight: Weight) -> Result<(), Error> {
    if name.is_empty() {
        return Err(malformed("a weight without a name".into()));
    }
    if graph.weights.contains_key(&name) {
        return Err(malformed(format!("weight {name:?} is defined twice")));
    }
    graph.weights.insert(name, weight);
    Ok(())
}

fn add_node(
    graph: &mut Graph,
    proto: NodeProto,
    opsets: &BTreeMap<String, i64>,
    scope: &Scope,
) -> Result<(), Error> {
    let mut node = Node {
        name: proto.name.unwrap_or_default(),
        op: proto.op_type.unwrap_or_default(),
        domain: standard_domain(&proto.domain.unwrap_or_default()),
        inputs: proto.input,
        outputs: proto.output,
        attributes: BTreeMap::new(),
    };
    if node.op.is_empty() {
        return Err(malformed(format!("node {:?} names no operator", node.name)));
    }
    for attribute in proto.attribute {
        let name = attribute.name().to_owned();
        let value = to_attribute(attribute, &node, opsets, scope)?;
        if node.attributes.insert(name.clone(), value).is_some() {
            let node = &node.name;
            return Err(malformed(format!("node {node:?} has two attributes {name:?}")));
        }
    }
    match constant(&mut node) {
        Some((name, weight)) => add_weight(graph, name, weight)?,
        None => graph.nodes.push(node),
    }
    Ok(())
}

/// The weight that a Constant node stands for; strings have no weight form and stay nodes.
fn constant(node: &mut Node) -> Option<(String, Weight)> {
    let lifts = node.op == "Constant" && node.domain.is_empty() && node.attributes.len() == 1;
    if !lifts || node.outputs.len() != 1 || node.outputs[0].is_empty() {
        return None;
    }
    let (name, value) = node.attributes.pop_first()?;
    let weight = match (name.as_str(), value) {
        ("value", Attribute::Tensor(weight)) => weight,
        ("value_float", Attribute::Float(value)) => Weight::from_f32(&[], &[value]),
        ("value_floats", Attribute::Floats(values)) => Weight::from_f32(&[values.len()], &values),
        ("value_int", Attribute::Int(value)) => Weight::from_i64(&[], &[value]),
        ("value_ints", Attribute::Ints(values)) => Weight::from_i64(&[values.len()], &values),
        (_, value) => {
            node.attributes.insert(name, value);
            return None;
        }
    };
    Some((std::mem::take(&mut node.outputs[0]), weight))
}

fn to_attribute(
    proto: AttributeProto,
    node: &Node,
    opsets: &BTreeMap<String, i64>,
    scope: &Scope,
) -> Result<Attribute, Error> {
    let name = proto.name().to_owned();
    let place = format!("attribute {name:?} of node {:?} ({})", node.name, node.op);
    let missing = || malformed(format!("{place} has no value of its type"));
    Ok(match proto.r#type.filter(|&code| code != 0).unwrap_or_else(|| guess_type(&proto)) {
        1 => Attribute::Float(proto.f.unwrap_or_default()),
        2 => Attribute::Int(proto.i.unwrap_or_default()),
        3 => Attribute::String(proto.s.unwrap_or_default()),
        4 => Attribute::Tensor(tensor::to_weight(proto.t.ok_or_else(missing)?)?),
        5 => {
            let graph = to_graph(proto.g.ok_or_else(missing)?, opsets, scope)?;
            Attribute::Graph(Box::new(graph))
        }
        6 => Attribute::Floats(proto.floats),
        7 => Attribute::Ints(proto.ints),
        8 => Attribute::Strings(proto.strings),
        code => {
            return Err(Error::Contract(format!(
                "{place} has ONNX attribute type {code}, which tans cannot store"
            )));
        }
    })
}

/// The first version of the format had no attribute types: the field that is there tells it.
fn guess_type(proto: &AttributeProto) -> i32 {
    let present = [
        proto.f.is_some(),
        proto.i.is_some(),
        proto.s.is_some(),
        proto.t.is_some(),
        proto.g.is_some(),
        !proto.floats.is_empty(),
        !proto.ints.is_empty(),
        !proto.strings.is_empty(),
    ];
    // An empty list leaves no trace on the wire; lists of integers are by far the most common.
    present.iter().position(|&here| here).map_or(7, |index| index as i32 + 1)
}

fn to_value_info(proto: ValueInfoProto) -> ValueInfo {
    let name = proto.name.unwrap_or_default();
    let Some(tensor) = proto.r#type.and_then(|kind| kind.tensor_type) else {
        return ValueInfo { name, dtype: None, dims: Vec::new() };
    };
    // Exporters write -1 and, for the batch, sometimes 0 where they mean "unknown".
    let side = |value: i64| usize::try_from(value).ok().filter(|&side| side > 0);
    let dims = tensor.shape.unwrap_or_default().dim;
    let dims = dims.iter().map(|dim| dim.dim_value.and_then(side)).collect();
    ValueInfo { name, dtype: tensor.elem_type.and_then(tensor::dtype_of), dims }
}

fn check_names(graph: &Graph) -> Result<(), Error> {
    let mut seen = HashSet::new();
    match own_names(graph).find(|name| !seen.insert(*name)) {
        Some(name) => Err(malformed(format!("value {name:?} is defined twice"))),
        None => Ok(()),
    }
}

fn check_known(graph: &Graph, scope: &Scope) -> Result<(), Error> {
    for node in &graph.nodes {
        // What subgraphs read has been checked when they were read.
        let unknown = node.inputs.iter().find(|name| !name.is_empty() && !scope.knows(name));
        if let Some(name) = unknown {
            let Node { name: node, op, .. } = node;
            return Err(malformed(format!(
                "node {node:?} ({op}) reads {name:?}, which nothing defines"
            )));
        }
    }
    match graph.outputs.iter().find(|output| !scope.knows(&output.name)) {
        Some(output) => Err(malformed(format!("nothing defines the output {:?}", output.name))),
        None => Ok(()),
    }
}

fn sort(graph: &mut Graph) -> Result<(), Error> {
    let order = order::topological(graph).map_err(|index| {
        let Node { name, op, outputs, .. } = &graph.nodes[index];
        malformed(format!(
            "node {name:?} ({op}, output {:?}) waits for itself: the graph has a cycle",
            outputs.first()
        ))
    })?;
    let mut nodes: Vec<Option<Node>> =
        std::mem::take(&mut graph.nodes).into_iter().map(Some).collect();
    graph.nodes = order.into_iter().filter_map(|index| nodes[index].take()).collect();
    Ok(())
}

fn check_limits(graph: &GraphProto, limits: &Limits) -> Result<(), Error> {
    let mut size = Size::default();
    size.add(graph)?;
    let Size { nodes, bytes } = size;
    let checks = [
        ("the graph's nodes", nodes, limits.nodes_max),
        ("weight bytes", bytes, limits.weight_bytes_max),
    ];
    match checks.into_iter().find(|(_, found, limit)| found > limit) {
        Some((what, found, limit)) => Err(Error::Limit { what: what.into(), found, limit }),
        None => Ok(()),
    }
}

#[derive(Default)]
struct Size {
    nodes: u64,
    bytes: u64,
}

impl Size {
    fn add(&mut self, graph: &GraphProto) -> Result<(), Error> {
        self.nodes = self.nodes.saturating_add(graph.node.len() as u64);
        let attributes = || graph.node.iter().flat_map(|node| &node.attribute);
        let tensors = attributes().filter_map(|attribute| attribute.t.as_ref());
        for proto in graph.initializer.iter().chain(tensors) {
            self.bytes = self.bytes.saturating_add(tensor::shape_of(proto)?.2 as u64);
        }
        attributes().filter_map(|attribute| attribute.g.as_ref()).try_for_each(|g| self.add(g))
    }
}

/// The long name of the standard domain is an alias of the empty one.
fn standard_domain(domain: &str) -> String {
    if domain == "ai.onnx" { String::new() } else { domain.to_owned() }
}

/// What a file that is not ONNX seems to be.
fn describe(bytes: &[u8]) -> String {
    let kinds: HashMap<&str, &[u8]> = HashMap::from([
        ("a zip archive (a PyTorch checkpoint?)", &b"PK\x03\x04"[..]),
        ("a pickle (a PyTorch checkpoint?)", &b"\x80\x02"[..]),
        ("an HDF5 file (a Keras model?)", &b"\x89HDF"[..]),
        ("a gzip archive", &b"\x1f\x8b"[..]),
    ]);
    let known = kinds.iter().find(|(_, magic)| bytes.starts_with(magic)).map(|(kind, _)| *kind);
    let head = &bytes[..bytes.len().min(40)];
    let printable = |byte: &u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace();
    match known {
        Some(kind) => kind.to_owned(),
        None if bytes.is_empty() => "an empty file".to_owned(),
        None if head.iter().all(printable) => {
            format!("a text file that begins with {:?}", String::from_utf8_lossy(head))
        }
        None => format!("{} bytes that are damaged, truncated or of another format", bytes.len()),
    }
}
