//! `flowmill run RECIPE`: runs the stages that are not up to date, and names the commands that come next.

use anyhow::Context;
use flowmill_collective::CollectiveError;
use flowmill_runner::{Experiment, Interrupt, JobCommand, Recipe, Reporter, RunOptions, Stage, slurm_processes};

use crate::args::{ExecutorName, RunArgs};
use crate::commands::next;
use crate::experiment::{command_line, folder, load_for, threads};
use crate::failure::Failure;
use crate::ranks::Together;
use crate::stages;

/// Runs the selected stages. The runner prints what happens.
pub fn run(arguments: &RunArgs) -> Result<(), Failure> {
    let RunArgs { recipe, device, jobs, nproc, executor, .. } = arguments;
    if *executor == ExecutorName::Slurm && nproc.is_some() {
        let told = "--nproc starts processes on this machine; with --executor slurm set slurm.stages.train.nodes and tasks_per_node";
        return Err(Failure::usage(told));
    }
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
    let done = match arguments.executor {
        ExecutorName::Slurm if !arguments.dry_run => {
            let job = job_command(arguments, &recipe, &experiment, &stages)?;
            flowmill_runner::run_on_slurm(&stages, &recipe, &experiment, &options, &job, &reporter)?
        }
        _ => flowmill_runner::run(&stages, &recipe, &experiment, &options, &reporter)?,
    };
    if !arguments.dry_run {
        for (at, command) in next::commands(&arguments.recipe, &recipe, &experiment, &done).into_iter().enumerate() {
            reporter.note(format!("{}{command}", if at == 0 { "next: " } else { "      " }));
        }
    }
    Ok(())
}

/// Returns the command of jobs: this program on the same recipe with the same changes.
fn job_command(
    arguments: &RunArgs,
    recipe: &Recipe,
    experiment: &Experiment,
    stages: &[Box<dyn Stage>],
) -> Result<JobCommand, Failure> {
    let processes = slurm_processes(recipe, stages)?;
    if processes > 1 && cfg!(not(feature = "mpi")) {
        let wanted = format!("slurm.stages.train asks for {processes} processes");
        return Err(Failure::Usage(CollectiveError::NotBuilt { wanted }.into()));
    }
    let program = std::env::current_exe().context("the path of this program is not known").map_err(Failure::Failed)?;
    let mut options = vec!["--exp".to_owned(), experiment.dir().to_string_lossy().into_owned()];
    options.extend(arguments.recipe.changes.set_words());
    options.extend(arguments.device.device.iter().flat_map(|device| ["--device".to_owned(), device.to_string()]));
    options.extend(arguments.verify.then(|| "--verify".to_owned()));
    let (program, recipe) = (program.to_string_lossy().into_owned(), recipe.file().to_string_lossy().into_owned());
    Ok(JobCommand { program, recipe, options })
}
