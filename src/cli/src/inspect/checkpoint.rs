//! Checkpoints of a training: the step, the losses, and the files with their tensors.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use flowmill_train::checkpoint::{EMA_FILE, MODEL_FILE, OPTIMIZER_FILE, STATE_FILE, verify};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::facts::{Facts, View};
use super::files::{self, FileSize};
use super::safetensors;
use crate::human;
use crate::report::CheckpointFacts;
use crate::style;
use crate::table::print_pairs;

/// A checkpoint.
#[derive(Serialize)]
pub struct Checkpoint {
    #[serde(flatten)]
    facts: CheckpointFacts,
    /// Steps of the whole training.
    steps: Option<u64>,
    /// The files with tensors, with the number of these.
    tensors: Map<String, Value>,
    files: Vec<FileSize>,
    #[serde(skip)]
    damage: Option<String>,
}

/// Returns whether a folder is a checkpoint.
pub fn is_one(folder: &Path) -> bool {
    folder.join(STATE_FILE).is_file() && folder.join(MODEL_FILE).is_file()
}

/// Reads the checkpoint in `folder`, and verifies its checksums.
pub fn read(folder: &Path) -> Result<Checkpoint> {
    let path = folder.join(STATE_FILE);
    let state = std::fs::read(&path).with_context(|| format!("{}", path.display()))?;
    let state: Value =
        serde_json::from_slice(&state).with_context(|| format!("{} is not valid JSON", path.display()))?;
    let mut tensors = Map::new();
    for name in [MODEL_FILE, OPTIMIZER_FILE, EMA_FILE] {
        let path = folder.join(name);
        if path.is_file() {
            let summary = safetensors::read(&path).map(|file| json!(file.summary()));
            tensors.insert(name.to_owned(), summary.unwrap_or_else(|error| json!(format!("{error:#}"))));
        }
    }
    Ok(Checkpoint {
        facts: CheckpointFacts::of(&state),
        steps: state["steps"].as_u64(),
        tensors,
        files: files::below(folder),
        damage: verify(folder).err().map(|error| error.to_string()),
    })
}

impl Facts for Checkpoint {
    fn print(&self, view: View, out: &mut dyn Write) -> Result<()> {
        let facts = &self.facts;
        let count = |number: Option<u64>| number.map_or("–".to_owned(), human::count);
        let loss = |loss: Option<f64>| loss.map_or("–".to_owned(), human::number);
        let mut pairs = vec![
            ("step".to_owned(), format!("{} of {}", count(facts.step), count(self.steps))),
            ("epoch".into(), count(facts.epoch)),
            ("training loss".into(), loss(facts.loss)),
            ("validation loss".into(), loss(facts.validation_loss)),
        ];
        if !facts.note.is_empty() {
            pairs.push(("note".into(), facts.note.to_owned()));
        }
        let checksums = if self.damage.is_none() { "match" } else { "do not match" };
        pairs.push(("checksums".into(), checksums.into()));
        print_pairs(&pairs, 2, out)?;
        writeln!(out, "{}", style::paint(style::TITLE, "tensors"))?;
        let tensors = self.tensors.iter();
        let tensors: Vec<_> =
            tensors.map(|(name, about)| (name.clone(), about.as_str().unwrap_or("").to_owned())).collect();
        print_pairs(&tensors, 2, out)?;
        files::print(&self.files, view, out)
    }

    fn json(&self) -> Result<Value> {
        Ok(serde_json::to_value(self)?)
    }

    fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }
}
