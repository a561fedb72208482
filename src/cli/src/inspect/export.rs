//! Exported models: the configuration, the card, the scores, and the files.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use flowmill_weights::Archive;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::facts::{Facts, View};
use super::files::{self, FileSize};
use super::json::print_value;
use super::weights::StateDict;
use crate::human;
use crate::style;
use crate::table::print_pairs;

/// The description of the model.
const CONFIG: &str = "config.json";
/// The model card.
const CARD: &str = "README.md";
/// The largest configuration and card that are read, in bytes.
const LARGEST: u64 = 16 << 20;
/// The number of characters of a line of the card that are shown.
const LINE: usize = 160;

/// An exported model.
#[derive(Serialize)]
pub struct Export {
    family: String,
    config: Value,
    /// The lines of the model card.
    card: Vec<String>,
    /// The weight files, with the number of their tensors.
    weights: Map<String, Value>,
    files: Vec<FileSize>,
}

/// Returns the configuration in a folder, if it is that of a model of ours.
fn config(folder: &Path) -> Option<Value> {
    let path = folder.join(CONFIG);
    let is_small = std::fs::metadata(&path).is_ok_and(|about| about.len() <= LARGEST);
    let config: Value = serde_json::from_slice(&is_small.then(|| std::fs::read(path).ok())??).ok()?;
    config["family"].is_string().then_some(config)
}

/// Returns whether a folder is an exported model. That of a training has the same configuration, but no card.
pub fn is_one(folder: &Path) -> bool {
    folder.join(CARD).is_file() && config(folder).is_some()
}

/// Reads the model in `folder`.
pub fn read(folder: &Path) -> Result<Export> {
    let config = config(folder).with_context(|| format!("{} cannot be read", folder.join(CONFIG).display()))?;
    let files = files::below(folder);
    let mut weights = Map::new();
    for FileSize { path, .. } in &files {
        let ending = Path::new(path).extension().and_then(|ending| ending.to_str());
        if matches!(ending, Some("safetensors" | "pt" | "sft")) {
            let summary = Archive::open(&folder.join(path)).map(|archive| StateDict::of(&archive).summary());
            weights.insert(path.clone(), json!(summary.unwrap_or_else(|error| error.to_string())));
        }
    }
    let card = folder.join(CARD);
    let card = std::fs::metadata(&card).is_ok_and(|about| about.len() <= LARGEST).then(|| std::fs::read(card).ok());
    let card = String::from_utf8_lossy(&card.flatten().unwrap_or_default()).lines().map(str::to_owned).collect();
    let family = config["family"].as_str().unwrap_or_default().to_owned();
    Ok(Export { family, config, card, weights, files })
}

impl Facts for Export {
    fn print(&self, view: View, out: &mut dyn Write) -> Result<()> {
        let title = |title: &str| style::paint(style::TITLE, title);
        print_pairs(&[("family".to_owned(), human::shortened(&self.family, 60))], 2, out)?;
        writeln!(out, "{}", title("configuration"))?;
        print_value(&self.config, 2, view, out)?;
        writeln!(out, "{}", title("weights"))?;
        let weights = self.weights.iter();
        let pairs: Vec<_> =
            weights.map(|(name, about)| (name.clone(), about.as_str().unwrap_or("").to_owned())).collect();
        print_pairs(&pairs, 2, out)?;
        files::print(&self.files, view, out)?;
        writeln!(out, "{}", title("card"))?;
        let lines = view.items(view.rows.max(1) * 2);
        for line in self.card.iter().take(lines) {
            writeln!(out, "  {}", human::shortened(line, view.text(LINE)))?;
        }
        if self.card.len() > lines {
            writeln!(out, "  … {} more lines", self.card.len() - lines)?;
        }
        Ok(())
    }

    fn json(&self) -> Result<Value> {
        Ok(serde_json::to_value(self)?)
    }
}
