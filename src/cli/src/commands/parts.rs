//! `flowmill parts RECIPE STAGE`: the parts that can be done now.

use std::io::Write;

use flowmill_runner::{Experiment, OpenPart, OpenParts};
use serde_json::{Value, json};

use crate::args::PartsArgs;
use crate::experiment::{folder, load_for};
use crate::failure::Failure;
use crate::stages;

/// Prints one key per line, or JSON.
pub fn run(arguments: &PartsArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let stages = stages::all();
    let of = arguments.of.recipe();
    let recipe = load_for(&of, arguments.device, &stages)?;
    let experiment = folder(&of, &recipe)?;
    let open = flowmill_runner::open_parts(&stages, &recipe, &experiment, &arguments.of.range())?;
    if arguments.json {
        return Ok(writeln!(out, "{:#}", as_json(recipe.name(), &experiment, &open))?);
    }
    for part in &open.parts {
        writeln!(out, "{}", part.key)?;
    }
    Ok(())
}

/// The same for programs.
fn as_json(name: &str, experiment: &Experiment, open: &OpenParts) -> Value {
    json!({
        "recipe": name,
        "experiment": experiment.dir().to_string_lossy(),
        "stage": open.stage,
        "number": open.number,
        "phase": open.phase,
        "parts": open.parts.iter().map(part_json).collect::<Vec<_>>(),
        "waits_for_run": open.waits,
    })
}

/// One part for programs.
fn part_json(part: &OpenPart) -> Value {
    json!({"key": part.key, "rows": part.rows, "reasons": part.reasons, "running": part.holder})
}
