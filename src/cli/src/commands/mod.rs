//! One file per command. Commands are thin; the work is done in other crates.

mod clean;
mod completions;
mod convert;
mod convert_config;
mod ctl;
mod distributed_config;
mod doctor;
mod float_config;
mod imagine;
mod init;
mod inspect;
mod mel_file;
mod next;
mod parity;
mod parts;
mod pmg_config;
mod recipe;
mod reference;
mod report;
mod run;
mod run_part;
mod speak;
mod status;
mod synth;
mod talk;
mod train;
mod version;
mod vocoder;

use std::io::Write;

use crate::args::Command;
use crate::failure::Failure;

/// Runs a command.
///
/// # Errors
/// Returns the error of the command; see [`Failure`] for the exit codes.
pub fn run(command: &Command, out: &mut dyn Write) -> Result<(), Failure> {
    match command {
        Command::Run(arguments) => run::run(arguments),
        Command::Init(arguments) => init::run(arguments, out),
        Command::RunPart(arguments) => run_part::run(arguments),
        Command::Parts(arguments) => parts::run(arguments, out),
        Command::Train(arguments) => train::run(arguments, out),
        Command::Ctl(arguments) => ctl::run(arguments, out),
        Command::Report(arguments) => report::run(arguments, out),
        Command::Status(arguments) => status::run(arguments, out),
        Command::Recipe(command) => recipe::run(command, out),
        Command::Reference(arguments) => reference::run(arguments, out),
        Command::Inspect(arguments) => inspect::run(arguments, out),
        Command::Clean(arguments) => clean::run(arguments, out),
        Command::Convert(arguments) => convert::run(arguments, out),
        Command::ConvertConfig(arguments) => convert_config::run(arguments, out),
        Command::Doctor(arguments) => doctor::run(arguments, out),
        Command::Completions(arguments) => completions::run(arguments, out),
        Command::Parity(arguments) => parity::run(arguments, out),
        Command::Synth(arguments) => synth::run(arguments, out),
        Command::Speak(arguments) => speak::run(arguments, out),
        Command::Talk(arguments) => talk::run(arguments, out),
        Command::Imagine(arguments) => imagine::run(arguments, out),
        Command::Version => version::run(out),
    }
}
