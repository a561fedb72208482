//! The last complete result of a stage, which is kept while a new one is made and put back if that fails.
//!
//! `.previous` holds the files of that result that were replaced or removed so far, and its `stage.json`. The old version of a
//! file is in `.previous` if it is there, and in its place otherwise. Every step keeps this true, so a kill between two steps
//! loses nothing. Files move by renaming: nothing is copied.

use std::collections::HashSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::layout::{REJECTED, StageDir};
use crate::receipt::{Receipt, StageSummary};
use crate::staging::{is_below, prepared_receipt, staged_receipt};
use crate::work::OUTPUTS;
use crate::{StageError, checksummed_json, files, store};

/// The name of the record in `.previous` that says that there is a result to put back.
const SUMMARY: &str = "stage.json";

/// A complete result that is being replaced.
pub(crate) struct Previous {
    /// `.previous`.
    root: PathBuf,
    /// The stage's folder.
    stage: PathBuf,
    /// All files of the result, relative to the stage's folder.
    files: HashSet<String>,
}

impl Previous {
    /// Returns the result that a killed run was replacing, if any. Removes the remains of a finished replacement.
    pub fn unfinished(dir: &StageDir) -> Result<Option<Self>, StageError> {
        let root = dir.previous();
        if !root.is_dir() {
            return Ok(None);
        }
        let summary = fs::read(root.join(SUMMARY)).ok().and_then(|bytes| checksummed_json::open(&bytes).ok());
        match summary {
            Some(summary) if store::read_summary(dir)?.is_none() => Ok(Some(Self::of(dir, &summary))),
            _ => files::remove_any(&root).map(|()| None),
        }
    }

    /// Returns whether a killed run was replacing a complete result, for commands that change nothing.
    pub fn is_unfinished(dir: &StageDir) -> bool {
        dir.previous().join(SUMMARY).exists() && !dir.summary().exists()
    }

    /// Keeps the present result of a stage if it is complete. The stage counts as unfinished afterwards.
    pub fn keep(dir: &StageDir) -> Result<Option<Self>, StageError> {
        let root = dir.previous();
        files::remove_any(&root)?;
        let Some(summary) = store::read_summary(dir)? else {
            files::remove_any(&dir.summary())?;
            return Ok(None);
        };
        files::make_dir(&root)?;
        let kept = Self::of(dir, &summary);
        rename(&dir.summary(), &root.join(SUMMARY))?;
        files::sync_dir(&root)?;
        files::sync_dir(&dir.path)?;
        Ok(Some(kept))
    }

    fn of(dir: &StageDir, summary: &StageSummary) -> Self {
        let root = dir.previous();
        let mut files = HashSet::new();
        for key in summary.phases.iter().flatten() {
            let name = receipt_name(key);
            let aside = Receipt::read(&root.join(&name));
            // An unreadable receipt names no files; its result was not complete.
            let receipt = aside.or_else(|_| Receipt::read(&dir.path.join(&name)));
            files.extend(receipt.into_iter().flat_map(|receipt| receipt.files).map(|file| file.path));
            files.insert(name);
        }
        if summary.rejected > 0 {
            files.insert(REJECTED.to_owned());
        }
        Self { root, stage: dir.path.clone(), files }
    }

    /// Moves a file of the result aside before another file takes its place.
    pub fn set_aside(&self, name: &str) -> Result<(), StageError> {
        if !self.is_in_place(name) {
            return Ok(());
        }
        let aside = self.root.join(name);
        if let Some(parent) = aside.parent() {
            files::make_dir(parent)?;
        }
        match fs::rename(self.stage.join(name), &aside) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(StageError::file(aside, e)),
            _ => Ok(()),
        }
    }

    /// Drops the old result once another complete one has taken its place.
    pub fn forget(self) -> Result<(), StageError> {
        // The record goes first: a half-removed result must not be put back.
        files::remove_any(&self.root.join(SUMMARY))?;
        files::remove_any(&self.root)
    }

    /// Puts the result back. Finished parts of the new one go to their staging folders, from which a later run takes
    /// them if they still fit.
    pub fn put_back(&self, dir: &StageDir) -> Result<(), StageError> {
        self.take_away(dir)?;
        for name in files::files_below(&self.root)? {
            if name != SUMMARY {
                rename(&self.root.join(&name), &self.stage.join(&name))?;
            }
        }
        if !self.files.contains(REJECTED) {
            files::remove_any(&dir.rejected())?;
        }
        let folders: HashSet<&Path> = self.files.iter().filter_map(|name| Path::new(name).parent()).collect();
        for folder in folders {
            if let Some(folder) = Some(self.stage.join(folder)).filter(|folder| folder.is_dir()) {
                files::sync_dir(&folder)?;
            }
        }
        rename(&self.root.join(SUMMARY), &dir.summary())?;
        files::sync_dir(&self.stage)?;
        files::remove_any(&self.root)
    }

    /// Removes files of other results from their places.
    fn take_away(&self, dir: &StageDir) -> Result<(), StageError> {
        // Parts that were being put in place.
        for name in files::list_names(&dir.staging_root())? {
            let staging = dir.staging_root().join(name);
            if let Some(receipt) = prepared_receipt(&staging, dir) {
                self.take_outputs(&staging, &receipt)?;
            }
        }
        if !dir.receipts().is_dir() {
            return Ok(());
        }
        // Parts that are in place.
        for name in files::files_below(&dir.receipts())? {
            let name = format!("receipts/{name}");
            if self.is_in_place(&name) {
                continue;
            }
            let place = self.stage.join(&name);
            if let Ok(receipt) = Receipt::read(&place) {
                // Unfinished work of another training in that folder is not mixed with this.
                let staging = dir.staging(&receipt.key);
                files::make_dir(&staging.join(OUTPUTS))?;
                rename(&place, &staged_receipt(&staging))?;
                self.take_outputs(&staging, &receipt)?;
            } else {
                files::remove_any(&place)?;
            }
            remove_empty_above(&place, &self.stage);
        }
        Ok(())
    }

    /// Moves a new part's outputs from their places to its staging folder.
    fn take_outputs(&self, staging: &Path, receipt: &Receipt) -> Result<(), StageError> {
        for file in receipt.files.iter().filter(|file| is_below(&file.path)) {
            let (place, staged) = (self.stage.join(&file.path), staging.join(OUTPUTS).join(&file.path));
            if !staged.exists() && place.exists() && !self.is_in_place(&file.path) {
                rename(&place, &staged)?;
                remove_empty_above(&place, &self.stage);
            }
        }
        Ok(())
    }

    /// Returns whether the file in place under that name, if there is one, belongs to this result.
    fn is_in_place(&self, name: &str) -> bool {
        self.files.contains(name) && !self.root.join(name).exists()
    }
}

/// Returns the path of a part's receipt, relative to the stage's folder.
pub(crate) fn receipt_name(key: &str) -> String {
    format!("receipts/{key}.json")
}

fn remove_empty_above(path: &Path, stop: &Path) {
    if let Some(parent) = path.parent() {
        files::remove_empty_dirs(parent, stop);
    }
}

/// Renames a file and creates the folder that it goes to.
fn rename(from: &Path, to: &Path) -> Result<(), StageError> {
    if let Some(parent) = to.parent() {
        files::make_dir(parent)?;
    }
    fs::rename(from, to).map_err(|e| StageError::file(to, e))
}
