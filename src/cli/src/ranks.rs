//! Commands that several processes run together: rank 0 runs the command, and the others join it for the training.

use anyhow::Context;
use flowmill_collective::{CollectiveError, Environment, World, launch, leave};
use flowmill_runner::Interrupt;
use flowmill_stage_train::Call;

use crate::args::{DeviceArgs, RecipeArgs};
use crate::experiment::{folder, load_for, threads};
use crate::failure::Failure;
use crate::{stages, style};

/// The parts of the command line that every rank needs.
pub struct Together<'a> {
    /// The recipe and its changes.
    pub recipe: &'a RecipeArgs,
    /// The device.
    pub device: DeviceArgs,
    /// The threads of this process.
    pub jobs: Option<u16>,
    /// The number of processes to start.
    pub nproc: Option<u16>,
}

impl Together<'_> {
    /// Runs `lead` on rank 0 while the other ranks wait for work. Without a launcher and `--nproc` that is a plain call.
    pub fn run(&self, lead: impl FnOnce(Interrupt) -> Result<(), Failure>) -> Result<(), Failure> {
        // Before anything else, because the signal to save would end a rank without a handler.
        let interrupt = Interrupt::on_signals().context("cannot catch Ctrl-C").map_err(Failure::Failed)?;
        let environment = Environment::detect().map_err(usage)?;
        match (environment, self.nproc) {
            (None, Some(count)) if count > 1 => return start(count, &interrupt),
            (Some(Environment { size, launcher, rank, .. }), Some(count)) if size != usize::from(count) => {
                let told =
                    format!("--nproc {count}: {launcher} has started {size} processes already; leave --nproc out");
                return Err(on_first(rank, Failure::usage(told)));
            }
            _ => {}
        }
        let rank = environment.map_or(0, |environment| environment.rank);
        let world = World::join().map_err(|error| on_first(rank, usage(error)))?;
        if !world.is_shared() {
            return lead(interrupt);
        }
        let done = if world.leads() {
            let done = lead(interrupt);
            // If the others cannot be reached any more, the launcher ends them.
            let _they_are_gone = world.ranks.call(&Call::End.bytes());
            done
        } else {
            self.follow(&world)
        };
        leave();
        done
    }

    /// Joins rank 0 for every training, until it has no more work. Rank 0 reports all errors.
    fn follow(&self, world: &World) -> Result<(), Failure> {
        let all = stages::all();
        let own = u16::try_from(world.own_threads()).unwrap_or(u16::MAX);
        let loaded = threads(Some(self.jobs.map_or(own, |jobs| jobs.min(own))))
            .and_then(|_| load_for(self.recipe, self.device, &all))
            .and_then(|recipe| Ok((folder(self.recipe, &recipe)?, recipe)));
        let loaded = loaded.map_err(|failure| failure.to_string());
        loop {
            let message = world.ranks.await_call().context("waiting for rank 0").map_err(Failure::Failed)?;
            let Call::Train { resumes } = Call::read(&message) else { return Ok(()) };
            let folder = |number: u8| {
                let stage = all.iter().find(|stage| stage.number() == number);
                let experiment = loaded.as_ref().ok().map(|(experiment, _)| experiment);
                stage
                    .zip(experiment)
                    .map_or_else(Default::default, |(stage, experiment)| experiment.stage_dir(stage.as_ref()))
            };
            let of = match &loaded {
                Ok((_, recipe)) => Ok((recipe, &folder as &dyn Fn(u8) -> std::path::PathBuf)),
                Err(reason) => Err(reason.clone()),
            };
            if let Err(error) = flowmill_stage_train::follow(&stages::families(), of, resumes, world) {
                tracing::debug!(rank = world.ranks.rank(), %error, "this rank has ended its training");
            }
        }
    }
}

/// Starts processes of this program on this machine with the same arguments, and waits for them.
fn start(count: u16, interrupt: &Interrupt) -> Result<(), Failure> {
    let mut arguments = Vec::new();
    let mut words = std::env::args_os().skip(1);
    while let Some(word) = words.next() {
        match word.to_str() {
            Some("--nproc") => drop(words.next()),
            Some(word) if word.starts_with("--nproc=") => {}
            _ => arguments.push(word),
        }
    }
    let status = launch::launch(count.into(), &arguments, &|| interrupt.is_set()).map_err(usage)?;
    match launch::exit_code(status) {
        0 => Ok(()),
        // The ranks have said why.
        130 => Err(Failure::Stopped),
        2 => Err(Failure::ToldUsage),
        code => {
            style::error(&format!("the run on {count} processes ended with exit code {code}; see above"));
            Err(Failure::Told)
        }
    }
}

fn usage(error: CollectiveError) -> Failure {
    Failure::Usage(error.into())
}

/// Lets only the first process report an error that all have.
fn on_first(rank: usize, failure: Failure) -> Failure {
    if rank == 0 { failure } else { Failure::ToldUsage }
}
