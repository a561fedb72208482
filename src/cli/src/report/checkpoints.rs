//! The checkpoints, their average, and the scores of what was exported.

use serde_json::Value;

use super::Subject;
use super::html::{Cell, Page, folded, remark, table};
use crate::human;

/// Checkpoints, average and scores.
pub fn add(subject: &Subject, page: &mut Page) {
    let average = subject.json(&subject.experiment.join("5-average/average.json"));
    let averaged: Vec<u64> = average
        .iter()
        .flat_map(|average| average["checkpoints"].as_array().into_iter().flatten())
        .filter_map(|checkpoint| checkpoint["step"].as_u64())
        .collect();
    let rows: Vec<Vec<Cell>> = subject
        .training
        .checkpoints()
        .iter()
        .map(|(step, folder)| {
            let state = subject.json(&folder.join("state.json")).unwrap_or_default();
            let loss = |key: &str| state[key].as_f64().map_or("–".to_owned(), human::number);
            let note = match (state.is_null(), state["scheduled"].as_bool()) {
                (true, _) => "its state cannot be read",
                (_, Some(false)) => "made on an interruption or by command",
                _ if state["for_best"] == true => "made for its validation loss, the best at that time",
                _ => "",
            };
            vec![
                Cell::number(step),
                Cell::number(state["epoch"].as_u64().map_or("–".to_owned(), |epoch| epoch.to_string())),
                Cell::number(loss("loss")),
                Cell::number(loss("validation")),
                Cell::text(if averaged.contains(step) { "in the average" } else { "" }),
                Cell::text(note),
            ]
        })
        .collect();
    let mut body = table(&["step", "epoch", "training loss", "validation loss", "", ""], &rows);
    if let Some(average) = average {
        let which = average["which"].as_str().unwrap_or("?").to_owned();
        let steps: Vec<String> = averaged.iter().map(u64::to_string).collect();
        body += &remark(&format!(
            "The exported weights are the mean of the {which} {}: steps {}.",
            steps.len(),
            steps.join(", ")
        ));
    }
    page.section("Checkpoints", body);
    if let Some(scores) = subject.json(&subject.experiment.join("6-export/scores.json")) {
        page.section(
            "Scores",
            table(&["of held-out samples", ""], &pairs("", &scores)) + &folded("scores.json", &format!("{scores:#}")),
        );
    }
}

/// The numbers of a record, by their path; lists are left out.
fn pairs(prefix: &str, record: &Value) -> Vec<Vec<Cell>> {
    let entries = record.as_object().into_iter().flatten();
    entries
        .flat_map(|(name, value)| match value {
            Value::Object(_) => pairs(&format!("{prefix}{name}: "), value),
            Value::Number(number) => {
                let shown = number.as_f64().map_or_else(|| number.to_string(), human::number);
                vec![vec![Cell::text(format!("{prefix}{name}").replace('_', " ")), Cell::number(shown)]]
            }
            Value::String(text) => vec![vec![Cell::text(format!("{prefix}{name}")), Cell::text(text.as_str())]],
            _ => Vec::new(),
        })
        .collect()
}
