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

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use flowmill_runner::{Experiment, Holder, StageFiles, dead_owner, holder};

use html::Page;
use training::TrainingFolder;

/// What a page is about: an experiment's folders.
struct Subject<'a> {
    experiment: &'a Path,
    /// Files that are not what their receipts say, with what is wrong; nothing of them is shown.
    damaged: BTreeMap<PathBuf, String>,
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
    let damaged = damaged(experiment.dir());
    let subject = Subject { experiment: experiment.dir(), damaged, training, at_work };
    let mut page = Page::new(&name);
    add_damaged(&subject, &mut page);
    history::add(&subject, &mut page);
    stages::add(&subject, &mut page);
    metrics::add(&subject, &mut page);
    samples::add(&subject, &mut page);
    checkpoints::add(&subject, &mut page);
    stages::add_rejected(&subject, &mut page);
    environment::add(&subject, &mut page);
    page.finish()
}

/// Larger files are not on the page, and are not checked for it.
const LARGEST_SHOWN: u64 = 64 << 20;

/// The files of finished parts that the page would show and that are not what their receipts say.
fn damaged(experiment: &Path) -> BTreeMap<PathBuf, String> {
    let shown = |(name, size): &(&str, u64)| {
        let endings = [".json", ".jsonl", ".wav", ".png"];
        *size <= LARGEST_SHOWN && endings.iter().any(|ending| name.ends_with(ending))
    };
    let mut damaged = BTreeMap::new();
    for (_, folder) in stages::folders(experiment) {
        let Some(files) = StageFiles::of(&folder) else { continue };
        let outputs = files.outputs().filter(shown).map(|(name, _)| name);
        let summary = Some("stage.json").filter(|name| folder.join(name).exists());
        for name in outputs.chain(summary) {
            if let Some(what) = files.damage(name) {
                damaged.insert(folder.join(name), what);
            }
        }
    }
    damaged
}

fn add_damaged(subject: &Subject, page: &mut Page) {
    if subject.damaged.is_empty() {
        return;
    }
    let rows: Vec<Vec<html::Cell>> = subject.damaged.values().map(|what| vec![html::Cell::text(what)]).collect();
    let remark = html::remark("These files were changed or damaged after they were made. Nothing of them is shown.");
    page.section("Damaged files", remark + &html::table(&["file"], &rows));
}

impl Subject<'_> {
    /// Returns whether a file is what its receipt says, as far as it has one.
    fn is_sound(&self, path: &Path) -> bool {
        !self.damaged.contains_key(path)
    }

    /// Reads a JSON file that is not damaged.
    fn json(&self, path: &Path) -> Option<serde_json::Value> {
        self.is_sound(path).then(|| std::fs::read(path).ok())?.and_then(|bytes| serde_json::from_slice(&bytes).ok())
    }
}

/// The names in a folder, sorted; none when there is no such folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
