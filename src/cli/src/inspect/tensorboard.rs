//! Event files of TensorBoard: the course of every tag.

use std::io::Write;
use std::path::Path;

use anyhow::Result;
use flowmill_train::metrics::EventFile;
use serde_json::Value;

use super::facts::{Facts, View};
use crate::human;
use crate::table::{Align, Cell, Table, print_pairs};

/// The number of tags that are shown.
const TAGS: usize = 200;

/// Reads the events of the file at `path` up to its end, or up to damage.
pub fn read(path: &Path) -> Result<EventFile> {
    Ok(EventFile::read(path)?)
}

impl Facts for EventFile {
    fn print(&self, view: View, out: &mut dyn Write) -> Result<()> {
        writeln!(out, "{} events, {} tags", human::count(self.events), human::count(self.tags.len() as u64))?;
        let time = |time: Option<f64>| time.map_or("–".to_owned(), human::date);
        let pairs = [
            ("version".to_owned(), human::shortened(self.version.as_deref().unwrap_or("–"), 60)),
            ("first event".into(), time(self.first_time)),
            ("last event".into(), time(self.last_time)),
        ];
        print_pairs(&pairs, 2, out)?;
        let titles = ["tag", "kind", "entries", "steps", "first", "last", "smallest", "largest"];
        let aligned =
            titles.map(|title| (title, if matches!(title, "tag" | "kind") { Align::Left } else { Align::Right }));
        let mut table = Table::new(&aligned);
        for (name, tag) in self.tags.iter().take(view.items(TAGS)) {
            let numbers = tag.numbers.map_or(vec![], |course| vec![course.first, course.last, course.min, course.max]);
            let about = [
                human::shortened(name, view.text(60)),
                human::shortened(&tag.kind, 20),
                human::count(tag.count),
                format!("{} … {}", tag.first_step, tag.last_step),
            ];
            table.row(about.into_iter().chain(numbers.into_iter().map(human::number)).map(Cell::from));
        }
        table.print(out)?;
        let listed = view.items(TAGS);
        if self.tags.len() > listed {
            writeln!(out, "… {} more tags", human::count((self.tags.len() - listed) as u64))?;
        }
        Ok(())
    }

    fn json(&self) -> Result<Value> {
        Ok(serde_json::to_value(self)?)
    }

    fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }
}
