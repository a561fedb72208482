//! What ran: the journal.

use serde_json::Value;

use super::Subject;
use super::html::{Cell, Page, remark, table};
use super::training::Progress;

/// Commands shown; the latest ones.
const MOST: usize = 200;

/// The commands that ran, and how far the training is.
pub fn add(subject: &Subject, page: &mut Page) {
    let journal = std::fs::read_to_string(subject.experiment.join("journal.jsonl")).unwrap_or_default();
    let lines: Vec<Value> = journal.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let mut body = remark(match subject.training.progress {
        Progress::Done => "The training is finished.",
        Progress::Unfinished => {
            "The training is not finished: it runs, was stopped, or died. This page shows how far it got."
        }
        Progress::None => "Nothing has been trained yet.",
    });
    let text = |line: &Value, key: &str| line[key].as_str().unwrap_or_default().to_owned();
    let rows: Vec<Vec<Cell>> = lines
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
    body += &table(&["start (UTC)", "command", "outcome", "seconds", "host", "version"], &rows);
    if lines.len() > MOST {
        body += &remark(&format!("{} earlier commands are not shown.", lines.len() - MOST));
    }
    page.section("What ran", body);
}
