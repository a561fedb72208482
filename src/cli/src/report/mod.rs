//! One HTML page about an experiment that needs nothing but itself: no network, no other file.
//!
//! Everything is read leniently. What a crash left half-done is shown as far as it goes, and what cannot be read is
//! named on the page instead of keeping it from being made.

mod base64;
mod checkpoints;
mod curves;
mod environment;
mod history;
mod html;
mod metrics;
mod samples;
mod stages;
mod training;

use std::path::Path;

use flowmill_runner::{Experiment, Holder, dead_owner, holder};

use html::Page;
use training::TrainingFolder;

/// What a page is about: an experiment's folders.
struct Subject<'a> {
    experiment: &'a Path,
    training: TrainingFolder,
    at_work: AtWork,
}

/// Whether a command works on the experiment: the journal has a line of it only when it has ended.
enum AtWork {
    /// None does.
    Nobody,
    /// One does.
    Running(Holder),
    /// The last one died without a word.
    Died(Holder),
}

impl AtWork {
    fn on(experiment: &Experiment) -> Self {
        match (holder(experiment), dead_owner(experiment)) {
            (Some(holder), _) => Self::Running(holder),
            (None, Some(holder)) => Self::Died(holder),
            (None, None) => Self::Nobody,
        }
    }
}

/// Renders the page. The same experiment gives the same page.
pub fn render(experiment: &Experiment) -> String {
    let name = experiment.dir().file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let (training, at_work) = (TrainingFolder::find(experiment), AtWork::on(experiment));
    let subject = Subject { experiment: experiment.dir(), training, at_work };
    let mut page = Page::new(&name);
    history::add(&subject, &mut page);
    stages::add(&subject, &mut page);
    metrics::add(&subject, &mut page);
    samples::add(&subject, &mut page);
    checkpoints::add(&subject, &mut page);
    stages::add_rejected(&subject, &mut page);
    environment::add(&subject, &mut page);
    page.finish()
}

/// Reads a JSON file; of one that knows its own hash, what it holds.
fn json(path: &Path) -> Option<serde_json::Value> {
    let value: serde_json::Value = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    Some(value.get("content").cloned().unwrap_or(value))
}

/// The names in a folder, sorted; none when there is no such folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
