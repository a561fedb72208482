//! `flowmill run RECIPE`: runs the stages that are not up to date.

use anyhow::Context;
use flowmill_runner::{Interrupt, Reporter, RunOptions};

use crate::args::RunArgs;
use crate::experiment::{command_line, folder, load_for, threads};
use crate::failure::Failure;
use crate::stages;

/// Runs the selected stages. The runner prints what happens.
pub fn run(arguments: &RunArgs) -> Result<(), Failure> {
    let stages = stages::all();
    let recipe = load_for(&arguments.recipe, arguments.device, &stages)?;
    let experiment = folder(&arguments.recipe, &recipe)?;
    let jobs = threads(arguments.jobs)?;
    let options = RunOptions {
        stages: arguments.stages.range(),
        force: arguments.force,
        dry_run: arguments.dry_run,
        jobs,
        verify: arguments.verify,
        wait: arguments.wait,
        command: command_line(),
        version: env!("CARGO_PKG_VERSION").into(),
        interrupt: Interrupt::on_signals().context("cannot catch Ctrl-C").map_err(Failure::Failed)?,
    };
    let reporter = if arguments.quiet { Reporter::quiet() } else { Reporter::new() };
    flowmill_runner::run(&stages, &recipe, &experiment, &options, &reporter)?;
    Ok(())
}
