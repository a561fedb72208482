//! Decides whether a part is up to date, and collects the reasons if it is not.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::PathBuf;

use rayon::prelude::*;
use serde_json::Value;

use crate::cache::{ContentCache, Hash, hex};
use crate::layout::StageDir;
use crate::names::{self, Names};
use crate::part::Part;
use crate::prior_work::PriorWork;
use crate::reason::{Reason, differences};
use crate::receipt::{InputRecord, PartDone, Receipt};
use crate::recipe::OWN_KEYS;
use crate::{Interrupt, Reporter, StageError, staging};

/// The largest number of reasons collected for one part.
const MAX_REASONS: usize = 20;
/// The number of inputs above which the progress of comparing them is shown.
const MANY_INPUTS: usize = 20_000;

/// The context in which the parts of a stage are compared with their receipts.
pub(crate) struct Assessor<'a> {
    pub dir: &'a StageDir,
    /// The stage's name, which is its section of the recipe.
    pub name: &'a str,
    pub version: u32,
    /// The names of all sections of the recipe.
    pub sections: &'a [String],
    pub names: &'a Names,
    pub cache: &'a ContentCache,
    /// Outputs that only people read: see [`crate::Stage::logs`].
    pub logs: &'static [&'static str],
    pub force: bool,
    pub interrupt: &'a Interrupt,
}

/// An input under the name that receipts use.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PlannedInput {
    /// The role by which the input is compared, if not by its name.
    pub role: Option<String>,
    /// The name that is written to the receipt.
    pub name: String,
    pub path: PathBuf,
    /// True if the part can run without the file when it is removed.
    pub optional: bool,
    /// True if the file may be missing once the part is done.
    pub starting: bool,
    /// The key of the configuration that holds a digest of the file. Such a file is not compared itself.
    pub digest: Option<String>,
}

impl PlannedInput {
    pub fn identity(&self) -> &str {
        self.role.as_deref().unwrap_or(&self.name)
    }
}

/// A part with its inputs, sorted by role or name, without duplicates.
pub(crate) struct Planned {
    pub part: Part,
    pub inputs: Vec<PlannedInput>,
    /// Names of inputs that existed when the part ran and no longer exist.
    pub gone: Vec<String>,
    /// Earlier work on the part.
    pub prior: Option<PriorWork>,
    /// The point at which its work starts.
    pub start: Start,
}

impl Planned {
    /// Returns the inputs that a receipt records.
    pub fn recorded(&self) -> impl Iterator<Item = &PlannedInput> {
        self.inputs.iter().filter(|input| input.digest.is_none())
    }
}

/// The point at which the work of a part starts.
pub(crate) enum Start {
    /// At the beginning.
    Anew,
    /// From unfinished work, provided the inputs have these hashes.
    Unfinished(Vec<Option<Hash>>),
    /// From its results, provided the inputs have these hashes.
    Results(Box<Receipt>, Vec<Option<Hash>>),
}

impl Start {
    /// The name in the log.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Anew => "anew",
            Self::Unfinished(_) => "from unfinished work",
            Self::Results(..) => "from results",
        }
    }
}

/// A part and whether it has to run.
pub(crate) enum Verdict {
    /// The part is as its receipt says.
    UpToDate(UpToDate),
    /// It has to run, for at least one reason.
    Run(Planned, Vec<Reason>),
}

/// A part that is as its receipt says.
pub(crate) struct UpToDate {
    pub done: PartDone,
    /// Other, unfinished work on the part from an earlier run.
    pub unfinished: Option<PriorWork>,
    /// The part's own finished work, if it could continue.
    pub finished: Option<PriorWork>,
    /// The reason why a different end in the recipe changes nothing.
    pub stays: Option<String>,
    /// Logs that differ from the receipt; this changes nothing else.
    pub logs: Vec<Reason>,
}

impl Assessor<'_> {
    /// Compares the parts of a phase with their receipts. The answers are in the order of the parts. Shows progress
    /// when the comparison may take a while.
    pub fn assess(&self, parts: Vec<Part>, reporter: &Reporter) -> Result<Vec<Verdict>, StageError> {
        let many = parts.iter().map(|part| part.inputs.len()).sum::<usize>() > MANY_INPUTS;
        let title = format!("{}: comparing with existing results", self.dir.name);
        let progress = many.then(|| reporter.phase(&title, "parts", parts.len() as u64));
        let assess_one = |part| {
            if self.interrupt.is_set() {
                return Err(StageError::Interrupted);
            }
            let verdict = self.assess_part(part);
            progress.iter().for_each(|progress| progress.add(1));
            verdict
        };
        let verdicts = parts.into_par_iter().map(assess_one).collect();
        progress.iter().for_each(|progress| progress.finish());
        verdicts
    }

    fn assess_part(&self, part: Part) -> Result<Verdict, StageError> {
        let planned = self.plan(part)?;
        let unfinished = self.unfinished(&planned)?;
        let receipt = self.read_receipt(&planned.part.key)?;
        if self.force {
            let reasons = self.forced(&planned, unfinished, &receipt)?;
            return Ok(Verdict::Run(planned, reasons));
        }
        let finished = self.finished(&planned, receipt.as_ref())?;
        let receipt = match receipt {
            Ok(receipt) => receipt,
            Err(reason) => {
                return match (unfinished, finished) {
                    (Some(work), _) => self.go_on(planned, work, None),
                    (None, Some(work)) => {
                        let results =
                            planned.part.resumable.as_ref().map(|of| staging::results(self.dir, &planned.part.key, of));
                        let results = results.transpose()?;
                        self.go_on(planned, work, results)
                    }
                    (None, None) => Ok(Verdict::Run(planned, vec![reason])),
                };
            }
        };
        let Some(finished) = finished else {
            let lost = self.lost(&planned, &receipt).filter(|_| unfinished.is_none());
            if let Some(lost) = lost {
                return self.go_on(planned, lost, None);
            }
            return match (self.compare(planned, receipt)?, unfinished) {
                (Verdict::Run(planned, _), Some(work)) => self.go_on(planned, work, None),
                (Verdict::UpToDate(part), unfinished) => Ok(Verdict::UpToDate(UpToDate { unfinished, ..part })),
                (run, None) => Ok(run),
            };
        };
        let mut damage = Vec::new();
        self.compare_outputs(&receipt, &mut damage)?;
        let same = finished.changes.is_empty() && finished.further.is_none();
        if same && damage.is_empty() {
            let logs = self.changed_logs(&receipt);
            let (done, stays) = (receipt.done(), finished.stays.clone());
            return Ok(Verdict::UpToDate(UpToDate { done, unfinished, finished: Some(finished), stays, logs }));
        }
        if let Some(unfinished) = unfinished {
            return self.go_on(planned, unfinished, None);
        }
        let gone =
            planned.part.resumable.as_ref().map_or(Vec::new(), |resumable| self.gone_results(resumable, &receipt));
        if !gone.is_empty() {
            // Reported as folders or sources rather than file by file.
            let is_below = |path: &String| gone.iter().any(|folder| path.starts_with(&format!("{folder}/")));
            damage.retain(|reason| !matches!(reason, Reason::OutputMissing(path) if is_below(path)));
            damage.insert(0, Reason::Gone(gone.clone()));
        }
        let verdict = self.go_on(planned, finished, Some(receipt))?;
        match verdict {
            Verdict::Run(planned, mut reasons) if !same && !gone.is_empty() => {
                reasons.push(Reason::Gone(gone));
                Ok(Verdict::Run(planned, reasons))
            }
            // Intact results are kept; the rest is made again from them.
            Verdict::Run(planned, _) if same => {
                damage.truncate(MAX_REASONS);
                Ok(Verdict::Run(planned, damage))
            }
            verdict => Ok(verdict),
        }
    }

    /// Plans a part whose work continues from where it stopped, or is refused.
    fn go_on(&self, mut planned: Planned, work: PriorWork, receipt: Option<Receipt>) -> Result<Verdict, StageError> {
        if work.changes.is_empty() {
            let hashes = self.hashes(&planned)?;
            planned.start = match receipt {
                Some(receipt) => Start::Results(Box::new(receipt), hashes),
                None => Start::Unfinished(hashes),
            };
        }
        let reasons = vec![work.reason()];
        planned.prior = Some(work);
        Ok(Verdict::Run(planned, reasons))
    }

    /// Returns the reasons of a forced part, including the work that is lost.
    fn forced(
        &self,
        planned: &Planned,
        unfinished: Option<PriorWork>,
        receipt: &Result<Receipt, Reason>,
    ) -> Result<Vec<Reason>, StageError> {
        let dropped = [unfinished, self.finished(planned, receipt.as_ref())?];
        let reasons: Vec<Reason> = dropped
            .into_iter()
            .flatten()
            .map(|work| Reason::ForcedOver(format!("{}: {}", work.at(), work.reached.holds)))
            .collect();
        Ok(if reasons.is_empty() { vec![Reason::Forced] } else { reasons })
    }

    /// Compares a part with its receipt.
    fn compare(&self, mut planned: Planned, receipt: Receipt) -> Result<Verdict, StageError> {
        let mut reasons = self.compare_fingerprint(&planned, receipt.version, &receipt.config, &receipt.inputs)?;
        // Checked only when one is missing, or when too many reasons were collected to tell.
        if reasons.len() >= MAX_REASONS || reasons.iter().any(|reason| matches!(reason, Reason::InputMissing(_))) {
            planned.gone = self.gone(&planned, &receipt.inputs)?;
        }
        reasons.extend(receipt.retried());
        self.compare_outputs(&receipt, &mut reasons)?;
        reasons.truncate(MAX_REASONS);
        if reasons.is_empty() {
            let logs = self.changed_logs(&receipt);
            let done = receipt.done();
            return Ok(Verdict::UpToDate(UpToDate { done, unfinished: None, finished: None, stays: None, logs }));
        }
        Ok(Verdict::Run(planned, reasons))
    }

    /// Returns the hashes of a part's inputs.
    fn hashes(&self, planned: &Planned) -> Result<Vec<Option<Hash>>, StageError> {
        let hash = |input: &PlannedInput| Ok(self.cache.content(&input.path)?.map(|content| content.hash));
        planned.recorded().map(hash).collect()
    }

    /// Returns whether the work of an earlier run is what the part would do now, with nothing in it to retry.
    pub fn fits(&self, planned: &Planned, done: &Receipt) -> Result<bool, StageError> {
        let reasons = self.compare_fingerprint(planned, done.version, &done.config, &done.inputs)?;
        Ok(reasons.is_empty() && done.retried().is_none())
    }

    /// Returns the inputs from outside the experiment that existed and are gone, except optional ones.
    fn gone(&self, planned: &Planned, before: &[InputRecord]) -> Result<Vec<String>, StageError> {
        let there: HashMap<&str, bool> =
            before.iter().map(|input| (input.identity(), input.blake3.is_some())).collect();
        let was_there = |input: &&PlannedInput| there.get(input.identity()).copied().unwrap_or(false);
        let outside = |input: &&PlannedInput| !names::is_of_experiment(&input.name);
        let mut gone = Vec::new();
        for input in
            planned.inputs.iter().filter(|input| !input.optional && !input.starting).filter(outside).filter(was_there)
        {
            if self.cache.is_absent(&input.path)? {
                gone.push(input.name.clone());
            }
        }
        Ok(gone)
    }

    fn plan(&self, part: Part) -> Result<Planned, StageError> {
        if !part.config.is_object() {
            return Err(StageError::new(format!("the configuration of part {} is not an object", part.key)));
        }
        let mut inputs = Vec::with_capacity(part.inputs.len());
        for input in &part.inputs {
            let path = self.names.absolute(&input.path);
            let (role, name) = (input.role.clone(), self.names.name(&path)?);
            let (optional, starting, digest) = (input.optional, input.starting, input.digest.clone());
            inputs.push(PlannedInput { role, name, path, optional, starting, digest });
        }
        inputs.sort_by(|a, b| (a.identity(), a).cmp(&(b.identity(), b)));
        inputs.dedup_by(|a, b| a.identity() == b.identity() && a.path == b.path);
        Ok(Planned { part, inputs, gone: Vec::new(), prior: None, start: Start::Anew })
    }

    /// Returns the receipt, or the reason why it cannot be used.
    fn read_receipt(&self, key: &str) -> Result<Result<Receipt, Reason>, StageError> {
        let path = self.dir.receipt(key);
        let receipt = match Receipt::read(&path) {
            Ok(receipt) => receipt,
            Err(StageError::File { source, .. }) => {
                // A run in progress may have just removed it.
                let absent = matches!(source.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory);
                return if absent { Ok(Err(Reason::NeverRun)) } else { Err(StageError::file(path, source)) };
            }
            Err(damage) => {
                let words = damage.to_string();
                let words = words.strip_prefix(&format!("{}: ", path.display())).unwrap_or(&words).to_owned();
                return Ok(Err(Reason::ReceiptDamaged(words)));
            }
        };
        if receipt.key != key || receipt.stage != self.dir.name {
            return Ok(Err(Reason::ReceiptDamaged("it is another part's".to_owned())));
        }
        Ok(Ok(receipt))
    }

    /// Compares everything that determines a part's outputs with an earlier record of it.
    fn compare_fingerprint(
        &self,
        planned: &Planned,
        version: u32,
        config: &Value,
        inputs: &[InputRecord],
    ) -> Result<Vec<Reason>, StageError> {
        let mut reasons = Vec::new();
        if version != self.version {
            reasons.push(Reason::Version(version, self.version));
        }
        self.compare_config(config, &as_read_back(&planned.part.config)?, &mut reasons)?;
        self.compare_inputs(planned, inputs, &mut reasons)?;
        Ok(reasons)
    }

    pub fn compare_config(&self, before: &Value, now: &Value, reasons: &mut Vec<Reason>) -> Result<(), StageError> {
        let (Value::Object(old), Value::Object(new)) = (before, now) else {
            return Err(StageError::new(format!("{}: the configuration of a part is not an object", self.dir.name)));
        };
        let gone = old.keys().filter(|key| !new.contains_key(*key));
        for key in new.keys().chain(gone) {
            let (old, new) = (single(key, old.get(key)), single(key, new.get(key)));
            reasons.extend(differences(self.prefix(key), &old, &new));
        }
        Ok(())
    }

    /// Replaces a changed digest by the changed files it was computed from.
    pub fn told_by_files(&self, planned: &Planned, changes: Vec<Reason>) -> Vec<Reason> {
        let of_digest = |key: &str, digest: &str| {
            let key = key.strip_prefix(self.name).and_then(|key| key.strip_prefix('.')).unwrap_or(key);
            key.strip_prefix(digest).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        let mut told: Vec<Reason> = Vec::new();
        for change in changes {
            let files = planned.inputs.iter().filter(|input| match (&change, &input.digest) {
                (Reason::Field(key, ..), Some(digest)) => of_digest(key, digest),
                _ => false,
            });
            // An index represents the files that it names.
            let change = match files.min_by_key(|input| !input.name.ends_with(".json")) {
                Some(file) if file.path.exists() => Reason::InputChanged(file.name.clone()),
                Some(file) => Reason::InputMissing(file.name.clone()),
                None => change,
            };
            if !told.contains(&change) {
                told.push(change);
            }
        }
        told
    }

    /// Keys that are not the recipe's own top-level keys belong to the stage's section.
    fn prefix(&self, key: &str) -> &str {
        let top_level = OWN_KEYS.contains(&key) || self.sections.iter().any(|section| section == key);
        if top_level { "" } else { self.name }
    }

    pub fn compare_inputs(
        &self,
        planned: &Planned,
        before_all: &[InputRecord],
        reasons: &mut Vec<Reason>,
    ) -> Result<(), StageError> {
        let mut old: HashMap<&str, &InputRecord> = before_all.iter().map(|input| (input.identity(), input)).collect();
        // Files that a finished part started from may be gone, and with them everything that would only name them.
        let begun_with: Vec<&str> = planned
            .inputs
            .iter()
            .filter(|input| input.starting && !input.path.exists())
            .map(|input| &*input.name)
            .collect();
        let is_gone =
            |name: &str| begun_with.iter().any(|gone| goes_with(name, gone)) && !self.names.path(name).exists();
        let (mut added, mut digested) = (Vec::new(), Vec::new());
        for input in &planned.inputs {
            if reasons.len() > MAX_REASONS {
                return Ok(());
            }
            let name = || input.name.clone();
            let Some(before) = old.remove(input.identity()) else {
                if input.digest.is_some() {
                    digested.push(input);
                    continue;
                }
                let gone = begun_with.contains(&&*input.name) && before_all.iter().any(|record| is_gone(&record.path));
                if !gone {
                    added.push(input);
                }
                continue;
            };
            let now = self.cache.content(&input.path)?.map(|content| hex(&content.hash));
            match (before.blake3.as_deref(), now.as_deref()) {
                (before, now) if before == now => {}
                // Records that the work keeps itself have no paths.
                (Some(_), None) if input.starting && (is_gone(&before.path) || before.path == input.identity()) => {}
                (None, _) => reasons.push(Reason::InputAppeared(name())),
                (_, None) => reasons.push(Reason::InputMissing(name())),
                _ => reasons.push(Reason::InputChanged(name())),
            }
        }
        let mut gone: Vec<&InputRecord> = old.into_values().collect();
        gone.retain(|input| !is_gone(&input.path));
        gone.sort_unstable_by_key(|input| &input.path);
        let unmatched = if gone.is_empty() { Vec::new() } else { digested };
        for input in added.into_iter().chain(unmatched) {
            // For resumable work the content decides, not the path of the file.
            if planned.part.resumable.is_some()
                && let Some(content) = self.cache.content(&input.path)?.map(|content| hex(&content.hash))
                && let Some(at) = gone.iter().position(|before| before.blake3.as_ref() == Some(&content))
            {
                gone.remove(at);
                continue;
            }
            if input.digest.is_none() {
                reasons.push(Reason::InputAdded(input.name.clone()));
            }
        }
        reasons.extend(gone.into_iter().map(|input| Reason::InputRemoved(input.path.clone())));
        Ok(())
    }

    /// Adds a reason for every output, except logs, that differs from the receipt.
    pub fn compare_outputs(&self, receipt: &Receipt, reasons: &mut Vec<Reason>) -> Result<(), StageError> {
        for output in receipt.files.iter().filter(|output| !self.is_log(&output.path)) {
            let shown = || format!("{}/{}", self.dir.name, output.path);
            let path = self.dir.path.join(&output.path);
            match std::fs::metadata(&path) {
                Ok(meta) if !meta.is_file() || meta.len() != output.size => {
                    reasons.push(Reason::OutputDiffers(shown()));
                    continue;
                }
                _ => {}
            }
            match self.cache.content(&path)? {
                None => reasons.push(Reason::OutputMissing(shown())),
                Some(content) if hex(&content.hash) != output.blake3 => reasons.push(Reason::OutputDiffers(shown())),
                Some(_) => {}
            }
        }
        Ok(())
    }

    fn is_log(&self, output: &str) -> bool {
        let below = |log: &&str| output.strip_prefix(*log).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        self.logs.iter().any(below)
    }

    /// Returns the logs that are gone or have another size.
    fn changed_logs(&self, receipt: &Receipt) -> Vec<Reason> {
        let logs = receipt.files.iter().filter(|output| self.is_log(&output.path));
        let changed = logs.filter_map(|output| {
            let shown = || format!("{}/{}", self.dir.name, output.path);
            match std::fs::metadata(self.dir.path.join(&output.path)) {
                Ok(meta) if meta.is_file() && meta.len() == output.size => None,
                Ok(_) => Some(Reason::OutputDiffers(shown())),
                Err(_) => Some(Reason::OutputMissing(shown())),
            }
        });
        changed.collect()
    }
}

/// Returns whether a file named in a receipt is `input`, is below it, or is in its folder (like the shards of an
/// index).
fn goes_with(name: &str, input: &str) -> bool {
    let folder = |name: &str| name.rsplit_once('/').map_or(String::new(), |(folder, _)| folder.to_owned());
    let beside = folder(input) == folder(name) && input.ends_with(".json");
    name == input || beside || name.strip_prefix(input).is_some_and(|rest| rest.starts_with('/'))
}

/// Returns the configuration as it is read back from a receipt, so that converting numbers to text and back cannot
/// make a difference.
pub(crate) fn as_read_back(config: &Value) -> Result<Value, StageError> {
    serde_json::from_str(&config.to_string()).map_err(StageError::other)
}

/// Returns an object with one key, or an empty one if there is no value.
fn single(key: &str, value: Option<&Value>) -> Value {
    Value::Object(value.map(|value| (key.to_owned(), value.clone())).into_iter().collect())
}

/// Checks that the keys of a phase's parts are valid and not used before in the stage.
pub(crate) fn check_keys(parts: &[Part], earlier: &[String]) -> Result<(), StageError> {
    let mut seen: std::collections::HashSet<&str> = earlier.iter().map(String::as_str).collect();
    for part in parts {
        if !is_plain_key(&part.key) {
            return Err(StageError::new(format!("`{}` is not a valid name for a part", part.key)));
        }
        if !seen.insert(&part.key) {
            return Err(StageError::new(format!("two parts are called {}", part.key)));
        }
    }
    Ok(())
}

/// Returns whether a key is plain: letters, digits, `.`, `_`, `-`, and `/` between names.
pub(crate) fn is_plain_key(key: &str) -> bool {
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && !part.ends_with(".json")
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    key.len() <= 200 && key.split('/').all(plain)
}

/// Returns the keys of receipts on disk that are no longer planned, sorted.
pub(crate) fn orphans(dir: &StageDir, planned: &[String]) -> Result<Vec<String>, StageError> {
    let receipts = dir.receipts();
    if !receipts.is_dir() {
        return Ok(Vec::new());
    }
    let planned: std::collections::HashSet<&str> = planned.iter().map(String::as_str).collect();
    let files = crate::files::files_below(&receipts)?;
    let keys = files.iter().filter_map(|file| file.strip_suffix(".json"));
    Ok(keys.filter(|key| !planned.contains(key)).map(str::to_owned).collect())
}
