//! The join: sorted files are read side by side, and every id is accepted or rejected once.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::Path;

use super::checks::{self, Numbering, Problem};
use super::files::{Entry, Files, Keyed, not_read, utf8};
use crate::fields::Object;
use crate::paths::{pieces, prefix_of};
use crate::reading::{KEEP_WITHOUT_TEXT, NO_TRANSCRIPTS};
use crate::utterances::Extra;
use crate::{ColumnSpec, DType, ReadOptions, Reading, UtteranceRow, Utterances, manifest, values};

/// Joins the files of a directory into utterances and rejections.
pub(super) fn join(files: &Files, root: &Path, dir: &str, options: &ReadOptions<'_>) -> Reading {
    let rows = files.segments.as_ref().unwrap_or(&files.wav_scp).entries.len();
    let words = |text: &&Keyed| text.entries.iter().any(|entry| !text.value_bytes(entry).is_empty());
    let texts = files.text.as_ref().filter(words).is_some();
    let mut joiner = Joiner {
        files,
        options,
        prefix: prefix_of(dir),
        text_needed: texts && !options.rows_without_text,
        reading: Reading {
            utterances: Utterances::with_capacity(
                rows,
                files.text.as_ref().map_or(0, Keyed::bytes),
                files.wav_scp.bytes() + rows * (dir.len() + 1),
            ),
            warnings: files.present().filter_map(unsorted_warning).collect(),
            files: files.paths(),
            ..Reading::default()
        },
        numbering: numbering(files.segments.as_ref()),
        without_prefix: Tally::default(),
        without_language: Tally::default(),
        without_speaker_list: Tally::default(),
    };
    joiner.walk();
    let mut reading = joiner.finish();
    if !texts && !reading.utterances.is_empty() {
        reading.warnings.push(NO_TRANSCRIPTS.into());
    }
    let mut others = not_read(&root.join(dir));
    others.retain(|name| !files.columns.iter().any(|column| column.name() == name));
    reading.warnings.extend(not_read_warning(&others));
    reading
}

/// Returns a warning for a file that Kaldi would refuse because of its order.
fn unsorted_warning(keyed: &Keyed) -> Option<String> {
    keyed.unsorted_at.map(|line| {
        format!("{}:{line} is out of C order; Flowmill sorts the file, but Kaldi would refuse it", keyed.name())
    })
}

/// Returns a warning for files of the directory that are not read. The instructions of CosyVoice 3 are named as such.
fn not_read_warning(names: &[String]) -> Option<String> {
    let about = |name: &String| match name.as_str() {
        "instruct" => {
            "instruct (the instructions of CosyVoice 3, which `prep.columns: {instruct: text}` keeps)".to_owned()
        }
        name => name.to_owned(),
    };
    // The instructions come first, so that they are always named and not only counted.
    let mut names: Vec<&String> = names.iter().collect();
    names.sort_by_key(|name| name.as_str() != "instruct");
    let shown: Vec<String> = names.iter().take(10).map(|name| about(name)).collect();
    let more = if names.len() > 10 { format!(" and {} more", names.len() - 10) } else { String::new() };
    (!shown.is_empty()).then(|| format!("files that are not read: {}{more}", shown.join(", ")))
}

/// The number of occurrences, and the first id with one.
#[derive(Default)]
struct Tally {
    count: u64,
    first: String,
}

impl Tally {
    fn add(&mut self, id: &str) {
        if self.count == 0 {
            self.first = id.to_owned();
        }
        self.count += 1;
    }

    /// Returns the warning if there were any.
    fn warning(&self, text: &str) -> Option<String> {
        (self.count > 0).then(|| format!("{} utterances {text} (first: {})", self.count, self.first))
    }
}

struct Joiner<'a> {
    files: &'a Files,
    options: &'a ReadOptions<'a>,
    prefix: String,
    /// True if a row without a transcript is rejected.
    text_needed: bool,
    /// The number from which `segments` counts channels.
    numbering: Numbering,
    reading: Reading,
    without_prefix: Tally,
    without_language: Tally,
    without_speaker_list: Tally,
}

/// The entries of one id in each file.
struct Groups<'a> {
    /// In `segments` if it exists, in `wav.scp` otherwise.
    place: &'a [Entry],
    text: &'a [Entry],
    speaker: &'a [Entry],
    language: &'a [Entry],
    listed: &'a [Entry],
}

/// The place of an utterance's audio.
struct Audio<'a> {
    wav: &'a str,
    start: Option<f64>,
    end: Option<f64>,
    channel: Option<u32>,
}

impl<'a> Joiner<'a> {
    /// Returns the file with one line per utterance that gives the place of its audio.
    fn placing(&self) -> &'a Keyed {
        self.files.segments.as_ref().unwrap_or(&self.files.wav_scp)
    }

    /// Visits every id of the three main files in C order.
    fn walk(&mut self) {
        let files = self.files;
        let placing = self.placing();
        let (mut place, mut text, mut speaker, mut language, mut listed) = (0, 0, 0, 0, 0);
        loop {
            let heads = [(Some(placing), place), (files.text.as_ref(), text), (files.utt2spk.as_ref(), speaker)];
            let head = |(keyed, at): &(Option<&'a Keyed>, usize)| {
                keyed.and_then(|keyed| keyed.entries.get(*at).map(|entry| keyed.key(entry)))
            };
            let next = heads.iter().filter_map(head).min();
            let Some(key) = next else { return };
            let groups = Groups {
                place: placing.take(&mut place, key),
                text: files.text.as_ref().map_or(&[], |keyed| keyed.take(&mut text, key)),
                speaker: files.utt2spk.as_ref().map_or(&[], |keyed| keyed.take(&mut speaker, key)),
                language: files.utt2lang.as_ref().map_or(&[], |keyed| keyed.take(&mut language, key)),
                listed: files.spk2utt.as_ref().map_or(&[], |keyed| keyed.take(&mut listed, key)),
            };
            self.settle(key, &groups);
        }
    }

    /// Returns the entries of one id in the files that must have it.
    fn met(&self, groups: &Groups<'a>) -> impl Iterator<Item = (&'a Keyed, &'a [Entry])> + Clone + use<'a> {
        let texts = self.files.text.as_ref().map(|text| (text, groups.text));
        let speakers = self.files.utt2spk.as_ref().map(|utt2spk| (utt2spk, groups.speaker));
        std::iter::once((self.placing(), groups.place)).chain(texts).chain(speakers)
    }

    /// Accepts or rejects one id. All lines that repeat an accepted id are one rejection, in any number of files.
    fn settle(&mut self, key: &[u8], groups: &Groups<'a>) {
        let id = String::from_utf8_lossy(key).into_owned();
        if let Err(reason) = self.accept(key, groups) {
            return self.reading.reject(&id, reason);
        }
        let repeated: Vec<String> = self
            .met(groups)
            .flat_map(|(keyed, group)| group.iter().skip(1).map(move |extra| (keyed, extra, group[0].line)))
            .map(|(keyed, extra, line)| format!("{} has the id of line {line}", keyed.place(extra)))
            .take(10)
            .collect();
        if !repeated.is_empty() {
            self.reading.reject(&id, format!("repeated id: {}", repeated.join(", ")));
        }
    }

    /// Adds the row of one id, or returns the reason for its rejection.
    fn accept(&mut self, key: &[u8], groups: &Groups<'a>) -> Result<(), String> {
        let files = self.files;
        let met = self.met(groups);
        let utt = self.checked_id(key, met.clone())?;
        for (keyed, group) in met.clone() {
            if group.is_empty() && (self.text_needed || keyed.name() != "text") {
                return Err(missing(keyed.name(), met));
            }
            unambiguous(keyed, group)?;
        }
        let place = &groups.place[0];
        let spk = self.speaker(groups.speaker)?;
        let text = self.text(groups.text)?;
        let Audio { wav, start, end, channel } = self.audio(place)?;
        self.check_listed(utt, spk, groups)?;
        let lang = self.language(utt, groups.language)?;
        if files.utt2spk.is_some() && !utt.starts_with(spk) {
            self.without_prefix.add(utt);
        }
        let duration = start.zip(end).map(|(start, end)| end - start);
        let columns = self.columns(key)?;
        self.push(UtteranceRow {
            utt,
            spk,
            text: &text,
            lang,
            wav,
            start,
            end,
            duration,
            channel,
            extra: columns.as_ref(),
            ..UtteranceRow::default()
        });
        Ok(())
    }

    /// Returns the columns that the recipe names, each from the file of its name.
    fn columns(&self, key: &[u8]) -> Result<Option<Extra>, String> {
        if self.options.columns.is_empty() {
            return Ok(None);
        }
        let mut object = Object::default();
        for keyed in &self.files.columns {
            let Some(entry) = keyed.find(key).first() else { continue };
            let is_text = |column: &ColumnSpec| column.name == keyed.name() && column.dtype == DType::Text;
            let is_text = self.options.columns.iter().any(is_text);
            located(keyed, entry, |value| {
                object.set_value(keyed.name(), value, is_text);
                Ok(())
            })?;
        }
        let columns =
            manifest::columns(&object, self.options).map_err(|problem| format!("no column: the id {problem}"))?;
        Ok((!columns.is_empty()).then(|| Extra { columns, ..Extra::default() }))
    }

    /// Returns the utterance's transcript; empty if none is needed.
    fn text(&self, group: &'a [Entry]) -> Result<Cow<'a, str>, String> {
        let (Some(text), Some(entry)) = (&self.files.text, group.first()) else { return Ok(Cow::Borrowed("")) };
        let words = |value| match checks::transcript(value)? {
            Some(words) => Ok(words),
            None if self.text_needed => Err(format!("has an id but no text; {KEEP_WITHOUT_TEXT}").into()),
            None => Ok(Cow::Borrowed("")),
        };
        located(text, entry, words)
    }

    /// Returns the utterance's speaker: from `utt2spk`, or the one of all utterances.
    fn speaker(&self, group: &'a [Entry]) -> Result<&'a str, String> {
        match (&self.files.utt2spk, group.first()) {
            (Some(utt2spk), Some(entry)) => located(utt2spk, entry, |value| checks::word(value, "speaker")),
            _ => self.options.speaker.ok_or_else(|| "no speaker: there is no utt2spk".to_owned()),
        }
    }

    /// The id as text.
    fn checked_id<'k>(
        &self,
        key: &'k [u8],
        mut met: impl Iterator<Item = (&'a Keyed, &'a [Entry])>,
    ) -> Result<&'k str, String> {
        let place =
            met.find_map(|(keyed, group)| group.first().map(|entry| (keyed.place(entry), keyed.encoding_advice())));
        let (place, advice) = place.unwrap_or_default();
        let id = utf8(key).map_err(|byte| format!("bad id: {place} is not UTF-8 (byte 0x{byte:02X}); {advice}"))?;
        values::id(id).map_err(|problem| format!("bad id: {place} {problem}"))?;
        Ok(id)
    }

    /// Returns the place of the utterance's audio: its recording, start and end.
    fn audio(&self, entry: &Entry) -> Result<Audio<'a>, String> {
        let wav_scp = &self.files.wav_scp;
        let path = |entry: &Entry| located(wav_scp, entry, |value| checks::recording(value, self.options.allow_pipes));
        let Some(segments) = &self.files.segments else {
            return Ok(Audio { wav: path(entry)?, start: None, end: None, channel: None });
        };
        let segment = located(segments, entry, checks::segment)?;
        let found = wav_scp.find(segment.recording.as_bytes());
        unambiguous(wav_scp, found)?;
        let Some(recording) = found.first() else {
            return Err(format!(
                "no such recording: {} uses `{}`, but wav.scp does not have it",
                segments.place(entry),
                segment.recording
            ));
        };
        let checks::Segment { start, end, channel, .. } = segment;
        let channel = channel.map(|channel| self.numbering.index(channel));
        Ok(Audio { wav: path(recording)?, start: Some(start), end, channel })
    }

    /// Checks `spk2utt` against the speaker `utt2spk` gives.
    fn check_listed(&mut self, utt: &str, spk: &str, groups: &Groups<'a>) -> Result<(), String> {
        let listed = groups.listed;
        let (Some(spk2utt), Some(utt2spk)) = (&self.files.spk2utt, &self.files.utt2spk) else { return Ok(()) };
        if listed.is_empty() {
            self.without_speaker_list.add(utt);
        }
        match listed.iter().find(|entry| spk2utt.value_bytes(entry) != spk.as_bytes()) {
            None => Ok(()),
            Some(other) => Err(format!(
                "two speakers: {} gives it to `{}`, {} to `{spk}`; spk2utt follows from utt2spk, so delete it or generate it again",
                spk2utt.place(other),
                String::from_utf8_lossy(spk2utt.value_bytes(other)),
                groups.speaker.first().map(|entry| utt2spk.place(entry)).unwrap_or_default(),
            )),
        }
    }

    /// Returns the utterance's language if there is `utt2lang`.
    fn language(&mut self, utt: &str, group: &'a [Entry]) -> Result<Option<&'a str>, String> {
        let Some(utt2lang) = &self.files.utt2lang else { return Ok(None) };
        let Some(entry) = group.first() else {
            self.without_language.add(utt);
            return Ok(None);
        };
        unambiguous(utt2lang, group)?;
        located(utt2lang, entry, |value| checks::word(value, "language")).map(Some)
    }

    /// Appends a row, with its path joined to the directory. A command is changed to run in the directory, so that
    /// its paths are relative to it too.
    fn push(&mut self, row: UtteranceRow<'_>) {
        let utterances = &mut self.reading.utterances;
        if !row.wav.ends_with('|') {
            let (prefix, path) = pieces(&self.prefix, row.wav);
            utterances.push_with_path(row, &[prefix, path]);
        } else if self.prefix.is_empty() {
            utterances.push_with_path(row, &[row.wav]);
        } else {
            let change = crate::source::change_directory(&self.prefix);
            utterances.push_with_path(row, &[&change, row.wav]);
        }
    }

    /// The reading with its closing warnings.
    fn finish(self) -> Reading {
        let mut reading = self.reading;
        let warnings = [
            self.numbering.is_open.then(|| {
                "segments names channel 1 only: it is taken as the second channel, as Kaldi's extract-segments counts from 0; write A \
                 for the first channel and B for the second"
                    .to_owned()
            }),
            self.without_prefix.warning("do not begin with their speaker's id; Kaldi's tools want it as a prefix"),
            self.without_language.warning("are not in utt2lang"),
            self.without_speaker_list.warning("are not in spk2utt"),
            self.files.segments.as_ref().and_then(|segments| unused_recordings(&self.files.wav_scp, segments)),
        ];
        reading.warnings.extend(warnings.into_iter().flatten());
        reading.counted()
    }
}

/// Applies a check to an entry's value. File and line are prepended to a problem.
fn located<'a, T>(
    keyed: &'a Keyed,
    entry: &Entry,
    check: impl FnOnce(&'a str) -> Result<T, Problem>,
) -> Result<T, String> {
    keyed.value(entry).and_then(check).map_err(|Problem { kind, detail }| match kind {
        Some(kind) => format!("{} {kind}: line {} {detail}", keyed.name(), entry.line),
        None => format!("bad line in {}: line {} {detail}", keyed.name(), entry.line),
    })
}

/// Returns an error for an id whose repeated lines contradict each other.
fn unambiguous(keyed: &Keyed, group: &[Entry]) -> Result<(), String> {
    let Some((first, others)) = group.split_first() else { return Ok(()) };
    match others.iter().find(|other| keyed.value_bytes(other) != keyed.value_bytes(first)) {
        None => Ok(()),
        Some(other) => {
            Err(format!("contradiction: {} differs from line {} with the same id", keyed.place(other), first.line))
        }
    }
}

/// Formats "not in wav.scp: only in text:3".
fn missing<'a>(absent: &str, met: impl Iterator<Item = (&'a Keyed, &'a [Entry])>) -> String {
    let places: Vec<String> = met.filter_map(|(keyed, group)| group.first().map(|entry| keyed.place(entry))).collect();
    format!("not in {absent}: only in {}", places.join(" and "))
}

/// Returns the number from which a file of segments counts channels.
fn numbering(segments: Option<&Keyed>) -> Numbering {
    let value = |segments: &'_ Keyed, entry: &Entry| -> Option<String> {
        std::str::from_utf8(segments.value_bytes(entry)).ok()?.split_whitespace().nth(3).map(str::to_owned)
    };
    let channels: BTreeSet<String> = segments
        .into_iter()
        .flat_map(|segments| segments.entries.iter().filter_map(move |entry| value(segments, entry)))
        .collect();
    Numbering::of(channels.iter().map(String::as_str))
}

/// Returns a warning about recordings that no segment uses.
fn unused_recordings(wav_scp: &Keyed, segments: &Keyed) -> Option<String> {
    let mut used: Vec<&[u8]> = segments
        .entries
        .iter()
        .filter_map(|entry| segments.value_bytes(entry).split(u8::is_ascii_whitespace).next())
        .collect();
    used.sort_unstable();
    let mut unused = Tally::default();
    for entry in &wav_scp.entries {
        let key = wav_scp.key(entry);
        if used.binary_search(&key).is_err() {
            unused.add(&String::from_utf8_lossy(key));
        }
    }
    (unused.count > 0)
        .then(|| format!("{} recordings of wav.scp are in no segment (first: {})", unused.count, unused.first))
}
