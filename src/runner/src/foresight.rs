//! What a run would be refused for in a later stage, found out before an earlier stage is made again.

use std::ops::Range;

use crate::dry_run::look;
use crate::prior_work::PriorWork;
use crate::reason::Reason;
use crate::session::Session;
use crate::{Reporter, RunError};

/// Fails when the stages from `from` on, up to the end of the selected ones, cannot all be brought up to date without losing work that one
/// of them keeps ([`Stage::keeps_work`]): with the settings that this stage itself refuses, or else with what changes an earlier one, so
/// that the kept work would go on from other data. What depends on results that are made first is not judged. `because` are the changes for
/// which the stage before was just made again: what follows from its results is reported by them.
pub(crate) fn refuse_to_lose_later(
    session: &Session<'_>,
    selected: &Range<usize>,
    from: usize,
    because: &[Reason],
) -> Result<(), RunError> {
    let keeps = |at: &usize| {
        let stage = session.stages[*at];
        stage.keeps_work() && session.dir(stage).path.is_dir()
    };
    let Some(last) = (from..selected.end).rev().find(keeps) else { return Ok(()) };
    let mut causes: Vec<Reason> = Vec::new();
    let mut earlier: Option<u8> = None;
    for at in from..=last {
        let stage = session.stages[at];
        let found = match look(session, stage, false, &Reporter::quiet()) {
            Ok(found) => found,
            // On what is made first it may be planned.
            Err(_) if earlier.is_some() => continue,
            // The stage will say that itself.
            Err(_) => return Ok(()),
        };
        let runs = !found.to_run.is_empty();
        if let Some(prior) = found.prior.or(found.holds) {
            let changes = match refused(&prior, &causes, earlier.is_some()) {
                Refused::Own(changes) => changes,
                Refused::OfResults(changes) if because.is_empty() => changes,
                Refused::OfResults(changes) if changes.is_empty() => changes,
                Refused::OfResults(_) => because.to_vec(),
            };
            if !changes.is_empty() {
                let name = session.dir(stage).name;
                return Err(PriorWork { changes, ..prior }.refusal(&name, earlier));
            }
        }
        if runs {
            if !stage.may_give_the_same() {
                let new: Vec<Reason> = found.changed.into_iter().filter(|change| !causes.contains(change)).collect();
                causes.extend(new);
            }
            earlier = Some(stage.number());
        }
    }
    Ok(())
}

/// What the work that a stage keeps is refused for; nothing: it is not.
enum Refused {
    /// Settings and files of its own among other changes.
    Own(Vec<Reason>),
    /// Only what earlier stages make.
    OfResults(Vec<Reason>),
}

/// What the work that a stage keeps is refused for; `causes` are the changes that earlier stages show, `waits` whether one of them would run.
fn refused(prior: &PriorWork, causes: &[Reason], waits: bool) -> Refused {
    if prior.changes.is_empty() {
        return Refused::OfResults(causes.to_vec());
    }
    let own: Vec<Reason> = prior.changes.iter().filter(|change| !change.is_of_inputs()).cloned().collect();
    match (own.is_empty(), waits) {
        (false, true) => Refused::Own(own),
        (false, false) => Refused::Own(prior.changes.clone()),
        (true, true) => Refused::OfResults(Vec::new()),
        (true, false) => Refused::OfResults(prior.changes.clone()),
    }
}
