//! One HTML page about an experiment that needs nothing but itself: no network, no other file.
//!
//! Everything is read leniently. What a crash left half-done is shown as far as it goes, and what cannot be read is
//! named on the page instead of keeping it from being made.

mod checkpoints;
mod curves;
mod damaged;
mod environment;
mod history;
mod metrics;
mod originals;
mod overview;
mod page;
mod samples;
mod scores;
mod speed;
mod stages;
mod training;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use flowmill_runner::{Experiment, Holder, dead_owner, holder};
use flowmill_stage_train::Speed;
use serde_json::Value;

pub use checkpoints::CheckpointFacts;
use page::Page;
pub use stages::{StageResult, folders};
pub use training::TrainingFolder;

/// The experiment that a page is about.
struct Subject<'a> {
    experiment: &'a Path,
    /// Files that are not what their receipts say, with the problem; nothing of them is shown.
    damaged: BTreeMap<PathBuf, String>,
    training: TrainingFolder,
    /// The packed splits with their indexes, without the utterances.
    splits: Vec<(String, Value)>,
    /// The log of speed and memory.
    speed: Vec<Speed>,
    at_work: AtWork,
}

/// The command that works on the experiment. The journal has its line only after it has ended.
enum AtWork {
    /// No command works on it.
    Nobody,
    /// A command works on it.
    Running(Holder),
    /// The last one was killed.
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
    let (training, at_work) = (TrainingFolder::find(experiment), AtWork::on(experiment));
    let damaged = damaged::find(experiment.dir());
    let speed = speed::read(experiment.dir());
    let mut subject = Subject { experiment: experiment.dir(), damaged, training, at_work, splits: Vec::new(), speed };
    subject.splits = stages::splits(&subject);
    let mut page = Page::new(&overview::title(&subject), overview::body(&subject));
    damaged::add(&subject, &mut page);
    samples::add(&subject, &mut page);
    scores::add(&subject, &mut page);
    metrics::add(&subject, &mut page);
    speed::add(&subject, &mut page);
    checkpoints::add(&subject, &mut page);
    stages::add(&subject, &mut page);
    stages::add_rejected(&subject, &mut page);
    history::add(&subject, &mut page);
    environment::add(&subject, &mut page);
    page.finish()
}

impl Subject<'_> {
    /// Returns whether a file is what its receipt says, as far as it has one.
    fn is_sound(&self, path: &Path) -> bool {
        !self.damaged.contains_key(path)
    }

    /// Reads a file of the experiment that is not damaged, as JSON.
    fn json(&self, relative: impl AsRef<Path>) -> Option<Value> {
        let path = self.experiment.join(relative);
        self.is_sound(&path).then(|| std::fs::read(path).ok())?.and_then(|bytes| serde_json::from_slice(&bytes).ok())
    }
}

/// The names in a folder, sorted; none when there is no such folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
