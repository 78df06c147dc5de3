//! What each weight of a graph is for: which are learned, and how they start afresh.

use crate::graph::head::HeadSite;
use crate::graph::{Attribute, Error, Graph, Node, Weight};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, HashSet};

/// The part that a weight plays.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Role {
    /// Kernel or matrix with so many inputs to each of its outputs.
    Linear {
        /// Inputs of one output.
        fan_in: usize,
    },
    /// Learned; starts at this value.
    Vector {
        /// 0 for biases, 1 for scales.
        start: f32,
    },
    /// Matrix that turns a kernel into a smaller one, in a supernet: an output of its own. Learned; it starts at what it
    /// is.
    Transform,
    /// Running statistic of a batch norm; not learned by gradient.
    Statistic {
        /// 0 for means, 1 for variances.
        start: f32,
    },
}

impl Role {
    /// Whether gradients change it.
    pub fn is_learned(self) -> bool {
        !matches!(self, Self::Statistic { .. })
    }
}

/// Roles of the floating-point weights that training changes. Constants of the arithmetic (the 1/6
/// of an activation, the mean of an input normalisation) have none.
pub(super) fn roles(graph: &Graph) -> BTreeMap<String, Role> {
    let mut roles = BTreeMap::new();
    let mut deep: HashSet<&str> = HashSet::new();
    for node in &graph.nodes {
        let behind_layer = node.inputs.iter().any(|name| deep.contains(name.as_str()));
        let mut assign = |index: usize, role: Role| {
            let name = node.inputs.get(index).filter(|name| graph.weights.contains_key(*name));
            if let Some(name) = name.filter(|name| graph.weights[*name].floats().is_some()) {
                roles.entry(name.clone()).or_insert(role);
            }
        };
        let is_layer = matches!(node.op.as_str(), "Conv" | "ConvTranspose" | "Gemm" | "MatMul");
        match node.op.as_str() {
            _ if is_layer => {
                let second = node.inputs.get(1).and_then(|name| graph.weights.get(name));
                let matrix = usize::from(second.is_none());
                let matrix = if node.op == "MatMul" && matrix == 1 { 0 } else { 1 };
                let shape = node.inputs.get(matrix).and_then(|name| graph.weights.get(name));
                let fan_in = shape.map_or(1, |weight| fan_in(node, &weight.shape));
                assign(matrix, Role::Linear { fan_in });
                assign(2, Role::Vector { start: 0.0 });
            }
            "BatchNormalization"
            | "InstanceNormalization"
            | "LayerNormalization"
            | "GroupNormalization" => {
                assign(1, Role::Vector { start: 1.0 });
                assign(2, Role::Vector { start: 0.0 });
                assign(3, Role::Statistic { start: 0.0 });
                assign(4, Role::Statistic { start: 1.0 });
            }
            "Identity" if is_transform(graph, node) => assign(0, Role::Transform),
            "PRelu" => assign(1, Role::Vector { start: 0.25 }),
            "Add" | "Sub" | "Mul" | "Div" if behind_layer => {
                let start = if matches!(node.op.as_str(), "Mul" | "Div") { 1.0 } else { 0.0 };
                for (index, name) in node.inputs.iter().enumerate() {
                    if graph.weights.get(name).is_some_and(|weight| weight.elements() > 1) {
                        assign(index, Role::Vector { start });
                    }
                }
            }
            _ => {}
        }
        if behind_layer || is_layer {
            deep.extend(node.outputs.iter().map(String::as_str));
        }
    }
    roles
}

fn is_transform(graph: &Graph, node: &Node) -> bool {
    let is_output = |name: &String| graph.outputs.iter().any(|output| output.name == *name);
    let weight = node.inputs.first().and_then(|name| graph.weights.get(name));
    let is_square =
        weight.is_some_and(|it| matches!(it.shape[..], [rows, columns] if rows == columns));
    is_square && node.outputs.iter().any(is_output)
}

fn fan_in(node: &Node, shape: &[usize]) -> usize {
    let transposed = matches!(node.attributes.get("transB"), Some(Attribute::Int(1)));
    let inputs = match (node.op.as_str(), shape) {
        ("Conv", [_, rest @ ..]) => rest.iter().product(),
        ("ConvTranspose", [inputs, _, rest @ ..]) => inputs * rest.iter().product::<usize>(),
        ("Gemm", [_, columns]) if transposed => *columns,
        (_, [.., rows, _]) => *rows,
        _ => 1,
    };
    inputs.max(1)
}

/// Draws every learned weight anew and resets running statistics.
pub(super) fn reset(graph: &mut Graph, seed: u64) {
    for (index, (name, role)) in roles(graph).into_iter().enumerate() {
        let Some(weight) = graph.weights.get_mut(&name) else { continue };
        let values = match role {
            Role::Linear { fan_in } => {
                let spread = (2.0 / fan_in as f32).sqrt();
                normal(weight.elements(), spread, seed, index as u64 + 1)
            }
            Role::Transform => continue,
            Role::Vector { start } | Role::Statistic { start } => vec![start; weight.elements()],
        };
        *weight = Weight::from_f32(&weight.shape, &values);
    }
}

/// Replaces the head by one with `classes` outputs, drawn small, and all shapes behind it.
pub(super) fn replace_head(
    graph: &mut Graph,
    site: &HeadSite,
    classes: usize,
    seed: u64,
) -> Result<(), Error> {
    let unfit = |name: &str| {
        Error::Contract(format!("weight {name:?} of the head: expected {} classes", site.classes))
    };
    let resized = |name: &str, axis: usize| {
        let mut shape = graph.weights.get(name).map(|weight| weight.shape.clone())?;
        shape.get_mut(axis).filter(|side| **side == site.classes).map(|side| *side = classes)?;
        Some(shape)
    };
    let shape = resized(&site.weight, usize::from(!site.transposed));
    let shape = shape.ok_or_else(|| unfit(&site.weight))?;
    let spread = 1.0 / (site.feature_dim as f32).sqrt();
    let values = normal(classes * site.feature_dim, spread, seed, 0);
    let bias = match &site.bias {
        None => None,
        Some(name) => {
            let old = &graph.weights.get(name).ok_or_else(|| unfit(name))?.shape;
            let axis = old.iter().position(|&side| side == site.classes);
            let shape = axis.and_then(|axis| resized(name, axis)).ok_or_else(|| unfit(name))?;
            let zeros = vec![0.0; shape.iter().product()];
            Some((name, site.bias_node.unwrap_or(site.node), Weight::from_f32(&shape, &zeros)))
        }
    };
    put(graph, site.node, &site.weight, Weight::from_f32(&shape, &values));
    if let Some((name, node, weight)) = bias {
        put(graph, node, name, weight);
    }
    resize_behind(graph, site, classes);
    Ok(())
}

/// Gives a node a new weight in place of `name`, under a new name where other nodes read the old
/// one.
fn put(graph: &mut Graph, node: usize, name: &str, weight: Weight) {
    let readers = graph.nodes.iter().flat_map(|node| &node.inputs).filter(|input| *input == name);
    let shared = readers.count() > 1;
    let mut fresh = name.to_string();
    while shared && (graph.weights.contains_key(&fresh) || fresh == name) {
        fresh.push_str(".head");
    }
    for input in graph.nodes[node].inputs.iter_mut().filter(|input| *input == name) {
        input.clone_from(&fresh);
    }
    graph.weights.insert(fresh, weight);
}

/// Reshapes and declared outputs behind the head that spell out the old number of classes.
fn resize_behind(graph: &mut Graph, site: &HeadSite, classes: usize) {
    let mut behind: HashSet<String> = graph.nodes[site.node].outputs.iter().cloned().collect();
    for index in site.node + 1..graph.nodes.len() {
        let node = &graph.nodes[index];
        if !node.inputs.iter().any(|name| behind.contains(name)) {
            continue;
        }
        behind.extend(node.outputs.iter().cloned());
        let Some(name) = node.inputs.get(1).filter(|_| node.op == "Reshape").cloned() else {
            continue;
        };
        let Some(shape) = graph.weights.get(&name).and_then(integers) else { continue };
        if shape.contains(&(site.classes as i64)) {
            let renew =
                |side: &i64| if *side == site.classes as i64 { classes as i64 } else { *side };
            let shape: Vec<i64> = shape.iter().map(renew).collect();
            put(graph, index, &name, Weight::from_i64(&[shape.len()], &shape));
        }
    }
    for output in graph.outputs.iter_mut().filter(|output| behind.contains(&output.name)) {
        let old = output.dims.iter_mut().rev().flatten().find(|side| **side == site.classes);
        old.into_iter().for_each(|side| *side = classes);
    }
}

fn integers(weight: &Weight) -> Option<Vec<i64>> {
    if weight.dtype != safetensors::Dtype::I64 {
        return None;
    }
    let words = weight.data().as_chunks::<8>().0;
    Some(words.iter().map(|word| i64::from_le_bytes(*word)).collect())
}

/// Normal numbers by the method of Box and Muller; each `stream` of a seed is independent of the
/// others.
pub(super) fn normal(count: usize, spread: f32, seed: u64, stream: u64) -> Vec<f32> {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    generator.set_stream(stream);
    let mut draw = || {
        let radius = (-2.0 * (1.0 - generator.random::<f64>()).ln()).sqrt();
        (radius * (std::f64::consts::TAU * generator.random::<f64>()).cos()) as f32 * spread
    };
    (0..count).map(|_| draw()).collect()
}
