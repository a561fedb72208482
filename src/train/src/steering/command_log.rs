//! Commands that change results, stored so that a killed and resumed run applies them again at the same steps.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Positive, lines};
use crate::TrainError;

/// JSON lines: each change with its step.
pub const COMMANDS_FILE: &str = "commands.jsonl";

/// A change of results.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Change {
    /// The full learning rate, starting at a step.
    Lr(Positive),
    /// The loss scale, at one step.
    LossScale(Positive),
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Entry {
    step: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    lr: Option<Positive>,
    #[serde(skip_serializing_if = "Option::is_none")]
    loss_scale: Option<Positive>,
}

/// The file, and its changes for the coming steps.
#[derive(Debug)]
pub(crate) struct CommandLog {
    path: PathBuf,
    entries: Vec<Entry>,
}

/// Removes the stored commands after `step`, because the training is rolled back to before they were given. Returns the commands.
///
/// # Errors
/// When the file cannot be read or written.
pub fn forget_from(folder: &Path, step: u64) -> Result<Vec<String>, TrainError> {
    let path = folder.join(COMMANDS_FILE);
    let (dropped, stay): (Vec<Entry>, Vec<Entry>) =
        lines::read::<Entry>(&path)?.lines.into_iter().partition(|entry| entry.step >= step);
    if !dropped.is_empty() {
        lines::replace(&path, &stay)?;
    }
    let told = |entry: Entry| {
        let lr = entry.lr.map(|rate| format!("lr {rate}@{}", entry.step));
        lr.or_else(|| entry.loss_scale.map(|scale| format!("loss-scale {scale}@{}", entry.step)))
    };
    Ok(dropped.into_iter().filter_map(told).collect())
}

impl CommandLog {
    /// Reads the stored commands after `step`, and returns what is wrong with the file. Earlier ones are in the
    /// checkpoint and not read from the file, so that losing it changes nothing.
    pub(crate) fn open(folder: &Path, step: u64) -> Result<(Self, Option<String>), TrainError> {
        let path = folder.join(COMMANDS_FILE);
        let lines::Read { lines: mut entries, trouble } = lines::read::<Entry>(&path)?;
        entries.retain(|entry| entry.step >= step);
        Ok((Self { path, entries }, trouble))
    }

    /// Stores a change after `step` steps durably.
    pub(crate) fn add(&mut self, step: u64, change: Change) -> Result<(), TrainError> {
        let entry = match change {
            Change::Lr(lr) => Entry { step, lr: Some(lr), loss_scale: None },
            Change::LossScale(scale) => Entry { step, lr: None, loss_scale: Some(scale) },
        };
        lines::append(&self.path, &entry)?;
        self.entries.push(entry);
        Ok(())
    }

    /// Returns the rate that applies after `step` steps; `None` if none was set.
    pub(crate) fn rate(&self, step: u64) -> Option<Positive> {
        // Of those due, the latest step counts, and of equal ones the one given last.
        let due = self.entries.iter().filter(|entry| entry.step <= step && entry.lr.is_some());
        due.max_by_key(|entry| entry.step).and_then(|entry| entry.lr)
    }

    /// Returns the loss scale set after exactly `step` steps; afterwards it adapts dynamically.
    pub(crate) fn loss_scale(&self, step: u64) -> Option<Positive> {
        self.entries.iter().rev().filter(|entry| entry.step == step).find_map(|entry| entry.loss_scale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_holds_from_its_step_on_and_a_torn_line_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let rate = |text: &str| text.parse::<Positive>().unwrap();
        let open = |step| CommandLog::open(folder.path(), step).unwrap();
        let (mut kept, _) = open(0);
        assert_eq!(kept.rate(100), None);
        for (step, text) in [(5, "1e-4"), (9, "3e-4"), (5, "2e-4")] {
            kept.add(step, Change::Lr(rate(text))).unwrap();
        }
        let path = folder.path().join(COMMANDS_FILE);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&whole[..], b"{\"step\":5,\"lr\""].concat()).unwrap();
        let (mut kept, trouble) = open(0);
        assert_eq!((std::fs::read(&path).unwrap(), trouble), (whole, None));
        assert_eq!((kept.rate(4), kept.rate(5)), (None, Some(rate("2e-4"))));
        assert_eq!((kept.rate(8), kept.rate(9)), (Some(rate("2e-4")), Some(rate("3e-4"))));
        kept.add(9, Change::Lr(rate("1"))).unwrap();
        kept.add(9, Change::LossScale(rate("8"))).unwrap();
        let (kept, _) = open(0);
        assert_eq!((kept.rate(9), kept.rate(10)), (Some(rate("1")), Some(rate("1"))));
        assert_eq!((kept.loss_scale(9), kept.loss_scale(10)), (Some(rate("8")), None));
        let (later, _) = open(9);
        assert_eq!((later.rate(8), later.rate(9)), (None, Some(rate("1"))), "what comes before is in the checkpoint");
        assert_eq!(open(10).0.rate(100), None);
    }

    #[test]
    fn a_file_that_cannot_be_used_is_told_and_costs_no_more_than_itself() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(COMMANDS_FILE);
        let (mut kept, _) = CommandLog::open(folder.path(), 0).unwrap();
        kept.add(5, Change::Lr("1e-4".parse().unwrap())).unwrap();
        std::fs::write(&path, [&std::fs::read(&path).unwrap()[..], b"\0\0\0\n"].concat()).unwrap();
        kept.add(7, Change::Lr("2e-4".parse().unwrap())).unwrap();
        let (kept, trouble) = CommandLog::open(folder.path(), 0).unwrap();
        assert!(kept.rate(5).is_some() && kept.rate(5) != kept.rate(7) && trouble.unwrap().contains("line 2"));
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        let (mut kept, trouble) = CommandLog::open(folder.path(), 0).unwrap();
        assert!(kept.rate(100).is_none() && trouble.is_some());
        assert!(kept.add(9, Change::Lr("1".parse().unwrap())).is_err(), "what is not kept is not acknowledged");
    }
}
