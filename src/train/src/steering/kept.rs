//! Commands that change results, kept so that a run that is killed and resumed follows them again at the same steps.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Rate;
use crate::TrainError;

/// JSON lines: what was changed, and after how many steps.
pub const COMMANDS_FILE: &str = "commands.jsonl";

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    step: u64,
    lr: Rate,
}

/// The file and what it says.
#[derive(Debug)]
pub(crate) struct Kept {
    path: PathBuf,
    entries: Vec<Entry>,
}

impl Kept {
    /// Reads what was kept in a folder; of a line that a crash tore nothing was acknowledged, and it is taken away.
    pub(crate) fn open(folder: &Path) -> Result<Self, TrainError> {
        let path = folder.join(COMMANDS_FILE);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self { path, entries: Vec::new() }),
            Err(error) => return Err(TrainError::io("read", path)(error)),
        };
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        if whole < text.len() {
            let cut = OpenOptions::new().write(true).open(&path).and_then(|file| file.set_len(whole as u64));
            cut.map_err(TrainError::io("truncate", &path))?;
        }
        let entries = text[..whole].lines().map(serde_json::from_str).collect::<Result<_, _>>();
        let entries = entries.map_err(|error| TrainError::io("read", &path)(error.into()))?;
        Ok(Self { path, entries })
    }

    /// Keeps, durably, that the full learning rate changes after so many steps.
    pub(crate) fn add(&mut self, step: u64, lr: Rate) -> Result<(), TrainError> {
        let entry = Entry { step, lr };
        let line = serde_json::to_string(&entry).map_err(|error| TrainError::io("write", &self.path)(error.into()))?;
        let write = || {
            let mut file = OpenOptions::new().create(true).append(true).open(&self.path)?;
            file.write_all(format!("{line}\n").as_bytes())?;
            file.sync_all()
        };
        write().map_err(TrainError::io("write", &self.path))?;
        self.entries.push(entry);
        Ok(())
    }

    /// The rate that holds after so many steps; `None` when none was set until then.
    pub(crate) fn rate(&self, step: u64) -> Option<Rate> {
        // Of those due by then the latest step counts, and of equal ones the last that was said.
        let due = self.entries.iter().filter(|entry| entry.step <= step);
        due.max_by_key(|entry| entry.step).map(|entry| entry.lr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_holds_from_its_step_on_and_a_torn_line_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let rate = |text: &str| text.parse::<Rate>().unwrap();
        let mut kept = Kept::open(folder.path()).unwrap();
        assert_eq!(kept.rate(100), None);
        for (step, text) in [(5, "1e-4"), (9, "3e-4"), (5, "2e-4")] {
            kept.add(step, rate(text)).unwrap();
        }
        let path = folder.path().join(COMMANDS_FILE);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&whole[..], b"{\"step\":5,\"lr\""].concat()).unwrap();
        let mut kept = Kept::open(folder.path()).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), whole);
        assert_eq!((kept.rate(4), kept.rate(5)), (None, Some(rate("2e-4"))));
        assert_eq!((kept.rate(8), kept.rate(9)), (Some(rate("2e-4")), Some(rate("3e-4"))));
        kept.add(9, rate("1")).unwrap();
        assert_eq!(Kept::open(folder.path()).unwrap().rate(9), Some(rate("1")));
    }
}
