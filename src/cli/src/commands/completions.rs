//! `flowmill completions SHELL`: prints a completion script.

use std::io::Write;

use clap::CommandFactory;
use clap_complete::shells;

use crate::args::{Cli, CompletionsArgs, Shell};
use crate::failure::Failure;

/// Prints the script for the shell.
pub fn run(arguments: &CompletionsArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let mut script = Vec::new();
    let mut command = Cli::command();
    let name = command.get_name().to_string();
    match arguments.shell {
        Shell::Bash => clap_complete::generate(shells::Bash, &mut command, name, &mut script),
        Shell::Zsh => clap_complete::generate(shells::Zsh, &mut command, name, &mut script),
        Shell::Fish => clap_complete::generate(shells::Fish, &mut command, name, &mut script),
        Shell::Elvish => clap_complete::generate(shells::Elvish, &mut command, name, &mut script),
        Shell::Powershell => clap_complete::generate(shells::PowerShell, &mut command, name, &mut script),
    }
    Ok(out.write_all(&script)?)
}
