//! The scores of the exported model, each with its meaning.

use flowmill_family::ExplainedScore;
use maud::{Markup, html};
use serde_json::Value;

use super::Subject;
use super::page::{Cell, Page, folded, remark, table};
use crate::{human, stages};

/// The scores.
pub fn add(subject: &Subject, page: &mut Page) {
    let Some(scores) = subject.json("6-export/scores.json") else { return };
    let explained = explained(subject, &scores);
    let shown = match explained.is_empty() {
        false => explanations(&explained),
        true => table(&["score", "value"], &pairs("", &scores)),
    };
    let split = scores["split"].as_str().map(|split| format!("Measured on the split `{split}`."));
    page.section(
        "Scores",
        html! {
            @if let Some(split) = split { (remark(&split)) }
            (shown)
            (folded("scores.json", &format!("{scores:#}")))
        },
    );
}

/// The scores as the family of the exported model explains them; none when it does not.
fn explained(subject: &Subject, scores: &Value) -> Vec<ExplainedScore> {
    let Some(description) = subject.json("6-export/config.json") else { return Vec::new() };
    let families = stages::families();
    let family = description["family"].as_str().and_then(|name| families.find(Some(name)).ok());
    family.and_then(|family| family.explain(scores).ok()).unwrap_or_default()
}

fn explanations(scores: &[ExplainedScore]) -> Markup {
    let row = |ExplainedScore { name, value, meaning }: &ExplainedScore| {
        vec![Cell::text(name), Cell::number(value), Cell::text(meaning)]
    };
    table(&["score", "value", "meaning"], &scores.iter().map(row).collect::<Vec<_>>())
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
            Value::String(text) => vec![vec![Cell::text(format!("{prefix}{name}")), Cell::text(text)]],
            _ => Vec::new(),
        })
        .collect()
}
