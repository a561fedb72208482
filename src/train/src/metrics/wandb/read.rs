//! Files of Weights & Biases runs, read: the run, its configuration, the course of its history, its summary.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

use super::log::{HEADER, Records};
use crate::metrics::Course;
use flowmill_weights::protobuf::{Field, fields};

/// The content of a `.wandb` file.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct WandbContent {
    /// Number of records.
    pub records: u64,
    /// The run.
    pub run: WandbRunFacts,
    /// The configuration.
    pub config: Map<String, Value>,
    /// Number of rows of the history.
    pub history_rows: u64,
    /// Step of the first row.
    pub first_step: Option<u64>,
    /// Step of the last row.
    pub last_step: Option<u64>,
    /// The numbers of the history.
    pub history: BTreeMap<String, Course>,
    /// The latest values.
    pub summary: Map<String, Value>,
    /// The numbers that W&B's own program measures of the machine.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub machine: BTreeMap<String, Course>,
    /// True if the run has ended.
    pub is_finished: bool,
    /// The exit code of a run that has ended.
    pub exit_code: Option<i64>,
    /// Position of the first damaged record; nothing after it is read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub damage: Option<String>,
}

/// What a `.wandb` file says about its run.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct WandbRunFacts {
    /// The id.
    pub id: String,
    /// The user or team.
    pub entity: String,
    /// The project.
    pub project: String,
    /// The group.
    pub group: String,
    /// The name that is shown.
    pub name: String,
    /// The description.
    pub notes: String,
    /// The tags.
    pub tags: Vec<String>,
    /// Start in seconds since 1970.
    pub started: Option<u64>,
}

/// Returns whether a file that begins with these bytes is that of a Weights & Biases run.
pub fn begins_wandb(head: &[u8]) -> bool {
    head.starts_with(&HEADER)
}

impl WandbContent {
    /// Reads the file at `path` up to its end, or up to the first damaged record.
    ///
    /// # Errors
    /// When the file cannot be read, or does not begin like that of a run.
    pub fn read(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let records = Records::new(BufReader::new(file), length)?;
        let mut records = records.ok_or_else(|| io::Error::other("it is not a file of a Weights & Biases run"))?;
        let mut found = Self::default();
        loop {
            let at = records.end;
            let whole = records.next()?.is_some_and(|record| found.add(&record).is_some());
            if !whole {
                let problem = "a record is incomplete, or does not match its checksum";
                let damage = || format!("the file cannot be read after byte {at} of {length}: {problem}");
                found.damage = (at < length).then(damage);
                return Ok(found);
            }
        }
    }

    /// Adds a record; `None` if it is damaged.
    fn add(&mut self, record: &[u8]) -> Option<()> {
        for field in fields(record) {
            match field? {
                (2, Field::Bytes(row)) => self.add_row(row)?,
                (3, Field::Bytes(summary)) => items(summary, 1, &mut |name, value| {
                    self.summary.insert(name, value);
                })?,
                (5, Field::Bytes(config)) => items(config, 1, &mut |name, value| {
                    self.config.insert(name, value);
                })?,
                (7, Field::Bytes(stats)) => items(stats, 3, &mut |name, value| add(&mut self.machine, name, &value))?,
                (17, Field::Bytes(run)) => self.add_run(run)?,
                (18, Field::Bytes(exit)) => self.add_exit(exit)?,
                _ => {}
            }
        }
        self.records += 1;
        Some(())
    }

    fn add_row(&mut self, row: &[u8]) -> Option<()> {
        items(row, 1, &mut |name, value| {
            // Names with an underscore are W&B's own: step and clock.
            if !name.starts_with('_') {
                add(&mut self.history, name, &value);
            }
        })?;
        for field in fields(row) {
            let (2, Field::Bytes(step)) = field? else { continue };
            let mut number = 0;
            for field in fields(step) {
                if let (1, Field::Varint(value)) = field? {
                    number = value;
                }
            }
            self.first_step.get_or_insert(number);
            self.last_step = Some(number);
        }
        self.history_rows += 1;
        Some(())
    }

    fn add_run(&mut self, run: &[u8]) -> Option<()> {
        let facts = &mut self.run;
        for field in fields(run) {
            match field? {
                (1, field) => facts.id = field.text(),
                (2, field) => facts.entity = field.text(),
                (3, field) => facts.project = field.text(),
                (4, Field::Bytes(config)) => items(config, 1, &mut |name, value| {
                    self.config.insert(name, value);
                })?,
                (6, field) => facts.group = field.text(),
                (8, field) => facts.name = field.text(),
                (9, field) => facts.notes = field.text(),
                (10, field) => facts.tags.push(field.text()),
                (17, Field::Bytes(time)) => {
                    for field in fields(time) {
                        if let (1, Field::Varint(seconds)) = field? {
                            facts.started = Some(seconds);
                        }
                    }
                }
                _ => {}
            }
        }
        Some(())
    }

    fn add_exit(&mut self, exit: &[u8]) -> Option<()> {
        (self.is_finished, self.exit_code) = (true, Some(0));
        for field in fields(exit) {
            if let (1, Field::Varint(code)) = field? {
                self.exit_code = Some(code as i64);
            }
        }
        Some(())
    }
}

/// Adds a number to those of its name; other values are left out.
fn add(courses: &mut BTreeMap<String, Course>, name: String, value: &Value) {
    let Some(value) = value.as_f64() else { return };
    match courses.get_mut(&name) {
        Some(course) => course.add(value),
        None => drop(courses.insert(name, Course::new(value))),
    }
}

/// Reads the items of a configuration, a row or a summary, which are in field `number`; `None` if one is damaged.
fn items(message: &[u8], number: u64, take: &mut dyn FnMut(String, Value)) -> Option<()> {
    for field in fields(message) {
        let (at, Field::Bytes(item)) = field? else { continue };
        if at != number {
            continue;
        }
        let (mut names, mut value) = (Vec::new(), Value::Null);
        for field in fields(item) {
            match field? {
                // The key, or the parts of a nested one.
                (1 | 2, field @ Field::Bytes(_)) => names.push(field.text()),
                (16, Field::Bytes(json)) => value = serde_json::from_slice(json).unwrap_or_default(),
                _ => {}
            }
        }
        take(names.join("."), value);
    }
    Some(())
}
