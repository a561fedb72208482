//! `flowmill recipe show`, `recipe check` and `recipe schema`.

use std::io::Write;

use crate::args::{RecipeCheckArgs, RecipeCommand, RecipeShowArgs};
use crate::experiment::load;
use crate::failure::Failure;
use crate::stages;

/// Runs one of the subcommands.
pub fn run(command: &RecipeCommand, out: &mut dyn Write) -> Result<(), Failure> {
    match command {
        RecipeCommand::Show(arguments) => show(arguments, out),
        RecipeCommand::Check(arguments) => check(arguments, out),
        RecipeCommand::Schema => Ok(writeln!(out, "{:#}", flowmill_runner::schema(&stages::all()))?),
    }
}

/// Prints the resolved recipe.
fn show(arguments: &RecipeShowArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let stages = stages::all();
    let resolved = flowmill_runner::show(&stages, &load(&arguments.recipe, &stages)?)?;
    if arguments.json {
        writeln!(out, "{resolved:#}")?;
    } else {
        write!(out, "{}", flowmill_runner::to_yaml(&resolved))?;
    }
    Ok(())
}

/// Prints that the recipe is valid, or what is wrong with it.
fn check(arguments: &RecipeCheckArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let stages = stages::all();
    let recipe = load(&arguments.recipe, &stages)?;
    flowmill_runner::check(&stages, &recipe)?;
    for warning in flowmill_runner::warnings(&stages, &recipe)? {
        writeln!(out, "WARNING: {warning}")?;
    }
    Ok(writeln!(out, "{} is valid", recipe.file().display())?)
}
