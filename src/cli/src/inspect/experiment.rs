//! The folder of an experiment: its stages, its checkpoints, the command that runs or ran last, and what to type next.

use std::io::Write;
use std::path::Path;

use anyhow::Result;
use flowmill_runner::{Experiment, Holder, dead_owner, holder, quoted, read_journal};
use serde_json::{Value, json};

use super::facts::{Facts, View};
use super::json::in_one_line;
use crate::human;
use crate::report::{CheckpointFacts, StageResult, TrainingFolder, folders};
use crate::style;
use crate::table::{Align, Cell, Table, print_pairs};

/// The number of characters of the facts of a stage that are shown.
const FACTS: usize = 100;
/// The number of checkpoints that are shown; the latest ones.
const CHECKPOINTS: usize = 10;

/// The state of an experiment.
pub struct ExperimentFacts {
    /// The stages whose folders exist, with the names of all.
    stages: Vec<(String, Option<StageResult>)>,
    checkpoints: Vec<CheckpointFacts>,
    running: Option<Holder>,
    /// The command that was killed.
    died: Option<Holder>,
    /// The last line of the journal.
    last: Option<Value>,
    /// Commands to type next.
    next: Vec<String>,
}

/// Returns whether a folder is that of an experiment: it has the folder of a stage, or a journal of our own.
pub fn is_one(folder: &Path) -> bool {
    folders(folder).iter().any(|(_, stage)| StageResult::of(stage).is_some())
        || Experiment::at(folder).is_ok_and(|experiment| !read_journal(&experiment).0.is_empty())
}

/// Reads the state of the experiment in `folder`.
pub fn read(folder: &Path) -> Result<ExperimentFacts> {
    let experiment = Experiment::at(folder)?;
    let stages = folders(folder).into_iter().map(|(name, stage)| (name, StageResult::of(&stage))).collect();
    let training = TrainingFolder::find(&experiment);
    let checkpoint = |(step, folder): (u64, std::path::PathBuf)| {
        let state = std::fs::read(folder.join("state.json")).ok();
        let state = state.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok()).unwrap_or_default();
        CheckpointFacts { step: Some(step), ..CheckpointFacts::of(&state) }
    };
    let checkpoints = training.checkpoints().into_iter().map(checkpoint).collect();
    let last = read_journal(&experiment).0.pop();
    let mut facts = ExperimentFacts {
        stages,
        checkpoints,
        running: holder(&experiment),
        died: dead_owner(&experiment),
        last,
        next: Vec::new(),
    };
    facts.next = facts.next_commands(folder);
    Ok(facts)
}

impl ExperimentFacts {
    /// Returns the commands that a person is likely to type next.
    fn next_commands(&self, folder: &Path) -> Vec<String> {
        let shown = quoted(&folder.display().to_string());
        if self.running.is_some() {
            return vec![format!("flowmill ctl {shown} status"), format!("flowmill report {shown}")];
        }
        let text = |key: &str| self.last.as_ref().and_then(|line| line[key].as_str()).unwrap_or_default();
        // The same command continues what was interrupted or failed.
        let unfinished = self.died.as_ref().map(|holder| holder.command.as_str());
        let unfinished = unfinished.or((text("outcome") != "done").then(|| text("command")));
        let unfinished = unfinished.filter(|command| !command.is_empty()).map(str::to_owned);
        let report = format!("flowmill report {shown}");
        let is_done = |stage: &Option<StageResult>| stage.as_ref().is_some_and(|stage| stage.is_done);
        match self.stages.iter().find(|(_, stage)| !is_done(stage)) {
            None => {
                let model = quoted(&folder.join("6-export").display().to_string());
                unfinished.into_iter().chain([report, format!("flowmill inspect {model}")]).collect()
            }
            Some((name, _)) => {
                let stage = name.split_once('-').map_or(name.as_str(), |(_, name)| name);
                let on = unfinished.or_else(|| continued(text("command"), stage));
                on.into_iter().chain([report]).collect()
            }
        }
    }
}

/// Returns the command `flowmill run …` for another stage; `None` if the command is another one.
fn continued(command: &str, stage: &str) -> Option<String> {
    let mut words = command.strip_prefix("flowmill run")?.split(' ').filter(|word| !word.is_empty());
    let mut kept = vec!["flowmill", "run"];
    while let Some(word) = words.next() {
        match word {
            "--stage" | "--stop-stage" => drop(words.next()),
            _ if word.starts_with("--stage=") || word.starts_with("--stop-stage=") => {}
            _ => kept.push(word),
        }
    }
    Some(format!("{} --stage {stage}", kept.join(" ")))
}

impl Facts for ExperimentFacts {
    fn print(&self, view: View, out: &mut dyn Write) -> Result<()> {
        self.print_stages(view, out)?;
        self.print_checkpoints(view, out)?;
        let mut pairs = Vec::new();
        let killed = self.died.as_ref().map(|holder| ("was killed", holder));
        if let Some((name, holder)) = self.running.as_ref().map(|holder| ("running now", holder)).or(killed) {
            pairs.push((name.to_owned(), holder.to_string()));
        } else if let Some(line) = &self.last {
            let text = |key: &str| human::shortened(line[key].as_str().unwrap_or_default(), view.text(120));
            pairs
                .push(("last command".into(), format!("{} ({}, {})", text("command"), text("outcome"), text("start"))));
        }
        pairs.extend(self.next.iter().enumerate().map(|(index, command)| {
            let name = if index == 0 { "next" } else { "" };
            (name.to_owned(), human::shortened(command, view.text(160)))
        }));
        Ok(print_pairs(&pairs, 0, out)?)
    }

    fn json(&self) -> Result<Value> {
        let stage = |(name, result): &(String, Option<StageResult>)| -> Result<Value> {
            let mut stage = match result {
                Some(result) => serde_json::to_value(result)?,
                None => json!({}),
            };
            stage["stage"] = json!(name);
            stage["state"] = json!(result.as_ref().map_or("never", StageResult::state));
            Ok(stage)
        };
        Ok(json!({
            "stages": self.stages.iter().map(stage).collect::<Result<Vec<_>>>()?,
            "checkpoints": self.checkpoints,
            "running": self.running,
            "died": self.died,
            "last_command": self.last,
            "next": self.next,
        }))
    }
}

impl ExperimentFacts {
    fn print_stages(&self, view: View, out: &mut dyn Write) -> Result<()> {
        let mut table = Table::new(&[
            ("stage", Align::Left),
            ("state", Align::Left),
            ("rows", Align::Right),
            ("rejected", Align::Right),
            ("facts", Align::Left),
        ]);
        for (name, result) in &self.stages {
            let Some(result) = result else {
                table.row([Cell::from(name), Cell::styled("never", style::DIM), "–".into(), "–".into()]);
                continue;
            };
            let count = |rows: Option<u64>| Cell::from(rows.map_or("–".into(), human::count));
            let facts = result.facts.iter().map(|(name, value)| format!("{name} {}", in_one_line(value, view)));
            let facts = facts.collect::<Vec<_>>().join(", ");
            let style = if result.is_done { style::GOOD } else { style::WARN };
            table.row([
                Cell::from(name),
                Cell::styled(result.state(), style),
                count(result.rows_out),
                count(result.rejected),
                Cell::from(human::shortened(&facts, view.text(FACTS))),
            ]);
        }
        Ok(table.print(out)?)
    }

    fn print_checkpoints(&self, view: View, out: &mut dyn Write) -> Result<()> {
        if self.checkpoints.is_empty() {
            return Ok(());
        }
        let mut table = Table::new(&[
            ("checkpoint", Align::Right),
            ("epoch", Align::Right),
            ("training loss", Align::Right),
            ("validation loss", Align::Right),
            ("", Align::Left),
        ]);
        let left_out = self.checkpoints.len().saturating_sub(view.items(CHECKPOINTS));
        for facts in self.checkpoints.iter().skip(left_out) {
            let count = |number: Option<u64>| Cell::from(number.map_or("–".into(), human::count));
            let loss = |loss: Option<f64>| Cell::from(loss.map_or("–".into(), human::number));
            let numbers = [count(facts.step), count(facts.epoch), loss(facts.loss), loss(facts.validation_loss)];
            table.row(numbers.into_iter().chain([Cell::from(facts.note)]));
        }
        table.print(out)?;
        if left_out > 0 {
            writeln!(out, "… {left_out} earlier ones")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_continued_with_another_stage() {
        let on = |command| continued(command, "train");
        let command = "flowmill run mine --set a=b --stage 0 --stop-stage=pack --jobs 2";
        assert_eq!(on(command).as_deref(), Some("flowmill run mine --set a=b --jobs 2 --stage train"));
        assert_eq!(on("flowmill clean mine"), None);
    }
}
