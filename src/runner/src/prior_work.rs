//! Earlier resumable work: interrupted, killed, failed or finished.
//!
//! It continues as long as everything that determines the work is the same, to another end if the recipe asks for
//! one. Otherwise the part is refused, finished or not: continuing would mix two works, and starting again without an
//! order to do so would lose one.

use std::path::Path;

use serde_json::Value;

use crate::assess::{Assessor, Planned, PlannedInput, as_read_back};
use crate::part::{End, Reached, Restored, Resumable, WorkRecord};
use crate::reason::Reason;
use crate::receipt::{Fingerprint, InputRecord, Receipt};
use crate::work::STATE;
use crate::{RunError, StageError, staging};

/// The largest number of changes that are named.
const SHOWN: usize = 8;

/// Earlier work on a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PriorWork {
    /// The part.
    pub part: String,
    /// True if it was finished and is a result of the stage.
    pub finished: bool,
    /// The progress.
    pub reached: Reached,
    /// The changes since its start that keep it from continuing; empty if it can.
    pub changes: Vec<Reason>,
    /// The description of another end to which it continues, if it does.
    pub further: Option<String>,
    /// The reason why a different end in the recipe changes nothing.
    pub stays: Option<String>,
    /// The inputs that it read, as far as they are known.
    pub inputs: Vec<InputRecord>,
    /// The damage of its record, which is made again from the work itself.
    pub remade: Option<Reason>,
}

/// The changes since the start of work: those that keep it from continuing, the new end to which it continues, and
/// the reason why another end changes nothing.
type Since = (Vec<Reason>, Option<String>, Option<String>);

/// The conditions under which work started.
struct Begun {
    /// The stage's version, if it is known.
    version: Option<u32>,
    config: Value,
    /// The inputs that it read, if they are known.
    inputs: Option<Vec<InputRecord>>,
}

impl From<Fingerprint> for Begun {
    fn from(begun: Fingerprint) -> Self {
        Self { version: Some(begun.version), config: begun.config, inputs: Some(begun.inputs) }
    }
}

impl From<&Receipt> for Begun {
    fn from(receipt: &Receipt) -> Self {
        let (config, inputs) = (receipt.config.clone(), receipt.inputs.clone());
        Self { version: Some(receipt.version), config, inputs: Some(inputs) }
    }
}

impl From<WorkRecord> for Begun {
    fn from(record: WorkRecord) -> Self {
        let input = |(path, blake3)| InputRecord { path, role: None, blake3 };
        let inputs = record.inputs.map(|inputs| inputs.into_iter().map(input).collect());
        Self { version: record.version, config: record.config, inputs }
    }
}

impl Assessor<'_> {
    /// Returns the unfinished work on a part, if starting again would lose anything.
    pub fn unfinished(&self, planned: &Planned) -> Result<Option<PriorWork>, StageError> {
        let Some(resumable) = &planned.part.resumable else { return Ok(None) };
        let staging = self.dir.staging(&planned.part.key);
        let state = staging.join(STATE);
        let Some(reached) = (resumable.reached)(&state)? else { return Ok(None) };
        let begun = match staging::begun_with(&staging) {
            Ok(Some(begun)) => Ok(begun.into()),
            Ok(None) => Err(Reason::RecordMissing),
            Err(damage) => Err(Reason::RecordDamaged(damage)),
        };
        self.prior(planned, resumable, &state, reached, begun).map(Some)
    }

    /// Returns the finished work on a part from the stage's results; `reason` says why there is no usable receipt.
    pub fn finished(
        &self,
        planned: &Planned,
        receipt: Result<&Receipt, &Reason>,
    ) -> Result<Option<PriorWork>, StageError> {
        let Some(resumable) = &planned.part.resumable else { return Ok(None) };
        let Some(reached) = (resumable.reached)(&self.dir.path)? else { return Ok(None) };
        let begun = match receipt {
            Ok(receipt) => Ok(receipt.into()),
            Err(Reason::NeverRun) => Err(Reason::RecordMissing),
            Err(other) => Err(other.clone()),
        };
        let prior = self.prior(planned, resumable, &self.dir.path, reached, begun)?;
        Ok(Some(PriorWork { finished: true, ..prior }))
    }

    /// Compares work with the conditions of its start. If there is no record of them, the work itself provides them.
    fn prior(
        &self,
        planned: &Planned,
        resumable: &Resumable,
        folder: &Path,
        reached: Reached,
        begun: Result<Begun, Reason>,
    ) -> Result<PriorWork, StageError> {
        let (begun, remade) = match begun {
            Ok(begun) => (Some(begun), None),
            Err(reason) => {
                let told = (resumable.record)(folder, &as_read_back(&planned.part.config)?)?;
                (told.map(Begun::from), Some(reason))
            }
        };
        let (changes, further, stays) = match &begun {
            Some(begun) => self.since(planned, resumable, folder, begun)?,
            None => (remade.clone().into_iter().collect(), None, None),
        };
        let part = planned.part.key.clone();
        let inputs = begun.and_then(|begun| begun.inputs).unwrap_or_default();
        Ok(PriorWork { part, finished: false, reached, changes, further, stays, inputs, remade })
    }

    /// Returns finished work that cannot continue because the results that its receipt names are gone. Repeating it
    /// would take as long as it took.
    pub fn lost(&self, planned: &Planned, receipt: &Receipt) -> Option<PriorWork> {
        let resumable = planned.part.resumable.as_ref()?;
        let changes: Vec<Reason> =
            self.gone_results(resumable, receipt).into_iter().map(|name| Reason::Gone(vec![name])).collect();
        let reached = Reached { at: "its end".to_owned(), holds: "missing results".to_owned(), reuse: None };
        let lost = PriorWork {
            part: planned.part.key.clone(),
            finished: true,
            reached,
            changes,
            further: None,
            stays: None,
            inputs: Vec::new(),
            remade: None,
        };
        (!lost.changes.is_empty()).then_some(lost)
    }

    /// Returns the folders of results that work continues from and that have lost all their files, without
    /// duplicates.
    pub fn gone_results(&self, resumable: &Resumable, receipt: &Receipt) -> Vec<String> {
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

    /// Returns the changes that keep work from continuing, and the way it would continue to another end.
    fn since(
        &self,
        planned: &Planned,
        resumable: &Resumable,
        folder: &Path,
        begun: &Begun,
    ) -> Result<Since, StageError> {
        let now = as_read_back(&planned.part.config)?;
        let then = (resumable.recorded)(&begun.config, &now);
        let without_ends = |config: &Value| {
            let mut config = config.clone();
            if let Some(fields) = config.as_object_mut() {
                fields.retain(|key, _| !resumable.ends.contains(&key.as_str()));
            }
            config
        };
        let mut changes = Vec::new();
        if let Some(version) = begun.version.filter(|version| *version != self.version) {
            changes.push(Reason::Version(version, self.version));
        }
        self.compare_config(&without_ends(&then), &without_ends(&now), &mut changes)?;
        if let Some(inputs) = &begun.inputs {
            self.compare_inputs(planned, inputs, &mut changes)?;
        }
        let mut changes = self.told_by_files(planned, changes);
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
    /// Returns the hash that an input had when the work started; the input may be gone by now.
    pub fn hash_at_start(&self, input: &PlannedInput) -> Option<String> {
        let of_it = |record: &&InputRecord| record.identity() == input.identity() || record.path == input.name;
        self.inputs.iter().find(of_it)?.blake3.clone()
    }

    /// Returns the reason why the part would run or be refused.
    pub fn reason(&self) -> Reason {
        let at = self.at();
        if self.changes.is_empty() {
            let remade = self.remade.as_ref().map(Self::told_remade);
            let told: Vec<String> = self.further.iter().cloned().chain(remade).collect();
            Reason::GoesOn(at, (!told.is_empty()).then(|| told.join("; ")))
        } else {
            Reason::Refused(at, self.told().join("; "))
        }
    }

    /// Describes a record that is made again.
    fn told_remade(why: &Reason) -> String {
        format!("{why}; it is made again from the existing work")
    }

    /// Returns the warning about a record that is made again, if work continues without one.
    pub fn warning(&self) -> Option<String> {
        let remade = self.remade.as_ref().filter(|_| self.changes.is_empty())?;
        Some(format!("{}: {}", self.at(), Self::told_remade(remade)))
    }

    /// Returns the error of a run that would start again and lose the work. `earlier` is the number of the last
    /// earlier stage that the run would make again first.
    pub fn refusal(&self, stage: &str, earlier: Option<u8>) -> RunError {
        RunError::WouldLose {
            stage: stage.to_owned(),
            part: self.part.clone(),
            finished: self.finished,
            at: self.reached.at.clone().into_boxed_str(),
            changes: self.told(),
            reuse: self.reached.reuse.clone().map(String::into_boxed_str),
            earlier,
        }
    }

    /// Formats the progress for people: `interrupted at step 44 of 400`.
    pub fn at(&self) -> String {
        let how = if self.finished { "finished" } else { "interrupted" };
        format!("{how} at {}", self.reached.at)
    }

    /// Formats the changes for people.
    pub fn told(&self) -> Vec<String> {
        let mut told: Vec<String> = self.changes.iter().take(SHOWN).map(ToString::to_string).collect();
        if self.changes.len() > SHOWN {
            told.push(format!("and {} more changes", self.changes.len() - SHOWN));
        }
        told
    }
}

/// Refuses to start a part again if that loses earlier work.
pub(crate) fn refuse_to_lose<'a>(stage: &str, to_run: impl IntoIterator<Item = &'a Planned>) -> Result<(), RunError> {
    let prior = to_run.into_iter().filter_map(|planned| planned.prior.as_ref());
    let refused = prior.into_iter().find(|prior| !prior.changes.is_empty());
    refused.map_or(Ok(()), |prior| Err(prior.refusal(stage, None)))
}
