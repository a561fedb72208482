//! The checkpoints, and which of them are in the exported weights.

use maud::html;
use serde::Serialize;
use serde_json::Value;

use super::Subject;
use super::page::{Cell, Page, remark, table};
use crate::human;

/// What the state of a checkpoint says about it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CheckpointFacts {
    /// Steps done.
    pub step: Option<u64>,
    /// Passes over the data done.
    pub epoch: Option<u64>,
    /// The training loss on the last line of the metrics.
    pub loss: Option<f64>,
    /// The validation loss of these weights.
    pub validation_loss: Option<f64>,
    /// Why it was made, if not by the schedule.
    pub note: &'static str,
}

impl CheckpointFacts {
    /// Returns the facts in `state.json`; null stands for one that cannot be read.
    pub fn of(state: &Value) -> Self {
        let note = match (state.is_null(), state["scheduled"].as_bool()) {
            (true, _) => "its state cannot be read",
            (_, Some(false)) => "made on an interruption or by command",
            _ if state["for_best"] == true => "made for its validation loss, the best at that time",
            _ => "",
        };
        Self {
            step: state["step"].as_u64(),
            epoch: state["epoch"].as_u64(),
            loss: state["loss"].as_f64(),
            validation_loss: state["validation"].as_f64(),
            note,
        }
    }
}

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
            let facts = CheckpointFacts::of(&state);
            let loss = |loss: Option<f64>| loss.map_or("–".to_owned(), human::number);
            vec![
                Cell::number(step),
                Cell::number(facts.epoch.map_or("–".to_owned(), |epoch| epoch.to_string())),
                Cell::number(loss(facts.loss)),
                Cell::number(loss(facts.validation_loss)),
                Cell::text(if averaged.contains(step) { "in the average" } else { "" }),
                Cell::text(facts.note),
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
