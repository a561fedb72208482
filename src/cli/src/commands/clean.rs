//! `flowmill clean RECIPE`: deletes results of stages.

use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;

use flowmill_runner::{Experiment, Reporter, Stage};

use crate::args::CleanArgs;
use crate::experiment::{command_line, folder, load};
use crate::failure::Failure;
use crate::human;
use crate::inspect::size_below;
use crate::stages;
use crate::style;

/// Prints the folders to delete, asks, and deletes them.
pub fn run(arguments: &CleanArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let stages = stages::all();
    let recipe = load(&arguments.recipe, &stages)?;
    let experiment = folder(&arguments.recipe, &recipe)?;
    let doomed = clean(arguments, &stages, &experiment, true)?;
    if doomed.is_empty() {
        return Ok(writeln!(out, "nothing to delete in {}", experiment.dir().display())?);
    }
    for folder in &doomed {
        writeln!(out, "{}  {}", folder.display(), human::bytes(size_below(folder)))?;
    }
    if arguments.dry_run {
        return Ok(());
    }
    if !arguments.yes && !asked(out)? {
        return Ok(writeln!(out, "nothing was deleted")?);
    }
    clean(arguments, &stages, &experiment, false)?;
    Ok(writeln!(out, "deleted")?)
}

/// Deletes the selected stages, or only returns their folders.
fn clean(
    arguments: &CleanArgs,
    stages: &[Box<dyn Stage>],
    experiment: &Experiment,
    dry_run: bool,
) -> Result<Vec<PathBuf>, Failure> {
    let range = arguments.stages.range();
    let reporter = Reporter::new();
    Ok(flowmill_runner::clean(stages, experiment, &range, dry_run, &command_line(), &reporter)?)
}

/// Asks on the terminal.
fn asked(out: &mut dyn Write) -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage(
            "this would delete the folders above; add --yes, because there is no terminal to ask on",
        ));
    }
    write!(out, "{} [y/N] ", style::paint(style::WARN, "delete these?"))?;
    out.flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}
