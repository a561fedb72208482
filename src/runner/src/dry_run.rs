//! `run --dry-run` and `status`: reports what would run, and why, without writing anything.

use crate::assess::{Verdict, orphans};
use crate::previous::Previous;
use crate::prior_work::PriorWork;
use crate::reason::{Reason, ReasonCount, ReasonKind, changes, summarize, tally};
use crate::run::count;
use crate::session::Session;
use crate::totals::Totals;
use crate::{Reporter, RunError, RunSummary, Stage, StageError, StageOutcome, foresight, store};

/// The result of comparing a stage with its files.
#[derive(Default)]
pub(crate) struct Found {
    /// The number of parts in the phases that can be planned now.
    pub parts: usize,
    /// The parts that would run.
    pub to_run: Vec<String>,
    pub reasons: Vec<ReasonCount>,
    /// Receipts of parts that are no longer planned.
    pub orphans: Vec<String>,
    /// True if all phases could be planned and all parts are up to date.
    pub up_to_date: bool,
    /// True if the stage is finished on disk, up to date or not.
    pub finished: bool,
    /// True if inputs of parts to run are gone, so that the run would be refused.
    pub inputs_gone: bool,
    /// Earlier work on the first part to run that has any.
    pub prior: Option<PriorWork>,
    /// Earlier work on the first part that is up to date and whose work can continue.
    pub holds: Option<PriorWork>,
    /// The reasons that are changed settings or inputs.
    pub changed: Vec<Reason>,
    /// The reason why a different end in the recipe changes nothing.
    pub stays: Option<String>,
    /// True if any part has ever run.
    pub ever_run: bool,
    pub totals: Totals,
}

/// Compares a stage with the files on disk. Phases after one that would run cannot be known.
pub(crate) fn look(
    session: &Session<'_>,
    stage: &dyn Stage,
    force: bool,
    reporter: &Reporter,
) -> Result<Found, StageError> {
    let dir = session.dir(stage);
    let assessor = session.assessor(stage, &dir, force);
    let summary = store::read_summary(&dir)?;
    let mut found = Found { finished: summary.is_some(), ever_run: dir.receipts().is_dir(), ..Found::default() };
    let mut keys: Vec<String> = Vec::new();
    let mut phases = 0;
    while found.to_run.is_empty() {
        let Some(phase) = session.plan(stage, phases, &keys)? else {
            found.orphans = orphans(&dir, &keys)?;
            found.up_to_date = found.orphans.is_empty() && found.finished;
            return Ok(found);
        };
        phases += 1;
        found.parts += phase.parts.len();
        keys.extend(phase.parts.iter().map(|part| part.key.clone()));
        let mut done = Vec::new();
        let mut reasons: Vec<Reason> = Vec::new();
        for verdict in assessor.assess(phase.parts, reporter)? {
            match verdict {
                Verdict::UpToDate(part) => {
                    found.stays = found.stays.or(part.stays);
                    found.holds = found.holds.or(part.finished);
                    done.push(part.done);
                }
                Verdict::Run(planned, why) => {
                    if found.prior.is_none() {
                        found.prior = planned.prior;
                    }
                    found.inputs_gone |= !planned.gone.is_empty();
                    found.to_run.push(planned.part.key);
                    reasons.extend(why);
                }
            }
        }
        found.reasons = tally(&reasons);
        found.changed = changes(&reasons);
        if found.to_run.is_empty() {
            found.totals.add_phase(&done)?;
        }
    }
    Ok(found)
}

/// Reports for each selected stage what would run.
pub(crate) fn dry_run(
    session: &Session<'_>,
    selected: std::ops::Range<usize>,
    force: bool,
    reporter: &Reporter,
) -> Result<RunSummary, RunError> {
    let mut summary = RunSummary::default();
    let mut waits_for: Option<String> = None;
    let foreseen = (!force).then(|| foresight::refuse_to_lose_later(session, &selected, selected.start, &[]).err());
    let mut foreseen = match foreseen.flatten() {
        Some(RunError::WouldLose { stage, at, changes, finished, .. }) => {
            let how = if finished { "finished" } else { "interrupted" };
            let words = Reason::Refused(format!("{how} at {at}"), changes.join("; ")).to_string();
            Some((stage, words))
        }
        _ => None,
    };
    for (at, stage) in session.stages.iter().enumerate().take(selected.end) {
        let name = session.dir(*stage).name;
        if !selected.contains(&at) {
            if Previous::is_unfinished(&session.dir(*stage)) {
                reporter.line(format!("{name}: its last good result would be put back"));
                continue;
            }
            let unusable = session.unusable(*stage).map_err(|e| RunError::stage(&name, e))?;
            if let Some(why) = unusable {
                let wanted = session.dir(session.stages[selected.start]).name;
                return Err(RunError::NotFinished { stage: wanted, missing: name, why, number: stage.number() });
            }
            continue;
        }
        let mut outcome = StageOutcome { stage: name.clone(), ..StageOutcome::default() };
        if let Some((_, words)) = foreseen.take_if(|(stage, _)| *stage == name) {
            reporter.line(format!("{name}: would be refused: {words}"));
            outcome.reasons = vec![ReasonCount { kind: ReasonKind::Refused, reason: words, parts: 0 }];
            waits_for.get_or_insert(name);
            summary.stages.push(outcome);
            continue;
        }
        match (look(session, *stage, force, reporter), &waits_for) {
            (Ok(found), _) if !found.to_run.is_empty() || !found.orphans.is_empty() => {
                let changed = found.prior.as_ref().is_some_and(|prior| !prior.changes.is_empty());
                let refused = !force && (changed || found.inputs_gone);
                let what = match &foreseen {
                    Some((later, _)) => &format!("would run, but {later} is refused first"),
                    None if refused => "would be refused",
                    None => "would run",
                };
                let again = match (&waits_for, &found.prior) {
                    (Some(earlier), Some(_)) => format!("; compared again when {earlier} is done"),
                    _ => String::new(),
                };
                reporter.line(format!("{name}: {what}: {}{again}", describe(&found)));
                outcome.parts = found.parts;
                outcome.ran = found.to_run.len();
                outcome.ran_keys = found.to_run;
                outcome.reasons = found.reasons;
                waits_for.get_or_insert(name);
            }
            (Ok(found), None) => {
                let stays = found.stays.map_or(String::new(), |why| format!(" ({why})"));
                reporter.line(format!("{name}: up to date{stays}"));
                outcome.parts = found.parts;
                (outcome.rows_in, outcome.rows_out) = (found.totals.rows_in, found.totals.rows_out);
                outcome.rejected = found.totals.rejected;
            }
            // Its inputs may be rewritten first, so neither its parts nor a failure to plan them count yet.
            (_, Some(earlier)) => reporter.line(format!("{name}: compared when {earlier} is done")),
            (Err(error), None) => return Err(RunError::stage(&name, error)),
        }
        summary.stages.push(outcome);
    }
    Ok(summary)
}

fn describe(found: &Found) -> String {
    let mut words = Vec::new();
    if !found.to_run.is_empty() {
        let (to_run, parts) = (found.to_run.len(), count(found.parts, "part"));
        words.push(format!("{to_run} of {parts}: {}", summarize(&found.reasons, 5)));
    }
    if let Some(first) = found.orphans.first() {
        words.push(format!("remove {} no longer planned, such as {first}", count(found.orphans.len(), "part")));
    }
    words.join("; ")
}
