//! `flowmill run RECIPE`: runs the stages that are not up to date, and names the commands that come next.

use flowmill_runner::{Interrupt, Reporter, RunOptions};

use crate::args::RunArgs;
use crate::commands::next;
use crate::experiment::{command_line, folder, load_for, threads};
use crate::failure::Failure;
use crate::ranks::Together;
use crate::stages;

/// Runs the selected stages. The runner prints what happens.
pub fn run(arguments: &RunArgs) -> Result<(), Failure> {
    let RunArgs { recipe, device, jobs, nproc, .. } = arguments;
    Together { recipe, device: *device, jobs: *jobs, nproc: *nproc }.run(|interrupt| lead(arguments, interrupt))
}

fn lead(arguments: &RunArgs, interrupt: Interrupt) -> Result<(), Failure> {
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
        interrupt,
    };
    let reporter = if arguments.quiet { Reporter::quiet() } else { Reporter::new() };
    let done = flowmill_runner::run(&stages, &recipe, &experiment, &options, &reporter)?;
    if !arguments.dry_run {
        for (at, command) in next::commands(&arguments.recipe, &recipe, &experiment, &done).into_iter().enumerate() {
            reporter.note(format!("{}{command}", if at == 0 { "next: " } else { "      " }));
        }
    }
    Ok(())
}
