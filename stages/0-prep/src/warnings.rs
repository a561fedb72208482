//! Warnings about recordings that could still be read: all of them in a file, and those about missing or wrong audio
//! in the log.

use std::collections::BTreeMap;
use std::path::Path;

use flowmill_audio::DecodeWarning;
use flowmill_corpus::Utterance;
use flowmill_runner::{PartWork, StageError};
use serde::Serialize;

/// The folder of the files, relative to the stage's.
pub const FOLDER: &str = "warnings";

/// The number of utterances of a kind that the log names.
const NAMED: usize = 3;

/// A line of the file.
#[derive(Debug, Serialize)]
struct Line<'a> {
    utt: &'a str,
    wav: &'a str,
    warning: String,
}

/// Kinds of damage that the log mentions, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Damage {
    Truncated,
    Gaps,
    Corrupt,
}

impl Damage {
    /// Returns the kind of damage that a warning describes; `None` if no audio is missing.
    fn of(warning: &DecodeWarning) -> Option<Self> {
        match warning {
            DecodeWarning::Truncated { .. } => Some(Self::Truncated),
            DecodeWarning::Gaps { .. } => Some(Self::Gaps),
            DecodeWarning::CorruptPackets { .. }
            | DecodeWarning::LostSync { .. }
            | DecodeWarning::ChecksumMismatch
            | DecodeWarning::FallbackComplaint { .. } => Some(Self::Corrupt),
            _ => None,
        }
    }

    /// Returns its name among the part's facts.
    fn fact(self) -> &'static str {
        match self {
            Self::Truncated => "truncated recordings",
            Self::Gaps => "recordings with gaps",
            Self::Corrupt => "corrupt recordings",
        }
    }
}

/// The warnings of one part.
#[derive(Default)]
pub struct Warnings<'a> {
    lines: Vec<Line<'a>>,
    damaged: BTreeMap<Damage, Vec<usize>>,
}

impl<'a> Warnings<'a> {
    /// Adds the warnings about the recording of a row.
    pub fn note(&mut self, row: &'a Utterance, warnings: &[DecodeWarning], sample_rate: u32) {
        for warning in warnings {
            if let Some(damage) = Damage::of(warning) {
                self.damaged.entry(damage).or_default().push(self.lines.len());
            }
            self.lines.push(Line { utt: &row.utt, wav: &row.wav, warning: in_seconds(warning, sample_rate) });
        }
    }

    /// Returns the number of rows with a recording damaged in each way.
    pub fn facts(&self) -> impl Iterator<Item = (&'static str, usize)> {
        self.damaged.iter().map(|(damage, lines)| (damage.fact(), lines.len()))
    }

    /// Prints warnings about damaged recordings, and writes all as JSON lines to `warnings/KEY.jsonl`. Without
    /// warnings there is no file.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn publish(&self, work: &PartWork, key: &str) -> Result<(), StageError> {
        if self.lines.is_empty() {
            return Ok(());
        }
        let file = format!("{FOLDER}/{key}.jsonl");
        for (damage, lines) in &self.damaged {
            for line in lines.iter().take(NAMED).map(|&at| &self.lines[at]) {
                work.message(format!("warning: {} ({}): {}; the row is kept", line.utt, line.wav, line.warning));
            }
            if lines.len() > NAMED {
                let (more, what) = (lines.len() - NAMED, damage.fact());
                work.message(format!("warning: {more} more utterances of {key} have {what}; all are in 0-prep/{file}"));
            }
        }
        write(&work.output(&file)?, &self.lines)
    }
}

fn write(path: &Path, lines: &[Line<'_>]) -> Result<(), StageError> {
    let mut text = String::new();
    for line in lines {
        text += &serde_json::to_string(line).map_err(StageError::other)?;
        text.push('\n');
    }
    std::fs::write(path, text).map_err(|error| StageError::file(path, error))
}

/// Formats a warning with lengths in seconds.
fn in_seconds(warning: &DecodeWarning, sample_rate: u32) -> String {
    let seconds = |frames: u64| frames as f64 / f64::from(sample_rate.max(1));
    match *warning {
        DecodeWarning::Truncated { claimed_frames: Some(claimed), frames } => {
            let missing = seconds(claimed.saturating_sub(frames));
            format!("truncated: {missing:.2} s of {:.2} s are missing at its end", seconds(claimed))
        }
        DecodeWarning::Truncated { claimed_frames: None, frames } => {
            format!("truncated: it breaks off after {:.2} s; how much is missing is not known", seconds(frames))
        }
        DecodeWarning::Gaps { places, frames } => {
            let missing = seconds(frames);
            format!(
                "gaps: {missing:.2} s are missing inside by its timestamps (places: {places}); later sound comes earlier"
            )
        }
        ref other => other.to_string(),
    }
}
