//! The head of the page: its title, where the experiment stands, and the figures that a reader looks for first.

use flowmill_runner::{Receipt, sealed_content};
use maud::{Markup, html};

use super::page::printable;
use super::stages::folders;
use super::training::Progress;
use super::{AtWork, Subject, speed};
use crate::human;

/// The recipe's name as stage 6 recorded it; before that the folder's, which is the same unless `--exp` gave another.
pub fn title(subject: &Subject) -> String {
    let recorded = Receipt::read(&subject.experiment.join("6-export/receipts/card.json")).ok();
    let recorded = recorded.and_then(|receipt| receipt.config["name"].as_str().map(str::to_owned));
    let folder = || subject.experiment.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    recorded.unwrap_or_else(folder)
}

/// A sentence on the state, and the figures.
pub fn body(subject: &Subject) -> Markup {
    let state = match (subject.training.progress, &subject.at_work) {
        (Progress::Done, _) => "The training is finished.",
        (Progress::Unfinished, AtWork::Running(_)) => "The training runs. This page shows how far it was.",
        (Progress::Unfinished, AtWork::Died(_)) => "The training died. This page shows how far it got.",
        (Progress::Unfinished, AtWork::Nobody) => "The training was stopped. This page shows how far it got.",
        (Progress::None, _) => "Nothing has been trained yet.",
    };
    let folders = folders(subject.experiment);
    let done = folders.iter().filter(|(_, folder)| folder.join("stage.json").exists()).count();
    html! {
        p { (done) " of " (folders.len()) " stages are done. " (state) }
        dl class="tiles" {
            @for (name, value) in tiles(subject) { div { dt { (name) } dd { (printable(&value)) } } }
        }
    }
}

/// Figures with their names: the data, the model, the training.
fn tiles(subject: &Subject) -> Vec<(&'static str, String)> {
    let mut tiles = Vec::new();
    let (rows, seconds) = packed(subject);
    if rows > 0 {
        tiles.push(("rows of data", human::count(rows)));
    }
    if seconds > 0.0 {
        tiles.push(("recordings", human::duration(seconds)));
    }
    let summary = sealed_content(&subject.experiment.join("4-train/stage.json")).unwrap_or_default();
    let facts = &summary["facts"];
    let count = |name: &str| facts[name].as_u64().map(human::count);
    let number = |name: &str| facts[name].as_f64().map(human::number);
    tiles.extend(count("parameters").map(|value| ("parameters", value)));
    tiles.extend(count("steps").map(|value| ("steps", value)));
    tiles.extend(number("best_validation_loss").map(|value| ("best validation loss", value)));
    tiles.extend(speed::seconds(subject).map(|seconds| ("time in training", human::duration(seconds))));
    tiles
}

/// Rows and seconds of recordings in all packed splits.
fn packed(subject: &Subject) -> (u64, f64) {
    let indexes = || subject.splits.iter().map(|(_, index)| index);
    let rows = indexes().filter_map(|index| index["rows"].as_u64()).sum();
    (rows, indexes().filter_map(|index| index["seconds"].as_f64()).sum())
}
