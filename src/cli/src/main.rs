//! `flowmill`: parses the command line, calls the crate that does the work, and reports the result.
//!
//! Nothing is computed here. The command line is in [`args`], each command in its own file in [`commands`], and the
//! list of stages in [`stages`].

mod args;
mod commands;
mod doctor;
mod experiment;
mod failure;
mod human;
mod inspect;
mod logging;
mod ranks;
mod reference;
mod report;
mod stages;
mod style;
mod table;

use std::process::ExitCode;

use clap::Parser;

use args::Cli;
use flowmill_nn::HugePages;

/// Tensors lie on huge pages.
#[global_allocator]
static ALLOCATOR: HugePages = HugePages;

fn main() -> ExitCode {
    let cli = Cli::parse();
    logging::begin(cli.verbose);
    match commands::run(&cli.command, &mut anstream::stdout()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report();
            ExitCode::from(failure.exit_code())
        }
    }
}
