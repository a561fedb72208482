//! Going back to an earlier point of resumable work, finished or not. Newer files are moved aside; nothing is
//! deleted.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::Value;

use crate::cache::ContentCache;
use crate::journal::{self, Outcome};
use crate::layout::StageDir;
use crate::lockfile::{Lock, Patience};
use crate::part::{Restored, Resumable};
use crate::receipt::Receipt;
use crate::stage::folder_name;
use crate::staging::{self, Publisher};
use crate::work::STATE;
use crate::{Experiment, Holder, Interrupt, Reporter, RunError, Stage, StageError, files};

/// The prefix of names that were moved aside.
const ASIDE: &str = "rolled-back-";

/// The point to go back to, and the functions that interpret the part's work.
pub struct Rollback<'a> {
    /// The key of the part.
    pub part: &'a str,
    /// The point to go back to: the name of a folder that the work made ([`crate::PartWork::persist_dir`]).
    pub to: String,
    /// Returns the points among the names in the folder of the work, in order.
    pub points: &'a dyn Fn(&[String]) -> Vec<String>,
    /// Returns whether a name in the folder of the work is newer than the point.
    pub is_newer: &'a dyn Fn(&str) -> bool,
    /// Returns an error for a point from which work cannot continue.
    pub check: &'a dyn Fn(&Path) -> Result<(), StageError>,
    /// Removes entries that are newer than the point from logs in the folder of the work. Returns notes for the user.
    pub trim: &'a dyn Fn(&Path) -> Result<Vec<String>, StageError>,
    /// The rules by which the work continues.
    pub resumable: Resumable,
}

/// The result of a rollback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolledBack {
    /// The new places of everything that was newer.
    pub aside: Vec<PathBuf>,
    /// Other notes for the user.
    pub notes: Vec<String>,
}

/// Goes back to an earlier point of the work on a part. If it is killed at any instant, it can be repeated.
///
/// # Errors
/// Returns an error if another run holds the experiment, nothing was done yet, the point does not exist (the message
/// lists those that do), or the point is damaged.
pub fn rollback(
    stage: &dyn Stage,
    experiment: &Experiment,
    what: &Rollback<'_>,
    command: &str,
    version: &str,
    interrupt: &Interrupt,
    reporter: &Reporter,
) -> Result<RolledBack, RunError> {
    let dir = StageDir::new(experiment.dir(), folder_name(stage));
    if !dir.path.is_dir() {
        return Err(RunError::Usage(format!("{} has never run: there is nothing to roll back", dir.name)));
    }
    let me = Holder::this(command);
    let lock = Lock::take(experiment, &me, Patience { wait: false, interrupt, reporter })?;
    let started = Instant::now();
    let done = Work { dir: &dir, what }.go_back();
    let (outcome, error) = match &done {
        Ok(_) => (Outcome::Done, None),
        Err(error) => (Outcome::Failed, Some(error.to_string())),
    };
    let noted = journal::append(experiment, &me, version, Some(started.elapsed()), outcome, error.as_deref());
    if let Err(error) = noted {
        reporter.note(format!("the journal could not be written: {error}"));
    }
    drop(lock);
    done
}

struct Work<'a> {
    dir: &'a StageDir,
    what: &'a Rollback<'a>,
}

impl Work<'_> {
    fn go_back(&self) -> Result<RolledBack, RunError> {
        let failed = |error| RunError::stage(&self.dir.name, error);
        let cache = ContentCache::load(Path::new(""), true);
        let mut publisher = Publisher::new(self.dir, &cache);
        // If a killed run was replacing results, those are the current results.
        publisher.resume_replacement().map_err(failed)?;
        publisher.put_back().map_err(failed)?;
        let staging = self.dir.staging(self.what.part);
        let state = staging.join(STATE);
        let left = files::list_names(&state).map_err(failed)?;
        let at_work = !(self.what.points)(&left).is_empty();
        let receipt = self.receipt().map_err(failed)?;
        // Results are not affected if other work was started next to them.
        let receipt = receipt.filter(|receipt| !at_work || self.is_of_same_work(&staging, receipt));
        let left = if at_work { left } else { Vec::new() };
        let done_not_placed = at_work && staging::prepared_receipt(&staging, self.dir).is_some();
        let results = receipt.as_ref().map_or(Vec::new(), |receipt| self.names_of(receipt));
        self.find(&left, &results)?;
        if done_not_placed {
            staging::unprepare(&staging, self.dir).map_err(failed)?;
        }
        self.undo(receipt.as_ref(), &state, &left, &results, &publisher).map_err(failed)
    }

    /// Returns the receipt of the results. If it is lost or damaged, returns one that only names their files.
    fn receipt(&self) -> Result<Option<Receipt>, StageError> {
        if let Ok(receipt) = Receipt::read(&self.dir.receipt(self.what.part)) {
            return Ok(Some(receipt));
        }
        let results = staging::results(self.dir, self.what.part, &self.what.resumable)?;
        Ok(Some(results).filter(|results| !(self.what.points)(&self.names_of(results)).is_empty()))
    }

    /// Returns whether unfinished work started like the results, except for its end.
    fn is_of_same_work(&self, staging: &Path, receipt: &Receipt) -> bool {
        let without_ends = |config: &Value| {
            let mut config = config.clone();
            if let Some(fields) = config.as_object_mut() {
                fields.retain(|key, _| !self.what.resumable.ends.contains(&key.as_str()));
            }
            config
        };
        staging::begun_with(staging).ok().flatten().is_some_and(|begun| {
            begun.version == receipt.version
                && begun.inputs == receipt.inputs
                && without_ends(&begun.config) == without_ends(&receipt.config)
        })
    }

    /// Returns the names of the results in the folder of the work.
    fn names_of(&self, receipt: &Receipt) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for file in receipt.files.iter().filter(|file| self.dir.path.join(&file.path).exists()) {
            if let Some(Restored::Linked(place) | Restored::Copied(place)) = (self.what.resumable.restored)(&file.path)
            {
                let first = place.split('/').next().unwrap_or_default().to_owned();
                if !names.contains(&first) {
                    names.push(first);
                }
            }
        }
        names
    }

    /// Returns an error unless the point exists and is intact.
    fn find(&self, left: &[String], results: &[String]) -> Result<(), RunError> {
        let mut all = [left, results].concat();
        all.sort();
        all.dedup();
        let points = (self.what.points)(&all);
        if points.contains(&self.what.to) {
            return Ok(());
        }
        let there = match points.is_empty() {
            true => "there is none yet".to_owned(),
            false => format!("there are {}", points.join(", ")),
        };
        let aside = self.rolled_back().map_err(|error| RunError::stage(&self.dir.name, error))?;
        Err(RunError::Usage(format!("{}: there is no {} to go back to; {there}{aside}", self.dir.name, self.what.to)))
    }

    /// Lists what earlier rollbacks moved aside, and how to put it back.
    fn rolled_back(&self) -> Result<String, StageError> {
        let names = files::list_names(&self.dir.path)?;
        let aside: Vec<&str> = names.iter().filter(|name| name.starts_with(ASIDE)).map(String::as_str).collect();
        if aside.is_empty() {
            return Ok(String::new());
        }
        let (root, state) = (self.dir.path.display(), self.dir.staging(self.what.part).join(STATE));
        Ok(format!(
            "; moved aside by an earlier rollback, in {root}: {}; to go back to one of these, move it to {} under its original name",
            aside.join(", "),
            state.display()
        ))
    }

    /// Returns an error if the point in `folder` is damaged, with a list of the other points.
    fn check(&self, folder: &Path, names: &[String]) -> Result<(), StageError> {
        (self.what.check)(folder).map_err(|error| {
            let mut others = (self.what.points)(names);
            others.dedup();
            others.retain(|point| *point != self.what.to);
            let others = if others.is_empty() { "there is no other".to_owned() } else { others.join(", ") };
            StageError::new(format!("{error}. Nothing was changed. Other checkpoints: {others}"))
        })
    }

    /// Returns the place of the point in the results.
    fn place_in_results(&self, receipt: &Receipt) -> Option<PathBuf> {
        let first = receipt.files.iter().find_map(|file| {
            let Some(Restored::Linked(place)) = (self.what.resumable.restored)(&file.path) else { return None };
            place.starts_with(&format!("{}/", self.what.to)).then_some(&file.path)
        });
        Some(self.dir.path.join(first?).parent()?.to_owned())
    }

    fn undo(
        &self,
        receipt: Option<&Receipt>,
        state: &Path,
        left: &[String],
        results: &[String],
        publisher: &Publisher<'_>,
    ) -> Result<RolledBack, StageError> {
        let Rollback { part, to, is_newer, resumable, .. } = self.what;
        let restored = resumable.restored;
        let names = [left, results].concat();
        if let (true, Some(receipt)) = (left.is_empty(), receipt) {
            if let Some(place) = self.place_in_results(receipt) {
                self.check(&place, &names)?;
            }
            staging::reopen(self.dir, receipt, restored, receipt.fingerprint().as_ref())?;
        } else if let (false, Some(receipt)) = (left.contains(to), receipt) {
            let prefix = format!("{to}/");
            let only = |output: &str| {
                restored(output).filter(|place| {
                    let (Restored::Linked(name) | Restored::Copied(name)) = place;
                    name.starts_with(&prefix)
                })
            };
            staging::restore(self.dir, receipt, state, &only)?;
            files::sync_tree(&state.join(to))?;
            files::sync_dir(state)?;
        }
        self.check(&state.join(to), &names)?;
        let mut aside = Vec::new();
        for name in files::list_names(state)?.iter().filter(|name| is_newer(name)) {
            aside.push(files::set_aside(&state.join(name), &self.dir.path, &format!("{ASIDE}{name}"))?);
        }
        let notes = (self.what.trim)(state)?;
        // The stage counts as unfinished afterwards.
        if results.iter().any(|name| is_newer(name)) {
            files::remove_any(&self.dir.summary())?;
            files::sync_dir(&self.dir.path)?;
            if let Some(receipt) = receipt.filter(|_| aside.is_empty()) {
                // The folder of the work had diverged: newer results are not in it.
                aside = self.keep_newer(receipt)?;
            }
            match receipt {
                Some(receipt) => publisher.retire_as(receipt)?,
                None => publisher.retire(part)?,
            }
            publisher.sync_names()?;
        }
        Ok(RolledBack { aside, notes })
    }

    /// Links newer files of the results aside.
    fn keep_newer(&self, receipt: &Receipt) -> Result<Vec<PathBuf>, StageError> {
        let restored = self.what.resumable.restored;
        let newer = |output: &str| {
            restored(output).filter(|place| {
                let (Restored::Linked(name) | Restored::Copied(name)) = place;
                (self.what.is_newer)(name.split('/').next().unwrap_or_default())
            })
        };
        // No part's key contains `%`.
        let together = self.dir.staging_root().join("%rolled-back");
        files::remove_any(&together)?;
        staging::restore(self.dir, receipt, &together, &newer)?;
        let mut aside = Vec::new();
        for name in files::list_names(&together)? {
            aside.push(files::set_aside(&together.join(&name), &self.dir.path, &format!("{ASIDE}{name}"))?);
        }
        files::remove_any(&together)?;
        Ok(aside)
    }
}
