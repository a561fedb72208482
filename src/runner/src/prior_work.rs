//! What was done of resumable work before: by a run that was interrupted, killed or failed, or by one that finished it.
//!
//! It goes on while what decides the work is the same, to another end if the recipe asks for one. Otherwise the part is refused, finished
//! or not: going on would mix two works, and beginning anew without being told to would lose one.

use std::path::Path;

use serde_json::Value;

use crate::assess::{Assessor, Planned};
use crate::part::{End, Reached, Restored, Resumable};
use crate::reason::Reason;
use crate::receipt::{InputRecord, Receipt};
use crate::work::STATE;
use crate::{RunError, StageError, staging};

/// More changes than this are not named.
const SHOWN: usize = 8;

/// What was done of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PriorWork {
    /// Whether it was finished: it is a result of the stage.
    pub finished: bool,
    /// How far it got.
    pub reached: Reached,
    /// What has changed since it was begun so that it cannot go on; nothing: it can.
    pub changes: Vec<Reason>,
    /// How it goes on to another end than it was begun for, if it does.
    pub further: Option<String>,
    /// Why another end that the recipe asks for changes nothing.
    pub stays: Option<String>,
}

/// What has changed since work was begun: what keeps it from going on, how it goes on to another end, and why another end changes nothing.
type Since = (Vec<Reason>, Option<String>, Option<String>);

/// What work was begun with.
struct Begun<'a> {
    version: u32,
    config: &'a Value,
    inputs: &'a [InputRecord],
}

impl Assessor<'_> {
    /// What a run left unfinished of a part, if beginning anew would lose anything.
    pub fn unfinished(&self, planned: &Planned) -> Result<Option<PriorWork>, StageError> {
        let Some(resumable) = planned.part.resumable else { return Ok(None) };
        let staging = self.dir.staging(&planned.part.key);
        let state = staging.join(STATE);
        let Some(reached) = (resumable.reached)(&state)? else { return Ok(None) };
        let unknown = |reason| PriorWork {
            finished: false,
            reached: reached.clone(),
            changes: vec![reason],
            further: None,
            stays: None,
        };
        let begun = match staging::begun_with(&staging) {
            Ok(Some(begun)) => begun,
            Ok(None) => return Ok(Some(unknown(Reason::RecordMissing))),
            Err(damage) => return Ok(Some(unknown(Reason::RecordDamaged(damage)))),
        };
        let begun = Begun { version: begun.version, config: &begun.config, inputs: &begun.inputs };
        let (changes, further, stays) = self.since(planned, resumable, &state, &begun)?;
        Ok(Some(PriorWork { finished: false, reached, changes, further, stays }))
    }

    /// What there is of a part in the stage's results, `reason` being why there is no receipt to go by.
    pub fn finished(
        &self,
        planned: &Planned,
        receipt: Result<&Receipt, &Reason>,
    ) -> Result<Option<PriorWork>, StageError> {
        let Some(resumable) = planned.part.resumable else { return Ok(None) };
        let Some(reached) = (resumable.reached)(&self.dir.path)? else { return Ok(None) };
        let (changes, further, stays) = match receipt {
            Ok(receipt) => {
                let begun = Begun { version: receipt.version, config: &receipt.config, inputs: &receipt.inputs };
                self.since(planned, resumable, &self.dir.path, &begun)?
            }
            Err(Reason::NeverRun) => (vec![Reason::RecordMissing], None, None),
            Err(other) => (vec![other.clone()], None, None),
        };
        Ok(Some(PriorWork { finished: true, reached, changes, further, stays }))
    }

    /// Finished work of which nothing is left to go on from although its receipt names results: doing it again would take what it took.
    pub fn lost(&self, planned: &Planned, receipt: &Receipt) -> Option<PriorWork> {
        let resumable = planned.part.resumable?;
        let changes: Vec<Reason> =
            self.gone_results(resumable, receipt).into_iter().map(|name| Reason::Gone(vec![name])).collect();
        let reached = Reached { at: "its end".to_owned(), holds: "results that are gone".to_owned(), reuse: None };
        (!changes.is_empty()).then_some(PriorWork { finished: true, reached, changes, further: None, stays: None })
    }

    /// The folders of results that work goes on from and of which no file is left, each once.
    pub fn gone_results(&self, resumable: Resumable, receipt: &Receipt) -> Vec<String> {
        let goes_on = |output: &str| matches!((resumable.restored)(output), Some(Restored::Linked(_)));
        let mut left = std::collections::BTreeMap::new();
        for file in receipt.files.iter().filter(|file| goes_on(&file.path)) {
            if let Some((folder, _)) = file.path.rsplit_once('/') {
                *left.entry(folder).or_insert(false) |= self.dir.path.join(&file.path).exists();
            }
        }
        let gone = left.into_iter().filter(|(_, left)| !left);
        gone.map(|(folder, _)| format!("{}/{folder}", self.dir.name)).collect()
    }

    /// What keeps work from going on since it was begun, and how it would go on to another end.
    fn since(
        &self,
        planned: &Planned,
        resumable: Resumable,
        folder: &Path,
        begun: &Begun<'_>,
    ) -> Result<Since, StageError> {
        let now = crate::assess::as_read_back(&planned.part.config)?;
        let then = (resumable.recorded)(begun.config, &now);
        let without_ends = |config: &Value| {
            let mut config = config.clone();
            if let Some(fields) = config.as_object_mut() {
                fields.retain(|key, _| !resumable.ends.contains(&key.as_str()));
            }
            config
        };
        let mut changes = Vec::new();
        if begun.version != self.version {
            changes.push(Reason::Version(begun.version, self.version));
        }
        self.compare_config(&without_ends(&then), &without_ends(&now), &mut changes)?;
        self.compare_inputs(planned, begun.inputs, &mut changes)?;
        let (mut further, mut stays) = (None, None);
        match (resumable.end)(folder, &then, &now)? {
            End::Same => {}
            End::Stays(words) => stays = Some(words),
            End::Further(words) => further = Some(words),
            End::Passed(words) => changes.push(Reason::Passed(words)),
        }
        Ok((changes, further, stays))
    }
}

impl PriorWork {
    /// Why the part would run, or would not.
    pub fn reason(&self) -> Reason {
        let at = self.at();
        if self.changes.is_empty() {
            Reason::GoesOn(at, self.further.clone())
        } else {
            Reason::Refused(at, self.told().join("; "))
        }
    }

    /// How far it got, for a person: `interrupted at step 44 of 400`.
    pub fn at(&self) -> String {
        let how = if self.finished { "finished" } else { "interrupted" };
        format!("{how} at {}", self.reached.at)
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

/// Refuses to begin a part anew over what was done of it.
pub(crate) fn refuse_to_lose<'a>(stage: &str, to_run: impl IntoIterator<Item = &'a Planned>) -> Result<(), RunError> {
    let refusal = to_run.into_iter().find_map(|planned| {
        let prior = planned.prior.as_ref().filter(|prior| !prior.changes.is_empty())?;
        Some(RunError::WouldLose {
            stage: stage.to_owned(),
            part: planned.part.key.clone(),
            finished: prior.finished,
            at: prior.reached.at.clone().into_boxed_str(),
            changes: prior.told(),
            reuse: prior.reached.reuse.clone().map(String::into_boxed_str),
        })
    });
    refusal.map_or(Ok(()), Err)
}
