//! Canonical graphs, by the protobuf wire format and the fields of ONNX's GraphProto and NodeProto.

use super::bytes::{Found, Reader, ensure};
use std::collections::BTreeSet;

/// Fields of a message in order: number and content, for numbers without one.
fn fields<'a>(what: &'a str, bytes: &'a [u8]) -> Found<Vec<(u64, &'a [u8])>> {
    let mut from = Reader::new(what, bytes);
    let (mut fields, mut left) = (Vec::new(), bytes.len());
    while left > 0 {
        let (key, key_bytes) = varint(&mut from)?;
        let (content, content_bytes) = match key & 7 {
            0 => varint(&mut from).map(|(_, bytes)| (&[][..], bytes))?,
            1 => (from.take(8)?, 8),
            2 => {
                let (length, bytes) = varint(&mut from)?;
                (from.take(length as usize)?, bytes + length as usize)
            }
            5 => (from.take(4)?, 4),
            kind => return Err(format!("{what}: no wire type is {kind}")),
        };
        fields.push((key >> 3, content));
        left -= key_bytes + content_bytes;
    }
    Ok(fields)
}

/// A number and the bytes that it takes.
fn varint(from: &mut Reader<'_>) -> Found<(u64, usize)> {
    let mut value = 0;
    for at in 0..10 {
        let byte = from.byte()?;
        value |= u64::from(byte & 127) << (7 * at);
        if byte < 128 {
            return Ok((value, at + 1));
        }
    }
    Err("a number of more than ten bytes".into())
}

fn texts(fields: &[(u64, &[u8])], number: u64) -> Vec<String> {
    let of_number = fields.iter().filter(|(found, _)| *found == number);
    of_number.map(|(_, bytes)| String::from_utf8_lossy(bytes).into_owned()).collect()
}

/// Field `name` of each message in the graph's field `number`, whose fields are all among `plain`.
fn names(graph: &[(u64, &[u8])], number: u64, name: u64, plain: &[u64]) -> Found<Vec<String>> {
    let mut names = Vec::new();
    for (_, bytes) in graph.iter().filter(|(found, _)| *found == number) {
        let message = fields("graph", bytes)?;
        ensure(message.iter().all(|(found, _)| plain.contains(found)), || {
            format!("graph: more than {plain:?} in a message of field {number}")
        })?;
        names.extend(texts(&message, name));
    }
    Ok(names)
}

/// A graph with `weights` tensors is as the document says: no bytes, no names of nodes, values by number.
pub fn is_canonical(bytes: &[u8], weights: usize) -> Found<()> {
    let graph = fields("graph", bytes)?;
    let numbers: BTreeSet<u64> = graph.iter().map(|(number, _)| *number).collect();
    // node, name, initializer, input, output, metadata_props
    ensure(numbers.iter().all(|number| [1, 2, 5, 11, 12, 16].contains(number)), || {
        format!("graph: fields {numbers:?}")
    })?;
    ensure(texts(&graph, 2) == ["tans"], || format!("graph: named {:?}", texts(&graph, 2)))?;
    let versions = names(&graph, 16, 2, &[1, 2])?;
    ensure(versions.iter().all(|version| version.parse::<u32>().is_ok()), || {
        format!("graph: operator sets {versions:?}")
    })?;
    // dims, data_type and name of a weight, and no data
    let declared: BTreeSet<String> = names(&graph, 5, 8, &[1, 2, 8])?.into_iter().collect();
    // name and type of a value
    let mut known: BTreeSet<String> = names(&graph, 11, 1, &[1, 2])?.into_iter().collect();
    known.insert(String::new());
    let (mut tensors, mut values) = (Vec::new(), Vec::new());
    for (_, node) in graph.iter().filter(|(number, _)| *number == 1) {
        let node = fields("node", node)?;
        // input, output, op_type, attribute, domain; no name (3), no documentation (6)
        let plain = node.iter().all(|(number, _)| [1, 2, 4, 5, 7].contains(number));
        ensure(plain, || format!("node: {:?}", texts(&node, 3)))?;
        for input in texts(&node, 1) {
            let is_tensor = input.strip_prefix('t').is_some_and(|rest| rest.parse::<u32>().is_ok());
            if is_tensor && !tensors.contains(&input) {
                tensors.push(input);
            } else {
                let earlier = is_tensor || known.contains(&input);
                ensure(earlier, || format!("node: {input} comes later or from nowhere"))?;
            }
        }
        let outputs = texts(&node, 2);
        known.extend(outputs.iter().cloned());
        values.extend(outputs);
    }
    let numbered = |prefix: char, count| (0..count).map(move |at| format!("{prefix}{at}"));
    ensure(tensors.iter().cloned().eq(numbered('t', weights)), || format!("tensors {tensors:?}"))?;
    ensure(tensors.iter().cloned().collect::<BTreeSet<_>>() == declared, || {
        format!("weights {declared:?}")
    })?;
    let outputs = names(&graph, 12, 1, &[1, 2])?;
    values.retain(|value| !outputs.contains(value));
    ensure(values.iter().cloned().eq(numbered('v', values.len())), || format!("values {values:?}"))
}
