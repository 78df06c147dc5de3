//! Tables, JSON lines, hints and progress: the only place that prints.

use anyhow::Result;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::ops::ControlFlow;
use tans::Progress;

/// Where results and remarks go.
pub struct Output {
    /// One JSON object per line instead of tables.
    pub json: bool,
    quiet: bool,
}

impl Output {
    pub fn new(json: bool, quiet: bool) -> Self {
        Self { json, quiet }
    }

    /// A line of results.
    pub fn line(&self, text: &str) -> Result<()> {
        Ok(writeln!(std::io::stdout().lock(), "{text}")?)
    }

    /// One JSON object.
    pub fn object(&self, value: &impl Serialize) -> Result<()> {
        self.line(&serde_json::to_string(value)?)
    }

    /// With `--json`, what became of the model or task of that name; there is nothing else to say.
    pub fn changed(&self, what: &str, name: &str, status: &str) -> Result<()> {
        if !self.json {
            return Ok(());
        }
        self.object(&BTreeMap::from([(what, name), ("status", status)]))
    }

    /// A table; columns whose header starts with `>` are aligned to the right.
    pub fn table(&self, header: &[&str], rows: Vec<Vec<String>>) -> Result<()> {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(header.iter().map(|name| name.trim_start_matches('>')));
        table.add_rows(rows);
        for (column, name) in table.column_iter_mut().zip(header) {
            column.set_padding((0, 2));
            if name.starts_with('>') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
        self.line(&lines.join("\n"))
    }

    /// A remark on standard error.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            // A closed standard error is no reason to fail.
            let _ = writeln!(std::io::stderr().lock(), "{text}");
        }
    }

    /// Says how many images were left out, and why the first was.
    pub fn skipped(&self, skipped: &[(String, String)]) {
        for (file, reason) in skipped.iter().take(5) {
            self.note(&format!("skipped {file}: {reason}"));
        }
        if !skipped.is_empty() {
            self.note(&format!("unreadable images skipped in all: {}", skipped.len()));
        }
    }

    /// Draws progress on standard error when that is a terminal.
    pub fn progress(&self) -> impl FnMut(Progress) -> ControlFlow<()> + use<> {
        let shown = !self.quiet && std::io::stderr().is_terminal();
        let bar = if shown { ProgressBar::new(0) } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template(
            "{prefix} {bar:30} {pos}/{len} {per_sec} {eta} left {wide_msg}",
        ) {
            bar.set_style(style);
        }
        let clear = ClearOnDrop(bar);
        move |progress: Progress| {
            let bar = &clear.0;
            bar.set_prefix(progress.step);
            bar.set_length(progress.total as u64);
            bar.set_position(progress.done as u64);
            bar.set_message(progress.item);
            ControlFlow::Continue(())
        }
    }
}

struct ClearOnDrop(ProgressBar);

impl Drop for ClearOnDrop {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Prints an error; the message of each of our errors names its cause already.
pub fn complain(error: &anyhow::Error) {
    let _ = writeln!(std::io::stderr().lock(), "tans: {error}");
}

/// Sends the library's log to standard error.
pub fn log(verbose: u8) {
    let level = match verbose {
        0 => tracing::Level::ERROR,
        1 => tracing::Level::WARN,
        2 => tracing::Level::INFO,
        _ => tracing::Level::DEBUG,
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .without_time()
        .init();
}
