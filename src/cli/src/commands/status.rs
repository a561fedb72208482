//! `flowmill status RECIPE`: prints every stage with its state, rows and age, and the reasons why it would run.

use std::io::Write;

use flowmill_runner::{Experiment, Holder, ReasonCount, StageState, StageStatus};
use serde_json::{Value, json};

use crate::args::StatusArgs;
use crate::experiment::{folder, load};
use crate::failure::Failure;
use crate::human;
use crate::stages;
use crate::style;
use crate::table::{Align, Cell, Table};

/// The number of reasons that are shown for one stage.
const REASONS: usize = 4;

/// Prints the table, or JSON.
pub fn run(arguments: &StatusArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let stages = stages::all();
    let recipe = load(&arguments.recipe, &stages)?;
    let experiment = folder(&arguments.recipe, &recipe)?;
    let found = flowmill_runner::status(&stages, &recipe, &experiment)?;
    let holder = flowmill_runner::holder(&experiment);
    let jobs = flowmill_runner::slurm_jobs(&experiment);
    if arguments.json {
        let mut status = as_json(recipe.name(), &experiment, holder.as_ref(), &found);
        status["slurm_jobs"] = json!(jobs);
        writeln!(out, "{status:#}")?;
        return Ok(());
    }
    print_table(&found, out)?;
    writeln!(out, "{}", style::paint(style::DIM, format!("in {}", experiment.dir().display())))?;
    if let Some(holder) = holder {
        writeln!(out, "{} {holder}", style::paint(style::WARN, "running now:"))?;
    }
    if !jobs.is_empty() {
        let jobs: Vec<String> = jobs.iter().map(u64::to_string).collect();
        let shown = format!("jobs {0} (squeue --jobs={0})", jobs.join(","));
        writeln!(out, "{} {shown}", style::paint(style::WARN, "in Slurm:"))?;
    }
    Ok(())
}

/// Prints one line per stage.
fn print_table(found: &[StageStatus], out: &mut dyn Write) -> Result<(), Failure> {
    let mut table = Table::new(&[
        ("stage", Align::Left),
        ("state", Align::Left),
        ("rows", Align::Right),
        ("rejected", Align::Right),
        ("age", Align::Right),
        ("why it would run", Align::Left),
    ]);
    for stage in found {
        let count = |rows: Option<u64>| rows.map_or("–".into(), human::count);
        table.row([
            Cell::from(&stage.stage),
            Cell::styled(stage.state, state_style(stage.state)),
            Cell::from(count(stage.rows_out)),
            Cell::from(count(stage.rejected)),
            Cell::from(stage.age.map_or("–".into(), human::age)),
            Cell::from(reasons(stage)),
        ]);
    }
    Ok(table.print(out)?)
}

/// Returns the color of a state.
fn state_style(state: StageState) -> anstyle::Style {
    match state {
        StageState::Done => style::GOOD,
        StageState::Partial | StageState::Stale | StageState::Interrupted => style::WARN,
        StageState::Never | StageState::Waiting => style::DIM,
    }
}

/// Returns the reasons why a stage would run, one per line.
fn reasons(stage: &StageStatus) -> String {
    let many = stage.parts > 1;
    let mut lines: Vec<String> = stage
        .reasons
        .iter()
        .take(REASONS)
        .map(|counted| match counted.parts {
            0 => counted.reason.clone(),
            _ if !many => counted.reason.clone(),
            parts => format!("{} ({parts} of {} parts)", counted.reason, stage.parts),
        })
        .collect();
    if stage.reasons.len() > REASONS {
        lines.push(format!("and {} more reasons", stage.reasons.len() - REASONS));
    }
    lines.join("\n")
}

/// Returns the status as JSON for programs.
fn as_json(name: &str, experiment: &Experiment, holder: Option<&Holder>, found: &[StageStatus]) -> Value {
    json!({
        "recipe": name,
        "experiment": experiment.dir().to_string_lossy(),
        "running": holder,
        "stages": found.iter().map(stage_json).collect::<Vec<_>>(),
    })
}

/// Returns one stage as JSON for programs.
fn stage_json(stage: &StageStatus) -> Value {
    let reason =
        |counted: &ReasonCount| json!({"kind": counted.kind, "reason": counted.reason, "parts": counted.parts});
    let reasons: Vec<Value> = stage.reasons.iter().map(reason).collect();
    json!({
        "stage": stage.stage,
        "number": stage.number,
        "title": stage.title,
        "state": stage.state.to_string(),
        "rows_in": stage.rows_in,
        "rows_out": stage.rows_out,
        "rejected": stage.rejected,
        "parts": stage.parts,
        "parts_to_run": stage.to_run,
        "age_seconds": stage.age.map(|age| age.as_secs_f64()),
        "reasons": reasons,
    })
}
