//! The last save of a run, which is retried until it succeeds because the newest weights exist in memory only until then.

use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::error::right_to_write;
use crate::train::{Run, SaveReason};
use crate::{DataSource, SKIPPED_FOLDER, Task, TrainError, checkpoint, samples_step};

/// The time before the second attempt; it doubles with every attempt.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest time between attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Interval of checks for a request to stop.
const LOOK: Duration = Duration::from_millis(100);
/// The time between two reminders that the run still waits.
const BETWEEN_REMINDERS: Duration = Duration::from_secs(600);
/// Number of deletable things that a message lists, the largest first.
const NAMED: usize = 8;

/// Something that can be deleted or moved to free disk space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freeable {
    /// A file or folder.
    pub path: PathBuf,
    /// The size.
    pub bytes: u64,
    /// The kind, and the consequence of its loss.
    pub what: &'static str,
}

impl Freeable {
    /// Describes a path; `None` if nothing is there.
    pub fn at(path: PathBuf, what: &'static str) -> Option<Self> {
        let bytes = size(&path);
        (bytes > 0).then_some(Self { path, bytes, what })
    }
}

impl<T, D> Run<'_, T, D>
where
    T: Task,
    D: DataSource<Batch = T::Batch>,
{
    /// Saves the last checkpoint. While the system refuses, it reports what would be lost, waits and tries again. The first request to
    /// stop is answered with what would be lost; only the next one ends the process.
    pub(crate) fn save_or_wait(&mut self, reason: SaveReason) -> Result<(), TrainError> {
        let mut error = match self.save(reason) {
            Err(error) if error.is_of_system() => error,
            done => return done,
        };
        let lost = self.unsaved_steps();
        let mut wanted_to_stop = self.observer.rearm_interrupt();
        let told = self.cannot_save(&error, &lost);
        self.observer.alert(&told);
        let (mut pause, mut reminded) = (FIRST_PAUSE, Instant::now());
        let saved = loop {
            wanted_to_stop |= self.pause(pause, &lost);
            pause = (pause * 2).min(LONGEST_PAUSE);
            match self.save(reason) {
                Err(again) if again.is_of_system() => {
                    let news = again.to_string() != error.to_string();
                    error = again;
                    if news || reminded.elapsed() >= BETWEEN_REMINDERS {
                        let told = self.cannot_save(&error, &lost);
                        self.observer.alert(&told);
                        reminded = Instant::now();
                    }
                }
                done => break done,
            }
        };
        if saved.is_ok() {
            self.observer.alert(&format!("{} is saved now", checkpoint::name(self.state.step)));
        }
        if wanted_to_stop {
            self.observer.ask_to_stop();
        }
        saved
    }

    /// Returns the steps that no checkpoint contains, for messages.
    fn unsaved_steps(&self) -> String {
        let newest =
            checkpoint::names(self.store).unwrap_or_default().iter().filter_map(|name| checkpoint::step_of(name)).max();
        let first = newest.map_or(1, |newest| newest + 1).min(self.state.step);
        if first == self.state.step { format!("step {first}") } else { format!("steps {first} to {}", self.state.step) }
    }

    /// Waits for a time while answering commands; returns whether the person asked to stop, which is answered too.
    fn pause(&mut self, pause: Duration, lost: &str) -> bool {
        let began = Instant::now();
        let mut wanted_to_stop = false;
        while began.elapsed() < pause {
            if self.observer.interrupted() && !wanted_to_stop {
                wanted_to_stop = true;
                self.observer.alert(&format!(
                    "{lost} cannot be saved yet and would be lost: still trying. Stopping once more (Ctrl-C) ends the process now and loses \
                     them"
                ));
            }
            for request in self.observer.requests() {
                let answer =
                    format!("the run has ended and waits until it can save {lost}: make room, see its messages");
                self.observer.answer(&request, &Err(answer));
            }
            sleep(LOOK);
        }
        wanted_to_stop
    }

    /// Describes what cannot be saved, why, and what can be done about it.
    fn cannot_save(&self, error: &TrainError, lost: &str) -> String {
        let name = checkpoint::name(self.state.step);
        let mut text = format!(
            "WARNING: {name} cannot be saved: {error}. The weights of {lost} exist in memory only, so the run waits and tries again until \
             they are saved: do not end it"
        );
        if error.is_not_writable() {
            let folder = self.store.path(&name);
            let folder = folder.parent().unwrap_or(&folder).display();
            return text + &format!(". Its place is {folder}. {}", right_to_write(error.is_not_permitted()));
        }
        if !error.is_disk_full() {
            return text;
        }
        let free = self.observer.free_space().map_or(String::new(), |free| format!(", {} are free", amount(free)));
        text += &format!(". It needs {}{free}", amount(self.checkpoint_bytes()));
        let freeable = self.freeable();
        if !freeable.is_empty() {
            text += ". To make room, delete or move away, for example:";
            for Freeable { path, bytes, what } in freeable.iter().take(NAMED) {
                text += &format!("\n    {}  {} ({what})", amount(*bytes), path.display());
            }
        }
        text
    }

    /// Returns the approximate size of the checkpoint.
    fn checkpoint_bytes(&self) -> u64 {
        let sum = |tensors: &[(String, candle_core::Tensor)]| {
            tensors.iter().map(|(_, tensor)| 4 * tensor.elem_count() as u64).sum::<u64>()
        };
        let weights = sum(&checkpoint::base::kept(self.parameters));
        let averages = if self.ema.is_some() { weights } else { 0 };
        weights + averages + sum(&self.optimizer.state())
    }

    /// Lists what can be deleted without losing what training resumes from, the largest first.
    fn freeable(&self) -> Vec<Freeable> {
        let mut found = self.observer.freeable();
        let names = checkpoint::names(self.store).unwrap_or_default();
        let older = names.iter().rev().skip(1).map(|name| self.store.path(name));
        found.extend(older.filter_map(|path| Freeable::at(path, "an older checkpoint")));
        let beside = std::fs::read_dir(self.folder).into_iter().flatten().flatten().map(|entry| entry.path());
        found.extend(beside.filter_map(|path| {
            let what = what_beside_checkpoints(&path)?;
            Freeable::at(path, what)
        }));
        found.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.path.cmp(&b.path)));
        found
    }
}

/// Describes a file next to the checkpoints that is no longer written to.
fn what_beside_checkpoints(path: &Path) -> Option<&'static str> {
    let name = path.file_name()?.to_str()?;
    match name {
        _ if name.starts_with("damaged-") => Some("a damaged checkpoint"),
        _ if samples_step(name).is_some() => Some("samples made while training"),
        SKIPPED_FOLDER => Some("dumps of skipped steps"),
        _ => None,
    }
}

/// The size of a file, or of all files below a folder; 0 for what cannot be read.
fn size(path: &Path) -> u64 {
    match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => {
            std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| size(&entry.path())).sum()
        }
        Ok(meta) => meta.len(),
        Err(_) => 0,
    }
}

/// Formats a number of bytes for people.
pub(crate) fn amount(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..10_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        10_000_000..10_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_of_all_files_below() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("a/b")).unwrap();
        std::fs::write(folder.path().join("a/b/x"), [0; 300]).unwrap();
        std::fs::write(folder.path().join("a/y"), [0; 12]).unwrap();
        assert_eq!(Freeable::at(folder.path().join("a"), "").map(|found| found.bytes), Some(312));
        assert_eq!(Freeable::at(folder.path().join("none"), ""), None);
    }

    #[test]
    fn amounts_have_their_unit() {
        assert_eq!(
            [amount(999), amount(12_345), amount(45_600_000), amount(12_340_000_000)],
            ["999 B", "12.3 kB", "45.6 MB", "12.3 GB"]
        );
    }
}
