//! The `phonemes` extractor: its backends, languages and errors. A stand-in takes the place of espeak-ng, and where the version of the expected
//! values is installed, the program itself is compared with the library `phonemizer`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use candle_core::Device;
use flowmill_extract::extractors::phonemes::PhonemesConfig;
use flowmill_extract::{ExtractError, Extractor, Kind, Media, Scope, State, StateError};
use serde_json::{Value, json};

/// A text with its language.
type Text<'t> = (&'t str, Option<&'t str>);

fn fitted(settings: Value) -> Result<State, StateError> {
    let config: PhonemesConfig = serde_json::from_value(settings).unwrap();
    config.check().unwrap();
    let fit = config.fit(0, Path::new("")).unwrap();
    fit.finish(&fit.accumulator(Scope::Whole).into_state()).map(|fitted| fitted.state)
}

fn extractor(settings: Value) -> Box<dyn Extractor> {
    PhonemesConfig::open(&fitted(settings).unwrap(), &Device::Cpu).unwrap()
}

/// The phonemes and the language of every text, both alone and in a batch.
fn extract(extractor: &dyn Extractor, texts: &[Text<'_>]) -> Vec<Result<(String, String), ExtractError>> {
    let media = |(text, language): &Text<'_>| Media::default().with_text(*text, language.map(str::to_owned));
    let rows: Vec<Media> = texts.iter().map(media).collect();
    let of = |values: flowmill_extract::Extracted| {
        values.check("phonemes", &extractor.columns()).unwrap();
        let texts: Vec<String> =
            values.into_arrays().iter().map(|array| array.value::<String>().unwrap().clone()).collect();
        (texts[0].clone(), texts[1].clone())
    };
    let batch: Vec<_> = extractor.extract_batch(&rows).into_iter().map(|row| row.map(of)).collect();
    for (row, in_batch) in rows.iter().zip(&batch) {
        assert_eq!(extractor.extract(row).map(of).ok().as_ref(), in_batch.as_ref().ok());
    }
    batch
}

fn one(extractor: &dyn Extractor, text: &str, language: Option<&str>) -> Result<(String, String), ExtractError> {
    extract(extractor, &[(text, language)]).remove(0)
}

fn both(phonemes: &str, language: &str) -> (String, String) {
    (phonemes.to_owned(), language.to_owned())
}

#[test]
fn characters_are_in_lower_case_and_one_unicode_form() {
    let characters = extractor(json!({}));
    let good = |text, language| one(&*characters, text, language).unwrap();
    assert_eq!(good("  Cafe\u{301}  AU\tlait. ", Some("fr")), both("café au lait.", "fr"));
    assert_eq!(good("Ａ 1", Some("en_GB")), both("ａ 1", "en"));
    assert_eq!(good("こんにちは", None), both("こんにちは", "ja"));
    assert_eq!(good("안녕", Some("auto")), both("안녕", "ko"));
    let german = extractor(json!({"language": "de"}));
    assert_eq!(one(&*german, "Ja", Some("en")).unwrap(), both("ja", "de"));
}

#[test]
fn given_phonemes_stay_as_they_are() {
    let given = extractor(json!({"backend": "given", "language": "en"}));
    assert_eq!(one(&*given, "wˈʌns ɐɡˈɛn,  A", None).unwrap(), both("wˈʌns ɐɡˈɛn, A", "en"));
    let auto = extractor(json!({"backend": "given"}));
    assert!(matches!(one(&*auto, "こ", None), Err(ExtractError::Language { .. })), "phonemes show no language");
}

#[test]
fn bad_texts_and_languages_reject_the_row() {
    let characters = extractor(json!({}));
    for text in ["", "  ", "?!"] {
        assert!(matches!(one(&*characters, text, Some("en")), Err(ExtractError::NoText { .. })), "{text:?}");
    }
    assert!(matches!(characters.extract(&Media::default()), Err(ExtractError::NoText { .. })));
    for (language, named) in [(None, ""), (Some("Klingon of old"), "Klingon of old")] {
        let error = one(&*characters, "one", language).unwrap_err();
        assert!(matches!(&error, ExtractError::Language { language, .. } if language == named), "{error}");
        assert!(!error.is_of_machine());
    }
    let bad: PhonemesConfig = serde_json::from_value(json!({"language": "no language"})).unwrap();
    assert_eq!(bad.check().unwrap_err().field, "language");
}

/// A program in place of espeak-ng with voices of English, German and Japanese. It fails when told a broken word.
fn stand_in(folder: &Path, version: &str) -> String {
    let script = format!(
        "#!/bin/sh\ncase \"$1\" in\n--version) echo 'eSpeak NG text-to-speech: {version}  Data at: /x';;\n--voices) printf \
         'Pty Language Age\\n 5  en-us  --/M  A\\n 5  de  --/M  B\\n 5  ja  --/M  C\\n';;\n*) sed -e \
         's/^\\[\\[ppppp\\]\\]$/ppppp/' -e 's/two/tuː(en)/' -e 's/split/spl\\nit/' -e 's/nothing//' -e '/broken/q' -e \
         \"s/voice/$6/\";;\nesac\n"
    );
    let path = folder.join("espeak");
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_program_gives_phonemes_and_punctuation_stays() {
    let folder = tempfile::tempdir().unwrap();
    let program = stand_in(folder.path(), "1.2");
    let state = fitted(json!({"backend": "espeak-ng", "program": program})).unwrap();
    assert_eq!(state.settings()["version"], "1.2");
    let espeak = PhonemesConfig::open(&state, &Device::Cpu).unwrap();
    let long = "word ".repeat(1000);
    let rows = extract(
        &*espeak,
        &[
            ("one two, (voice)!", Some("en")),
            ("voice", Some("de")),
            ("a split.", Some("en")),
            ("nothing", Some("en")),
            ("one", Some("xx")),
            ("漢字", Some("ja")),
            (&long, Some("en")),
            ("«voice»", Some("de")),
        ],
    );
    let good: Vec<_> = rows.iter().map(|row| row.as_ref().ok().cloned()).collect();
    assert_eq!(good[0], Some(both("one tuː, (en-us)!", "en")));
    assert_eq!(good[1], Some(both("de", "de")));
    assert_eq!(good[2], Some(both("a spl it.", "en")));
    assert!(matches!(rows[3], Err(ExtractError::Text { .. })));
    assert!(matches!(rows[4], Err(ExtractError::Language { .. })));
    assert!(matches!(rows[5], Err(ExtractError::Text { .. })));
    assert_eq!(good[6], Some(both(long.trim_end(), "en")));
    assert_eq!(good[7], Some(both("«de»", "de")));
    // The rest of the voice's rows cannot be had this time.
    let failed = extract(&*espeak, &[("broken", Some("en")), ("voice", Some("de"))]);
    assert!(failed[0].as_ref().unwrap_err().is_of_machine());
    assert_eq!(failed[1].as_ref().unwrap(), &both("de", "de"));
}

#[test]
fn a_missing_program_and_a_language_that_it_lacks_end_the_fit() {
    let folder = tempfile::tempdir().unwrap();
    let program = stand_in(folder.path(), "1.2");
    let absent = folder.path().join("absent").to_str().unwrap().to_owned();
    for settings in [json!({"program": absent}), json!({"program": program, "language": "xx"})] {
        let mut settings = settings;
        settings["backend"] = json!("espeak-ng");
        assert!(matches!(fitted(settings.clone()), Err(StateError::Program { .. })), "{settings}");
    }
    let state = fitted(json!({"backend": "espeak-ng", "program": program})).unwrap();
    // Another version is used, with a warning; none is not.
    stand_in(folder.path(), "1.3");
    assert!(PhonemesConfig::open(&state, &Device::Cpu).is_ok());
    fs::remove_file(folder.path().join("espeak")).unwrap();
    assert!(matches!(PhonemesConfig::open(&state, &Device::Cpu), Err(StateError::Program { .. })));
}

/// Phonemes of `phonemizer` 3.4.0 with espeak-ng 1.51, `preserve_punctuation`, `with_stress` and `strip`, without marks of languages.
const PUBLIC: [(&str, &str, &str); 21] = [
    ("en", "Once again, excellent work.", "wˈʌns ɐɡˈɛn, ˈɛksələnt wˈɜːk."),
    ("en", "Hello -- world (this is) a \"test\"... ok?!", "həlˈoʊ wˈɜːld (ðɪs ɪz) ˈeɪ \"tˈɛst\"... ˌoʊkˈeɪ?!"),
    (
        "en",
        "Dr. Smith's well-known 3.5 items: a; b.",
        "dˈɑːktɚ. smˈɪθz wˈɛlnˈoʊn θɹˈiː pɔɪnt fˈaɪv ˈaɪɾəmz: ˈeɪ; bˈiː.",
    ),
    (
        "en",
        "He paid 1,250.75 dollars, didn't he?",
        "hiː pˈeɪd wˈʌn θˈaʊzənd tˈuːhˈʌndɹɪd fˈɪfti pɔɪnt sˈɛvən fˈaɪv dˈɑːlɚz, dˈɪdnt hiː?",
    ),
    ("en", "  one—two…three ", "wˈʌn—tˈuː…θɹˈiː"),
    ("en", "« hi » there", "« hˈaɪ » ðˈɛɹ"),
    ("en", "A b c d.", "ɐ bˈiː sˈiː dˈiː."),
    ("en", "The U.S.A. is big", "ðə jˈuː.ˈɛs.ˈeɪ. ɪz bˈɪɡ"),
    ("en", "wait... what?! no!", "wˈeɪt... wˌʌt?! nˈoʊ!"),
    ("en", "a/b & c @ d #5 50% x=y", "ɐ slˈæʃ bˈiː ænd sˈiː æt dˈiː hˈæʃ fˈaɪv fˈɪfti pɚsˈɛnt ˈɛks ˈiːkwəlz wˈaɪ"),
    ("en", "It's 10:30 p.m.", "ɪts tˈɛn:θˈɜːɾi pˈiː.ˈɛm."),
    ("en", "naïve café, El Niño", "naɪˈiːv kæfˈeɪ, ˌɛl nˈiːnjoʊ"),
    ("de", "Sonnenküste Update", "zˈɔnənkˌystə ˈʌpdeɪt"),
    ("de", "Das kostet 3,50 Euro.", "das kˈɔstət dɾˈaɪ kɔmɑː fˈynf nˈʊl ˈɔøroː."),
    ("fr", "Bonjour, comment ça va ?", "bɔ̃ʒˈuʁ, kɔmˌɑ̃ sa vˈa ?"),
    ("fr", "le weekend « parfait »", "lə- wiːkˈɛnd « paʁfˈɛ »"),
    ("ja", "こんにちは、せかい。", "kˌo̞nnitɕˈihä se̞kˈäi"),
    ("ko", "안녕하세요, 세계!", "ˈɐnnjʌŋhˌɐsejˌo, sˈeqje!"),
    // The digits of tones become symbols of the public tokenizer.
    ("zh", "你好，世界。", "nˈiˉ χˈɑuˉ s.ˈi._ tɕˈiɛ_"),
    ("es", "¿Qué tal? ¡Hola!", "¿kˈe tˈal? ¡ˈola!"),
    ("ru", "Привет, мир!", "prʲivʲˈet, mʲˈir!"),
];

#[test]
fn the_installed_program_gives_the_public_phonemes() {
    let state = fitted(json!({"backend": "espeak-ng"}));
    let Some(state) =
        state.ok().filter(|state| state.settings()["version"] == "1.51" && state.settings()["form"] == "library")
    else {
        return println!("the library of espeak-ng 1.51 is not installed: not compared");
    };
    let espeak = PhonemesConfig::open(&state, &Device::Cpu).unwrap();
    // Often enough for several runs of the program: neighbors change nothing.
    let texts: Vec<Text<'_>> = PUBLIC.iter().map(|(language, text, _)| (*text, Some(*language))).collect();
    for (row, (language, text, phonemes)) in extract(&*espeak, &texts.repeat(20)).into_iter().zip(PUBLIC.repeat(20)) {
        assert_eq!(row.unwrap(), both(phonemes, language), "{text}");
    }
}
