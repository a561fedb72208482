//! `run --executor slurm`: the parts of stages as tasks of Slurm.
//!
//! The run goes through the stages like any other. The parts of a phase that have to run become tasks of an array, each of which is `flowmill run-part`
//! with its own lock, and the run waits for them. Then it finishes the stage itself, which finds its parts up to date. So a task that runs twice, or
//! after its run died, does no harm, and what is done depends on receipts only, never on what Slurm says.
//!
//! | file | content |
//! |---|---|
//! | `settings` | the section `slurm` of a recipe |
//! | `commands`, `state` | `sbatch`, `squeue`, `sacct`, and what they print |
//! | `script` | the script of an array |
//! | `record` | the jobs of an experiment in a file |
//! | `follow` | submitting the parts of a phase, following them, trying again |

mod commands;
mod error;
mod follow;
mod record;
mod resources;
mod script;
mod settings;
mod state;

use std::ops::Range;

use crate::lockfile::{Lock, Patience};
use crate::run::{Run, check_recipe};
use crate::session::{Session, in_order, select};
use crate::{Experiment, Holder, Recipe, Reporter, RunError, RunOptions, RunSummary, Stage, StageOutcome};

pub use error::{FailedPart, SlurmError};
use follow::Follower;
use record::Record;
pub use record::slurm_jobs;
use settings::SlurmSettings;
pub(crate) use settings::{SECTION, schema, show};

/// The command that tasks run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobCommand {
    /// The program, unless the recipe names one.
    pub program: String,
    /// The path of the recipe.
    pub recipe: String,
    /// Further options of `run` and `run-part`.
    pub options: Vec<String>,
}

/// Checks the section `slurm` of a recipe.
///
/// # Errors
/// Returns an error for the first key that is wrong.
pub fn check_slurm(recipe: &Recipe, stages: &[Box<dyn Stage>]) -> Result<(), crate::RecipeError> {
    SlurmSettings::read(recipe, stages).map(drop)
}

/// Returns the number of processes that the recipe wants for a stage in Slurm with this program.
///
/// # Errors
/// Returns an error for the first key of the section that is wrong.
pub fn slurm_processes(recipe: &Recipe, stages: &[Box<dyn Stage>]) -> Result<u32, crate::RecipeError> {
    let settings = SlurmSettings::read(recipe, stages)?;
    let own = settings.program.is_none();
    let processes = in_order(stages).into_iter().map(|stage| settings.of(stage)).filter(|of| !of.local);
    Ok(processes.map(|of| of.processes).max().filter(|_| own).unwrap_or(1))
}

/// Runs the selected stages of a recipe like [`run`](crate::run), with their parts in Slurm. A run that was ended finds its jobs again.
///
/// # Errors
/// See [`RunError`]. Jobs stay in Slurm when the run ends early.
pub fn run_on_slurm(
    stages: &[Box<dyn Stage>],
    recipe: &Recipe,
    experiment: &Experiment,
    options: &RunOptions,
    job: &JobCommand,
    reporter: &Reporter,
) -> Result<RunSummary, RunError> {
    if options.force {
        let told = "--force does not work with --executor slurm: run `flowmill clean RECIPE --stage N` for the stages to repeat, then run without it";
        return Err(RunError::Usage(told.to_owned()));
    }
    let ordered = in_order(stages);
    let selected = select(&ordered, &options.stages)?;
    let settings = SlurmSettings::read(recipe, stages)?;
    check_recipe(stages, &selected, recipe, experiment, options, reporter)?;
    let me = Holder::this(&options.command);
    let patience = Patience { wait: options.wait, interrupt: &options.interrupt, reporter };
    let lock = Lock::take_slurm_run(experiment, &me, patience)?;
    let session = Session::new(stages, recipe, experiment, options);
    let run = Run { session: &session, options, reporter };
    let job = JobCommand { program: settings.program.clone().unwrap_or_else(|| job.program.clone()), ..job.clone() };
    let slurm_run = SlurmRun { stages, ordered, recipe, experiment, options, settings, job, me: me.clone(), reporter };
    run.under(&lock, &me, |run| slurm_run.stages(run, selected))
}

/// A run whose parts are tasks of Slurm.
struct SlurmRun<'a> {
    stages: &'a [Box<dyn Stage>],
    ordered: Vec<&'a dyn Stage>,
    recipe: &'a Recipe,
    experiment: &'a Experiment,
    options: &'a RunOptions,
    settings: SlurmSettings,
    job: JobCommand,
    me: Holder,
    reporter: &'a Reporter,
}

impl SlurmRun<'_> {
    fn stages(&self, run: &Run<'_>, selected: Range<usize>) -> Result<RunSummary, RunError> {
        run.look_ahead(&selected, selected.start, &[])?;
        let started = std::time::Instant::now();
        let (record, damage) = Record::read(self.experiment);
        if let Some(damage) = damage {
            let told = "WARNING: the list of this experiment's jobs in Slurm cannot be read";
            self.reporter
                .note(format!("{told} ({damage}); jobs that are still there may do a part first, which does no harm"));
        }
        let mut follower = Follower::new(self, record)?;
        let mut summary = RunSummary::default();
        for at in selected.clone() {
            let in_slurm = match self.settings.of(self.ordered[at]).local {
                true => 0,
                false => follower.stage(at).inspect_err(|_| follower.tell_what_stays())?,
            };
            let mut outcome = self.finish(at, &selected)?;
            outcome.ran += in_slurm;
            summary.stages.push(outcome);
        }
        follower.close()?;
        run.close(&summary, started.elapsed());
        Ok(summary)
    }

    /// Finishes a stage whose parts are done, as a run does. Like one, it works alone.
    fn finish(&self, at: usize, selected: &Range<usize>) -> Result<StageOutcome, RunError> {
        let patience = Patience { wait: true, interrupt: &self.options.interrupt, reporter: self.reporter };
        let lock = Lock::take(self.experiment, &self.me, patience)?;
        for dead in &lock.dead_owners {
            self.reporter.note(format!("a process died ({dead}); carrying on from what it finished"));
        }
        let session = Session::new(self.stages, self.recipe, self.experiment, self.options);
        let run = Run { session: &session, options: self.options, reporter: self.reporter };
        let outcome = run.check_earlier(at).and_then(|()| run.stage(at, selected));
        if let Err(error) = session.cache.save(&self.experiment.cache_file()) {
            tracing::warn!(%error, "the cache of hashes could not be saved");
        }
        outcome
    }
}
