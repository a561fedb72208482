//! Checks of single values (ids, speakers, transcripts, paths), the same for every reader.

use std::borrow::Cow;

use unicode_normalization::UnicodeNormalization;

/// The longest id or speaker, in bytes.
const MAX_ID_BYTES: usize = 512;

/// Words that Kaldi reserves for its language models and forbids in transcripts.
const RESERVED: [&str; 3] = ["<s>", "</s>", "#0"];

/// Returns a text's words with one blank between them. Words are separated by line ends, tabs and all of Unicode's
/// white space (U+00A0, U+202F, U+3000 …).
pub(crate) fn one_line(text: &str) -> Cow<'_, str> {
    let mut blank = true;
    let plain = text.chars().all(|c| {
        let good = if c == ' ' { !blank } else { !c.is_whitespace() };
        blank = c == ' ';
        good
    });
    if plain && (text.is_empty() || !blank) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Returns a transcript on one line; `None` if it has no words.
pub(crate) fn transcript(text: &str) -> Result<Option<Cow<'_, str>>, String> {
    let text = one_line(text);
    if text.is_empty() {
        return Ok(None);
    }
    if let Some(c) = text.chars().find(|c| c.is_control()) {
        return Err(format!("contains {}", control(c)));
    }
    if text.contains(['<', '#'])
        && let Some(word) = text.split(' ').find(|word| RESERVED.contains(word))
    {
        return Err(format!("contains the symbol {word}, which Kaldi reserves"));
    }
    Ok(Some(text))
}

/// Checks an id for unusual blanks and control characters, which are invisible and break other tools.
pub(crate) fn id(id: &str) -> Result<(), String> {
    if id.is_empty() {
        return Err("has an empty id".into());
    }
    if id.len() > MAX_ID_BYTES {
        return Err(format!("has an id of {} bytes, more than {MAX_ID_BYTES}", id.len()));
    }
    match id.chars().find(|&c| (c.is_whitespace() || c.is_control()) && c != ' ' && c != '\t') {
        None => Ok(()),
        Some(c) if c.is_control() => Err(format!("has {} in its id", control(c))),
        Some(c) => Err(format!("has the white space U+{:04X} in its id", c as u32)),
    }
}

/// Describes a control character. Zeros are typical of UTF-16 without its mark.
fn control(c: char) -> String {
    match c {
        '\0' => "the control character U+0000; a UTF-16 file must be converted: iconv -f UTF-16LE -t UTF-8".into(),
        c => format!("the control character U+{:04X}", c as u32),
    }
}

/// Normalizes a name to the Unicode form in which names that look the same are equal: macOS writes some letters in
/// two characters.
pub(crate) fn one_form(name: &str) -> Cow<'_, str> {
    if name.is_ascii() { Cow::Borrowed(name) } else { Cow::Owned(name.nfc().collect()) }
}

/// The reason why a text is not a path of this system.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadPath {
    /// The kind of the problem: "path of Windows".
    pub(crate) kind: &'static str,
    /// The path, and what to write instead.
    pub(crate) detail: String,
}

/// Returns an error for texts that are not paths of this system: paths of Windows with a drive or a server,
/// addresses, and placeholders that only a shell or another program would fill in.
pub(crate) fn path(path: &str) -> Result<(), BadPath> {
    let bad = |kind, detail: String| Err(BadPath { kind, detail: format!("`{path}` {detail}") });
    let bytes = path.as_bytes();
    let drive = bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.get(1) == Some(&b':')
        && matches!(bytes.get(2), Some(b'\\' | b'/'));
    if drive {
        let (letter, rest) = (path[..1].to_ascii_lowercase(), path[3..].replace('\\', "/"));
        let detail = format!("is a path of Windows; write it as on this system, such as /mnt/{letter}/{rest}");
        return bad("path of Windows", detail);
    }
    if path.starts_with(r"\\") {
        return bad("path of Windows", "is a network path of Windows; write its mount point on this system".into());
    }
    if let Some((scheme, rest)) = address(path) {
        return match scheme.to_ascii_lowercase().as_str() {
            "file" => {
                let local = rest.strip_prefix("localhost").unwrap_or(rest);
                bad("address instead of a path", format!("is an address; write the path: {local}"))
            }
            "s3" => bad("address instead of a path", "is in an object store; copy it here first (aws s3 sync)".into()),
            "gs" => bad("address instead of a path", "is in an object store; copy it here first (gsutil rsync)".into()),
            "http" | "https" | "ftp" => bad(
                "address instead of a path",
                "is on the network; download it first (wget, aria2c) and write its path".into(),
            ),
            _ => bad("address instead of a path", "is an address; copy the file here first and write its path".into()),
        };
    }
    if path == "~" || path.starts_with("~/") {
        return bad("path with `~`", "begins with `~`, which only a shell fills in; write the path out".into());
    }
    let placeholder = path.starts_with('$') || path.starts_with("{") || path.starts_with("<");
    if placeholder && path.contains('/') {
        return bad(
            "path with a placeholder",
            "begins with a placeholder that nothing fills in; write the path out".into(),
        );
    }
    Ok(())
}

/// Returns the scheme of an address and the text after its `://`.
fn address(path: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = path.split_once("://")?;
    let plain = scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    (plain && scheme.starts_with(|first: char| first.is_ascii_alphabetic())).then_some((scheme, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Result<Option<String>, String> {
        transcript(text).map(|text| text.map(Cow::into_owned))
    }

    #[test]
    fn transcripts_are_on_one_line_whatever_parts_their_words() {
        assert_eq!(words("ONE TWO"), Ok(Some("ONE TWO".into())));
        assert!(matches!(transcript("ONE TWO"), Ok(Some(Cow::Borrowed(_)))));
        for text in
            ["one\u{a0}two", "one\u{202f}two", "one\u{3000}two", " one\n\ttwo\r\n", "one  two", "one\u{2028}two"]
        {
            assert_eq!(words(text), Ok(Some("one two".into())), "{text:?}");
        }
        assert_eq!(words(" \n"), Ok(None));
        assert_eq!(words(""), Ok(None));
        assert!(words("one\u{7}").unwrap_err().contains("U+0007"));
        assert!(words("a </s> b").unwrap_err().contains("</s>"));
        assert_eq!(words("a <s>b #00"), Ok(Some("a <s>b #00".into())));
    }

    #[test]
    fn ids_without_odd_characters() {
        assert_eq!(id("a b-1"), Ok(()));
        for odd in ["", "a\u{a0}b", "a\0b", &"x".repeat(513)] {
            assert!(id(odd).is_err(), "{odd:?}");
        }
    }

    #[test]
    fn what_is_no_path_here_is_refused_with_what_to_write() {
        let detail = |text: &str| path(text).unwrap_err().detail;
        assert!(detail(r"C:\corpus\a b.wav").contains("/mnt/c/corpus/a b.wav"));
        assert!(detail("d:/corpus/a.wav").contains("/mnt/d/corpus/a.wav"));
        assert!(path(r"\\server\share\a.wav").is_err());
        assert!(detail("file:///data/a.wav").ends_with(": /data/a.wav"));
        for (other, kind) in [
            ("s3://bucket/a.wav", "address instead of a path"),
            ("https://host/a.wav?x=1", "address instead of a path"),
            ("hdfs://a/b.wav", "address instead of a path"),
            ("~/a.wav", "path with `~`"),
            ("{data_root}/a.wav", "path with a placeholder"),
            ("${HOME}/a.wav", "path with a placeholder"),
        ] {
            assert_eq!(path(other).unwrap_err().kind, kind);
        }
        assert_eq!((path("{a}.wav"), path("$1.wav"), path("~a.wav")), (Ok(()), Ok(()), Ok(())));
        assert_eq!((path("a:b.wav"), path("/abs/a.wav"), path(r"odd\name.wav")), (Ok(()), Ok(()), Ok(())));
    }
}
