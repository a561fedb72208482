//! Utterances: one as a plain struct, many as a columnar table.

use std::collections::BTreeMap;

use crate::strings::Strings;
use crate::{Array, MediaRef, Role};

/// Parts of a row beyond an utterance.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Extra {
    /// The media except the recording.
    pub media: BTreeMap<Role, Vec<MediaRef>>,
    /// The ids of other rows, by the name of the reference.
    pub references: BTreeMap<String, Vec<String>>,
    /// Columns that the recipe names.
    pub columns: BTreeMap<String, Array>,
}

impl Extra {
    /// Returns whether it has data that can form a row: media, or references to other rows.
    pub fn has_data(&self) -> bool {
        !self.media.is_empty() || !self.references.is_empty()
    }
}

/// One utterance, the row every stage works on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Utterance {
    /// The utterance's id, unique in an experiment.
    pub utt: String,
    /// The speaker's id.
    pub spk: String,
    /// The transcript on one line; empty if the data have none.
    pub text: String,
    /// The language, if the data specify it.
    pub lang: Option<String>,
    /// The recording: a path from the data, joined to the data directory (so it is relative to the recipe's folder if
    /// the recipe's directory is relative), or a command ending in `|` if pipes are allowed.
    /// [`crate::source::Source`] distinguishes the two and reads both.
    pub wav: String,
    /// The start of the utterance in the recording, in seconds; `None` for its beginning.
    pub start: Option<f64>,
    /// The end of the utterance in the recording, in seconds; `None` for the recording's end.
    pub end: Option<f64>,
    /// The utterance's duration in seconds, if known.
    pub duration: Option<f64>,
    /// The recording's sample rate in Hz, once probed.
    pub sample_rate: Option<u32>,
    /// The recording's number of channels, once probed.
    pub channels: Option<u32>,
    /// The channel of the recording that contains the utterance, counted from 0; `None` for the mean of all channels.
    pub channel: Option<u32>,
    /// The program, with its version, that decodes the recording if Flowmill does not do so itself.
    pub decoder: Option<String>,
    /// The factor by which the utterance is faster and higher than its recording; `None` for the recording as it is.
    pub speed: Option<f64>,
}

impl Utterance {
    /// The same row, borrowed.
    pub fn as_row(&self) -> UtteranceRow<'_> {
        UtteranceRow {
            utt: &self.utt,
            spk: &self.spk,
            text: &self.text,
            lang: self.lang.as_deref(),
            wav: &self.wav,
            start: self.start,
            end: self.end,
            duration: self.duration,
            sample_rate: self.sample_rate,
            channels: self.channels,
            channel: self.channel,
            decoder: self.decoder.as_deref(),
            speed: self.speed,
            split: None,
            extra: None,
        }
    }
}

/// One utterance, borrowed from a table; the fields are those of [`Utterance`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct UtteranceRow<'a> {
    pub utt: &'a str,
    pub spk: &'a str,
    pub text: &'a str,
    pub lang: Option<&'a str>,
    pub wav: &'a str,
    pub start: Option<f64>,
    pub end: Option<f64>,
    pub duration: Option<f64>,
    pub sample_rate: Option<u32>,
    pub channels: Option<u32>,
    pub channel: Option<u32>,
    pub decoder: Option<&'a str>,
    pub speed: Option<f64>,
    /// The split that the source puts the row in.
    pub split: Option<&'a str>,
    /// The part that [`Utterance`] lacks.
    pub extra: Option<&'a Extra>,
}

impl UtteranceRow<'_> {
    /// The same row, owned.
    pub fn to_utterance(&self) -> Utterance {
        Utterance {
            utt: self.utt.to_owned(),
            spk: self.spk.to_owned(),
            text: self.text.to_owned(),
            lang: self.lang.map(str::to_owned),
            wav: self.wav.to_owned(),
            start: self.start,
            end: self.end,
            duration: self.duration,
            sample_rate: self.sample_rate,
            channels: self.channels,
            channel: self.channel,
            decoder: self.decoder.map(str::to_owned),
            speed: self.speed,
        }
    }
}

/// A table of unprobed utterances in columns: a handful of allocations for a million rows.
#[derive(Clone, Debug, Default)]
pub struct Utterances {
    utt: Strings,
    spk: Strings,
    text: Strings,
    /// Empty strings represent an unknown language.
    lang: Strings,
    wav: Strings,
    /// NaN represents a missing value in the three columns of seconds.
    start: Vec<f64>,
    end: Vec<f64>,
    duration: Vec<f64>,
    /// [`NO_CHANNEL`] represents a missing value.
    channel: Vec<u32>,
    /// True for rows whose id was made from the name of the recording. Rows beyond its end have ids from the data.
    made_up: Vec<bool>,
    /// The splits that sources bring. Empty strings represent rows without one, and rows beyond its end have none.
    split: Strings,
    /// Parts of rows beyond an utterance, by position; missing entries are empty.
    extras: Vec<Option<Box<Extra>>>,
}

/// The value of a row that names no channel.
const NO_CHANNEL: u32 = u32::MAX;

impl Utterances {
    /// Creates a table with space for `rows` rows whose transcripts and paths have the given total sizes in bytes.
    pub(crate) fn with_capacity(rows: usize, text_bytes: usize, wav_bytes: usize) -> Self {
        Self {
            utt: Strings::with_capacity(rows, rows * 24),
            spk: Strings::with_capacity(rows, rows * 8),
            text: Strings::with_capacity(rows, text_bytes),
            lang: Strings::with_capacity(rows, 0),
            wav: Strings::with_capacity(rows, wav_bytes),
            start: Vec::with_capacity(rows),
            end: Vec::with_capacity(rows),
            duration: Vec::with_capacity(rows),
            channel: Vec::with_capacity(rows),
            made_up: Vec::new(),
            split: Strings::default(),
            extras: Vec::new(),
        }
    }

    /// Appends a row. Its `sample_rate` and `channels` are not stored, because they come from probing.
    pub fn push(&mut self, row: UtteranceRow<'_>) {
        self.push_with_path(row, &[row.wav]);
    }

    /// Appends a row whose path is given in pieces (so that no path has to be built first).
    pub(crate) fn push_with_path(&mut self, row: UtteranceRow<'_>, wav: &[&str]) {
        self.utt.push(row.utt);
        self.spk.push(row.spk);
        self.text.push(row.text);
        self.lang.push(row.lang.unwrap_or_default());
        self.wav.push_pieces(wav);
        self.start.push(row.start.unwrap_or(f64::NAN));
        self.end.push(row.end.unwrap_or(f64::NAN));
        self.duration.push(row.duration.unwrap_or(f64::NAN));
        self.channel.push(row.channel.unwrap_or(NO_CHANNEL));
        if let Some(split) = row.split {
            // Most sources bring no splits.
            (self.split.len()..self.len() - 1).for_each(|_| self.split.push(""));
            self.split.push(split);
        }
        if let Some(extra) = row.extra {
            self.extras.resize(self.len() - 1, None);
            self.extras.push(Some(Box::new(extra.clone())));
        }
    }

    /// Marks the id of the last row as made from the name of its recording.
    pub(crate) fn mark_made_up(&mut self) {
        self.made_up.resize(self.len(), false);
        self.made_up.last_mut().into_iter().for_each(|last| *last = true);
    }

    /// Returns whether a row's id was made from the name of its recording, so that it may be changed to be unique.
    pub fn is_made_up(&self, index: usize) -> bool {
        self.made_up.get(index).copied().unwrap_or(false)
    }

    /// Renames rows: `rename` returns the new id for a row's index and id.
    pub fn rename(&mut self, rename: impl Fn(usize, &str) -> Option<String>) {
        let mut utt = Strings::with_capacity(self.len(), 0);
        for index in 0..self.len() {
            let id = self.utt.get(index);
            utt.push(rename(index, id).as_deref().unwrap_or(id));
        }
        self.utt = utt;
    }

    /// Returns the number of rows.
    pub fn len(&self) -> usize {
        self.utt.len()
    }

    /// Returns whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the row with that index. Panics if it does not exist, like slice indexing.
    pub fn row(&self, index: usize) -> UtteranceRow<'_> {
        let lang = self.lang.get(index);
        UtteranceRow {
            utt: self.utt.get(index),
            spk: self.spk.get(index),
            text: self.text.get(index),
            lang: (!lang.is_empty()).then_some(lang),
            wav: self.wav.get(index),
            start: given(self.start[index]),
            end: given(self.end[index]),
            duration: given(self.duration[index]),
            sample_rate: None,
            channels: None,
            channel: Some(self.channel[index]).filter(|channel| *channel != NO_CHANNEL),
            decoder: None,
            speed: None,
            split: Some(index)
                .filter(|index| *index < self.split.len())
                .map(|index| self.split.get(index))
                .filter(|s| !s.is_empty()),
            extra: self.extras.get(index).and_then(Option::as_deref),
        }
    }

    /// All rows in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = UtteranceRow<'_>> {
        (0..self.len()).map(|index| self.row(index))
    }
}

/// Returns `None` for the NaN that represents a missing number.
fn given(value: f64) -> Option<f64> {
    (!value.is_nan()).then_some(value)
}
