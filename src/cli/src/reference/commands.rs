//! The reference of every command and option, from the text of `--help`.

use std::fmt::Write;

use clap::builder::StyledStr;
use clap::{Arg, Command, CommandFactory};

use super::{cell, code};
use crate::args::Cli;

const INTRODUCTION: &str = "\
<!-- Made by `flowmill reference commands > docs/COMMANDS.md`. Change the help texts in the code instead. -->

# Commands

";

/// Returns the reference of all commands, as Markdown.
pub fn commands() -> String {
    let mut root = Cli::command();
    root.build();
    let mut text = INTRODUCTION.to_owned();
    describe(&root, &mut text);
    let mut pending: Vec<&Command> = root.get_subcommands().collect();
    pending.reverse();
    while let Some(command) = pending.pop() {
        let inner: Vec<&Command> = command.get_subcommands().collect();
        if inner.is_empty() {
            let name = command.get_bin_name().unwrap_or(command.get_name());
            let _ = write!(text, "\n## {name}\n\n");
            describe(command, &mut text);
        }
        pending.extend(inner.into_iter().rev());
    }
    text
}

/// Writes a command's purpose, usage, arguments, options, examples and exit codes.
fn describe(command: &Command, text: &mut String) {
    let about = command.get_long_about().or(command.get_about()).map(StyledStr::to_string).unwrap_or_default();
    prose(&about, text);
    let usage = command.clone().render_usage().to_string();
    let _ = write!(text, "\n```text\n{}\n```\n", usage.trim_start_matches("Usage: ").trim());
    let told = |argument: &&Arg| !argument.is_hide_set() && !["help", "version"].contains(&argument.get_id().as_str());
    let arguments: Vec<&Arg> = command.get_arguments().filter(told).collect();
    if !arguments.is_empty() {
        *text += "\n| option | meaning |\n|---|---|\n";
    }
    for argument in arguments {
        let _ = writeln!(text, "| {} | {} |", code(&spelling(argument)), cell(&meaning(argument)));
    }
    if let Some(after) = command.get_after_long_help().or(command.get_after_help()) {
        let _ = write!(text, "\n```text\n{}\n```\n", after.to_string().trim());
    }
}

/// Writes paragraphs as such, and indented lines as a code block.
fn prose(about: &str, text: &mut String) {
    let mut block = false;
    for line in about.lines() {
        // A blank line inside a list does not end the list.
        let listed = line.starts_with("  ");
        if listed != block {
            *text += if listed { "```text\n" } else { "```\n" };
            block = listed;
        }
        let _ = writeln!(text, "{}", if listed { line.get(2..).unwrap_or_default() } else { line });
    }
    if block {
        *text += "```\n";
    }
}

/// `--stage <STAGE>`, `-n, --dry-run`, `<FILE>...`
fn spelling(argument: &Arg) -> String {
    let short = argument.get_short().map(|short| format!("-{short}"));
    let long = argument.get_long().map(|long| format!("--{long}"));
    let names = short.into_iter().chain(long).collect::<Vec<_>>().join(", ");
    let values = argument.get_value_names().filter(|_| argument.get_action().takes_values());
    let values = values.unwrap_or_default().iter().map(|name| format!("<{name}>")).collect::<Vec<_>>().join(" ");
    format!("{names} {values}").trim().to_owned()
}

fn meaning(argument: &Arg) -> String {
    let mut text = argument.get_long_help().or(argument.get_help()).map(StyledStr::to_string).unwrap_or_default();
    let choices: Vec<String> = argument
        .get_possible_values()
        .iter()
        .filter(|_| argument.get_action().takes_values())
        .map(|value| code(value.get_name()))
        .collect();
    if !choices.is_empty() {
        let _ = write!(text, ": {}", choices.join(", "));
    }
    let defaults: Vec<_> = argument.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    if !defaults.is_empty() && argument.get_action().takes_values() {
        let _ = write!(text, " [default: {}]", defaults.join(" "));
    }
    text
}
