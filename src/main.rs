//! The `tallyroll` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    tallyroll::cli::main()
}
