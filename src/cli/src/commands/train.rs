//! `flowmill train RECIPE --overfit N`: whether the settings can learn, in a minute; `--plan-memory`: whether the memory suffices.

use std::io::Write;

use anyhow::Context;
use flowmill_runner::{Experiment, Interrupt, Recipe, Reporter, RunOptions, Stage, StageRange, StageState};
use flowmill_train::{Observer, Overfit, OverfitOptions, Progress};

use crate::args::TrainArgs;
use crate::commands::plan_memory;
use crate::experiment::{command_line, folder, load, threads};
use crate::failure::Failure;
use crate::table::print_pairs;
use crate::{stages, style};

/// Number of the stage that is tried out; those before it make its data.
const TRAIN: u8 = 4;
/// The most steps on each batch when no number is given.
const STEPS: u32 = 1000;
/// What a sound model reaches on one batch.
const EXPECTED_FALL: f64 = 0.9;
/// Names told of parameters that did not change.
const SHOWN: usize = 20;

/// Runs what comes before training where it is not up to date, then tries training out.
pub fn run(arguments: &TrainArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let options = arguments.overfit.map(|batches| options(batches, arguments.steps)).transpose()?;
    let stages = stages::all();
    let recipe = load(&arguments.recipe, &stages)?;
    let experiment = folder(&arguments.recipe, &recipe)?;
    let jobs = threads(arguments.jobs)?;
    let interrupt = Interrupt::on_signals().context("cannot catch Ctrl-C").map_err(Failure::Failed)?;
    for stage in stages.iter().filter(|stage| stage.number() == TRAIN) {
        stage.check(&recipe)?;
    }
    make_data(&stages, &recipe, &experiment, jobs, &interrupt)?;
    let stage_folder = |number: u8| {
        let stage = stages.iter().find(|stage| stage.number() == number);
        stage.map_or_else(|| experiment.dir().to_owned(), |stage| experiment.stage_dir(stage.as_ref()))
    };
    let mut printer = Printer { out, interrupt, failed: None };
    let Some(options) = options else {
        let plan = plan_memory::run(&recipe, &stage_folder, &mut printer);
        return printer.failed.map_or(Ok(()), |error| Err(error.into())).and(plan_memory::print(&plan?, out));
    };
    let tried = flowmill_stage_train::try_out(&recipe, &stage_folder, options, &mut printer);
    if let Some(error) = printer.failed {
        return Err(error.into());
    }
    let tried = tried.map_err(|error| Failure::Failed(error.into()))?;
    summarise(&tried, out)?;
    match (tried.unchanged.is_empty(), tried.interrupted) {
        (_, true) => Err(Failure::Stopped),
        (false, _) => Err(Failure::Told),
        (true, _) => Ok(()),
    }
}

/// On how much to try, and for how long.
fn options(batches: u16, steps: Option<u32>) -> Result<OverfitOptions, Failure> {
    let total = steps.unwrap_or(STEPS * u32::from(batches));
    if total < u32::from(batches) {
        return Err(Failure::usage(format!("{total} steps do not get to all {batches} batches; give more --steps")));
    }
    let enough = steps.is_none().then_some(EXPECTED_FALL);
    Ok(OverfitOptions { batches: batches.into(), steps: total.into(), enough })
}

/// Runs the stages before training, unless all are up to date.
fn make_data(
    stages: &[Box<dyn Stage>],
    recipe: &Recipe,
    experiment: &Experiment,
    jobs: usize,
    interrupt: &Interrupt,
) -> Result<(), Failure> {
    let count = stages.iter().filter(|stage| stage.number() < TRAIN).count();
    let before = &stages[..count];
    let status = flowmill_runner::status(before, recipe, experiment)?;
    if status.iter().all(|stage| stage.state == StageState::Done) {
        return Ok(());
    }
    let last = before.last().map(|stage| stage.name().to_owned());
    let options = RunOptions {
        stages: StageRange { first: None, last },
        jobs,
        command: command_line(),
        version: env!("CARGO_PKG_VERSION").into(),
        interrupt: interrupt.clone(),
        ..RunOptions::default()
    };
    flowmill_runner::run(stages, recipe, experiment, &options, &Reporter::new())?;
    Ok(())
}

/// Prints every step as it is done.
struct Printer<'a> {
    out: &'a mut dyn Write,
    interrupt: Interrupt,
    /// Why nothing can be printed any more.
    failed: Option<std::io::Error>,
}

impl Printer<'_> {
    fn line(&mut self, text: &str) {
        if self.failed.is_none() {
            self.failed = writeln!(self.out, "{text}").and_then(|()| self.out.flush()).err();
        }
    }
}

impl Observer for Printer<'_> {
    fn step(&mut self, progress: &Progress) {
        let Progress { step, loss, grad_norm, .. } = progress;
        self.line(&format!("step {step}  loss {loss:.6}  gradient {grad_norm:.3e}"));
    }

    fn message(&mut self, text: &str) {
        self.line(text);
    }

    fn interrupted(&self) -> bool {
        self.interrupt.is_set() || self.failed.is_some()
    }
}

/// The first and the last loss, the fall, and the parameters.
fn summarise(tried: &Overfit, out: &mut dyn Write) -> Result<(), Failure> {
    let batches = if tried.batches == 1 { "1 batch".to_owned() } else { format!("{} batches", tried.batches) };
    let changed = tried.parameters - tried.unchanged.len();
    let parameters = match tried.unchanged.len() {
        0 => format!("all {changed} trainable ones changed"),
        unchanged => format!("{unchanged} of {} trainable ones did not change", tried.parameters),
    };
    let fall = tried.fall();
    let pairs = [
        ("repeated", format!("{batches}, {} steps", tried.steps)),
        ("first loss", format!("{:.6}", tried.first)),
        ("last loss", format!("{:.6}", tried.last)),
        ("fall", format!("{:.1} %", 100.0 * fall)),
        ("parameters", parameters),
    ];
    print_pairs(&pairs.map(|(name, value)| (name.to_owned(), value)), 0, out)?;
    if !tried.unchanged.is_empty() {
        let more = tried.unchanged.len().saturating_sub(SHOWN);
        let names = tried.unchanged.iter().take(SHOWN).map(|name| format!("\n  {name}")).collect::<String>();
        let more = if more > 0 { format!("\n  and {more} more") } else { String::new() };
        style::error(&format!("these parameters did not change:{names}{more}"));
    }
    if fall < EXPECTED_FALL && !tried.interrupted {
        style::warning(
            "a sound model loses 90 % of its loss on what is repeated: try more --steps, a higher train.optim.lr, or a wider model",
        );
    }
    Ok(())
}
