//! `flowmill train RECIPE --overfit N`: tests in a minute whether the model can learn with these settings. Its
//! functions are also used by `--plan-memory`.

use std::io::Write;

use flowmill_runner::{Interrupt, Reporter, RunOptions, StageRange, StageState};
use flowmill_stage_train::Overfitted;
use flowmill_train::{Observer, Overfit, OverfitOptions, Progress};

use super::{Place, print_heard};
use crate::experiment::command_line;
use crate::failure::Failure;
use crate::human;
use crate::stages;
use crate::style;
use crate::table::print_pairs;

/// The default maximum of steps per batch.
const STEPS: u32 = 1000;
/// The fall of the loss that a correct model reaches on one batch.
const EXPECTED_FALL: f64 = 0.9;
/// The number of unchanged parameters that are named.
const SHOWN: usize = 20;

/// Runs the stages before training that are not up to date, then trains on a few batches.
pub fn run(place: &Place, batches: u16, steps: Option<u32>, out: &mut dyn Write) -> Result<(), Failure> {
    let enough = steps.is_none().then_some(EXPECTED_FALL);
    let steps = steps.unwrap_or(STEPS * u32::from(batches));
    if steps < u32::from(batches) {
        return Err(Failure::usage(format!("{steps} steps do not reach all {batches} batches; increase --steps")));
    }
    let options = OverfitOptions { batches: batches.into(), steps: steps.into(), enough };
    let interrupt = place.interrupt.clone();
    make_data(place)?;
    let mut printer = Printer::new(out, interrupt);
    let tried = flowmill_stage_train::overfit(
        &stages::families(),
        &place.recipe,
        &|number| place.stage_dir(number),
        options,
        &place.aside("overfit"),
        &mut printer,
    );
    let Printer { seconds, failed, .. } = printer;
    if let Some(error) = failed {
        return Err(error.into());
    }
    let Overfitted { overfit: tried, heard } = tried.map_err(|error| Failure::Failed(error.into()))?;
    note_costs(&seconds, tried.device_memory);
    summarize(&tried, out)?;
    if let Some(heard) = &heard {
        print_heard(heard, out)?;
    }
    match (tried.unchanged.is_empty(), tried.interrupted) {
        (_, true) => Err(Failure::Stopped),
        (false, _) => Err(Failure::Told),
        (true, _) => Ok(()),
    }
}

/// Runs the stages before training, unless all are up to date.
pub fn make_data(place: &Place) -> Result<(), Failure> {
    if place.data_status()?.iter().all(|stage| stage.state == StageState::Done) {
        return Ok(());
    }
    let last = place.data_stages().last().map(|stage| stage.name().to_owned());
    let options = RunOptions {
        stages: StageRange { first: None, last },
        jobs: place.jobs,
        command: command_line(),
        version: env!("CARGO_PKG_VERSION").into(),
        interrupt: place.interrupt.clone(),
        ..RunOptions::default()
    };
    flowmill_runner::run(&place.stages, &place.recipe, &place.experiment, &options, &Reporter::new())?;
    Ok(())
}

/// A printer of every step.
pub struct Printer<'a> {
    pub out: &'a mut dyn Write,
    pub interrupt: Interrupt,
    /// The error that prevents further printing.
    pub failed: Option<std::io::Error>,
    /// The duration of each step.
    seconds: Vec<f64>,
}

impl<'a> Printer<'a> {
    /// Creates a printer.
    pub fn new(out: &'a mut dyn Write, interrupt: Interrupt) -> Self {
        Self { out, interrupt, failed: None, seconds: Vec::new() }
    }

    fn line(&mut self, text: &str) {
        if self.failed.is_none() {
            self.failed = writeln!(self.out, "{text}").and_then(|()| self.out.flush()).err();
        }
    }
}

impl Observer for Printer<'_> {
    fn step(&mut self, progress: &Progress) {
        let Progress { step, loss, grad_norm, seconds, .. } = progress;
        self.seconds.push(*seconds);
        self.line(&format!("step {step}  loss {loss:.6}  gradient {grad_norm:.3e}"));
    }

    fn message(&mut self, text: &str) {
        self.line(text);
    }

    fn interrupted(&self) -> bool {
        self.interrupt.is_set() || self.failed.is_some()
    }
}

/// Prints the duration of a step and its use of a device's memory. They are not part of the results, which are the
/// same every time.
fn note_costs(seconds: &[f64], device_memory: Option<u64>) {
    // The first step includes the warm-up of caches.
    let mut sorted = if seconds.len() > 1 { seconds[1..].to_vec() } else { seconds.to_vec() };
    sorted.sort_by(f64::total_cmp);
    let Some(median) = sorted.get(sorted.len() / 2) else { return };
    let memory = device_memory.map_or(String::new(), |bytes| {
        format!("; tensors took {} of the device's memory at most ({bytes} bytes)", human::bytes(bytes))
    });
    style::note(&format!("a step took {median:.4} s (median){memory}"));
}

/// Prints the first and the last loss, the fall, and the parameters.
fn summarize(tried: &Overfit, out: &mut dyn Write) -> Result<(), Failure> {
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
            "the loss of a correct model falls by 90 % on repeated batches: try more --steps, a higher train.optim.lr, or a wider model",
        );
    }
    Ok(())
}
