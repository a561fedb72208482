//! Finds a later stage that would refuse to run, before an earlier stage is made again.

use std::ops::Range;

use crate::dry_run::look;
use crate::prior_work::PriorWork;
use crate::reason::Reason;
use crate::session::Session;
use crate::{Reporter, RunError};

/// Returns an error unless the stages from `from` to the end of the selected ones can all be brought up to date
/// without losing work that one of them keeps ([`Stage::keeps_work`]).
///
/// The error names the settings that this stage itself refuses. If there are none, it names the changes of an earlier
/// stage, because the kept work would continue from other data. Results that have to be made first are not judged.
/// `because` are the changes for which the stage before was just made again; consequences of its results are reported
/// with them.
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
            // It may be possible to plan it once the earlier stages are done.
            Err(_) if earlier.is_some() => continue,
            // The stage reports that itself.
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

/// The reasons for which kept work of a stage is refused; empty if it is not.
enum Refused {
    /// Changed settings and files of the stage itself, among other changes.
    Own(Vec<Reason>),
    /// Only changes of results of earlier stages.
    OfResults(Vec<Reason>),
}

/// Returns the reasons for which kept work of a stage is refused. `causes` are the changes that earlier stages show;
/// `waits` is true if one of them would run.
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
