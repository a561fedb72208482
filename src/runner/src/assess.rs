//! Is a part up to date, and if not, why?

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::PathBuf;

use rayon::prelude::*;
use serde_json::Value;

use crate::cache::{ContentCache, hex};
use crate::layout::StageDir;
use crate::names::{self, Names};
use crate::part::Part;
use crate::reason::{Reason, differences};
use crate::receipt::{Fingerprint, InputRecord, PartDone, Receipt};
use crate::recipe::OWN_KEYS;
use crate::unfinished::Unfinished;
use crate::{Interrupt, Reporter, StageError, rejects};

/// More reasons than this are not collected for one part.
const MAX_REASONS: usize = 20;
/// From this many inputs on, the progress of comparing them is shown.
const MANY_INPUTS: usize = 20_000;

/// What parts of a stage are compared with.
pub(crate) struct Assessor<'a> {
    pub dir: &'a StageDir,
    /// The stage's name, which is its section of the recipe.
    pub name: &'a str,
    pub version: u32,
    /// The names of all sections of the recipe.
    pub sections: &'a [String],
    pub names: &'a Names,
    pub cache: &'a ContentCache,
    pub force: bool,
    pub interrupt: &'a Interrupt,
}

/// An input as receipts call it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PlannedInput {
    /// What it is compared by, when that is not its name.
    pub role: Option<String>,
    /// The name that a receipt keeps.
    pub name: String,
    pub path: PathBuf,
    /// Whether the part does without it when it is taken away.
    pub optional: bool,
}

impl PlannedInput {
    fn identity(&self) -> &str {
        self.role.as_deref().unwrap_or(&self.name)
    }
}

/// A part with its inputs, sorted by what they are compared by, each once.
pub(crate) struct Planned {
    pub part: Part,
    pub inputs: Vec<PlannedInput>,
    /// Inputs that were there when the part ran and are gone, by name.
    pub gone: Vec<String>,
    /// What an earlier run left of it.
    pub unfinished: Option<Unfinished>,
}

/// A part and whether it has to run.
pub(crate) enum Verdict {
    /// Its receipt holds; an earlier run may have left other work on it unfinished.
    UpToDate(PartDone, Option<Unfinished>),
    /// It has to run, for at least one reason.
    Run(Planned, Vec<Reason>),
}

impl Assessor<'_> {
    /// Compares the parts of a phase with their receipts; the answers are in the order of the parts. Shows its
    /// progress when that may take a while.
    pub fn assess(&self, parts: Vec<Part>, reporter: &Reporter) -> Result<Vec<Verdict>, StageError> {
        let many = parts.iter().map(|part| part.inputs.len()).sum::<usize>() > MANY_INPUTS;
        let title = format!("{}: compare with what is there", self.dir.name);
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
        let mut planned = self.plan(part)?;
        planned.unfinished = self.unfinished(&planned)?;
        if self.force {
            let dropped = planned.unfinished.as_ref().map(|left| Reason::ForcedOver(left.reached.at.clone()));
            return Ok(Verdict::Run(planned, vec![dropped.unwrap_or(Reason::Forced)]));
        }
        let receipt = match self.read_receipt(&planned.part.key)? {
            Ok(receipt) => receipt,
            Err(reason) => return Ok(to_run(planned, vec![reason])),
        };
        let mut reasons = self.compare_fingerprint(&planned, receipt.version, &receipt.config, &receipt.inputs)?;
        planned.gone = self.gone(&planned, &receipt.inputs)?;
        if let Some((rows, reason)) = receipt.retried() {
            reasons.push(Reason::Retried(rows, rejects::kind(reason).to_owned()));
        }
        self.compare_outputs(&receipt, &mut reasons)?;
        reasons.truncate(MAX_REASONS);
        if reasons.is_empty() {
            return Ok(Verdict::UpToDate(receipt.done(), planned.unfinished));
        }
        Ok(to_run(planned, reasons))
    }

    /// Whether work that an earlier run did is what a part would do now, with nothing in it to try again.
    pub fn fits(&self, planned: &Planned, done: &Receipt) -> Result<bool, StageError> {
        let reasons = self.compare_fingerprint(planned, done.version, &done.config, &done.inputs)?;
        Ok(reasons.is_empty() && done.retried().is_none())
    }

    /// The inputs from outside of the experiment that were there and are gone, unless the part does without them.
    fn gone(&self, planned: &Planned, before: &[InputRecord]) -> Result<Vec<String>, StageError> {
        let there: HashMap<&str, bool> =
            before.iter().map(|input| (input.identity(), input.blake3.is_some())).collect();
        let was_there = |input: &&PlannedInput| there.get(input.identity()).copied().unwrap_or(false);
        let outside = |input: &&PlannedInput| !names::is_of_experiment(&input.name);
        let mut gone = Vec::new();
        for input in planned.inputs.iter().filter(|input| !input.optional).filter(outside).filter(was_there) {
            if self.cache.is_absent(&input.path)? {
                gone.push(input.name.clone());
            }
        }
        Ok(gone)
    }

    /// What has changed since a part was begun.
    pub fn changes(&self, planned: &Planned, begun: &Fingerprint) -> Result<Vec<Reason>, StageError> {
        self.compare_fingerprint(planned, begun.version, &begun.config, &begun.inputs)
    }

    fn plan(&self, part: Part) -> Result<Planned, StageError> {
        if !part.config.is_object() {
            return Err(StageError::new(format!("the configuration of part {} is no object", part.key)));
        }
        let mut inputs = Vec::with_capacity(part.inputs.len());
        for input in &part.inputs {
            let path = self.names.absolute(&input.path);
            let (role, name, optional) = (input.role.clone(), self.names.name(&path)?, input.optional);
            inputs.push(PlannedInput { role, name, path, optional });
        }
        inputs.sort_by(|a, b| (a.identity(), a).cmp(&(b.identity(), b)));
        inputs.dedup_by(|a, b| a.identity() == b.identity() && a.path == b.path);
        Ok(Planned { part, inputs, gone: Vec::new(), unfinished: None })
    }

    /// The receipt, or why there is none to go by.
    fn read_receipt(&self, key: &str) -> Result<Result<Receipt, Reason>, StageError> {
        let path = self.dir.receipt(key);
        let receipt = match Receipt::read(&path) {
            Ok(receipt) => receipt,
            Err(StageError::File { source, .. }) => {
                // A run that works meanwhile may have just removed it.
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

    /// Compares all that a part's outputs are a function of with what it was at another time.
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
        self.compare_recipe(planned, config, &mut reasons)?;
        self.compare_inputs(planned, inputs, &mut reasons)?;
        Ok(reasons)
    }

    fn compare_recipe(&self, planned: &Planned, before: &Value, reasons: &mut Vec<Reason>) -> Result<(), StageError> {
        let config = as_read_back(&planned.part.config)?;
        let (Value::Object(old), Value::Object(new)) = (before, &config) else {
            return Err(StageError::new(format!("the configuration of part {} is no object", planned.part.key)));
        };
        let gone = old.keys().filter(|key| !new.contains_key(*key));
        for key in new.keys().chain(gone) {
            let (old, new) = (single(key, old.get(key)), single(key, new.get(key)));
            reasons.extend(differences(self.prefix(key), &old, &new));
        }
        Ok(())
    }

    /// Keys that are not the recipe's own top-level keys belong to the stage's section.
    fn prefix(&self, key: &str) -> &str {
        let top_level = OWN_KEYS.contains(&key) || self.sections.iter().any(|section| section == key);
        if top_level { "" } else { self.name }
    }

    fn compare_inputs(
        &self,
        planned: &Planned,
        before: &[InputRecord],
        reasons: &mut Vec<Reason>,
    ) -> Result<(), StageError> {
        let mut old: HashMap<&str, &InputRecord> = before.iter().map(|input| (input.identity(), input)).collect();
        for input in &planned.inputs {
            if reasons.len() > MAX_REASONS {
                return Ok(());
            }
            let name = || input.name.clone();
            let Some(before) = old.remove(input.identity()) else {
                reasons.push(Reason::InputAdded(name()));
                continue;
            };
            let now = self.cache.content(&input.path)?.map(|content| hex(&content.hash));
            match (before.blake3.as_deref(), now.as_deref()) {
                (before, now) if before == now => {}
                (None, _) => reasons.push(Reason::InputAppeared(name())),
                (_, None) => reasons.push(Reason::InputMissing(name())),
                _ => reasons.push(Reason::InputChanged(name())),
            }
        }
        let mut gone: Vec<&str> = old.into_values().map(|input| input.path.as_str()).collect();
        gone.sort_unstable();
        reasons.extend(gone.into_iter().map(|name| Reason::InputRemoved(name.to_owned())));
        Ok(())
    }

    /// Adds a reason for every output that is not what the receipt says.
    pub fn compare_outputs(&self, receipt: &Receipt, reasons: &mut Vec<Reason>) -> Result<(), StageError> {
        for output in &receipt.files {
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
}

/// A part that has to run, with what an earlier run left of it among the reasons.
fn to_run(planned: Planned, mut reasons: Vec<Reason>) -> Verdict {
    if let Some(unfinished) = &planned.unfinished {
        // It has run, if not to its end; and what it has become since then matters more than since it was finished.
        reasons = vec![unfinished.reason()];
    }
    Verdict::Run(planned, reasons)
}

/// The configuration as it comes back from a receipt, so that reading and writing numbers cannot make a difference.
fn as_read_back(config: &Value) -> Result<Value, StageError> {
    serde_json::from_str(&config.to_string()).map_err(StageError::other)
}

/// An object of one key, or of none when there is no value.
fn single(key: &str, value: Option<&Value>) -> Value {
    Value::Object(value.map(|value| (key.to_owned(), value.clone())).into_iter().collect())
}

/// Checks the keys of a phase's parts: plain, and not used before in the stage.
pub(crate) fn check_keys(parts: &[Part], earlier: &[String]) -> Result<(), StageError> {
    let mut seen: std::collections::HashSet<&str> = earlier.iter().map(String::as_str).collect();
    for part in parts {
        if !is_plain_key(&part.key) {
            return Err(StageError::new(format!("`{}` is no name for a part", part.key)));
        }
        if !seen.insert(&part.key) {
            return Err(StageError::new(format!("two parts are called {}", part.key)));
        }
    }
    Ok(())
}

fn is_plain_key(key: &str) -> bool {
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && !part.ends_with(".json")
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    key.len() <= 200 && key.split('/').all(plain)
}

/// Keys of receipts on disk that are no longer planned, sorted.
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
