//! `flowmill`: parses what was typed, calls the crate that does it, reports what came back.
//!
//! Nothing is computed here. What can be typed is in [`args`], each command in a file of its own under [`commands`],
//! the stages that exist in [`stages`].

mod args;
mod commands;
mod doctor;
mod experiment;
mod failure;
mod human;
mod inspect;
mod logging;
mod reference;
mod report;
mod stages;
mod style;
mod table;

use std::process::ExitCode;

use clap::Parser;

use args::Cli;

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
