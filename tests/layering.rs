//! Holds the layers of ARCHITECTURE.md by reading the sources as text: who may use whom, which file speaks which
//! foreign library, where unsafe code may stand, that nothing but the command line prints, and the sizes.

use std::fs;
use std::path::Path;

/// Modules of the engine, each with the modules and crates of ours that it may use besides itself. `root` stands for
/// names re-exported by lib.rs; `sample` and `rows` are vocabulary and free to all.
const LAYERS: [(&str, &[&str]); 14] = [
    ("storage", &[]),
    ("index", &[]),
    ("graph", &[]),
    ("data", &[]),
    ("encoder", &["graph"]),
    ("train", &["encoder"]),
    ("state", ENGINE),
    ("steps", ENGINE),
    ("ops", ENGINE),
    (
        "db",
        &[
            "ops", "steps", "state", "root", "error", "options", "progress", "train", "encoder",
            "graph", "data", "upkeep",
        ],
    ),
    ("upkeep", &["ops", "state", "storage", "root", "error"]),
    ("error", &["graph", "data", "encoder", "train", "storage", "index"]),
    ("options", &["graph", "data", "encoder", "train", "root"]),
    ("progress", &["root", "error"]),
];

/// What the engine's inner layers may use. `steps` is left out for `state` and `ops` for all, see `may_use`.
const ENGINE: &[&str] = &[
    "steps", "state", "train", "encoder", "graph", "data", "storage", "index", "root", "error",
    "options", "progress",
];

/// Foreign libraries with the only paths (files, or folders with a final slash) that may name them.
const FOREIGN: [(&str, &[&str]); 8] = [
    ("rocksdb", &["storage/src/rocks.rs"]),
    ("hnsw_rs", &["index/src/builder.rs"]),
    ("bincode", &["storage/src/codec.rs"]),
    ("tch", &["src/graph/exec/", "src/encoder/", "src/train/"]),
    ("clap", &["src/cli/", "src/main.rs"]),
    ("anyhow", &["src/cli/", "src/main.rs"]),
    ("indicatif", &["src/cli/", "src/main.rs"]),
    ("comfy_table", &["src/cli/", "src/main.rs"]),
];

const UNSAFE: [&str; 6] = [
    "storage/src/map.rs",
    "index/src/map.rs",
    "index/src/simd.rs",
    "src/graph/exec/device.rs",
    "bindings/c/",
    "benches/peers/src/hannoy_peer.rs",
];
const PRINTING: [&str; 4] = ["src/cli/", "src/main.rs", "bindings/", "benches/"];
const FUNCTION_LINES: usize = 70;
const FILE_LINES: usize = 800;

#[test]
fn sources_keep_to_their_layers() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["src", "storage/src", "index/src", "bindings", "benches"] {
        collect(root, folder, &mut files);
    }
    assert!(files.len() > 20, "expected the sources of tans, found {} files", files.len());
    let faults: Vec<String> = files.iter().flat_map(|(path, text)| check(path, text)).collect();
    assert!(faults.is_empty(), "layers of ARCHITECTURE.md are broken:\n{}", faults.join("\n"));
}

/// Tests look at a zoo through the library; the decoder of docs/FORMAT.md alone opens the database by itself, and
/// nothing decodes records as the library does.
#[test]
fn tests_name_no_store() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["tests", "storage/tests", "index/tests"] {
        collect(root, folder, &mut files);
    }
    let names =
        |text: &str, library: &str| words(&without_comments(text)).any(|(_, word)| word == library);
    let found: Vec<(&str, &str)> = files
        .iter()
        .flat_map(|(path, text)| ["rocksdb", "bincode"].map(|library| (path, text, library)))
        .filter(|(_, text, library)| names(text, library))
        .map(|(path, _, library)| (path.as_str(), library))
        .collect();
    assert_eq!(found, [("tests/format/zoo.rs", "rocksdb")]);
}

fn collect(root: &Path, folder: &str, files: &mut Vec<(String, String)>) {
    let Ok(entries) = fs::read_dir(root.join(folder)) else { return };
    for entry in entries {
        let entry = entry.expect("a readable source folder");
        let name = entry.file_name().into_string().expect("source names are plain");
        let path = format!("{folder}/{name}");
        if entry.path().is_dir() && !name.starts_with('.') && name != "target" {
            collect(root, &path, files);
        } else if name.ends_with(".rs") && !name.contains("tests.rs") {
            files.push((path, fs::read_to_string(entry.path()).expect("sources are text")));
        }
    }
}

/// Every broken rule of one file, as lines that begin with its path.
fn check(path: &str, text: &str) -> Vec<String> {
    let code = without_tests(&without_comments(text));
    let mut faults = Vec::new();
    check_layers(path, &code, &mut faults);
    check_operations(path, &code, &mut faults);
    for (library, allowed) in FOREIGN {
        let named = paths_after(&code, library).next().is_some() || uses_bare(&code, library);
        if named && !within(path, allowed) {
            faults.push(format!("{path}: {library} may be named in {allowed:?} only"));
        }
    }
    if words(&code).any(|(_, word)| word == "unsafe") && !within(path, &UNSAFE) {
        faults.push(format!("{path}: unsafe code is allowed in {UNSAFE:?} only"));
    }
    for name in ["println", "print", "eprintln", "eprint", "dbg"] {
        let calls =
            words(&code).any(|(at, word)| word == name && code[at + name.len()..].starts_with('!'));
        // Build scripts speak to cargo on stdout.
        if calls && !within(path, &PRINTING) && !path.ends_with("build.rs") {
            faults.push(format!("{path}: {name}! is for the command line only"));
        }
    }
    check_sizes(path, text, &code, &mut faults);
    faults
}

/// The layer of a file: `ops` for src/ops/query.rs, `storage` for storage/src/x.rs, nothing for what sees all.
fn layer(path: &str) -> Option<&str> {
    let mut parts = path.split('/');
    let top = parts.next()?;
    if top != "src" {
        return Some(top);
    }
    match parts.next()? {
        "lib.rs" => None,
        "main.rs" => Some("cli"),
        name => Some(name.trim_end_matches(".rs")),
    }
}

fn may_use(from: &str, to: &str) -> bool {
    if from == to || matches!(to, "sample" | "rows") {
        return true;
    }
    if from == "state" && to == "steps" {
        return false;
    }
    LAYERS.iter().find(|(name, _)| *name == from).is_some_and(|(_, allowed)| allowed.contains(&to))
}

fn check_layers(path: &str, code: &str, faults: &mut Vec<String>) {
    let Some(from) = layer(path) else { return };
    let mut used: Vec<String> = Vec::new();
    for crate_name in ["storage", "index"] {
        let own = format!("tans_{crate_name}");
        if words(code).any(|(_, word)| word == own) {
            used.push(crate_name.to_owned());
        }
    }
    let engine = path.starts_with("src/");
    // Inside storage and index, and in the binary, `crate` is their own crate.
    if engine && from != "cli" {
        used.extend(paths_after(code, "crate").map(|name| target(&name).to_owned()));
    }
    used.sort();
    used.dedup();
    for to in used {
        let outside = matches!(from, "cli" | "bindings" | "benches");
        let allowed = if outside { from == "benches" && to == "index" } else { may_use(from, &to) };
        if !allowed {
            faults.push(format!("{path}: {from} may not use {to}"));
        }
    }
}

/// What `crate::NAME` stands for: a module of LAYERS, vocabulary, or a name of lib.rs.
fn target(name: &str) -> &str {
    let module = LAYERS.iter().any(|(layer, _)| *layer == name);
    if module || matches!(name, "sample" | "rows") { name } else { "root" }
}

/// An operation uses steps, never another operation's file.
fn check_operations(path: &str, code: &str, faults: &mut Vec<String>) {
    let Some(rest) = path.strip_prefix("src/ops/") else { return };
    let own = rest.split(['/', '.']).next().unwrap_or_default();
    if own == "mod" {
        return;
    }
    let mut used: Vec<String> = paths_after(code, "ops").collect();
    // In src/ops/query.rs `super` is ops itself; deeper files belong to one operation.
    if !rest.contains('/') {
        used.extend(paths_after(code, "super"));
    }
    for name in
        used.iter().filter(|name| *name != own && name.starts_with(|c: char| c.is_lowercase()))
    {
        faults.push(format!(
            "{path}: an operation may not use the operation {name}; move what they share to steps"
        ));
    }
}

fn check_sizes(path: &str, text: &str, code: &str, faults: &mut Vec<String>) {
    let lines = text.lines().count();
    if lines > FILE_LINES {
        faults.push(format!("{path}: expected at most {FILE_LINES} lines, found {lines}"));
    }
    for (at, word) in words(code).filter(|(_, word)| *word == "fn") {
        let after = &code[at + word.len()..];
        let name: String = after.trim_start().chars().take_while(|c| is_word(*c)).collect();
        // A signature ends at its body or, without one, at a semicolon outside of brackets such as [f32; 3].
        let Some(open) = body_start(after) else { continue };
        let body = &after[open..];
        let length = after[..open + block_end(body)].lines().count();
        if !name.is_empty() && length > FUNCTION_LINES {
            faults.push(format!(
                "{path}: expected at most {FUNCTION_LINES} lines in {name}, found {length}"
            ));
        }
    }
}

fn body_start(signature: &str) -> Option<usize> {
    let mut depth = 0usize;
    for (at, c) in signature.char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth = depth.saturating_sub(1),
            '{' if depth == 0 => return Some(at),
            ';' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

/// Offset just after the bracket that closes the block at the start of `text`.
fn block_end(text: &str) -> usize {
    let mut depth = 0usize;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth <= 1 => return at + 1,
            '}' => depth -= 1,
            _ => {}
        }
    }
    text.len()
}

fn within(path: &str, allowed: &[&str]) -> bool {
    allowed.iter().any(|place| path == *place || (place.ends_with('/') && path.starts_with(place)))
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Identifiers and keywords with their offsets.
fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    code.split(|c| !is_word(c))
        .filter(|word| !word.is_empty())
        .map(|word| (word.as_ptr() as usize - code.as_ptr() as usize, word))
}

/// First segments after `head::`, those in braces as well: `crate::{graph, data::open}` gives graph and data.
fn paths_after<'a>(code: &'a str, head: &'a str) -> impl Iterator<Item = String> + 'a {
    words(code).filter(move |(_, word)| *word == head).flat_map(move |(at, _)| {
        let Some(rest) = code[at + head.len()..].trim_start().strip_prefix("::") else {
            return Vec::new();
        };
        match rest.trim_start().strip_prefix('{') {
            Some(group) => first_segments(group),
            None => vec![rest.trim_start().chars().take_while(|c| is_word(*c)).collect()],
        }
    })
}

/// First segment of each item of a brace group whose opening bracket was read.
fn first_segments(group: &str) -> Vec<String> {
    let (mut depth, mut item, mut found) = (0usize, String::new(), Vec::new());
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => found.push(std::mem::take(&mut item)),
            _ if depth == 0 => item.push(c),
            _ => {}
        }
    }
    found.push(item);
    let first = |item: &String| item.trim().chars().take_while(|c| is_word(*c)).collect::<String>();
    found.iter().map(first).filter(|name| !name.is_empty()).collect()
}

/// `use tch;` and `use tch as torch;`
fn uses_bare(code: &str, library: &str) -> bool {
    let list: Vec<&str> = words(code).map(|(_, word)| word).collect();
    list.windows(2).any(|pair| pair == ["use", library])
}

/// Blanks comments and the contents of strings and characters; lines stay where they are.
fn without_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let after_word = out.chars().next_back().is_some_and(is_word);
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            comment_end(rest)
        } else if c == '"' || (!after_word && is_raw_string(rest)) {
            string_end(rest)
        } else if c == '\'' {
            character_end(rest)
        } else {
            0
        };
        if skipped == 0 {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        } else {
            out.push(' ');
            out.extend(rest[..skipped].chars().filter(|c| *c == '\n'));
            rest = &rest[skipped..];
        }
    }
    out
}

/// Block comments nest.
fn comment_end(text: &str) -> usize {
    let (mut depth, mut at) = (0usize, 0);
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

fn is_raw_string(text: &str) -> bool {
    let text = text.strip_prefix('b').unwrap_or(text);
    text.strip_prefix('r').is_some_and(|rest| rest.trim_start_matches('#').starts_with('"'))
}

fn string_end(text: &str) -> usize {
    if text.starts_with('"') {
        let mut escaped = false;
        for (at, c) in text.char_indices().skip(1) {
            match c {
                '"' if !escaped => return at + 1,
                '\\' => escaped = !escaped,
                _ => escaped = false,
            }
        }
        return text.len();
    }
    let quote = text.find('"').unwrap_or(0);
    let hashes = text[..quote].matches('#').count();
    let close = format!("\"{}", "#".repeat(hashes));
    text[quote + 1..].find(&close).map_or(text.len(), |at| quote + 1 + at + close.len())
}

/// 0 for a lifetime.
fn character_end(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => text[3..].find('\'').map_or(0, |at| at + 4),
        Some(_) => chars.next().filter(|(_, c)| *c == '\'').map_or(0, |(at, _)| at + 1),
        None => 0,
    }
}

/// Drops `#[cfg(test)]` items that have a block; line counts of other items stay right.
fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut out = String::new();
    let mut rest = code;
    while let Some(at) = rest.find(MARK) {
        out.push_str(&rest[..at]);
        let item = &rest[at + MARK.len()..];
        rest = match body_start(item) {
            Some(open) => &item[open + block_end(&item[open..])..],
            None => item.find(';').map_or("", |end| &item[end + 1..]),
        };
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod rules {
    use super::check;

    fn faults(path: &str, text: &str) -> String {
        check(path, text).join("; ")
    }

    #[test]
    fn each_forbidden_use_is_found() {
        let cases = [
            ("src/graph/mod.rs", "use crate::encoder::Signature;", "graph may not use encoder"),
            ("src/encoder/mod.rs", "fn f() { crate::train::fit() }", "encoder may not use train"),
            (
                "src/train/mod.rs",
                "use crate::{rows::Rows, data::{open, Error}};",
                "train may not use data",
            ),
            ("src/data/mod.rs", "use tans_storage::Store;", "data may not use storage"),
            ("src/train/mod.rs", "use crate::Error;", "train may not use root"),
            ("src/steps/fit.rs", "use crate::ops::train;", "steps may not use ops"),
            ("src/state.rs", "use crate::steps::search;", "state may not use steps"),
            ("src/cli/query.rs", "use tans_index::Filter;", "cli may not use index"),
            ("storage/src/store.rs", "use tans_index::Filter;", "storage may not use index"),
            (
                "bindings/python/src/lib.rs",
                "use tans_storage::Store;",
                "bindings may not use storage",
            ),
            ("src/ops/query.rs", "use super::train::run;", "may not use the operation train"),
            (
                "src/ops/query.rs",
                "use crate::ops::{train, query};",
                "may not use the operation train",
            ),
        ];
        for (path, text, expected) in cases {
            assert!(
                faults(path, text).contains(expected),
                "{path} `{text}`: {}",
                faults(path, text)
            );
        }
    }

    #[test]
    fn each_foreign_word_is_found() {
        let cases = [
            ("storage/src/store.rs", "use rocksdb::DB;", "rocksdb"),
            ("index/src/search.rs", "use hnsw_rs::prelude::Hnsw;", "hnsw_rs"),
            ("storage/src/keys.rs", "let x = bincode::serde::encode();", "bincode"),
            ("src/steps/fit.rs", "use tch;", "tch"),
            ("src/ops/query.rs", "#[derive(clap::Args)] struct A;", "clap"),
            ("src/ops/query.rs", "fn f() -> anyhow::Result<()> { g() }", "anyhow"),
            ("src/steps/fit.rs", "fn f() { unsafe { g() } }", "unsafe"),
            ("src/steps/fit.rs", "fn f() { println!(\"x\") }", "println"),
            ("index/src/builder.rs", "fn f() { eprintln!(\"x\") }", "eprintln"),
        ];
        for (path, text, expected) in cases {
            assert!(
                faults(path, text).contains(expected),
                "{path} `{text}`: {}",
                faults(path, text)
            );
        }
    }

    #[test]
    fn long_functions_and_files_are_found() {
        let long = format!("fn f(x: [f32; 3]) -> u8 {{\n{}}}\n", "    g();\n".repeat(70));
        assert!(
            faults("src/db.rs", &long).contains("lines in f, found 72"),
            "{}",
            faults("src/db.rs", &long)
        );
        assert!(faults("src/db.rs", &"\n".repeat(801)).contains("found 801"));
    }

    #[test]
    fn allowed_uses_comments_strings_and_tests_pass() {
        let clean = [
            (
                "src/ops/query.rs",
                "use crate::steps::search; use tans_index::Filter; use crate::{Error, rows::Rows};",
            ),
            ("src/encoder/ridge.rs", "use crate::{graph::Graph, sample::Image}; use tch::Tensor;"),
            (
                "src/graph/mod.rs",
                "// println!\n/* unsafe /* rocksdb:: */ crate::ops */ fn f<'a>(x: &'a str) {}",
            ),
            (
                "src/graph/mod.rs",
                "const A: &str = \"unsafe \\\" crate::ops\"; const B: char = '\"'; // \"",
            ),
            (
                "src/graph/mod.rs",
                "const A: &str = r#\"unsafe \" println!\"#; const B: char = '\\'';",
            ),
            (
                "src/graph/mod.rs",
                "#[cfg(test)]\nmod tests { use crate::ops::query; fn f() { println!() } }",
            ),
            ("src/cli/output.rs", "use tans::Database; fn f() { println!(\"x\") }"),
            ("index/src/simd.rs", "unsafe fn f() {}"),
            ("storage/src/keys.rs", "use crate::records::ModelRecord;"),
        ];
        for (path, text) in clean {
            assert_eq!(faults(path, text), "", "{path} `{text}`");
        }
    }
}
