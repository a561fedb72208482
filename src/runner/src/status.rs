//! `status`: the state, rows and age of every stage, and the reasons why it would run.

use std::time::{Duration, SystemTime};

use crate::dry_run::{Found, look};
use crate::prior_work::PriorWork;
use crate::reason::{ReasonCount, ReasonKind};
use crate::session::Session;
use crate::{Experiment, Recipe, Reporter, RunError, RunOptions, Stage, StageError, files, holder, store};

/// The state of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StageState {
    /// Finished and up to date.
    Done,
    /// Some parts are finished, others have yet to run for the first time.
    Partial,
    /// Finished once, but something has changed since.
    Stale,
    /// A part was left unfinished, and its progress is saved.
    Interrupted,
    /// No part has ever run.
    Never,
    /// Up to date as far as is known, but an earlier stage would run first.
    Waiting,
}

impl std::fmt::Display for StageState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Done => "done",
            Self::Partial => "partial",
            Self::Stale => "stale",
            Self::Interrupted => "interrupted",
            Self::Never => "never run",
            Self::Waiting => "waiting",
        })
    }
}

/// The status of a stage.
#[derive(Debug, Clone, PartialEq)]
pub struct StageStatus {
    /// The folder: `0-prep`.
    pub stage: String,
    /// The number.
    pub number: u8,
    /// The title.
    pub title: String,
    /// The state.
    pub state: StageState,
    /// Rows that came in, if the stage carries rows and is finished.
    pub rows_in: Option<u64>,
    /// Rows that went out, if the stage carries rows and is finished.
    pub rows_out: Option<u64>,
    /// Rejected rows, if the stage carries rows and is finished.
    pub rejected: Option<u64>,
    /// The number of parts that can be planned now.
    pub parts: usize,
    /// The number of these parts that would run.
    pub to_run: usize,
    /// The time since the stage last changed.
    pub age: Option<Duration>,
    /// The reasons why it would run, the most frequent first. For a stage that would not, the reason why changed
    /// settings change nothing, if there is one.
    pub reasons: Vec<ReasonCount>,
}

/// Returns the status of every stage of an experiment. Writes nothing.
///
/// # Errors
/// Returns an error if a section of the recipe does not parse, or a stage cannot plan although all before it are up
/// to date.
pub fn status(
    stages: &[Box<dyn Stage>],
    recipe: &Recipe,
    experiment: &Experiment,
) -> Result<Vec<StageStatus>, RunError> {
    let session = Session::new(stages, recipe, experiment, &RunOptions::default());
    let at_work = holder(experiment).is_some();
    let mut earlier: Option<String> = None;
    let mut all = Vec::new();
    for stage in &session.stages {
        stage.show(recipe)?;
        let status = stage_status(&session, *stage, earlier.as_deref(), at_work);
        let status = status.map_err(|e| RunError::stage(&session.dir(*stage).name, e))?;
        if status.state != StageState::Done {
            earlier.get_or_insert_with(|| status.stage.clone());
        }
        all.push(status);
    }
    Ok(all)
}

fn stage_status(
    session: &Session<'_>,
    stage: &dyn Stage,
    earlier: Option<&str>,
    at_work: bool,
) -> Result<StageStatus, StageError> {
    let dir = session.dir(stage);
    let ever_run = dir.receipts().is_dir();
    let found = match earlier {
        // It waits for its first run. Planning it, which may read a million names, would give no information.
        Some(_) if !ever_run && !dir.staging_root().is_dir() => Found::default(),
        // Its inputs will be rewritten first, so it does not matter if it cannot plan with the present ones.
        Some(_) => look(session, stage, false, &Reporter::quiet()).unwrap_or(Found { ever_run, ..Found::default() }),
        None => look(session, stage, false, &Reporter::quiet())?,
    };
    let (state, reasons) = match found.prior.as_ref().filter(|prior| !prior.finished) {
        Some(left) => judge_unfinished(&found, left, earlier, at_work),
        None => judge(&found, earlier),
    };
    let summary = store::read_summary(&dir)?;
    let rows = summary.filter(|summary| summary.carries_rows);
    Ok(StageStatus {
        stage: dir.name.clone(),
        number: stage.number(),
        title: stage.title().to_owned(),
        state,
        rows_in: rows.as_ref().map(|summary| summary.rows_in),
        rows_out: rows.as_ref().map(|summary| summary.rows_out),
        rejected: rows.as_ref().map(|summary| summary.rejected),
        parts: found.parts,
        to_run: found.to_run.len(),
        age: age(&dir)?,
        reasons,
    })
}

/// Judges a stage with a part that was left unfinished or is being run now.
fn judge_unfinished(
    found: &Found,
    left: &PriorWork,
    earlier: Option<&str>,
    at_work: bool,
) -> (StageState, Vec<ReasonCount>) {
    if at_work {
        let reason = format!("a run is at work, and has saved {}", left.reached.at);
        return (
            StageState::Partial,
            vec![ReasonCount { kind: ReasonKind::AtWork, reason, parts: found.to_run.len() }],
        );
    }
    let mut reasons = found.reasons.clone();
    reasons.extend(earlier.map(|earlier| waits_for(earlier, found)));
    (StageState::Interrupted, reasons)
}

/// The reason of a stage whose predecessor would run first.
fn waits_for(earlier: &str, found: &Found) -> ReasonCount {
    ReasonCount { kind: ReasonKind::Waits, reason: format!("{earlier} runs first"), parts: found.parts }
}

fn judge(found: &Found, earlier: Option<&str>) -> (StageState, Vec<ReasonCount>) {
    let mut reasons = found.reasons.clone();
    if !found.orphans.is_empty() {
        let (kind, reason) = (ReasonKind::NotPlanned, "no longer planned".to_owned());
        reasons.push(ReasonCount { kind, reason, parts: found.orphans.len() });
    }
    if let Some(earlier) = earlier {
        let waits = waits_for(earlier, found);
        if reasons.is_empty() || !found.ever_run {
            let state = if found.ever_run { StageState::Waiting } else { StageState::Never };
            return (state, vec![waits]);
        }
    }
    let state = match found {
        Found { ever_run: false, .. } => StageState::Never,
        Found { up_to_date: true, .. } => StageState::Done,
        Found { finished: true, .. } => StageState::Stale,
        _ => StageState::Partial,
    };
    if state == StageState::Done
        && let Some(why) = &found.stays
    {
        reasons.push(ReasonCount { kind: ReasonKind::Stays, reason: why.clone(), parts: 0 });
    }
    if reasons.is_empty() && state != StageState::Done {
        let reason = "not finished".to_owned();
        reasons.push(ReasonCount { kind: ReasonKind::NotFinished, reason, parts: 0 });
    }
    (state, reasons)
}

/// Returns the time since the stage was finished or, if it is not, since its newest receipt.
fn age(dir: &crate::layout::StageDir) -> Result<Option<Duration>, StageError> {
    let modified = |path: &std::path::Path| std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
    let newest = match modified(&dir.summary()) {
        Some(time) => Some(time),
        None if dir.receipts().is_dir() => {
            let receipts = files::files_below(&dir.receipts())?;
            receipts.iter().filter_map(|file| modified(&dir.receipts().join(file))).max()
        }
        None => None,
    };
    Ok(newest.map(|time| SystemTime::now().duration_since(time).unwrap_or_default()))
}
