//! Conversion of text files to UTF-8, and recognition of other content.

use std::borrow::Cow;

use flowmill_audio::media;

/// Returns the bytes as UTF-8, converted from UTF-16 or UTF-32 if their byte-order mark says so, without the mark.
pub(crate) fn without_mark(bytes: &[u8]) -> Cow<'_, [u8]> {
    let units = |from_bytes: fn([u8; 2]) -> u16| {
        let pairs = bytes[2..].chunks_exact(2).map(move |pair| from_bytes([pair[0], pair[1]]));
        let text: String = char::decode_utf16(pairs).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
        Cow::Owned(text.into_bytes())
    };
    let words = |from_bytes: fn([u8; 4]) -> u32| {
        let words = bytes[4..].chunks_exact(4).map(move |word| from_bytes([word[0], word[1], word[2], word[3]]));
        let text: String = words.map(|word| char::from_u32(word).unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
        Cow::Owned(text.into_bytes())
    };
    match bytes {
        // UTF-16 begins like this only if its first character is U+0000.
        [0xff, 0xfe, 0, 0, ..] if bytes.len().is_multiple_of(4) => words(u32::from_le_bytes),
        [0, 0, 0xfe, 0xff, ..] => words(u32::from_be_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] => Cow::Borrowed(rest),
        [0xff, 0xfe, ..] => units(u16::from_le_bytes),
        [0xfe, 0xff, ..] => units(u16::from_be_bytes),
        _ => Cow::Borrowed(bytes),
    }
}

/// Describes a file that is not text: compressed, a table, an archive, or a placeholder for its content. The words
/// follow the file's name. An empty file counts as text.
pub(crate) fn no_text(bytes: &[u8]) -> Option<String> {
    if bytes.is_empty() {
        return None;
    }
    if let Some(found) = media::stand_in(&bytes[..bytes.len().min(media::HEAD_BYTES)]) {
        return Some(format!("is {}; {}", found.kind, found.advice));
    }
    if let Some((format, undo)) = crate::tar::compression(bytes) {
        return Some(format!("is compressed ({format}); undo it once with `{undo}`"));
    }
    if let Some(encoding) = utf16_without_mark(bytes) {
        return Some(format!("is UTF-16 without a byte-order mark; convert it: iconv -f {encoding} -t UTF-8"));
    }
    let kinds: [(&[u8], &str); 9] = [
        (b"PAR1", "is a Parquet table"),
        (b"ARROW1", "is an Arrow table"),
        (b"PK\x03\x04", "is a zip archive or a spreadsheet"),
        (b"7z\xbc\xaf\x27\x1c", "is a 7z archive"),
        (b"Rar!\x1a\x07", "is a RAR archive"),
        (b"SQLite format 3\0", "is an SQLite database"),
        (b"\x80\x03", "is a Python pickle"),
        (b"\x80\x04", "is a Python pickle"),
        (b"\x80\x05", "is a Python pickle"),
    ];
    let (_, what) = kinds.iter().find(|(magic, _)| bytes.starts_with(magic))?;
    Some(format!("{what} by its content, not text; export it as text first (JSON lines, or a Kaldi directory)"))
}

/// Returns the encoding of a text in which most second bytes are zero, as in UTF-16 of Latin letters.
fn utf16_without_mark(bytes: &[u8]) -> Option<&'static str> {
    let beginning = &bytes[..bytes.len().min(1024)];
    if beginning.starts_with(b"\xff\xfe") || beginning.starts_with(b"\xfe\xff") || beginning.starts_with(b"\0\0") {
        return None;
    }
    let zeros = |from: usize| beginning.iter().skip(from).step_by(2).filter(|byte| **byte == 0).count();
    let (first, second, half) = (zeros(0), zeros(1), beginning.len() / 2);
    let most = |count: usize, other: usize| half >= 4 && other == 0 && count * 2 > half;
    match (most(second, first), most(first, second)) {
        (true, _) => Some("UTF-16LE"),
        (_, true) => Some("UTF-16BE"),
        _ => None,
    }
}

/// Returns advice about bytes that are not UTF-8, with the encoding that they seem to have.
pub(crate) fn advice(bytes: &[u8]) -> &'static str {
    if is_double_byte(bytes) {
        return "it looks like GBK or another Chinese, Japanese or Korean encoding; convert the file: iconv -f GBK -t UTF-8 (or \
                -f BIG5, SHIFT_JIS, EUC-KR)";
    }
    "it looks like Latin-1 or Windows-1252; convert the file: iconv -f WINDOWS-1252 -t UTF-8"
}

/// Returns whether all bytes beyond ASCII come in the pairs of GBK and related encodings, mostly several pairs in a
/// row as in words.
fn is_double_byte(bytes: &[u8]) -> bool {
    let (mut at, mut pairs, mut after_pair) = (0, 0usize, 0usize);
    let mut last = usize::MAX;
    while at < bytes.len() {
        if bytes[at] < 0x80 {
            at += 1;
            continue;
        }
        let good = (0x81..=0xfe).contains(&bytes[at])
            && bytes.get(at + 1).is_some_and(|second| (0x40..=0xfe).contains(second) && *second != 0x7f);
        if !good {
            return false;
        }
        pairs += 1;
        after_pair += usize::from(last == at);
        at += 2;
        last = at;
    }
    pairs > 0 && (pairs == 1 || after_pair * 2 >= pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_say_how_to_read_a_file() {
        let utf16 = |big: bool| {
            let units = "\u{feff}a ü\n".encode_utf16();
            units.flat_map(|unit| if big { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect::<Vec<u8>>()
        };
        let utf32 = |big: bool| {
            let words = "\u{feff}a ü\n".chars().map(u32::from);
            words.flat_map(|word| if big { word.to_be_bytes() } else { word.to_le_bytes() }).collect::<Vec<u8>>()
        };
        for bytes in [
            utf16(false),
            utf16(true),
            utf32(false),
            utf32(true),
            b"\xef\xbb\xbfa \xc3\xbc\n".to_vec(),
            b"a \xc3\xbc\n".to_vec(),
        ] {
            assert_eq!(without_mark(&bytes), "a ü\n".as_bytes());
        }
    }

    #[test]
    fn other_encodings_are_guessed() {
        // "你好世界" in GBK, "café" in Latin-1.
        assert!(advice(b"u1 \xc4\xe3\xba\xc3\xca\xc0\xbd\xe7\n").contains("GBK"));
        assert!(advice(b"u1 caf\xe9 cr\xe8me\n").contains("Latin-1"));
    }

    #[test]
    fn files_that_are_no_text_are_known() {
        assert!(no_text(b"\x1f\x8b\x08").unwrap().contains("gunzip"));
        assert!(no_text(b"PAR1").unwrap().contains("Parquet"));
        assert_eq!(no_text(b"{\"a\": 1}"), None);
        assert!(no_text(b"u\x001\0 \0a\0\n\0").unwrap().contains("-f UTF-16LE"));
        assert!(no_text(b"\0u\x001\0 \0a\0\n").unwrap().contains("-f UTF-16BE"));
        assert_eq!((no_text(b""), no_text(b"u1 a\0b\n")), (None, None));
    }
}
