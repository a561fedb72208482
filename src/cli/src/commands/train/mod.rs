//! `flowmill train RECIPE`: examines a recipe's training, and goes back in it.

mod eval;
mod overfit;
mod plan_memory;
mod replay;
mod rollback;

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use flowmill_runner::{Experiment, Interrupt, Recipe, Stage, StageState, StageStatus};
use flowmill_stage_train::{ASIDE, Heard, TrainSection};
use flowmill_train::Observer;

use crate::args::TrainArgs;
use crate::experiment::{folder, load_for, threads};
use crate::failure::Failure;
use crate::{stages, style};

/// The number of the training stage. The stages before it make its data.
const TRAIN: u8 = 4;

/// Runs the selected action; the arguments have exactly one.
pub fn run(arguments: &TrainArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let place = Place::find(arguments)?;
    if let Some(step) = arguments.rollback {
        return rollback::run(&place, step, out);
    }
    match (arguments.overfit, &arguments.replay) {
        (Some(batches), _) => overfit::run(&place, batches, arguments.steps, out),
        (None, Some(dump)) => replay::run(&place, dump, out),
        (None, None) if arguments.plan_memory => plan_memory::run(&place, arguments.nproc.unwrap_or(1), out),
        (None, None) => eval::run(&place, arguments.eval_random_text_prompts, out),
    }
}

/// The recipe and the place of its results.
struct Place {
    stages: Vec<Box<dyn Stage>>,
    recipe: Recipe,
    experiment: Experiment,
    jobs: usize,
    interrupt: Interrupt,
}

impl Place {
    /// Reads the recipe and checks its training.
    fn find(arguments: &TrainArgs) -> Result<Self, Failure> {
        let stages = stages::all();
        let recipe = load_for(&arguments.recipe, arguments.device, &stages)?;
        let experiment = folder(&arguments.recipe, &recipe)?;
        let jobs = threads(arguments.jobs)?;
        let interrupt = Interrupt::on_signals().context("cannot catch Ctrl-C").map_err(Failure::Failed)?;
        for stage in stages.iter().filter(|stage| stage.number() == TRAIN) {
            stage.check(&recipe)?;
            // A checkpoint is evaluated without the files that its training started from, and going back computes
            // nothing.
            match (arguments.eval, arguments.rollback) {
                (true, _) => TrainSection::read(&recipe, &stages::families())?.check_device(&recipe)?,
                (false, Some(_)) => {}
                (false, None) => stage.check_files(&recipe)?,
            }
        }
        Ok(Self { stages, recipe, experiment, jobs, interrupt })
    }

    /// Returns the stages before training, in order.
    fn data_stages(&self) -> &[Box<dyn Stage>] {
        let count = self.stages.iter().filter(|stage| stage.number() < TRAIN).count();
        &self.stages[..count]
    }

    /// Returns the status of the stages before training.
    fn data_status(&self) -> Result<Vec<StageStatus>, Failure> {
        Ok(flowmill_runner::status(self.data_stages(), &self.recipe, &self.experiment)?)
    }

    /// Returns an error unless the training data are up to date with the recipe.
    fn expect_data(&self) -> Result<(), Failure> {
        let unfinished = self.data_status()?.into_iter().find(|stage| stage.state != StageState::Done);
        let Some(stage) = unfinished else { return Ok(()) };
        let reason = format!(
            "stage {} is not up to date, and this command does not run it; run the recipe first, up to --stop-stage pack",
            stage.stage
        );
        Err(Failure::Failed(anyhow::anyhow!(reason)))
    }

    /// Returns a folder for what a command makes, which is not a result of a stage.
    fn aside(&self, name: &str) -> PathBuf {
        self.experiment.dir().join(ASIDE).join(name)
    }

    /// Returns the folder of a stage.
    fn stage_dir(&self, number: u8) -> PathBuf {
        let stage = self.stages.iter().find(|stage| stage.number() == number);
        stage.map_or_else(|| self.experiment.dir().to_owned(), |stage| self.experiment.stage_dir(stage.as_ref()))
    }
}

/// Prints the files of speech to listen to, and the distances from the real recordings.
fn print_heard(heard: &Heard, out: &mut dyn Write) -> Result<(), Failure> {
    for file in &heard.files {
        writeln!(out, "{}", file.display())?;
    }
    for (id, distance) in &heard.distances {
        writeln!(out, "mel-STFT distance of {id}: {distance:.4}")?;
    }
    if let Some(mean) = heard.mean_distance() {
        writeln!(out, "mel-STFT distance, mean: {mean:.4}")?;
    }
    Ok(())
}

/// Prints messages as notes.
struct Notes;

impl Observer for Notes {
    fn message(&mut self, text: &str) {
        style::note(text);
    }
}
