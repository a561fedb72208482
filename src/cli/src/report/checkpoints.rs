//! The checkpoints, and which of them are in the exported weights.

use maud::html;

use super::Subject;
use super::page::{Cell, Page, remark, table};
use crate::human;

/// The checkpoints and their average.
pub fn add(subject: &Subject, page: &mut Page) {
    let average = subject.json("5-average/average.json");
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
            let state = subject.json(folder.join("state.json")).unwrap_or_default();
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
    let mean = average.map(|average| {
        let which = average["which"].as_str().unwrap_or("?").to_owned();
        let steps: Vec<String> = averaged.iter().map(u64::to_string).collect();
        format!("The exported weights are the mean of the {which} {}: steps {}.", steps.len(), steps.join(", "))
    });
    page.section(
        "Checkpoints",
        html! {
            (table(&["step", "epoch", "training loss", "validation loss", "", ""], &rows))
            @if let Some(mean) = mean { (remark(&mean)) }
        },
    );
}
