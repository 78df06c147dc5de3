//! Tables, JSON lines, hints and progress: the only place that prints.

use anyhow::Result;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use indicatif::{HumanDuration, ProgressBar, ProgressState, ProgressStyle};
use serde::Serialize;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};
use tans::{ErrorKind, Progress};

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
        Ok(writeln!(std::io::stdout().lock(), "{}", plain(text))?)
    }

    /// One JSON object.
    pub fn object(&self, value: &impl Serialize) -> Result<()> {
        Ok(writeln!(std::io::stdout().lock(), "{}", serde_json::to_string(value)?)?)
    }

    /// What became of the model or task (`what`) of that name, and what else goes with it.
    pub fn changed(&self, what: &str, name: &str, (status, rest): (&str, &str)) -> Result<()> {
        if self.json {
            return self.object(&BTreeMap::from([(what, name), ("status", status)]));
        }
        self.line(&format!("{status} {name}{rest}"))
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
            let _ = writeln!(std::io::stderr().lock(), "{}", plain(text));
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

    /// Draws progress on standard error when that is a terminal; elsewhere a long job says now and then where it is.
    pub fn progress(&self) -> impl FnMut(Progress) -> ControlFlow<()> + use<> {
        let shown = !self.quiet && std::io::stderr().is_terminal();
        let bar = if shown { ProgressBar::new(0) } else { ProgressBar::hidden() };
        bar.set_style(style(false));
        let (quiet, mut said) = (self.quiet || shown, Instant::now());
        let mut is_counted = false;
        let clear = ClearOnDrop(bar);
        move |progress: Progress| {
            let bar = &clear.0;
            if is_counted != (progress.total > 0) {
                is_counted = progress.total > 0;
                bar.set_style(style(is_counted));
            }
            bar.set_length(progress.total as u64);
            bar.set_position(progress.done as u64);
            bar.set_prefix(progress.step);
            bar.set_message(plain(&progress.item).into_owned());
            if !quiet && said.elapsed() >= REMARK_INTERVAL {
                said = Instant::now();
                remark(&progress);
            }
            ControlFlow::Continue(())
        }
    }
}

/// Between two lines of progress where no bar can be drawn.
const REMARK_INTERVAL: Duration = Duration::from_secs(30);

fn remark(Progress { step, item, done, total }: &Progress) {
    let stand = if *total > 0 { format!(" {done}/{total}") } else { String::new() };
    // A closed standard error is no reason to fail.
    let _ = writeln!(std::io::stderr().lock(), "{step}{stand} {}", plain(item));
}

/// A bar where it is known how much there is to do.
fn style(is_counted: bool) -> ProgressStyle {
    let template =
        if is_counted { "{prefix} {bar:30} {stand} {wide_msg}" } else { "{prefix} {wide_msg}" };
    let style = ProgressStyle::with_template(template);
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    style.with_key("stand", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        let total = state.len().unwrap_or_default();
        let text = stand((state.pos(), total), state.per_sec(), state.eta());
        // A bar that cannot be drawn is no reason to fail.
        let _ = out.write_str(&text);
    })
}

/// How far a job is; nothing is said of its speed before there is one.
fn stand((done, total): (u64, u64), per_second: f64, left: Duration) -> String {
    let mut text = format!("{done}/{total}");
    if done == 0 || done >= total || !per_second.is_finite() {
        return text;
    }
    if per_second >= 1.0 {
        text += &format!(" {per_second:.0}/s");
    }
    text + &format!(" {:#} left", HumanDuration(left))
}

struct ClearOnDrop(ProgressBar);

impl Drop for ClearOnDrop {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Prints an error; the message of each of our errors names its cause already.
pub fn complain(error: &anyhow::Error) {
    let is_locked = error.downcast_ref().map(tans::Error::kind) == Some(ErrorKind::Locked);
    let hint = if is_locked { " (`--wait 10m` waits)" } else { "" };
    let text = error.to_string();
    let _ = writeln!(std::io::stderr().lock(), "tans: {}{hint}", plain(&text));
}

/// Prints what is wrong with the arguments, or the help that was asked for.
pub fn complain_of_usage(error: &clap::Error) {
    let text = error.render().to_string();
    // Help and version arrive here as well. A closed pipe is no failure.
    let _ = match plain(&text) {
        Cow::Borrowed(_) => error.print(),
        Cow::Owned(text) => write!(std::io::stderr().lock(), "{text}"),
    };
}

/// A text without control characters, which names and messages from files may carry to the terminal; lines stay lines.
fn plain(text: &str) -> Cow<'_, str> {
    let is_odd = |letter: char| letter.is_control() && letter != '\n';
    if !text.contains(is_odd) {
        return Cow::Borrowed(text);
    }
    let escaped = |letter: char| match is_odd(letter) {
        true => letter.escape_default().to_string(),
        false => letter.to_string(),
    };
    Cow::Owned(text.chars().map(escaped).collect())
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

#[cfg(test)]
mod tests {
    use super::{plain, stand};
    use std::time::Duration;

    #[test]
    fn a_speed_is_told_once_there_is_one() {
        let left = Duration::from_secs(45);
        assert_eq!(stand((0, 8), 0.0, Duration::ZERO), "0/8");
        assert_eq!(stand((3, 8), 0.0249, left), "3/8 45s left");
        assert_eq!(stand((3, 8), 12.0249, left), "3/8 12/s 45s left");
        assert_eq!(stand((8, 8), 12.0, Duration::ZERO), "8/8");
    }

    #[test]
    fn control_characters_are_shown_and_lines_stay() {
        assert_eq!(plain("two\nlines: ünïcode"), "two\nlines: ünïcode");
        assert_eq!(plain("\u{1b}[31mred\r\u{7}\u{9b}"), "\\u{1b}[31mred\\r\\u{7}\\u{9b}");
    }
}
