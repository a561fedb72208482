//! Files that were changed or damaged after they were made.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use flowmill_runner::StageFiles;
use maud::html;

use super::Subject;
use super::page::{Cell, Page, remark, table};
use super::stages::folders;

/// Larger files are not on the page, and are not checked for it.
const LARGEST_SHOWN: u64 = 64 << 20;

/// The files of finished parts that the page would show and that are not what their receipts say.
pub fn find(experiment: &Path) -> BTreeMap<PathBuf, String> {
    let shown = |(name, size): &(&str, u64)| {
        let endings = [".json", ".jsonl", ".wav", ".png"];
        *size <= LARGEST_SHOWN && endings.iter().any(|ending| name.ends_with(ending))
    };
    let mut damaged = BTreeMap::new();
    for (_, folder) in folders(experiment) {
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

/// Names the damaged files.
pub fn add(subject: &Subject, page: &mut Page) {
    if subject.damaged.is_empty() {
        return;
    }
    let rows: Vec<Vec<Cell>> = subject.damaged.values().map(|what| vec![Cell::text(what)]).collect();
    let explanation = "These files were changed or damaged after they were made. Nothing of them is shown.";
    page.section("Damaged files", html! { (remark(explanation)) (table(&["file"], &rows)) });
}
