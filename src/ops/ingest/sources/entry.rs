//! One line of a manifest, and what is wrong with one that is none.

use crate::graph::input::{ChannelOrder, InputHints};
use crate::{Error, Result};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// One line of a manifest. Paths are relative to the manifest.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub path: Option<PathBuf>,
    pub uri: Option<String>,
    pub space: Option<String>,
    pub name: Option<String>,
    pub task: Option<String>,
    pub accuracy: Option<f32>,
    pub license: Option<String>,
    pub params: Option<u64>,
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    pub input: Option<Shape>,
    pub mean: Option<Vec<f32>>,
    pub std: Option<Vec<f32>>,
    pub scale: Option<f32>,
    pub channel_order: Option<ChannelOrder>,
}

/// `[3, 224, 224]` or `"3x224x224"`, as the command line has it.
#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "input: expected [CHANNELS, HEIGHT, WIDTH] or \"CHANNELSxHEIGHTxWIDTH\""
)]
pub enum Shape {
    Numbers(usize, usize, usize),
    Text(String),
}

impl Shape {
    /// `(channels, height, width)`.
    pub fn sides(self) -> Result<(usize, usize, usize)> {
        match self {
            Self::Numbers(channels, height, width) => Ok((channels, height, width)),
            Self::Text(text) => InputHints::parse_shape(&text)
                .map_err(|error| Error::input(format!("input: {error}"))),
        }
    }
}

/// What a line is, in the words of errors.
const EXPECTED: &str = "a JSON object with path, uri or space and perhaps name, task, accuracy, license, params, tags, \
    input, mean, std, scale and channel_order";

/// At most so much of a line is repeated in an error.
const SHOWN_CHARS: usize = 60;

/// Why a line is no entry: by its first wrong field where there is one, without the words of the parser's own types.
pub fn explained(line: &str, error: &serde_json::Error) -> String {
    let reason = error.to_string();
    let bare = reason.split(" at line ").next().unwrap_or_default();
    let Ok(value) = serde_json::from_str::<Value>(line) else {
        return format!("expected {EXPECTED}, found no JSON: {bare} at column {}", error.column());
    };
    let Value::Object(fields) = &value else {
        return format!("expected {EXPECTED}, found {}", shown(&value));
    };
    let mut wrong = fields.iter().filter_map(|(name, value)| misfit(name, value));
    wrong.next().unwrap_or_else(|| format!("expected {EXPECTED}, found a {bare}"))
}

/// What is wrong with a field.
fn misfit(name: &str, value: &Value) -> Option<String> {
    let (expected, fits) = match name {
        "path" | "uri" | "space" | "name" | "task" | "license" => ("text", is::<String>(value)),
        "accuracy" | "scale" => ("a number", is::<f32>(value)),
        "params" => ("a whole number from 0", is::<u64>(value)),
        "tags" => ("an object of texts", is::<BTreeMap<String, String>>(value) && !value.is_null()),
        "input" => ("[CHANNELS, HEIGHT, WIDTH] or \"CHANNELSxHEIGHTxWIDTH\"", is::<Shape>(value)),
        "mean" | "std" => ("a list of numbers", is::<Vec<f32>>(value)),
        "channel_order" => ("\"rgb\", \"bgr\" or \"grey\"", is::<ChannelOrder>(value)),
        _ => return Some(format!("expected {EXPECTED}, found a field {name:?}")),
    };
    (!fits).then(|| format!("{name}: expected {expected}, found {}", shown(value)))
}

fn is<T: DeserializeOwned>(value: &Value) -> bool {
    Option::<T>::deserialize(value).is_ok()
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{} ...", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::{Entry, explained};

    #[test]
    fn a_wrong_line_is_explained_by_its_fields() {
        for (line, expected) in [
            (
                "[]",
                "a JSON object with path, uri or space and perhaps name, task, accuracy, license, params, tags, input, \
                mean, std, scale and channel_order, found []",
            ),
            (r#"{"path": 7}"#, "path: expected text, found 7"),
            (r#"{"path": "a", "accuracy": "0.5"}"#, r#"accuracy: expected a number, found "0.5""#),
            (r#"{"uri": "a", "params": -1}"#, "params: expected a whole number from 0, found -1"),
            (
                r#"{"path": "a", "tags": ["b"]}"#,
                r#"tags: expected an object of texts, found ["b"]"#,
            ),
            (r#"{"path": "a", "tags": null}"#, "tags: expected an object of texts, found null"),
            (r#"{"path": "a", "input": 7}"#, "input: expected [CHANNELS, HEIGHT, WIDTH] or"),
            (r#"{"path": "a", "mean": 0.5}"#, "mean: expected a list of numbers, found 0.5"),
            (r#"{"path": "a", "channel_order": "gbr"}"#, r#""bgr" or "grey", found "gbr""#),
            (r#"{"paht": "a"}"#, r#"found a field "paht""#),
            (r#"{"path": "a", "path": "b"}"#, "found a duplicate field `path`"),
            (r#"{"path": "a""#, "found no JSON: EOF while parsing an object at column 12"),
            ("net.onnx", "found no JSON: expected ident at column 2"),
        ] {
            let error = serde_json::from_str::<Entry>(line).expect_err(line);
            let said = explained(line, &error);
            assert!(said.contains(expected), "{line}: {said}");
            assert!(!said.contains("struct") && !said.contains("line 1"), "{line}: {said}");
        }
    }
}
