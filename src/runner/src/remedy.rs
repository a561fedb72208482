//! Finds the stages that can still run after a stage failed, if its last result is intact.

use std::collections::HashSet;

use crate::dry_run::look;
use crate::session::Session;
use crate::{Reporter, RunError, Stage, store};

/// Adds to a stage's failure which result is intact and how to continue with it. `at` is the position of the stage.
pub(crate) fn with_remedy(session: &Session<'_>, at: usize, error: RunError) -> RunError {
    if matches!(error, RunError::Interrupted | RunError::WouldLose { .. }) || !is_whole(session, session.stages[at]) {
        return error;
    }
    let stage = session.dir(session.stages[at]).name;
    let gone: HashSet<&str> = match &error {
        RunError::InputsGone { gone, .. } => gone.iter().map(String::as_str).collect(),
        _ => HashSet::new(),
    };
    let next = next(session, at, &gone);
    RunError::Kept { source: Box::new(error), stage, next }
}

/// Returns the first stage after the one at `at` that does not read missing files, if all stages before it are
/// intact. If no missing files are known, returns the first unfinished stage.
fn next(session: &Session<'_>, at: usize, gone: &HashSet<&str>) -> Option<u8> {
    for stage in &session.stages[at + 1..] {
        let whole = is_whole(session, *stage);
        let can_go_on = if gone.is_empty() { !whole } else { !reads(session, *stage, gone) };
        if can_go_on && !lacks_inputs(session, *stage) {
            return Some(stage.number());
        }
        if !whole {
            return None;
        }
    }
    None
}

fn is_whole(session: &Session<'_>, stage: &dyn Stage) -> bool {
    store::read_summary(&session.dir(stage)).is_ok_and(|summary| summary.is_some())
}

/// Returns whether inputs of a stage are missing too, or the stage cannot tell.
fn lacks_inputs(session: &Session<'_>, stage: &dyn Stage) -> bool {
    look(session, stage, false, &Reporter::quiet()).map_or(true, |found| found.inputs_gone)
}

/// Returns whether a stage reads any of these files. A stage that cannot tell counts as reading them.
fn reads(session: &Session<'_>, stage: &dyn Stage, files: &HashSet<&str>) -> bool {
    let mut keys = Vec::new();
    let mut phases = 0;
    while let Ok(planned) = session.plan(stage, phases, &keys) {
        let Some(phase) = planned else { return false };
        let inputs = phase.parts.iter().flat_map(|part| &part.inputs);
        let mut names = inputs.filter_map(|input| session.names.name(&session.names.absolute(&input.path)).ok());
        if names.any(|name| files.contains(name.as_str())) {
            return true;
        }
        keys.extend(phase.parts.iter().map(|part| part.key().to_owned()));
        phases += 1;
        if !is_whole(session, stage) {
            // Later phases read files that the stage itself makes first.
            return false;
        }
    }
    true
}
