//! Folds batch normalisation into the convolution before it: the same function, one pass over
//! memory less.

use crate::graph::{Attribute, Graph, Node, Weight};
use std::collections::{HashMap, HashSet};

/// A graph that computes the same values in inference; values named in `keep` stay what they are.
pub(super) fn batch_norms(graph: &Graph, keep: &[&str]) -> Graph {
    let mut fused = graph.clone();
    let mut uses: HashMap<&str, usize> = HashMap::new();
    for name in graph.nodes.iter().flat_map(Node::reads) {
        *uses.entry(name).or_default() += 1;
    }
    let producers: HashMap<&str, usize> = graph
        .nodes
        .iter()
        .enumerate()
        .flat_map(|(index, node)| node.outputs.iter().map(move |name| (name.as_str(), index)))
        .collect();
    let mut dropped = vec![false; graph.nodes.len()];
    for (index, norm) in graph.nodes.iter().enumerate() {
        let Some(input) = norm.inputs.first().filter(|_| norm.op == "BatchNormalization") else {
            continue;
        };
        let Some(&conv) = producers.get(input.as_str()) else { continue };
        let outside = keep.contains(&input.as_str())
            || graph.outputs.iter().any(|output| &output.name == input);
        if outside || uses.get(input.as_str()) != Some(&1) || norm.outputs.len() != 1 {
            continue;
        }
        let Some((weight, bias)) = folded(graph, &graph.nodes[conv], norm) else { continue };
        let names =
            [format!("{}/folded.w", norm.outputs[0]), format!("{}/folded.b", norm.outputs[0])];
        fused.nodes[conv].inputs.truncate(1);
        fused.nodes[conv].inputs.extend(names.clone());
        fused.nodes[conv].outputs = norm.outputs.clone();
        let [weight_name, bias_name] = names;
        fused.weights.insert(weight_name, weight);
        fused.weights.insert(bias_name, bias);
        dropped[index] = true;
    }
    let mut dropped = dropped.into_iter();
    fused.nodes.retain(|_| !dropped.next().unwrap_or(false));
    let outputs = fused.outputs.iter().map(|output| output.name.as_str());
    let used = fused.nodes.iter().flat_map(Node::reads).chain(outputs);
    let used: HashSet<String> = used.map(str::to_owned).collect();
    fused.weights.retain(|name, _| used.contains(name));
    fused
}

/// W' = W s and b' = (b - mean) s + beta with s = gamma / sqrt(var + epsilon), per output channel.
fn folded(graph: &Graph, conv: &Node, norm: &Node) -> Option<(Weight, Weight)> {
    let by_batch = matches!(norm.attributes.get("training_mode"), Some(Attribute::Int(1)));
    if conv.op != "Conv" || norm.inputs.len() != 5 || by_batch {
        return None;
    }
    let values = |name: &String| graph.weights.get(name).and_then(Weight::floats);
    let shape = &graph.weights.get(conv.inputs.get(1)?)?.shape;
    let mut weight = values(conv.inputs.get(1)?)?;
    let channels = *shape.first().filter(|&&channels| channels > 0)?;
    let mut bias = match conv.inputs.get(2).filter(|name| !name.is_empty()) {
        Some(name) => values(name)?,
        None => vec![0.0; channels],
    };
    let [gamma, beta, mean, variance] = [1, 2, 3, 4].map(|index| values(&norm.inputs[index]));
    let (gamma, beta, mean, variance) = (gamma?, beta?, mean?, variance?);
    let lengths = [bias.len(), gamma.len(), beta.len(), mean.len(), variance.len()];
    if lengths.iter().any(|&length| length != channels) {
        return None;
    }
    let epsilon = match norm.attributes.get("epsilon") {
        Some(Attribute::Float(epsilon)) => *epsilon,
        _ => 1e-5,
    };
    let row = weight.len() / channels;
    for channel in 0..channels {
        let scale = gamma[channel] / (variance[channel] + epsilon).sqrt();
        weight[channel * row..(channel + 1) * row].iter_mut().for_each(|value| *value *= scale);
        bias[channel] = (bias[channel] - mean[channel]) * scale + beta[channel];
    }
    Some((Weight::from_f32(shape, &weight), Weight::from_f32(&[channels], &bias)))
}
