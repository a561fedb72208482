//! The folder of a stage: its state, rows and facts, and its files.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::Value;

use super::facts::{Facts, View};
use super::files::{self, FileSize};
use super::json::in_one_line;
use crate::human;
use crate::report::StageResult;
use crate::table::print_pairs;

/// The folder of a stage.
#[derive(Serialize)]
pub struct StageFolder {
    #[serde(flatten)]
    result: StageResult,
    files: Vec<FileSize>,
}

/// Returns whether a folder is that of a stage.
pub fn is_one(folder: &Path) -> bool {
    StageResult::of(folder).is_some()
}

/// Reads the folder of a stage.
pub fn read(folder: &Path) -> Result<StageFolder> {
    let result = StageResult::of(folder).context("its receipts cannot be read")?;
    Ok(StageFolder { result, files: files::below(folder) })
}

impl Facts for StageFolder {
    fn print(&self, view: View, out: &mut dyn Write) -> Result<()> {
        let result = &self.result;
        let count = |rows: Option<u64>| rows.map_or("–".to_owned(), human::count);
        let mut pairs = vec![
            ("state".to_owned(), result.state().to_owned()),
            ("parts".into(), human::count(result.parts as u64)),
            ("rows in".into(), count(result.rows_in)),
            ("rows out".into(), count(result.rows_out)),
            ("rejected".into(), count(result.rejected)),
        ];
        pairs.extend(result.facts.iter().map(|(name, value)| (name.clone(), in_one_line(value, view))));
        print_pairs(&pairs, 2, out)?;
        files::print(&self.files, view, out)
    }

    fn json(&self) -> Result<Value> {
        let mut json = serde_json::to_value(self)?;
        json["state"] = self.result.state().into();
        Ok(json)
    }
}
