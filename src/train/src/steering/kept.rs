//! Commands that change results, kept so that a run that is killed and resumed follows them again at the same steps.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Positive, lines};
use crate::TrainError;

/// JSON lines: what was changed, and after how many steps.
pub const COMMANDS_FILE: &str = "commands.jsonl";

/// What changes results.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Change {
    /// The full learning rate, from a step on.
    Lr(Positive),
    /// The loss scale, once.
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

/// The file and what it says.
#[derive(Debug)]
pub(crate) struct Kept {
    path: PathBuf,
    entries: Vec<Entry>,
}

impl Kept {
    /// Reads what was kept in a folder.
    pub(crate) fn open(folder: &Path) -> Result<Self, TrainError> {
        let path = folder.join(COMMANDS_FILE);
        let entries = lines::read(&path)?;
        Ok(Self { path, entries })
    }

    /// Keeps, durably, what changes after so many steps.
    pub(crate) fn add(&mut self, step: u64, change: Change) -> Result<(), TrainError> {
        let entry = match change {
            Change::Lr(lr) => Entry { step, lr: Some(lr), loss_scale: None },
            Change::LossScale(scale) => Entry { step, lr: None, loss_scale: Some(scale) },
        };
        lines::append(&self.path, &entry)?;
        self.entries.push(entry);
        Ok(())
    }

    /// The rate that holds after so many steps; `None` when none was set until then.
    pub(crate) fn rate(&self, step: u64) -> Option<Positive> {
        // Of those due by then the latest step counts, and of equal ones the last that was said.
        let due = self.entries.iter().filter(|entry| entry.step <= step && entry.lr.is_some());
        due.max_by_key(|entry| entry.step).and_then(|entry| entry.lr)
    }

    /// The loss scale set after exactly so many steps; from there on it goes its own way.
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
        let mut kept = Kept::open(folder.path()).unwrap();
        assert_eq!(kept.rate(100), None);
        for (step, text) in [(5, "1e-4"), (9, "3e-4"), (5, "2e-4")] {
            kept.add(step, Change::Lr(rate(text))).unwrap();
        }
        let path = folder.path().join(COMMANDS_FILE);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&whole[..], b"{\"step\":5,\"lr\""].concat()).unwrap();
        let mut kept = Kept::open(folder.path()).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), whole);
        assert_eq!((kept.rate(4), kept.rate(5)), (None, Some(rate("2e-4"))));
        assert_eq!((kept.rate(8), kept.rate(9)), (Some(rate("2e-4")), Some(rate("3e-4"))));
        kept.add(9, Change::Lr(rate("1"))).unwrap();
        kept.add(9, Change::LossScale(rate("8"))).unwrap();
        let kept = Kept::open(folder.path()).unwrap();
        assert_eq!((kept.rate(9), kept.rate(10)), (Some(rate("1")), Some(rate("1"))));
        assert_eq!((kept.loss_scale(9), kept.loss_scale(10)), (Some(rate("8")), None));
    }
}
