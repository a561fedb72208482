//! The journal: the commands that ran.

use flowmill_runner::{Experiment, read_journal};
use maud::html;
use serde_json::Value;

use super::page::{Cell, Page, remark, table};
use super::{AtWork, Subject};

/// Commands shown; the latest ones.
const MOST: usize = 200;

/// The commands that ran.
pub fn add(subject: &Subject, page: &mut Page) {
    let experiment = Experiment::at(subject.experiment);
    let (lines, damaged) = experiment.map(|experiment| read_journal(&experiment)).unwrap_or_default();
    let text = |line: &Value, key: &str| line[key].as_str().unwrap_or_default().to_owned();
    let mut rows: Vec<Vec<Cell>> = lines
        .iter()
        .skip(lines.len().saturating_sub(MOST))
        .map(|line| {
            let seconds = line["seconds"].as_f64().map_or("–".to_owned(), |seconds| format!("{seconds:.1}"));
            let outcome = match line["error"].as_str() {
                Some(error) => format!("{}: {error}", text(line, "outcome")),
                None => text(line, "outcome"),
            };
            vec![
                Cell::text(text(line, "start")),
                Cell::text(text(line, "command")),
                Cell::text(outcome),
                Cell::number(seconds),
                Cell::text(text(line, "host")),
                Cell::text(text(line, "version")),
            ]
        })
        .collect();
    rows.extend(unfinished(&subject.at_work));
    page.section(
        "What ran",
        html! {
            (table(&["start (UTC)", "command", "outcome", "seconds", "host", "version"], &rows))
            @if lines.len() > MOST { (remark(&format!("{} earlier commands are not shown.", lines.len() - MOST))) }
            @if damaged > 0 {
                (remark(&format!("{damaged} lines of journal.jsonl have no valid checksum and are not shown.")))
            }
        },
    );
}

/// The command that has no line in the journal, because it has not ended or never got to write one.
fn unfinished(at_work: &AtWork) -> Option<Vec<Cell>> {
    let (holder, outcome) = match at_work {
        AtWork::Nobody => return None,
        AtWork::Running(holder) => (holder, "runs"),
        AtWork::Died(holder) => (holder, "died"),
    };
    let outcome = format!("{outcome} (process {})", holder.pid);
    Some(vec![
        Cell::text(&holder.start),
        Cell::text(&holder.command),
        Cell::text(outcome),
        Cell::number("–"),
        Cell::text(&holder.host),
        Cell::text(""),
    ])
}
