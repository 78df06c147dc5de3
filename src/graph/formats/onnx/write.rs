//! A network to ONNX messages.

use super::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto,
    TensorShapeProto, TypeProto, ValueInfoProto, tensor_shape_proto, type_proto,
};
use super::tensor;
use crate::graph::{Attribute, Dtype, Error, Graph, Node, ValueInfo, Weight};
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};

/// Protobuf readers refuse larger messages.
const MODEL_BYTES_MAX: usize = i32::MAX as usize;

pub(super) fn write(graph: &Graph, metadata: &[(String, String)]) -> Result<Vec<u8>, Error> {
    let proto = graph_proto(graph, Data::Embedded)?;
    let opsets = opsets_in_use(graph);
    let model = ModelProto {
        ir_version: Some(ir_version(opsets.get("").copied().unwrap_or(1))),
        producer_name: Some("tans".into()),
        graph: Some(proto),
        opset_import: opsets
            .into_iter()
            .map(|(domain, version)| OperatorSetIdProto {
                domain: Some(domain),
                version: Some(version),
            })
            .collect(),
        metadata_props: metadata.iter().map(|(key, value)| entry(key, value)).collect(),
        functions: Vec::new(),
    };
    let size = model.encoded_len();
    if size > MODEL_BYTES_MAX {
        return Err(Error::Contract(format!(
            "the network takes {size} bytes and an ONNX file at most {MODEL_BYTES_MAX}: write \
            safetensors instead"
        )));
    }
    Ok(model.encode_to_vec())
}

/// Whether weight bytes are part of the message.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Data {
    Embedded,
    Absent,
}

pub(super) fn graph_proto(graph: &Graph, data: Data) -> Result<GraphProto, Error> {
    let initializer = |(name, weight): (&String, &Weight)| match data {
        Data::Embedded => tensor::from_weight(name, weight),
        Data::Absent => tensor::header(name, weight),
    };
    Ok(GraphProto {
        name: Some("tans".into()),
        node: graph.nodes.iter().map(|n| node_proto(n, data)).collect::<Result<_, _>>()?,
        initializer: graph.weights.iter().map(initializer).collect::<Result<_, _>>()?,
        input: graph.inputs.iter().map(value_info_proto).collect::<Result<_, _>>()?,
        output: graph.outputs.iter().map(value_info_proto).collect::<Result<_, _>>()?,
        ..GraphProto::default()
    })
}

pub(super) fn entry(key: &str, value: &str) -> StringStringEntryProto {
    StringStringEntryProto { key: Some(key.to_owned()), value: Some(value.to_owned()) }
}

/// Versions of the domains whose operators the graph calls; 1 for a domain that declares none.
pub(super) fn opsets_in_use(graph: &Graph) -> BTreeMap<String, i64> {
    let mut domains = BTreeSet::from([String::new()]);
    add_domains(graph, &mut domains);
    let version = |domain: &String| graph.opsets.get(domain).copied().unwrap_or(1);
    domains.into_iter().map(|domain| (domain.clone(), version(&domain))).collect()
}

fn add_domains(graph: &Graph, domains: &mut BTreeSet<String>) {
    for node in &graph.nodes {
        if !domains.contains(&node.domain) {
            domains.insert(node.domain.clone());
        }
        node.subgraphs().for_each(|subgraph| add_domains(subgraph, domains));
    }
}

/// The oldest file version that may hold an operator set: old runtimes then still read the file.
/// Version 8 is the least here, since weights that are not inputs need 4 and every runtime in use
/// reads 8.
fn ir_version(opset: i64) -> i64 {
    match opset {
        ..=18 => 8,
        19..=20 => 9,
        21..=22 => 10,
        _ => 11,
    }
}

fn node_proto(node: &Node, data: Data) -> Result<NodeProto, Error> {
    let Node { name, op, domain, inputs, outputs, attributes } = node;
    let attributes = attributes.iter().map(|(name, value)| attribute_proto(name, value, data));
    let optional = |text: &String| (!text.is_empty()).then(|| text.clone());
    Ok(NodeProto {
        input: inputs.clone(),
        output: outputs.clone(),
        name: optional(name),
        op_type: Some(op.clone()),
        attribute: attributes.collect::<Result<_, _>>()?,
        domain: optional(domain),
    })
}

fn attribute_proto(name: &str, value: &Attribute, data: Data) -> Result<AttributeProto, Error> {
    let base = |code: i32| AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(code),
        ..AttributeProto::default()
    };
    Ok(match value {
        Attribute::Float(value) => AttributeProto { f: Some(*value), ..base(1) },
        Attribute::Int(value) => AttributeProto { i: Some(*value), ..base(2) },
        Attribute::String(value) => AttributeProto { s: Some(value.clone()), ..base(3) },
        Attribute::Tensor(weight) => {
            AttributeProto { t: Some(tensor::from_weight("", weight)?), ..base(4) }
        }
        Attribute::Graph(graph) => AttributeProto { g: Some(graph_proto(graph, data)?), ..base(5) },
        Attribute::Floats(values) => AttributeProto { floats: values.clone(), ..base(6) },
        Attribute::Ints(values) => AttributeProto { ints: values.clone(), ..base(7) },
        Attribute::Strings(values) => AttributeProto { strings: values.clone(), ..base(8) },
    })
}

fn value_info_proto(value: &ValueInfo) -> Result<ValueInfoProto, Error> {
    let ValueInfo { name, dtype, dims } = value;
    let kind = dtype.map(|dtype| tensor_type(dtype, dims)).transpose()?;
    Ok(ValueInfoProto { name: Some(name.clone()), r#type: kind })
}

/// An unknown rank and a scalar look alike here; no shape is stated for either, since a wrong one
/// stops runtimes.
fn tensor_type(dtype: Dtype, dims: &[Option<usize>]) -> Result<TypeProto, Error> {
    let dimension = |(axis, side): (usize, &Option<usize>)| match side {
        Some(side) => {
            tensor_shape_proto::Dimension { dim_value: i64::try_from(*side).ok(), dim_param: None }
        }
        // Each unknown dimension has its own name: equal names would state equal sizes.
        None => tensor_shape_proto::Dimension { dim_value: None, dim_param: unknown(axis) },
    };
    let shape = TensorShapeProto { dim: dims.iter().enumerate().map(dimension).collect() };
    let tensor = type_proto::Tensor {
        elem_type: Some(tensor::code_of(dtype)?),
        shape: (!dims.is_empty()).then_some(shape),
    };
    Ok(TypeProto { tensor_type: Some(tensor) })
}

/// The batch is free everywhere; other unknown dimensions stay nameless.
fn unknown(axis: usize) -> Option<String> {
    (axis == 0).then(|| "batch".to_owned())
}
