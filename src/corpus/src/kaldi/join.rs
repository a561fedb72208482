//! The join: sorted files walked side by side, every id judged once.

use super::KaldiOptions;
use super::checks;
use super::files::{Entry, Files, Keyed, utf8};
use crate::paths::{pieces, prefix_of};
use crate::{Reading, Row, Utterances};

/// Joins the files of a directory into utterances and rejections.
pub(super) fn join(files: &Files, dir: &str, options: &KaldiOptions<'_>) -> Reading {
    let rows = files.text.entries.len();
    let mut joiner = Joiner {
        files,
        options,
        prefix: prefix_of(dir),
        reading: Reading {
            utterances: Utterances::with_capacity(
                rows,
                files.text.bytes(),
                files.wav_scp.bytes() + rows * (dir.len() + 1),
            ),
            warnings: files.present().filter_map(unsorted_warning).collect(),
            files: files.paths(),
            ..Reading::default()
        },
        without_prefix: Tally::default(),
        without_language: Tally::default(),
        without_speaker_list: Tally::default(),
    };
    joiner.walk();
    joiner.finish()
}

/// A warning for a file that Kaldi would refuse for its order.
fn unsorted_warning(keyed: &Keyed) -> Option<String> {
    keyed.unsorted_at.map(|line| {
        format!("{}:{line} is out of C order; Flowmill sorts by itself, Kaldi would refuse the file", keyed.name())
    })
}

/// How often something was seen, and the first id it was seen at.
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

    /// The warning, when anything was seen.
    fn warning(&self, text: &str) -> Option<String> {
        (self.count > 0).then(|| format!("{} utterances {text} (first: {})", self.count, self.first))
    }
}

struct Joiner<'a> {
    files: &'a Files,
    options: &'a KaldiOptions<'a>,
    prefix: String,
    reading: Reading,
    without_prefix: Tally,
    without_language: Tally,
    without_speaker_list: Tally,
}

/// The entries one id has in each file.
struct Groups<'a> {
    /// In `segments` when there is one, in `wav.scp` otherwise.
    place: &'a [Entry],
    text: &'a [Entry],
    speaker: &'a [Entry],
    language: &'a [Entry],
    listed: &'a [Entry],
}

impl<'a> Joiner<'a> {
    /// The file with one line per utterance that says where its audio is.
    fn placing(&self) -> &'a Keyed {
        self.files.segments.as_ref().unwrap_or(&self.files.wav_scp)
    }

    /// Visits every id of the three main files in C order.
    fn walk(&mut self) {
        let files = self.files;
        let placing = self.placing();
        let (mut place, mut text, mut speaker, mut language, mut listed) = (0, 0, 0, 0, 0);
        loop {
            let heads = [(Some(placing), place), (Some(&files.text), text), (files.utt2spk.as_ref(), speaker)];
            let head = |(keyed, at): &(Option<&'a Keyed>, usize)| {
                keyed.and_then(|keyed| keyed.entries.get(*at).map(|entry| keyed.key(entry)))
            };
            let next = heads.iter().filter_map(head).min();
            let Some(key) = next else { return };
            let groups = Groups {
                place: placing.take(&mut place, key),
                text: files.text.take(&mut text, key),
                speaker: files.utt2spk.as_ref().map_or(&[], |keyed| keyed.take(&mut speaker, key)),
                language: files.utt2lang.as_ref().map_or(&[], |keyed| keyed.take(&mut language, key)),
                listed: files.spk2utt.as_ref().map_or(&[], |keyed| keyed.take(&mut listed, key)),
            };
            self.settle(key, &groups);
        }
    }

    /// The entries of one id in the files that must have it.
    fn met(&self, groups: &Groups<'a>) -> impl Iterator<Item = (&'a Keyed, &'a [Entry])> + Clone + use<'a> {
        let speakers = self.files.utt2spk.as_ref().map(|utt2spk| (utt2spk, groups.speaker));
        [(self.placing(), groups.place), (&self.files.text, groups.text)].into_iter().chain(speakers)
    }

    /// Accepts or rejects one id, and rejects its repeated lines.
    fn settle(&mut self, key: &[u8], groups: &Groups<'a>) {
        let id = String::from_utf8_lossy(key).into_owned();
        if let Err(reason) = self.accept(key, groups) {
            self.reading.reject(&id, reason);
        }
        for (keyed, group) in self.met(groups) {
            for extra in group.iter().skip(1) {
                let reason = format!("repeated id: {} has the id of line {}", keyed.place(extra), group[0].line);
                self.reading.reject(&id, reason);
            }
        }
    }

    /// Adds the row of one id, or says why not.
    fn accept(&mut self, key: &[u8], groups: &Groups<'a>) -> Result<(), String> {
        let files = self.files;
        let met = self.met(groups);
        let utt = self.checked_id(key, met.clone())?;
        for (keyed, group) in met.clone() {
            if group.is_empty() {
                return Err(missing(keyed.name(), met));
            }
            unambiguous(keyed, group)?;
        }
        let (place, text) = (&groups.place[0], &groups.text[0]);
        let spk = self.speaker(groups.speaker)?;
        let text = located(&files.text, text, checks::transcript)?;
        let (wav, start, end) = self.audio(place)?;
        self.check_listed(utt, spk, groups)?;
        let lang = self.language(utt, groups.language)?;
        if files.utt2spk.is_some() && !utt.starts_with(spk) {
            self.without_prefix.add(utt);
        }
        let duration = start.zip(end).map(|(start, end)| end - start);
        let row =
            Row { utt, spk, text, lang, wav, start, end, duration, sample_rate: None, channels: None, decoder: None };
        self.push(row);
        Ok(())
    }

    /// The utterance's speaker: as `utt2spk` says, or the one of all.
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
        utf8(key).and_then(|id| checks::id(id).map(|()| id)).map_err(|problem| {
            let place = met.find_map(|(keyed, group)| group.first().map(|entry| keyed.place(entry)));
            format!("bad id: {} {problem}", place.unwrap_or_default())
        })
    }

    /// Where the utterance's audio is: its recording, start and end.
    fn audio(&self, entry: &Entry) -> Result<(&'a str, Option<f64>, Option<f64>), String> {
        let wav_scp = &self.files.wav_scp;
        let path = |entry: &Entry| located(wav_scp, entry, |value| checks::recording(value, self.options.allow_pipes));
        let Some(segments) = &self.files.segments else {
            return Ok((path(entry)?, None, None));
        };
        let segment = located(segments, entry, checks::segment)?;
        let found = wav_scp.find(segment.recording.as_bytes());
        unambiguous(wav_scp, found)?;
        let Some(recording) = found.first() else {
            return Err(format!(
                "no such recording: {} uses `{}`, wav.scp does not have it",
                segments.place(entry),
                segment.recording
            ));
        };
        Ok((path(recording)?, Some(segment.start), Some(segment.end)))
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
                "two speakers: {} gives it to `{}`, {} to `{spk}`; spk2utt follows from utt2spk, so delete it or make it anew",
                spk2utt.place(other),
                String::from_utf8_lossy(spk2utt.value_bytes(other)),
                groups.speaker.first().map(|entry| utt2spk.place(entry)).unwrap_or_default(),
            )),
        }
    }

    /// The utterance's language, when there is `utt2lang`.
    fn language(&mut self, utt: &str, group: &'a [Entry]) -> Result<Option<&'a str>, String> {
        let Some(utt2lang) = &self.files.utt2lang else { return Ok(None) };
        let Some(entry) = group.first() else {
            self.without_language.add(utt);
            return Ok(None);
        };
        unambiguous(utt2lang, group)?;
        located(utt2lang, entry, |value| checks::word(value, "language")).map(Some)
    }

    /// Appends a row, its path joined on the directory. A command is made to run in the directory, so that it too is relative to it.
    fn push(&mut self, row: Row<'_>) {
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
            self.without_prefix.warning("do not begin with their speaker's id; Kaldi's tools want it as a prefix"),
            self.without_language.warning("are not in utt2lang"),
            self.without_speaker_list.warning("are not in spk2utt"),
            self.files.segments.as_ref().and_then(|segments| unused_recordings(&self.files.wav_scp, segments)),
        ];
        reading.warnings.extend(warnings.into_iter().flatten());
        reading.counted()
    }
}

/// Applies a check to an entry's value; a problem is preceded by file and line.
fn located<'a, T>(
    keyed: &'a Keyed,
    entry: &Entry,
    check: impl FnOnce(&'a str) -> Result<T, String>,
) -> Result<T, String> {
    let problem = |problem: String| format!("bad line in {}: line {} {problem}", keyed.name(), entry.line);
    check(keyed.value(entry).map_err(problem)?).map_err(problem)
}

/// Refuses an id whose repeated lines contradict each other.
fn unambiguous(keyed: &Keyed, group: &[Entry]) -> Result<(), String> {
    let Some((first, others)) = group.split_first() else { return Ok(()) };
    match others.iter().find(|other| keyed.value_bytes(other) != keyed.value_bytes(first)) {
        None => Ok(()),
        Some(other) => {
            Err(format!("contradiction: {} says otherwise than line {} of the same id", keyed.place(other), first.line))
        }
    }
}

/// "not in wav.scp: only in text:3".
fn missing<'a>(absent: &str, met: impl Iterator<Item = (&'a Keyed, &'a [Entry])>) -> String {
    let places: Vec<String> = met.filter_map(|(keyed, group)| group.first().map(|entry| keyed.place(entry))).collect();
    format!("not in {absent}: only in {}", places.join(" and "))
}

/// A warning for recordings no segment uses.
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
