//! Commands that wait for their step. They change no results, so they are not outputs; they are stored so that a killed and
//! resumed run still executes them.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Order, lines};
use crate::TrainError;

/// File of JSON lines in the folder of the run, removed when it is complete.
const FILE: &str = "put-off.jsonl";

/// An event of a command.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    /// It was scheduled.
    PutOff(Order),
    /// It was executed, or failed.
    Done(Order),
}

/// The scheduled commands, in the order in which they were given, and their file.
#[derive(Debug)]
pub(crate) struct PutOff {
    path: PathBuf,
    waiting: Vec<Order>,
}

impl PutOff {
    /// Reads the scheduled commands of a folder, and returns what is wrong with the file.
    pub(crate) fn open(folder: &Path) -> Result<(Self, Option<String>), TrainError> {
        let path = folder.join(FILE);
        let mut waiting = Vec::new();
        let lines::Read { lines, trouble } = lines::read(&path)?;
        for line in lines {
            match line {
                Line::PutOff(order) => waiting.push(order),
                Line::Done(order) => remove(&mut waiting, order),
            }
        }
        Ok((Self { path, waiting }, trouble))
    }

    /// Schedules a command, durably.
    pub(crate) fn add(&mut self, order: Order) -> Result<(), TrainError> {
        lines::append(&self.path, &Line::PutOff(order))?;
        self.waiting.push(order);
        Ok(())
    }

    /// Returns the commands that are due after `step` steps.
    pub(crate) fn due(&self, step: u64) -> Vec<Order> {
        self.waiting.iter().copied().filter(|order| order.at.is_none_or(|at| at <= step)).collect()
    }

    /// Records, durably, that a command need not be executed again.
    pub(crate) fn done(&mut self, order: Order) -> Result<(), TrainError> {
        // Even if that cannot be written, this process executes it once.
        remove(&mut self.waiting, order);
        lines::append(&self.path, &Line::Done(order))
    }

    /// Lists all of them for people; `None` if there are none.
    pub(crate) fn told(&self) -> Option<String> {
        let told: Vec<String> = self.waiting.iter().map(Order::to_string).collect();
        (!told.is_empty()).then(|| told.join(", "))
    }
}

/// Removes the first order that is the same.
fn remove(waiting: &mut Vec<Order>, order: Order) {
    if let Some(at) = waiting.iter().position(|other| *other == order) {
        waiting.remove(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_remembered_and_what_is_done_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let order = |text: &str| text.parse::<Order>().unwrap();
        let (mut put_off, _) = PutOff::open(folder.path()).unwrap();
        assert_eq!(put_off.told(), None);
        for text in ["save@9", "eval@7", "save@9", "quit@12"] {
            put_off.add(order(text)).unwrap();
        }
        assert_eq!(put_off.due(6), []);
        assert_eq!(put_off.due(9), ["save@9", "eval@7", "save@9"].map(order));
        put_off.done(order("save@9")).unwrap();
        put_off.done(order("eval@7")).unwrap();
        let path = folder.path().join(FILE);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&whole[..], b"{\"put_off\":\"export@"].concat()).unwrap();
        let (put_off, _) = PutOff::open(folder.path()).unwrap();
        assert_eq!(put_off.told().unwrap(), "save@9, quit@12");
        assert_eq!(std::fs::read(&path).unwrap(), whole, "a torn line was never acknowledged");
        std::fs::write(&path, "{\"put_off\":\"dance@3\"}\n").unwrap();
        let (put_off, trouble) = PutOff::open(folder.path()).unwrap();
        assert!(put_off.told().is_none() && trouble.unwrap().contains("dance"));
    }
}
