//! `flowmill train RECIPE --plan-memory`: what training will take of the memory, before it starts.

use std::io::Write;
use std::path::PathBuf;

use flowmill_runner::Recipe;
use flowmill_train::{MemoryPlan, Observer, Source, process_memory};

use crate::doctor::machine;
use crate::failure::Failure;
use crate::human;
use crate::style;
use crate::table::print_pairs;

/// Less room than this share of the peak is worth a warning: other programs run too.
const ROOM: f64 = 0.1;

/// Measures and prints; fails when the memory does not suffice.
pub fn run(
    recipe: &Recipe,
    folder: &dyn Fn(u8) -> PathBuf,
    observer: &mut dyn Observer,
) -> Result<MemoryPlan, Failure> {
    flowmill_stage_train::plan_memory(recipe, folder, usable(), observer).map_err(|error| Failure::Failed(error.into()))
}

/// What this process may take in all: what it has, what is free, within the limit of its group.
fn usable() -> Option<u64> {
    let memory = machine::memory()?;
    let free = memory.available + process_memory::resident().unwrap_or_default();
    Some(memory.limit.map_or(free, |limit| limit.min(free)))
}

/// Prints the plan; fails when the memory does not suffice.
pub fn print(plan: &MemoryPlan, out: &mut dyn Write) -> Result<(), Failure> {
    let source = match plan.source {
        Source::Measured => "measured",
        Source::Estimated => "estimated from a part of the batch: the whole would not fit",
    };
    let mut pairs = vec![("peak", format!("{} ({source})", human::bytes(plan.peak)))];
    pairs.extend(plan.kinds.iter().map(|(kind, bytes)| (*kind, human::bytes(*bytes))));
    let usable = usable();
    pairs.extend(usable.map(|usable| ("usable", human::bytes(usable))));
    let pairs: Vec<(String, String)> = pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    print_pairs(&pairs, 0, out)?;
    let Some(usable) = usable else { return Ok(()) };
    if plan.peak > usable {
        style::error(&format!("training takes {}, {}", human::bytes(plan.peak), advice(usable)));
        return Err(Failure::Told);
    }
    if (plan.peak as f64) * (1.0 + ROOM) > usable as f64 {
        style::warning(&format!("training takes nearly all memory: {}", advice(usable)));
    }
    Ok(())
}

/// What to change, the cheapest first.
fn advice(usable: u64) -> String {
    format!(
        "there are {}: set train.gradient_checkpointing: true (the same results), lower train.batch.max_frames_in_batch and raise \
         train.accum_grad by as much, or leave out the longest utterances (prep or pack filters); then lower train.prefetch",
        human::bytes(usable)
    )
}
