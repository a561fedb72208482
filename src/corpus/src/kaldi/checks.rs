//! Checks of single values.

use std::borrow::Cow;

use crate::values::{self, BadPath};

/// A piece of speech within a recording.
#[derive(Debug, PartialEq)]
pub(super) struct Segment<'a> {
    pub(super) recording: &'a str,
    pub(super) start: f64,
    /// The end in seconds; `None` for the recording's end.
    pub(super) end: Option<f64>,
    /// The channel of the recording, if it is named.
    pub(super) channel: Option<Channel>,
}

/// A channel of a recording.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Channel {
    /// A or B of a telephone call, as 0 or 1.
    Letter(u32),
    /// A number. All numbers of a file together show whether the first is 0 or 1.
    Number(u32),
}

/// The number from which a file counts channels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Numbering {
    /// The number of the first channel.
    pub(super) first: u32,
    /// True if the file leaves it open, because all its numbers are 1.
    pub(super) is_open: bool,
}

impl Numbering {
    /// Determines the numbering of a file with these channels: from 0 as Kaldi's own tools count, unless there is a 2
    /// or more and no 0.
    pub(super) fn of<'a>(channels: impl Iterator<Item = &'a str>) -> Self {
        let (mut zero, mut one, mut more) = (false, false, false);
        for number in channels.filter_map(|text| text.parse::<u32>().ok()) {
            zero |= number == 0;
            one |= number == 1;
            more |= number > 1;
        }
        Self { first: u32::from(!zero && more), is_open: one && !zero && !more }
    }

    /// Returns the channel, counted from 0.
    pub(super) fn index(self, channel: Channel) -> u32 {
        match channel {
            Channel::Letter(index) => index,
            Channel::Number(number) => number.saturating_sub(self.first),
        }
    }
}

/// The problem of a value.
#[derive(Debug, PartialEq)]
pub(super) struct Problem {
    /// The kind of problem, in words that follow the file's name; `None` for a bad line.
    pub(super) kind: Option<Cow<'static, str>>,
    /// The problem, in words that follow "line 12 ".
    pub(super) detail: String,
}

impl From<String> for Problem {
    fn from(detail: String) -> Self {
        Self { kind: None, detail }
    }
}

impl From<&str> for Problem {
    fn from(detail: &str) -> Self {
        detail.to_owned().into()
    }
}

/// Checks an utterance's transcript.
pub(super) fn transcript(text: &str) -> Result<Option<Cow<'_, str>>, Problem> {
    Ok(values::transcript(text)?)
}

/// Checks a value that is one word: a speaker, a language.
pub(super) fn word<'a>(value: &'a str, what: &str) -> Result<&'a str, Problem> {
    if value.is_empty() {
        return Err(format!("has an id but no {what}").into());
    }
    if value.contains([' ', '\t']) {
        return Err(format!("has more than two fields (`{value}` should be one {what})").into());
    }
    values::id(value)?;
    Ok(value)
}

/// Checks a `wav.scp` value: a path, or a command if commands are allowed.
pub(super) fn recording(value: &str, allow_pipes: bool) -> Result<&str, Problem> {
    if value.is_empty() {
        return Err("has an id but no path".into());
    }
    if value.ends_with('|') {
        return if allow_pipes {
            Ok(value)
        } else {
            Err(Problem {
                kind: Some("runs a command and prep.allow_pipes is off".into()),
                detail:
                    "is a command (it ends in `|`); convert the audio, or set prep.allow_pipes: true if you trust this \
                         file"
                        .into(),
            })
        };
    }
    if value.starts_with('|') || value == "-" {
        return Err(format!("gives `{value}`, which is not a file").into());
    }
    if is_archive_offset(value) {
        return Err(Problem {
            kind: Some("points into a Kaldi archive".into()),
            detail: format!("gives `{value}`; extract it to audio files first (wav-copy)"),
        });
    }
    values::path(value).map_err(|BadPath { kind, detail }| Problem {
        kind: Some(format!("has a bad path ({kind})").into()),
        detail: format!("has {detail}"),
    })?;
    Ok(value)
}

/// Returns whether a value has the form `FILE.ark:1234`.
fn is_archive_offset(value: &str) -> bool {
    value.rsplit_once(':').is_some_and(|(file, offset)| {
        file.ends_with(".ark") && !offset.is_empty() && offset.bytes().all(|b| b.is_ascii_digit())
    })
}

/// Parses a `segments` value: recording, start and end in seconds (-1 for the recording's end), and an optional
/// channel.
pub(super) fn segment(value: &str) -> Result<Segment<'_>, Problem> {
    let fields: Vec<&str> = value.split_whitespace().take(6).collect();
    let (&[recording, start, end], named) = (match fields.as_slice() {
        [three @ .., last] if fields.len() == 4 => (three, Some(*last)),
        all => (all, None),
    }) else {
        let count = fields.len() + 1;
        return Err(
            format!("has {count} fields, not those of a segment (utterance recording start end [channel])").into()
        );
    };
    let seconds = |text: &str| match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(value),
        _ => Err(Problem::from(format!("has `{text}` where seconds should be"))),
    };
    let (start_text, end_text) = (start, end);
    let (start, end) = (seconds(start)?, seconds(end)?);
    if start < 0.0 {
        return Err(format!("starts at {start_text} s, before the recording").into());
    }
    let end = (end != -1.0).then_some(end);
    if end.is_some_and(|end| end <= start) {
        return Err(format!("ends at {end_text} s, not after its start at {start_text} s").into());
    }
    Ok(Segment { recording, start, end, channel: named.map(channel).transpose()? })
}

/// Parses a channel number or letter.
fn channel(text: &str) -> Result<Channel, Problem> {
    let wrong = |_| Problem::from(format!("has `{text}` where a channel should be (0, 1, A or B)"));
    match text {
        "A" | "a" => Ok(Channel::Letter(0)),
        "B" | "b" => Ok(Channel::Letter(1)),
        text => text.parse().map(Channel::Number).map_err(wrong),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why<T: std::fmt::Debug>(checked: Result<T, Problem>) -> String {
        checked.unwrap_err().detail
    }

    #[test]
    fn recordings() {
        assert_eq!(recording("my file.wav", false), Ok("my file.wav"));
        assert!(recording("sox a.wav -t wav - |", false).unwrap_err().kind.unwrap().contains("allow_pipes"));
        assert_eq!(recording("sox a.wav -t wav - |", true), Ok("sox a.wav -t wav - |"));
        assert!(recording("~/a.wav", false).is_err());
        let archive = recording("data/raw.ark:1234", false).unwrap_err();
        assert!(archive.kind.is_some() && archive.detail.contains("`data/raw.ark:1234`"), "{archive:?}");
        assert!(why(recording(r"C:\corpus\a.wav", false)).contains("/mnt/c/corpus/a.wav"));
        assert_eq!(recording("odd:12", false), Ok("odd:12"));
    }

    #[test]
    fn channels_are_counted_as_their_file_counts_them() {
        let of = |channels: &[&str]| Numbering::of(channels.iter().copied());
        let (zero, one) = (Numbering { first: 0, is_open: false }, Numbering { first: 1, is_open: false });
        assert_eq!((of(&["0", "1", "2"]), of(&["1", "2"]), of(&["A", "B"])), (zero, one, zero));
        assert_eq!(of(&["1", "A"]), Numbering { first: 0, is_open: true });
        assert_eq!((one.index(Channel::Number(2)), one.index(Channel::Letter(1))), (1, 1));
    }

    #[test]
    fn segments() {
        let cut = |end, channel| Ok(Segment { recording: "rec", start: 0.5, end, channel });
        assert_eq!(segment("rec 0.5 1.25"), cut(Some(1.25), None));
        assert_eq!(segment("rec 0.5 -1"), cut(None, None));
        assert_eq!(segment("rec 0.5 -1.0 1"), cut(None, Some(Channel::Number(1))));
        assert_eq!(segment("rec 0.5 1.25 A"), cut(Some(1.25), Some(Channel::Letter(0))));
        assert!(why(segment("rec 0.5")).contains("3 fields"));
        assert!(why(segment("rec 0.5 1 0 0")).contains("6 fields"));
        for (value, seconds) in
            [("rec 2 1", ["1 s", "2 s"]), ("rec 2 -2", ["-2 s", "2 s"]), ("rec -1 1", ["-1 s", "s"])]
        {
            let why = why(segment(value));
            assert!(seconds.iter().all(|seconds| why.contains(seconds)), "{value}: {why}");
        }
        assert!(segment("rec 0 1 left").is_err());
        assert!(segment("rec a 1").is_err());
        assert!(segment("rec 0 inf").is_err());
    }
}
