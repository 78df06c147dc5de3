//! The command line: one file per command, over the public API of the library.

mod backup;
mod check;
mod cut;
mod edit;
mod encode;
mod evaluate;
mod explain;
mod export;
mod filter;
mod finetune;
mod gc;
mod grow;
mod ingest;
mod init;
mod list;
mod measure;
mod output;
mod query;
mod record;
mod reindex;
mod remove;
mod restore;
mod sample;
mod show;
mod stats;
mod task;
mod train;
mod units;

use anyhow::Result;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use output::Output;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tans::{Database, Device, ErrorKind, OpenOptions};

/// An embedded model-zoo database: which stored network should I fine-tune on my dataset?
///
/// DATASET is an image folder with one subfolder per class, an .npz with arrays x and y, an .npy pair, an IDX pair,
/// feature rows made by `tans encode`, or task:NAME for a stored task.
#[derive(Parser)]
#[command(name = "tans", version, max_term_width = 100)]
struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Args)]
struct Global {
    /// Print one JSON object per line on standard output, and nothing else there
    #[arg(long, global = true)]
    json: bool,
    /// Print no hints, timings or progress on standard error
    #[arg(long, short, global = true)]
    quiet: bool,
    /// Where networks run: auto, cpu or cuda:N
    #[arg(long, global = true, default_value = "auto", value_name = "DEVICE")]
    device: Device,
    /// Threads of every computation; default: all cores
    #[arg(long, global = true, value_name = "N", value_parser = units::whole_from::<usize>(1))]
    threads: Option<usize>,
    /// The lib folder of an installed PyTorch 2.11.0, for its CUDA part
    #[arg(long, global = true, value_name = "DIR")]
    torch_lib: Option<PathBuf>,
    /// Wait this long, such as 10m, for another writer to end
    #[arg(
        long,
        global = true,
        value_name = "TIME",
        value_parser = units::duration,
        default_value = "0"
    )]
    wait: Duration,
    /// Log warnings and more (-vv) on standard error
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Subcommand)]
enum Command {
    Init(init::Init),
    Ingest(ingest::Ingest),
    #[command(subcommand)]
    Task(task::Task),
    Record(record::Record),
    Edit(edit::Edit),
    Query(query::Query),
    Explain(explain::Explain),
    Encode(encode::Encode),
    Train(train::Train),
    Reindex(reindex::Reindex),
    Measure(measure::Measure),
    Finetune(finetune::Finetune),
    Cut(cut::Cut),
    Grow(grow::Grow),
    Evaluate(evaluate::Evaluate),
    List(list::List),
    Show(show::Show),
    Export(export::Export),
    Remove(remove::Remove),
    Check(check::Check),
    Gc(gc::Gc),
    Backup(backup::Backup),
    Restore(restore::Restore),
    Stats(stats::Stats),
}

impl Command {
    /// Whether what it prints is all that it does.
    fn only_tells(&self) -> bool {
        matches!(
            self,
            Self::Query(_)
                | Self::Explain(_)
                | Self::Evaluate(_)
                | Self::List(_)
                | Self::Show(_)
                | Self::Check(_)
                | Self::Stats(_)
        )
    }
}

/// What every command gets.
struct Context {
    output: Output,
    options: OpenOptions,
}

impl Context {
    fn options(&self, read_only: bool) -> OpenOptions {
        OpenOptions { read_only, ..self.options.clone() }
    }

    /// Opens a zoo beside a writer, if there is one.
    fn read(&self, zoo: &Path) -> Result<Database> {
        Ok(Database::open(zoo, self.options(true))?)
    }

    /// Moves what is fresh into the index. What was written is stored all the same, and answers from where it is.
    fn merge(&self, zoo: &Database) -> Result<()> {
        match zoo.merge(&mut self.output.progress()) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::Cancelled => Err(error.into()),
            Err(error) => {
                self.output.note(&format!("the index could not be merged: {error}"));
                Ok(())
            }
        }
    }

    /// Opens a zoo as its one writer.
    fn write(&self, zoo: &Path) -> Result<Database> {
        Ok(Database::open(zoo, self.options(false))?)
    }
}

/// `Ok(false)`: the answer is no.
fn run(command: &Command, context: &Context) -> Result<bool> {
    match command {
        Command::Init(command) => command.run(context),
        Command::Ingest(command) => command.run(context),
        Command::Task(command) => command.run(context),
        Command::Record(command) => command.run(context),
        Command::Edit(command) => command.run(context),
        Command::Query(command) => command.run(context),
        Command::Explain(command) => command.run(context),
        Command::Encode(command) => command.run(context),
        Command::Train(command) => command.run(context),
        Command::Reindex(command) => command.run(context),
        Command::Measure(command) => command.run(context),
        Command::Finetune(command) => command.run(context),
        Command::Cut(command) => command.run(context),
        Command::Grow(command) => command.run(context),
        Command::Evaluate(command) => command.run(context),
        Command::List(command) => command.run(context),
        Command::Show(command) => command.run(context),
        Command::Export(command) => command.run(context),
        Command::Remove(command) => command.run(context),
        Command::Check(command) => command.run(context),
        Command::Gc(command) => command.run(context),
        Command::Backup(command) => command.run(context),
        Command::Restore(command) => command.run(context),
        Command::Stats(command) => command.run(context),
    }
}

/// Parses, runs and maps the outcome to an exit code: 0 done, 1 the answer is no, 2 bad usage or input, 3 the zoo or
/// disk failed.
pub fn main() -> ExitCode {
    // A number below zero is a wrong number, to be refused as such, and no unknown flag.
    let command = Arguments::command().mut_subcommands(|it| it.allow_negative_numbers(true));
    let matches = command.try_get_matches();
    let arguments = match matches.and_then(|found| Arguments::from_arg_matches(&found)) {
        Ok(arguments) => arguments,
        Err(error) => {
            output::complain_of_usage(&error);
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let Global { json, quiet, device, threads, torch_lib, wait, verbose } = arguments.global;
    output::log(verbose);
    let cache_dir = tans::user_cache_dir(|name| std::env::var_os(name));
    let options = OpenOptions {
        read_only: true,
        cache_dir,
        wait,
        device,
        threads,
        torch_lib,
        ..OpenOptions::default()
    };
    let context = Context { output: Output::new(json, quiet), options };
    match run(&arguments.command, &context) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        // Nobody wants to read more, which is fine where reading is all there is.
        Err(error) if is_broken_pipe(&error) && arguments.command.only_tells() => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&error);
            ExitCode::from(exit_code(&error))
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

fn exit_code(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<tans::Error>().map(tans::Error::kind) {
        Some(ErrorKind::Refused) => 1,
        Some(ErrorKind::Input | ErrorKind::Cancelled) => 2,
        // What is no error of the library is one of printing.
        Some(ErrorKind::Locked | ErrorKind::Damaged | ErrorKind::Failed) | None => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// clap looks for this in debug builds only, and gives the one value to the other field.
    #[test]
    fn no_command_has_two_arguments_of_one_name() {
        let mut arguments = Arguments::command();
        arguments.build();
        let mut commands = vec![&arguments];
        while let Some(command) = commands.pop() {
            commands.extend(command.get_subcommands());
            let mut seen = BTreeSet::new();
            for argument in command.get_arguments() {
                let id = argument.get_id().as_str();
                assert!(seen.insert(id), "tans {}: two arguments {id}", command.get_name());
            }
        }
    }
}
