//! Languages of texts: their codes, the scripts that show them, and the voices of espeak-ng.

/// The word in a recipe or in data for a language that the row or its text shows.
pub const AUTO: &str = "auto";

/// The languages that transcribing programs write out (Whisper's names), with their codes.
const NAMES: [(&str, &str); 12] = [
    ("chinese", "zh"),
    ("dutch", "nl"),
    ("english", "en"),
    ("french", "fr"),
    ("german", "de"),
    ("italian", "it"),
    ("japanese", "ja"),
    ("korean", "ko"),
    ("polish", "pl"),
    ("portuguese", "pt"),
    ("russian", "ru"),
    ("spanish", "es"),
];

/// Languages whose script has no other language, and the range of its letters. Kana comes before the characters that Japanese
/// shares with Chinese.
const SCRIPTS: [(&str, u32, u32); 9] = [
    ("ja", 0x3041, 0x30ff),
    ("ko", 0xac00, 0xd7a3),
    ("zh", 0x4e00, 0x9fff),
    ("el", 0x0370, 0x03ff),
    ("he", 0x0590, 0x05ff),
    ("th", 0x0e01, 0x0e5b),
    ("ka", 0x10a0, 0x10ff),
    ("hy", 0x0531, 0x058f),
    ("ta", 0x0b82, 0x0bff),
];

/// Returns the code of a language as data name it, in the form `en` or `en-gb`; `None` for what is no code.
pub fn code(name: &str) -> Option<String> {
    let name = name.trim().to_lowercase().replace('_', "-");
    if let Some((_, code)) = NAMES.iter().find(|(own, _)| *own == name) {
        return Some((*code).to_owned());
    }
    let mut tags = name.split('-');
    let is_language = |tag: &str| (2..=3).contains(&tag.len()) && tag.bytes().all(|byte| byte.is_ascii_lowercase());
    let is_variety = |tag: &str| {
        (1..=8).contains(&tag.len()) && tag.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    (tags.next().is_some_and(is_language) && tags.all(is_variety)).then_some(name)
}

/// Returns the language without its variety: `en` of `en-gb`.
pub fn without_variety(code: &str) -> &str {
    code.split('-').next().unwrap_or(code)
}

/// Returns the language that the script of a text shows; `None` for scripts of several languages, such as Latin and Cyrillic.
pub fn of_script(text: &str) -> Option<&'static str> {
    let has = |first: u32, last: u32| text.chars().any(|letter| (first..=last).contains(&u32::from(letter)));
    // Letters of another script (a Greek letter in an English sentence) do not make a language.
    let others = text.chars().filter(|letter| letter.is_alphabetic());
    let of_one = |first: u32, last: u32| others.clone().all(|letter| (first..=last).contains(&u32::from(letter)));
    SCRIPTS.iter().find_map(|(language, first, last)| {
        let is_east_asian = matches!(*language, "ja" | "ko" | "zh");
        (has(*first, *last) && (is_east_asian || of_one(*first, *last))).then_some(*language)
    })
}

/// Returns the voice of espeak-ng for a language. English, French and Chinese have no voice of their plain code; the choices are those of the
/// public VALL-E trainer (`vall_e/emb/g2p.py`).
pub fn voice(code: &str) -> &str {
    match code {
        "en" => "en-us",
        "fr" => "fr-fr",
        _ if without_variety(code) == "zh" => CHINESE,
        code => code,
    }
}

/// The voice of Chinese, which writes tones as digits.
pub const CHINESE: &str = "cmn-latn-pinyin";

/// Replaces the digits of Chinese tones by the symbols that the public tokenizer has for them (`vall_e/emb/g2p.py`).
pub fn tone_symbols(phonemes: &str) -> String {
    let symbol = |letter: char| match letter {
        '1' => 'ˇ',
        '2' => 'ˉ',
        '3' => 'ˊ',
        '4' => 'ˋ',
        '5' => '_',
        other => other,
    };
    phonemes.chars().map(symbol).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_codes_become_codes() {
        for (name, expected) in [
            ("en", "en"),
            ("English", "en"),
            ("en_GB", "en-gb"),
            (" DE ", "de"),
            ("cmn-latn-pinyin", "cmn-latn-pinyin"),
        ] {
            assert_eq!(code(name).as_deref(), Some(expected), "{name}");
        }
        for bad in ["", "e", "a language", "en-", "../x", "1234", "-v"] {
            assert_eq!(code(bad), None, "{bad}");
        }
        assert_eq!((without_variety("en-gb"), voice("en"), voice("zh-tw")), ("en", "en-us", CHINESE));
    }

    #[test]
    fn a_script_of_one_language_shows_it() {
        for (text, expected) in [
            ("今日は", Some("ja")),
            ("你好", Some("zh")),
            ("안녕 Seoul", Some("ko")),
            ("καλημέρα", Some("el")),
            ("the angle α", None),
            ("seven", None),
            ("привет", None),
        ] {
            assert_eq!(of_script(text), expected, "{text}");
        }
    }
}
