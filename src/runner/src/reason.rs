//! Reasons why a part would run, in words that name the field or the file.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::names;
use crate::run::count;

/// The largest number of changes that are collected.
const MAX_CHANGES: usize = 20;
/// The length above which values are cut in messages.
const MAX_VALUE: usize = 60;

/// A reason why a part is not up to date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// There is no receipt.
    NeverRun,
    /// The receipt cannot be read; holds what is wrong with it.
    ReceiptDamaged(String),
    /// The user forced it.
    Forced,
    /// The stage's version changed.
    Version(u32, u32),
    /// Work on this part stopped at the position given (`interrupted at step 44 of 400`) and continues from there;
    /// holds the new end, if any.
    GoesOn(String, Option<String>),
    /// Work on this part stopped at the position given, and its configuration or inputs changed since; holds the
    /// changes.
    Refused(String, String),
    /// The user forced it, which drops earlier work; holds that work.
    ForcedOver(String),
    /// The work is already beyond the end in the recipe; holds what to do.
    Passed(String),
    /// The record of how the work started is gone.
    RecordMissing,
    /// The record of how unfinished work started cannot be read; holds what is wrong with it.
    RecordDamaged(String),
    /// The number of rows rejected for reasons of this machine, and the first reason; 0 if rows were left out
    /// instead.
    Retried(usize, String),
    /// A source that could not be read, and why.
    SourceUnusable(String, String),
    /// A changed field of the configuration: dotted key, old and new value.
    Field(String, String, String),
    /// The content of an input changed.
    InputChanged(String),
    /// An input that the part did not read before.
    InputAdded(String),
    /// An input that the part no longer reads.
    InputRemoved(String),
    /// An input that was absent now exists.
    InputAppeared(String),
    /// An input that existed is now absent.
    InputMissing(String),
    /// An output is gone.
    OutputMissing(String),
    /// Folders of results are missing.
    Gone(Vec<String>),
    /// The content of an output differs from the receipt.
    OutputDiffers(String),
}

/// The kind of a reason to run a part or a stage. It does not change with the wording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ReasonKind {
    /// There is no receipt.
    NeverRun,
    /// The receipt cannot be read.
    ReceiptDamaged,
    /// The person asked for it.
    Forced,
    /// The person asked for it, although work on the part is lost.
    DropsWork,
    /// The stage's version is another.
    Version,
    /// Unfinished work continues.
    Continues,
    /// A value or file on which earlier work depends has changed: the run is refused.
    Refused,
    /// The work is beyond the end that the recipe asks for.
    PassedEnd,
    /// The record of what unfinished work was begun with is gone.
    RecordMissing,
    /// The record of what unfinished work was begun with cannot be read.
    RecordDamaged,
    /// Rows were rejected or left out for a reason of this machine.
    MachineRejected,
    /// A source could not be read.
    SourceUnusable,
    /// A field of the configuration has another value.
    Field,
    /// An input has other content.
    InputChanged,
    /// An input was not read before.
    InputAdded,
    /// An input is not read any more.
    InputRemoved,
    /// An input that was absent is there.
    InputAppeared,
    /// An input that was there is absent.
    InputMissing,
    /// An output, or a folder of outputs, is gone.
    OutputMissing,
    /// An output has other content than its receipt says.
    OutputDiffers,
    /// A part is not planned any more.
    NotPlanned,
    /// An earlier stage runs first.
    Waits,
    /// A run is at work.
    AtWork,
    /// All parts are up to date and the stage was not closed.
    NotFinished,
    /// Nothing runs, although the recipe asks for another end.
    Stays,
}

impl Reason {
    /// Returns the kind of the reason.
    pub fn kind(&self) -> ReasonKind {
        match self {
            Self::NeverRun => ReasonKind::NeverRun,
            Self::ReceiptDamaged(_) => ReasonKind::ReceiptDamaged,
            Self::Forced => ReasonKind::Forced,
            Self::ForcedOver(_) => ReasonKind::DropsWork,
            Self::Version(..) => ReasonKind::Version,
            Self::GoesOn(..) => ReasonKind::Continues,
            Self::Refused(..) => ReasonKind::Refused,
            Self::Passed(_) => ReasonKind::PassedEnd,
            Self::RecordMissing => ReasonKind::RecordMissing,
            Self::RecordDamaged(_) => ReasonKind::RecordDamaged,
            Self::Retried(..) => ReasonKind::MachineRejected,
            Self::SourceUnusable(..) => ReasonKind::SourceUnusable,
            Self::Field(..) => ReasonKind::Field,
            Self::InputChanged(_) => ReasonKind::InputChanged,
            Self::InputAdded(_) => ReasonKind::InputAdded,
            Self::InputRemoved(_) => ReasonKind::InputRemoved,
            Self::InputAppeared(_) => ReasonKind::InputAppeared,
            Self::InputMissing(_) => ReasonKind::InputMissing,
            Self::OutputMissing(_) | Self::Gone(_) => ReasonKind::OutputMissing,
            Self::OutputDiffers(_) => ReasonKind::OutputDiffers,
        }
    }

    /// Returns whether it says that an input is another.
    pub fn is_of_inputs(&self) -> bool {
        matches!(
            self,
            Self::InputChanged(_)
                | Self::InputAdded(_)
                | Self::InputRemoved(_)
                | Self::InputAppeared(_)
                | Self::InputMissing(_)
        )
    }

    /// Returns whether it says that the part is done as far as this machine could do it, and is tried again.
    pub fn is_of_machine(&self) -> bool {
        matches!(self, Self::Retried(..) | Self::SourceUnusable(..))
    }

    /// Returns whether it says that the part would be done with other settings or other inputs, rather than once more.
    pub fn is_of_content(&self) -> bool {
        matches!(self, Self::Field(..)) || (self.is_of_inputs() && !matches!(self, Self::InputMissing(_)))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeverRun => write!(f, "never run"),
            Self::ReceiptDamaged(what) => write!(f, "the receipt cannot be used: {what}"),
            Self::Forced => write!(f, "--force"),
            Self::GoesOn(at, None) => write!(f, "{at}: continues"),
            Self::GoesOn(at, Some(end)) => write!(f, "{at}: continues ({end})"),
            Self::Refused(at, changes) => write!(f, "{at}; {changes}: refused without --force"),
            Self::ForcedOver(what) => write!(f, "--force, which drops earlier work ({what})"),
            Self::Passed(what) => f.write_str(what),
            Self::RecordMissing => write!(f, "the record of its configuration and inputs is missing"),
            Self::RecordDamaged(what) => write!(f, "the record of its configuration and inputs cannot be used: {what}"),
            Self::Retried(0, reason) => {
                write!(f, "rows were left out because of a problem on this machine ({reason}): retried")
            }
            Self::Retried(rows, reason) => {
                let rows = count(*rows, "row");
                write!(f, "{rows} rejected because of a problem on this machine ({reason}): retried")
            }
            Self::SourceUnusable(source, reason) => {
                write!(f, "a source could not be read ({source}: {reason}): retried")
            }
            Self::Version(old, new) => write!(f, "stage version {old} → {new}"),
            Self::Field(key, old, new) => write!(f, "{key}: {old} → {new}"),
            Self::InputChanged(name) => write!(f, "input {} changed", names::display(name)),
            Self::InputAdded(name) => write!(f, "input {} is new", names::display(name)),
            Self::InputRemoved(name) => write!(f, "input {} is no longer read", names::display(name)),
            Self::InputAppeared(name) => write!(f, "input {} appeared", names::display(name)),
            Self::InputMissing(name) => write!(f, "input {} is missing", names::display(name)),
            Self::OutputMissing(path) => write!(f, "output {path} is missing"),
            Self::Gone(folders) => {
                write!(f, "{} {} gone", folders.join(", "), if folders.len() == 1 { "is" } else { "are" })
            }
            Self::OutputDiffers(path) => write!(f, "output {path} differs from its receipt"),
        }
    }
}

/// Returns the reasons that are changed settings or inputs, without duplicates.
pub(crate) fn changes(reasons: &[Reason]) -> Vec<Reason> {
    let mut found: Vec<Reason> = Vec::new();
    for reason in reasons.iter().filter(|reason| reason.is_of_content()) {
        if found.len() > MAX_CHANGES {
            break;
        }
        if !found.contains(reason) {
            found.push(reason.clone());
        }
    }
    found
}

/// A reason with the number of parts that have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReasonCount {
    /// The kind of the reason.
    pub kind: ReasonKind,
    /// The reason in words.
    pub reason: String,
    /// The number of parts that would run for it.
    pub parts: usize,
}

/// Counts the reasons of many parts. The most frequent come first, then the order of the parts decides.
pub(crate) fn tally<'a>(reasons: impl IntoIterator<Item = &'a Reason>) -> Vec<ReasonCount> {
    let mut places = std::collections::HashMap::new();
    let mut counts: Vec<ReasonCount> = Vec::new();
    for reason in reasons {
        let words = reason.to_string();
        let at = *places.entry(words.clone()).or_insert(counts.len());
        if at == counts.len() {
            counts.push(ReasonCount { kind: reason.kind(), reason: words, parts: 0 });
        }
        counts[at].parts += 1;
    }
    counts.sort_by_key(|count| std::cmp::Reverse(count.parts));
    counts
}

/// Formats the first reasons in one line: `train.lr: 1 → 2; input a changed; and 3 more reasons`.
pub(crate) fn summarize(counts: &[ReasonCount], at_most: usize) -> String {
    let mut words: Vec<String> = counts.iter().take(at_most).map(|count| count.reason.clone()).collect();
    if counts.len() > at_most {
        words.push(format!("and {} more reasons", counts.len() - at_most));
    }
    words.join("; ")
}

/// Returns every field that differs between two configurations, dotted below `prefix`.
pub(crate) fn differences(prefix: &str, old: &Value, new: &Value) -> Vec<Reason> {
    let mut reasons = Vec::new();
    compare(prefix, old, new, &mut reasons);
    reasons
}

fn compare(path: &str, old: &Value, new: &Value, reasons: &mut Vec<Reason>) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let removed = old.iter().filter(|(key, _)| !new.contains_key(*key));
            let all = new.keys().chain(removed.map(|(key, _)| key));
            for key in all {
                let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                compare_field(&below, old.get(key), new.get(key), reasons);
            }
        }
        (Value::Array(old), Value::Array(new)) if old.len() == new.len() => {
            for (at, (old, new)) in old.iter().zip(new).enumerate() {
                compare(&format!("{path}[{at}]"), old, new, reasons);
            }
        }
        _ if old == new => {}
        _ => reasons.push(Reason::Field(path.to_owned(), show(Some(old)), show(Some(new)))),
    }
}

fn compare_field(path: &str, old: Option<&Value>, new: Option<&Value>, reasons: &mut Vec<Reason>) {
    match (old, new) {
        (Some(old), Some(new)) => compare(path, old, new, reasons),
        _ => reasons.push(Reason::Field(path.to_owned(), show(old), show(new))),
    }
}

fn show(value: Option<&Value>) -> String {
    let text = match value {
        None => "(not there)".to_owned(),
        Some(Value::Array(items)) if items.len() > 8 => format!("[{} entries]", items.len()),
        Some(Value::Number(number)) => show_number(number),
        Some(value) => value.to_string(),
    };
    match text.char_indices().nth(MAX_VALUE) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Formats a number. One of single precision is shown with the digits that the user wrote.
fn show_number(number: &serde_json::Number) -> String {
    match number.as_f64() {
        Some(value) if number.is_f64() && f64::from(value as f32) == value => (value as f32).to_string(),
        _ => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn field(key: &str, old: &str, new: &str) -> Reason {
        Reason::Field(key.into(), old.into(), new.into())
    }

    #[test]
    fn a_changed_field_is_named_with_its_path_and_values() {
        let old = json!({"optim": {"lr": 0.001, "name": "adamw"}, "steps": [1, 2]});
        let new = json!({"optim": {"lr": 0.0005, "name": "adamw"}, "steps": [1, 3]});
        let expected = [field("train.optim.lr", "0.001", "0.0005"), field("train.steps[1]", "2", "3")];
        assert_eq!(differences("train", &old, &new), expected);
    }

    #[test]
    fn added_and_removed_fields_and_lists_of_another_length_are_named() {
        let old = json!({"a": 1, "l": [1]});
        let new = json!({"b": null, "l": [1, 2]});
        let absent = show(None);
        let expected =
            [field("train.b", &absent, "null"), field("train.l", "[1]", "[1,2]"), field("train.a", "1", &absent)];
        assert_eq!(differences("train", &old, &new), expected);
    }

    #[test]
    fn equal_reasons_are_counted_and_the_commonest_comes_first() {
        let reasons = [Reason::Forced, Reason::NeverRun, Reason::NeverRun];
        let counts = tally(&reasons);
        assert_eq!((counts[0].kind, counts[0].parts), (ReasonKind::NeverRun, 2));
        assert_eq!((counts[1].kind, counts[1].parts), (ReasonKind::Forced, 1));
        let shown = summarize(&counts, 1);
        assert!(shown.contains(&counts[0].reason) && !shown.contains(&counts[1].reason), "{shown}");
    }
}
