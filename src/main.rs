//! The `tans` command: parses arguments, calls the library, turns errors into exit codes.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
