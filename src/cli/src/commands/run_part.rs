//! `flowmill run-part RECIPE STAGE KEY`: does one part.

use flowmill_runner::{Interrupt, Reporter, RunOptions};

use crate::args::RunPartArgs;
use crate::experiment::{command_line, folder, load_for, threads};
use crate::failure::Failure;
use crate::ranks::Together;
use crate::stages;

/// Does the part; the runner tells what happens.
pub fn run(arguments: &RunPartArgs) -> Result<(), Failure> {
    let RunPartArgs { of, device, jobs, nproc, .. } = arguments;
    let together = Together { recipe: &of.recipe(), device: *device, jobs: *jobs, nproc: *nproc };
    together.run(|interrupt| lead(arguments, interrupt))
}

fn lead(arguments: &RunPartArgs, interrupt: Interrupt) -> Result<(), Failure> {
    let stages = stages::all();
    let of = arguments.of.recipe();
    let recipe = load_for(&of, arguments.device, &stages)?;
    let experiment = folder(&of, &recipe)?;
    let options = RunOptions {
        stages: arguments.of.range(),
        jobs: threads(arguments.jobs)?,
        verify: arguments.verify,
        wait: arguments.wait,
        command: command_line(),
        version: env!("CARGO_PKG_VERSION").into(),
        interrupt,
        ..RunOptions::default()
    };
    let reporter = if arguments.quiet { Reporter::quiet() } else { Reporter::new() };
    flowmill_runner::run_part(&stages, &recipe, &experiment, &arguments.key, &options, &reporter)?;
    Ok(())
}
