//! `flowmill train RECIPE --rollback STEP`: going back to an earlier checkpoint.

use std::io::Write;

use flowmill_runner::Reporter;

use super::Place;
use crate::experiment::command_line;
use crate::failure::Failure;

/// Goes back and prints what was moved, and what comes next.
pub fn run(place: &Place, step: u64, out: &mut dyn Write) -> Result<(), Failure> {
    let version = env!("CARGO_PKG_VERSION");
    let (experiment, interrupt) = (&place.experiment, &place.interrupt);
    let done = flowmill_stage_train::rollback(
        &crate::stages::families(),
        experiment,
        step,
        &command_line(),
        version,
        interrupt,
        &Reporter::new(),
    )?;
    for path in &done.aside {
        writeln!(out, "moved aside: {}", path.display())?;
    }
    for note in &done.notes {
        writeln!(out, "{note}")?;
    }
    if done.aside.is_empty() {
        writeln!(out, "nothing is newer than step {step}")?;
    } else {
        writeln!(
            out,
            "the next `flowmill run` continues from step {step}; delete what was moved aside when it is no longer needed"
        )?;
    }
    Ok(())
}
