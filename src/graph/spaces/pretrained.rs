//! Weights without a graph find their places in a generated architecture: by name, else by shape and order.

use super::builder::Source;
use super::{Generated, Member, elastic};
use crate::graph::formats::StateDict;
use crate::graph::{Dtype, Error, Graph, Weight};
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::sync::Arc;

/// A generated architecture with the weights of a file.
pub struct Pretrained {
    /// The network.
    pub network: Generated,
    /// How the weights were placed, where it was not by name.
    pub note: Option<String>,
}

/// Builds the architecture that `spec` names (as for `generate`) with the weights of a state dict, widened to f32.
/// The number of classes is that of the last linear layer.
///
/// A prefix that all names share, such as `module.`, does not count, nor do the batch counters of PyTorch's batch
/// normalisation. Where the names are others and the file keeps the order of the layers, weights are placed by shape
/// and order, layer by layer.
///
/// # Errors
/// `Error::Contract` with what was expected and found at the first weight that does not fit.
pub fn pretrained(spec: &str, state: StateDict) -> Result<Pretrained, Error> {
    let member = Member::parse(spec)?;
    let StateDict { entries, is_ordered } = state;
    let mut entries: Vec<(String, Weight)> =
        entries.into_iter().filter(|(name, _)| leaf(name) != "num_batches_tracked").collect();
    strip_common_prefix(&mut entries);
    let renamed = member.is_supernet() && rename_published(&mut entries);
    let Blueprint { places, constants, .. } = blueprint(&member, 1)?;
    let classes = classes(&places, &entries, is_ordered)
        .map_err(|what| Error::Contract(format!("the weights do not fit {spec}: {what}")))?;
    let Blueprint { mut places, .. } = blueprint(&member, classes)?;
    let has_matrices = entries.iter().any(|(name, _)| elastic::is_matrix(name));
    places.retain(|place| has_matrices || !elastic::is_matrix(&place.name));
    entries.retain(|(name, _)| !constants.contains(name));
    let by_name = by_name(&places, &entries);
    let (order, note) = match by_name {
        Ok(order) => (order, renamed.then(|| published_note(has_matrices))),
        Err(names) if is_ordered => match by_order(&places, &entries) {
            Ok(order) => {
                let note = placed_by_order(&places, &entries, &order);
                (order, Some(note))
            }
            Err(layers) => {
                return Err(Error::Contract(format!(
                    "the weights do not fit {spec}, neither by name ({names}) nor by shape and order ({layers})"
                )));
            }
        },
        Err(names) => {
            return Err(Error::Contract(format!("the weights do not fit {spec}: {names}")));
        }
    };
    let mut found = HashMap::new();
    for (place, at) in places.iter().zip(order) {
        found.insert(place.name.as_str(), widened(&entries[at].0, &entries[at].1)?);
    }
    let supply = |name: &str, _: &[usize]| found.get(name).cloned();
    let network = member.generate(classes, Source { seed: 0, supply: &supply })?;
    Ok(Pretrained { network, note })
}

/// Where a weight belongs.
pub(super) struct Place {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
}

/// The places of an architecture in the order of its layers, and the weights that every network of it has alike.
pub(super) struct Blueprint {
    pub(super) places: Vec<Place>,
    constants: HashSet<String>,
    /// Its weights hold no bytes.
    pub(super) graph: Graph,
}

/// Builds a graph of shapes alone.
pub(super) fn blueprint(member: &Member, classes: usize) -> Result<Blueprint, Error> {
    let places = RefCell::new(Vec::new());
    let supply = |name: &str, shape: &[usize]| {
        places.borrow_mut().push(Place { name: name.to_owned(), shape: shape.to_vec() });
        Some(Weight { dtype: Dtype::F32, shape: shape.to_vec(), bytes: Arc::new([]) })
    };
    let graph = member.graph(classes, Source { seed: 0, supply: &supply })?;
    let places = places.into_inner();
    let mut constants: HashSet<String> = graph.weights.keys().cloned().collect();
    for place in &places {
        constants.remove(&place.name);
    }
    Ok(Blueprint { places, constants, graph })
}

/// Gives the weights of a published Once-for-all checkpoint their names here; whether it is one.
fn rename_published(entries: &mut [(String, Weight)]) -> bool {
    let named = entries.iter().map(|(name, _)| elastic::from_published(name));
    let Some(names) = named.collect::<Option<Vec<String>>>() else { return false };
    entries.iter_mut().zip(names).for_each(|((name, _), own)| *name = own);
    true
}

fn published_note(has_matrices: bool) -> String {
    let matrices = match has_matrices {
        true => "",
        false => "; it has no kernel transforms: smaller kernels are centres of larger ones",
    };
    format!("its weights were placed by their Once-for-all names{matrices}")
}

fn leaf(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(_, leaf)| leaf)
}

fn layer(name: &str) -> &str {
    name.rsplit_once('.').map_or("", |(layer, _)| layer)
}

/// Takes off the first component of all names as long as they share it.
fn strip_common_prefix(entries: &mut [(String, Weight)]) {
    loop {
        let first = entries.first().and_then(|(name, _)| name.split_once('.'));
        let Some(prefix) = first.map(|(first, _)| format!("{first}.")) else { return };
        // A layer's own name is no prefix.
        let is_shared = entries
            .iter()
            .all(|(name, _)| name.strip_prefix(&prefix).is_some_and(|rest| rest.contains('.')));
        if !is_shared {
            return;
        }
        for (name, _) in &mut *entries {
            name.drain(..prefix.len());
        }
    }
}

/// Rows of the head: of the weight of its name, else of the last matrix.
fn classes(
    places: &[Place],
    entries: &[(String, Weight)],
    is_ordered: bool,
) -> Result<usize, String> {
    let head = places.iter().rev().find(|place| place.shape.len() == 2);
    let Some(Place { name: head, shape }) = head else { return Err("it has no head".into()) };
    let named = entries.iter().find(|(name, _)| name == head);
    let last = || entries.iter().rev().find(|(_, weight)| weight.shape.len() == 2 && is_ordered);
    match named.or_else(last) {
        Some((name, weight)) => match weight.shape.as_slice() {
            &[classes, features] if features == shape[1] => Ok(classes),
            found => Err(format!(
                "expected a head {head} of [classes, {}], found {name} of {found:?}",
                shape[1]
            )),
        },
        None => Err(format!("expected a head {head} of [classes, {}], found none", shape[1])),
    }
}

/// Which entry has the name and shape of each place; what is wrong with the first that has not.
fn by_name(places: &[Place], entries: &[(String, Weight)]) -> Result<Vec<usize>, String> {
    let index: HashMap<&str, usize> =
        entries.iter().enumerate().map(|(at, (name, _))| (name.as_str(), at)).collect();
    let (mut order, mut misfit) = (Vec::new(), None);
    for Place { name, shape } in places {
        match index.get(name.as_str()) {
            Some(&at) if entries[at].1.shape == *shape => order.push(at),
            Some(&at) => {
                let found = &entries[at].1.shape;
                misfit.get_or_insert(format!("expected {name} of {shape:?}, found {found:?}"));
            }
            None => _ = misfit.get_or_insert(format!("expected {name} of {shape:?}, found none")),
        }
    }
    let known: HashSet<&str> = places.iter().map(|place| place.name.as_str()).collect();
    let mut others = entries.iter().filter(|(name, _)| !known.contains(name.as_str()));
    let other = others.next().map(|(name, weight)| (name, &weight.shape));
    if misfit.is_none() && other.is_none() {
        return Ok(order);
    }
    let mut what = format!("{} of {} weights have their name and shape", order.len(), places.len());
    if let Some(misfit) = misfit {
        _ = write!(what, "; {misfit}");
    }
    if let Some((name, shape)) = other {
        let more = others.count();
        _ = write!(what, "; {name} of {shape:?} and {more} others have no place in it");
    }
    Err(what)
}

/// Which entry belongs to each place if layers are counted: within a layer the last part of the name decides.
fn by_order(places: &[Place], entries: &[(String, Weight)]) -> Result<Vec<usize>, String> {
    let wanted: Vec<(&str, &[usize])> =
        places.iter().map(|place| (place.name.as_str(), &place.shape[..])).collect();
    let given: Vec<(&str, &[usize])> =
        entries.iter().map(|(name, weight)| (name.as_str(), &weight.shape[..])).collect();
    let same_layer = |a: &(&str, &[usize]), b: &(&str, &[usize])| layer(a.0) == layer(b.0);
    let mut layers = given.chunk_by(same_layer);
    let (mut order, mut first) = (Vec::new(), 0);
    for (number, wanted) in wanted.chunk_by(same_layer).enumerate() {
        let given = layers.next().unwrap_or_default();
        let place = |(name, shape): &(&str, &[usize])| {
            given.iter().position(|(other, found)| leaf(other) == leaf(name) && found == shape)
        };
        let places: Option<Vec<usize>> = wanted.iter().map(place).collect();
        let Some(places) = places.filter(|places| places.len() == given.len()) else {
            return Err(format!(
                "layer {}: expected {}, found {}",
                number + 1,
                described(wanted),
                described(given)
            ));
        };
        order.extend(places.into_iter().map(|place| first + place));
        first += given.len();
    }
    match layers.next() {
        None => Ok(order),
        Some(more) => Err(format!("expected no layer after the head, found {}", described(more))),
    }
}

fn described(layer: &[(&str, &[usize])]) -> String {
    let parts: Vec<String> =
        layer.iter().map(|(name, shape)| format!("{name} of {shape:?}")).collect();
    if parts.is_empty() { "none".into() } else { parts.join(", ") }
}

fn placed_by_order(places: &[Place], entries: &[(String, Weight)], order: &[usize]) -> String {
    let pair = |(place, at): (&Place, &usize)| format!("{} is {}", place.name, entries[*at].0);
    let mut pairs = places.iter().zip(order);
    let first = pairs.next().map(pair).unwrap_or_default();
    let last = pairs.next_back().map(pair).unwrap_or_default();
    format!(
        "its weights were placed by shape and order, for their names are others: {first}, to {last}"
    )
}

/// The weight as f32.
fn widened(name: &str, weight: &Weight) -> Result<Weight, Error> {
    let values = match weight.dtype {
        Dtype::F32 => return Ok(weight.clone()),
        Dtype::F64 => {
            let (eights, _) = weight.data().as_chunks::<8>();
            Some(eights.iter().map(|&eight| f64::from_le_bytes(eight) as f32).collect())
        }
        _ => weight.floats(),
    };
    match values {
        Some(values) => Ok(Weight::from_f32(&weight.shape, &values)),
        None => Err(Error::Contract(format!(
            "weight {name}: expected floating-point values, found {:?}",
            weight.dtype
        ))),
    }
}
