//! The stages: rows, facts, settings, data, and rows that were set aside.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use flowmill_runner::{Receipt, sealed_content};
use maud::{Markup, html};
use serde::Serialize;
use serde_json::{Map, Value};

use super::page::{Cell, Page, folded, remark, table};
use super::{Subject, names};
use crate::{human, stages};

/// Settings of a stage that are worth a line each are few; the rest is folded away.
const LONGEST_FACT: usize = 300;
/// Ids shown for a reason.
const EXAMPLES: usize = 5;

/// The result of a stage, by the records in its folder.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StageResult {
    /// True if all parts are done.
    #[serde(skip)]
    pub is_done: bool,
    /// Number of parts that are done.
    pub parts: usize,
    /// Rows in; `None` if the stage is not finished or carries no rows, like the next two.
    pub rows_in: Option<u64>,
    /// Rows out.
    pub rows_out: Option<u64>,
    /// Rejected rows.
    pub rejected: Option<u64>,
    /// What the stage says about its result.
    pub facts: Map<String, Value>,
}

impl StageResult {
    /// Reads the records in the folder of a stage; `None` if there are none.
    pub fn of(folder: &Path) -> Option<Self> {
        let summary = sealed_content(&folder.join("stage.json")).ok();
        let parts = receipts(folder).len();
        (summary.is_some() || parts > 0).then(|| Self::new(summary.as_ref(), parts))
    }

    fn new(summary: Option<&Value>, parts: usize) -> Self {
        let carries = summary.filter(|summary| summary["carries_rows"].as_bool() == Some(true));
        let count = |key: &str| carries.and_then(|summary| summary[key].as_u64());
        Self {
            is_done: summary.is_some(),
            parts,
            rows_in: count("rows_in"),
            rows_out: count("rows_out"),
            rejected: count("rejected"),
            facts: summary.and_then(|summary| summary["facts"].as_object().cloned()).unwrap_or_default(),
        }
    }

    /// Returns `done` or `partial`.
    pub fn state(&self) -> &'static str {
        if self.is_done { "done" } else { "partial" }
    }
}

/// Adds the stages with their settings, and the data.
pub fn add(subject: &Subject, page: &mut Page) {
    let mut rows = Vec::new();
    let mut settings = Vec::new();
    for (title, folder) in folders(subject.experiment) {
        let summary = sealed_content(&folder.join("stage.json")).ok();
        let receipts = receipts(&folder);
        if summary.is_none() && receipts.is_empty() {
            continue;
        }
        rows.push(row(&title, &StageResult::new(summary.as_ref(), receipts.len())));
        // The part with the longest settings is the one that does the work.
        if let Some(receipt) = receipts.iter().max_by_key(|receipt| receipt.config.to_string().len()) {
            settings.push(folded(&format!("{title}: settings"), &format!("{:#}", receipt.config)));
        }
    }
    let heads = ["stage", "state", "rows in", "rows out", "rejected", "facts"];
    page.section("Stages", html! { (table(&heads, &rows)) @for settings in settings { (settings) } });
    page.section("Data", data(subject));
}

/// Rows that were set aside, by reason.
pub fn add_rejected(subject: &Subject, page: &mut Page) {
    let mut tables = Vec::new();
    for (title, folder) in folders(subject.experiment) {
        let mut reasons: BTreeMap<String, (u64, Vec<String>)> = BTreeMap::new();
        for rejection in receipts(&folder).iter().flat_map(|receipt| &receipt.rejected) {
            let kind = rejection.reason.split(": ").next().unwrap_or_default();
            let (count, examples) = reasons.entry(kind.to_owned()).or_default();
            *count += 1;
            if examples.len() < EXAMPLES {
                examples.push(format!("{} ({})", rejection.id, rejection.reason));
            }
        }
        let mut reasons: Vec<_> = reasons.into_iter().collect();
        reasons.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
        let rows: Vec<Vec<Cell>> = reasons
            .into_iter()
            .map(|(kind, (count, examples))| {
                vec![Cell::text(kind), Cell::number(human::count(count)), Cell::text(examples.join("; "))]
            })
            .collect();
        if !rows.is_empty() {
            tables.push(html! { h3 { (title) } (table(&["reason", "rows", "such as"], &rows)) });
        }
    }
    page.section(
        "Rejected rows",
        html! {
            @if tables.is_empty() { (remark("No row was rejected.")) }
            @for table in tables { (table) }
        },
    );
}

fn row(title: &str, result: &StageResult) -> Vec<Cell> {
    if !result.is_done {
        let mut cells = vec![Cell::text(title), Cell::text(format!("not finished, {} parts done", result.parts))];
        cells.extend((0..4).map(|_| Cell::text("")));
        return cells;
    }
    let count = |rows: Option<u64>| Cell::number(rows.map_or("–".to_owned(), human::count));
    let facts: Vec<String> = result.facts.iter().map(|(name, value)| format!("{name} {}", fact(value))).collect();
    vec![
        Cell::text(title),
        Cell::text("done"),
        count(result.rows_in),
        count(result.rows_out),
        count(result.rejected),
        Cell::text(human::shortened(&facts.join(", "), LONGEST_FACT)),
    ]
}

fn fact(value: &Value) -> String {
    match value.as_f64() {
        Some(number) => human::number(number),
        None => value.as_str().map_or_else(|| value.to_string(), str::to_owned),
    }
}

/// Reads the indexes of the packed splits, without their utterances.
pub fn splits(subject: &Subject) -> Vec<(String, Value)> {
    let folder = subject.experiment.join("3-pack");
    let index = |split: String| {
        let mut index = subject.json(folder.join(&split).join("index.json"))?;
        for shard in index.get_mut("shards").and_then(Value::as_array_mut).into_iter().flatten() {
            shard.as_object_mut().map(|shard| shard.remove("utterances"));
        }
        Some((split, index))
    };
    names(&folder).into_iter().filter_map(index).collect()
}

/// The packed splits, and the files that stage 0 read.
fn data(subject: &Subject) -> Markup {
    let row = |(split, index): &(String, Value)| {
        let shards = || index["shards"].as_array().into_iter().flatten();
        vec![
            Cell::text(split),
            Cell::number(human::count(index["rows"].as_u64().unwrap_or(0))),
            Cell::number(format!("{:.3}", index["seconds"].as_f64().unwrap_or(0.0) / 3600.0)),
            Cell::number(human::count(index["frames"].as_u64().unwrap_or(0))),
            Cell::number(shards().count()),
            Cell::text(human::bytes(shards().filter_map(|shard| shard["bytes"].as_u64()).sum())),
        ]
    };
    let rows: Vec<Vec<Cell>> = subject.splits.iter().map(row).collect();
    let read = Receipt::read(&subject.experiment.join("0-prep/receipts/read.json"));
    let sources: Vec<Vec<Cell>> = read
        .iter()
        .flat_map(|receipt| &receipt.inputs)
        .map(|input| {
            let hash = input.blake3.as_deref().map_or("not there", |hash| hash.get(..16).unwrap_or(hash));
            vec![Cell::text(&input.path), Cell::text(hash)]
        })
        .collect();
    html! {
        (table(&["split", "rows", "hours", "mel frames", "shards", "size"], &rows))
        (table(&["read from", "BLAKE3"], &sources))
    }
}

/// Returns the title and folder of every stage.
pub fn folders(experiment: &Path) -> Vec<(String, PathBuf)> {
    let name = |stage: &dyn flowmill_runner::Stage| format!("{}-{}", stage.number(), stage.name());
    let stages = stages::all();
    stages.iter().map(|stage| (name(stage.as_ref()), experiment.join(name(stage.as_ref())))).collect()
}

/// The receipts that can be read, in the order of their names.
fn receipts(stage: &Path) -> Vec<Receipt> {
    let mut found = Vec::new();
    let mut folders = vec![stage.join("receipts")];
    while let Some(folder) = folders.pop() {
        for name in names(&folder) {
            let path = folder.join(name);
            if path.is_dir() {
                folders.push(path)
            } else {
                found.extend(Receipt::read(&path).map(|receipt| (path, receipt)))
            }
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found.into_iter().map(|(_, receipt)| receipt).collect()
}
