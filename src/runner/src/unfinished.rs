//! Resumable work that an earlier run left unfinished: interrupted, killed, or failed.
//!
//! It goes on while what it depends on is the same. Otherwise the part is refused: going on would mix two works, and beginning
//! anew without being told to would lose one.

use crate::assess::{Assessor, Planned};
use crate::part::Reached;
use crate::reason::Reason;
use crate::work::STATE;
use crate::{RunError, StageError, staging};

/// More changes than this are not named.
const SHOWN: usize = 8;

/// What was left of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unfinished {
    /// How far it got.
    pub reached: Reached,
    /// What has changed since it was begun; nothing: it can go on.
    pub changes: Vec<Reason>,
}

impl Assessor<'_> {
    /// What an earlier run left of a part, if beginning anew would lose anything.
    pub fn unfinished(&self, planned: &Planned) -> Result<Option<Unfinished>, StageError> {
        let staging = self.dir.staging(&planned.part.key);
        let reached = planned.part.resumable.and_then(|resumable| (resumable.reached)(&staging.join(STATE)));
        let Some(reached) = reached else {
            return Ok(None);
        };
        let changes = match staging::begun_with(&staging) {
            Ok(Some(begun)) => self.changes(planned, &begun)?,
            Ok(None) => return Ok(None),
            Err(damage) => vec![Reason::RecordDamaged(damage)],
        };
        Ok(Some(Unfinished { reached, changes }))
    }
}

impl Unfinished {
    /// Why the part would run, or would not.
    pub fn reason(&self) -> Reason {
        let at = self.reached.at.clone();
        if self.changes.is_empty() { Reason::GoesOn(at) } else { Reason::Refused(at, self.told().join("; ")) }
    }

    /// The changes for a person.
    pub fn told(&self) -> Vec<String> {
        let mut told: Vec<String> = self.changes.iter().take(SHOWN).map(ToString::to_string).collect();
        if self.changes.len() > SHOWN {
            told.push(format!("and {} more changes", self.changes.len() - SHOWN));
        }
        told
    }
}

/// Refuses to begin a part anew over what was left of it.
pub(crate) fn refuse_to_lose<'a>(stage: &str, to_run: impl IntoIterator<Item = &'a Planned>) -> Result<(), RunError> {
    let refusal = to_run.into_iter().find_map(|planned| {
        let left = planned.unfinished.as_ref().filter(|left| !left.changes.is_empty())?;
        Some(RunError::Unfinished {
            stage: stage.to_owned(),
            part: planned.part.key.clone(),
            at: left.reached.at.clone(),
            changes: left.told(),
            reuse: left.reached.reuse.clone().map(String::into_boxed_str),
        })
    });
    refusal.map_or(Ok(()), Err)
}
