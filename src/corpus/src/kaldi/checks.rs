//! The checks of single values. Each gives the problem as words that follow "line 12 ".

/// A piece of speech within a recording.
#[derive(Debug, PartialEq)]
pub(super) struct Segment<'a> {
    pub(super) recording: &'a str,
    pub(super) start: f64,
    pub(super) end: f64,
}

/// Words that Kaldi keeps for its language models and forbids in transcripts.
const RESERVED: [&str; 3] = ["<s>", "</s>", "#0"];

/// Checks an id: no odd blanks or control characters (which look like nothing and break every other tool).
pub(super) fn id(id: &str) -> Result<(), String> {
    odd_character(id).map_or(Ok(()), |c| Err(format!("has the character U+{:04X} in its id", c as u32)))
}

/// Checks a transcript.
pub(super) fn transcript(text: &str) -> Result<&str, String> {
    if text.is_empty() {
        return Err("has an id but no text".into());
    }
    if let Some(c) = odd_character(text) {
        return Err(format!(
            "contains {} U+{:04X}; only blanks and tabs may separate words",
            if c.is_whitespace() { "the white space" } else { "the control character" },
            c as u32
        ));
    }
    if text.contains(['<', '#'])
        && let Some(word) = text.split([' ', '\t']).find(|w| RESERVED.contains(w))
    {
        return Err(format!("contains the symbol {word}, which Kaldi reserves"));
    }
    Ok(text)
}

/// A white space other than blank and tab, or a control character.
fn odd_character(text: &str) -> Option<char> {
    text.chars().find(|&c| (c.is_whitespace() || c.is_control()) && c != ' ' && c != '\t')
}

/// Checks a value that is one word: a speaker, a language.
pub(super) fn word<'a>(value: &'a str, what: &str) -> Result<&'a str, String> {
    if value.is_empty() {
        return Err(format!("has an id but no {what}"));
    }
    if value.contains([' ', '\t']) {
        return Err(format!("has more than two fields (`{value}` should be one {what})"));
    }
    id(value).map(|()| value)
}

/// Checks a `wav.scp` value: a path, or a command when those are allowed.
pub(super) fn recording(value: &str, allow_pipes: bool) -> Result<&str, String> {
    if value.is_empty() {
        return Err("has an id but no path".into());
    }
    if value.ends_with('|') {
        return if allow_pipes {
            Ok(value)
        } else {
            Err("is a command (it ends in `|`), and running commands from data files is off; \
                 convert the audio, or set prep.allow_pipes: true if you trust this file"
                .into())
        };
    }
    if value.starts_with('|') || value == "-" {
        return Err(format!("gives `{value}`, which is no file"));
    }
    if value.starts_with('~') {
        return Err("uses `~`, which only a shell would expand; write the path out".into());
    }
    if is_archive_offset(value) {
        return Err("points into a Kaldi archive; extract it to audio files first (wav-copy)".into());
    }
    Ok(value)
}

/// Whether a value has the form `FILE.ark:1234`.
fn is_archive_offset(value: &str) -> bool {
    value.rsplit_once(':').is_some_and(|(file, offset)| {
        file.ends_with(".ark") && !offset.is_empty() && offset.bytes().all(|b| b.is_ascii_digit())
    })
}

/// Parses a `segments` value: recording, start and end in seconds.
pub(super) fn segment(value: &str) -> Result<Segment<'_>, String> {
    let fields: Vec<&str> = value.split_ascii_whitespace().take(5).collect();
    let &[recording, start, end] = fields.as_slice() else {
        return Err(format!(
            "has {} fields, not the four of a segment (utterance recording start end)",
            fields.len() + 1
        ));
    };
    let seconds = |text: &str| {
        let value: f64 = text.parse().map_err(|_| format!("has `{text}` where seconds should be"))?;
        if value.is_finite() { Ok(value) } else { Err(format!("has `{text}` where seconds should be")) }
    };
    let (start_text, end_text) = (start, end);
    let (start, end) = (seconds(start)?, seconds(end)?);
    if start < 0.0 {
        return Err(format!("starts at {start_text} s, before the recording"));
    }
    if end <= start {
        return Err(format!("ends at {end_text} s, not after its start at {start_text} s"));
    }
    Ok(Segment { recording, start, end })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transcripts_as_kaldi_wants_them() {
        assert_eq!(transcript("ONE TWO"), Ok("ONE TWO"));
        assert!(transcript("").unwrap_err().contains("no text"));
        assert!(transcript("one\u{3000}two").unwrap_err().contains("U+3000"));
        assert!(transcript("one\u{7}").unwrap_err().contains("control character U+0007"));
        assert!(transcript("a </s> b").unwrap_err().contains("</s>"));
        assert_eq!(transcript("a <s>b #00"), Ok("a <s>b #00"));
    }

    #[test]
    fn recordings() {
        assert_eq!(recording("my file.wav", false), Ok("my file.wav"));
        assert!(recording("sox a.wav -t wav - |", false).unwrap_err().contains("allow_pipes"));
        assert_eq!(recording("sox a.wav -t wav - |", true), Ok("sox a.wav -t wav - |"));
        assert!(recording("~/a.wav", false).is_err());
        assert!(recording("data/raw.ark:1234", false).unwrap_err().contains("archive"));
        assert_eq!(recording("odd:12", false), Ok("odd:12"));
    }

    #[test]
    fn segments() {
        assert_eq!(segment("rec 0.5 1.25"), Ok(Segment { recording: "rec", start: 0.5, end: 1.25 }));
        assert!(segment("rec 0.5").unwrap_err().contains("3 fields"));
        assert!(segment("rec 2 1").unwrap_err().contains("not after"));
        assert!(segment("rec -1 1").unwrap_err().contains("before"));
        assert!(segment("rec a 1").is_err());
        assert!(segment("rec 0 inf").is_err());
    }
}
