//! Runs the real binary.

use serde_json::Value;
use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};

/// What a command said.
#[derive(Debug)]
pub struct Answer {
    /// Exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// The binary, ready to run with `folder` as its current directory.
///
/// Tests share a feature cache of their own: the backbone takes a second or two for each dataset.
pub fn command(folder: &Path, arguments: &[impl AsRef<OsStr>]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tans"));
    command.args(arguments).current_dir(folder);
    command.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs `tans LINE` in `folder`; the line is split at spaces.
pub fn tans(folder: &Path, line: &str) -> Answer {
    let arguments: Vec<&str> = line.split_whitespace().collect();
    let output = command(folder, &arguments).output().expect("the binary starts");
    Answer {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).expect("standard output is text"),
        err: String::from_utf8(output.stderr).expect("standard error is text"),
    }
}

/// Runs `tans LINE`, which must succeed.
pub fn done(folder: &Path, line: &str) -> Answer {
    let answer = tans(folder, line);
    assert_eq!(answer.code, Some(0), "tans {line}: {}{}", answer.out, answer.err);
    answer
}

/// The lines of standard output, each of which must be a JSON object.
pub fn objects(text: &str) -> Vec<Value> {
    let objects: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}")))
        .collect();
    assert!(objects.iter().all(Value::is_object), "expected objects, found {text}");
    objects
}
