//! Files of Weights & Biases runs: the run, its configuration, the course of its history, its summary.

use std::io::Write;
use std::path::Path;

use anyhow::Result;
use flowmill_train::metrics::WandbContent;
use serde_json::Value;

use super::facts::{Facts, View};
use super::json::print_value;
use super::lines::print_courses;
use crate::human;
use crate::style;
use crate::table::print_pairs;

/// Reads the records of the file at `path` up to its end, or up to damage.
pub fn read(path: &Path) -> Result<WandbContent> {
    Ok(WandbContent::read(path)?)
}

impl Facts for WandbContent {
    fn print(&self, view: View, out: &mut dyn Write) -> Result<()> {
        writeln!(out, "{} records", human::count(self.records))?;
        let run = &self.run;
        let steps = self.first_step.zip(self.last_step);
        let steps = steps.map_or(String::new(), |(first, last)| format!(", steps {first} … {last}"));
        let state = match self.exit_code {
            Some(code) => format!("finished, exit code {code}"),
            None => "not finished".to_owned(),
        };
        let pairs = [
            ("project", run.project.clone()),
            ("name", run.name.clone()),
            ("id", run.id.clone()),
            ("entity", run.entity.clone()),
            ("group", run.group.clone()),
            ("tags", run.tags.join(", ")),
            ("notes", run.notes.clone()),
            ("started", run.started.map_or(String::new(), |time| human::date(time as f64))),
            ("state", state),
            ("history", format!("{} rows{steps}", human::count(self.history_rows))),
        ];
        let pairs = pairs.into_iter().filter(|(_, value)| !value.is_empty());
        let pairs: Vec<_> =
            pairs.map(|(name, value)| (name.to_owned(), human::shortened(&value, view.text(120)))).collect();
        print_pairs(&pairs, 2, out)?;
        if !self.config.is_empty() {
            writeln!(out, "{}", style::paint(style::TITLE, "configuration"))?;
            print_value(&Value::Object(self.config.clone()), 2, view, out)?;
        }
        print_courses(self.history.iter().map(|(name, course)| (name.as_str(), course)), out)?;
        print_courses(self.machine.iter().map(|(name, course)| (name.as_str(), course)), out)
    }

    fn json(&self) -> Result<Value> {
        Ok(serde_json::to_value(self)?)
    }

    fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }
}
