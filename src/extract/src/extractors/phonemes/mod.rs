//! The `phonemes` extractor: the text of a row as the symbols that a text-to-speech model reads, and its language.
//!
//! | backend | phonemes |
//! |---|---|
//! | `characters` | the text itself: Unicode NFC, lower case, one blank between words |
//! | `given` | the text as it is: it is phonemes already |
//! | `espeak-ng` | IPA of espeak-ng, its library or its program, with stress; punctuation stays in its place |
//!
//! The form of `espeak-ng` is that of the public VALL-E trainer (`vall_e/emb/g2p.py`, the library `phonemizer` with `preserve_punctuation` and
//! `with_stress`, marks of other languages removed). Its version is in the fitted state, because phonemes of two versions differ.

mod espeak;
mod espeak_library;
mod language;
mod punctuation;

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::Device;
use flowmill_audio::program::ProgramError;
use flowmill_corpus::{Array, ColumnSpec, DType, Role};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use unicode_normalization::UnicodeNormalization;

use self::espeak::Espeak;
use self::punctuation::Piece;
use crate::weights::Pretrained;
use crate::{Column, ConfigError, ExtractError, Extracted, Extractor, Fit, Fitted, Kind, Media, State, StateError};

/// The extractor's kind.
pub const KIND: &str = "phonemes";

/// The column of phonemes.
pub const PHONEMES: &str = "phonemes";

/// The column of the language, without its variety: `en`, also for `en-gb`.
pub const LANGUAGE: &str = "language";

/// The key of espeak-ng's version in the state.
const VERSION: &str = "version";
/// The key of its form, library or program, in the state.
const FORM: &str = "form";

/// Rows that one run of the program phonemizes. Its start takes as long as some ten rows.
const ROWS_PER_RUN: usize = 128;
/// Rows of a batch, over all threads.
const ROWS_PER_BATCH: usize = 1024;

/// The origin of phonemes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// The characters of the text in lower case. Needs no program.
    #[default]
    Characters,
    /// The text, which is phonemes already.
    Given,
    /// The library of espeak-ng, or else its program.
    EspeakNg,
}

/// Settings of the `phonemes` extractor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PhonemesConfig {
    /// The origin of phonemes: `characters`, `given` or `espeak-ng`.
    pub backend: Backend,
    /// The language of all texts, such as `en`, `en-gb` or `de`; `auto` for the language that each row names, or else the one that
    /// its script shows (Japanese, Chinese, Korean, Greek and others, not Latin).
    pub language: String,
    /// The absolute path of a program espeak-ng to use; by default the installed library, or else the installed program.
    #[serde(skip_serializing_if = "is_default_program")]
    pub program: String,
}

/// Returns whether the program is found by its name.
fn is_default_program(program: &String) -> bool {
    program == espeak::PROGRAM
}

impl Default for PhonemesConfig {
    fn default() -> Self {
        Self { backend: Backend::default(), language: language::AUTO.to_owned(), program: espeak::PROGRAM.to_owned() }
    }
}

impl PhonemesConfig {
    /// Returns the language of all texts; `None` if the rows name theirs.
    fn language(&self) -> Option<String> {
        language::code(&self.language).filter(|_| self.language != language::AUTO)
    }

    /// Finds the library or the program, and checks that it has a voice for the language if all texts have the same.
    fn find_program(&self) -> Result<Espeak, StateError> {
        let fail = |problem: String| StateError::Program { kind: KIND, program: self.program.clone(), problem };
        let program = Espeak::find(&self.program).map_err(|error| match error {
            ProgramError::Missing => fail(
                "it is not installed; install it (Debian, Ubuntu: `apt install espeak-ng`), or use `backend: characters`"
                    .to_owned(),
            ),
            other => fail(other.to_string()),
        })?;
        match self.language() {
            Some(code) if !program.has(language::voice(&code)) => {
                Err(fail(format!("it has no language `{code}`; `espeak-ng --voices` lists its languages")))
            }
            _ => Ok(program),
        }
    }
}

impl Kind for PhonemesConfig {
    const NAME: &'static str = KIND;
    const ABOUT: &'static str = "The text of a row as phonemes (IPA of the program espeak-ng, stress and punctuation included) or as plain \
                                 characters, and its language. Nothing is heard or fitted.";
    const MEDIA: &'static [Role] = &[];
    const TEXT: bool = true;

    fn columns(&self) -> Vec<Column> {
        let column = |name: &str, docs: &str| ColumnSpec::new(name, DType::Text).docs(docs).into();
        vec![
            column(PHONEMES, "the phonemes of the text, with stress and punctuation"),
            column(LANGUAGE, "the language of the text: en, de, zh"),
        ]
    }

    fn open(state: &State, _: &Device) -> Result<Box<dyn Extractor>, StateError> {
        Ok(Box::new(Phonemes::from_state(state)?))
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.language != language::AUTO && self.language().is_none() {
            let found = self.language.escape_debug();
            return Err(ConfigError::new(
                "language",
                format!("`{found}` is no code of a language such as `en`, nor `auto`"),
            ));
        }
        if self.program.is_empty() {
            return Err(ConfigError::new("program", "name the program: `espeak-ng`, or its path"));
        }
        Ok(())
    }

    fn fit(&self, _: u64, _: &Path) -> Result<Box<dyn Fit>, ConfigError> {
        let config = self.clone();
        Ok(Box::new(Pretrained::new(KIND, move || {
            let mut settings = json!(config);
            let mut facts = vec![("backend".to_owned(), json!(config.backend))];
            if config.backend == Backend::EspeakNg {
                let program = config.find_program()?;
                settings[VERSION] = json!(program.version());
                settings[FORM] = json!(program.form());
                facts.push((espeak::PROGRAM.to_owned(), json!(program.version())));
            }
            Ok(Fitted { state: State::new(KIND, settings), facts })
        })))
    }
}

/// The extractor.
pub struct Phonemes {
    config: PhonemesConfig,
    program: Option<Espeak>,
}

impl Phonemes {
    /// The extractor that a state describes. Warns of a program of another version than the state's.
    ///
    /// # Errors
    /// When the state is of another kind, or the program is missing.
    pub fn from_state(state: &State) -> Result<Self, StateError> {
        state.expect_kind(KIND)?;
        let mut settings = state.settings().clone();
        let mut take = |key: &str| {
            let value = settings.as_object_mut().and_then(|settings| settings.remove(key));
            value.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
        };
        let (version, form) = (take(VERSION), take(FORM));
        let config: PhonemesConfig = State::new(KIND, settings).settings_as(KIND)?;
        if config.backend != Backend::EspeakNg {
            return Ok(Self { config, program: None });
        }
        let program = config.find_program()?;
        if (version.as_str(), form.as_str()) != (program.version(), program.form()) {
            let (installed, own) = (program.version(), program.form());
            tracing::warn!(
                "espeak-ng {installed} ({own}) is used, phonemes so far are of {version} ({form}); some may differ"
            );
        }
        Ok(Self { config, program: Some(program) })
    }

    /// Returns the language of a row's text, with its variety.
    fn language(&self, media: &Media, text: &str) -> Result<String, ExtractError> {
        if let Some(code) = self.config.language() {
            return Ok(code);
        }
        let named = media.language().filter(|name| !name.trim().is_empty() && *name != language::AUTO);
        let code = match named {
            Some(name) => language::code(name),
            // Phonemes of all languages look alike.
            None if self.config.backend == Backend::Given => None,
            None => language::of_script(text).map(str::to_owned),
        };
        let language = named.unwrap_or_default().to_owned();
        code.ok_or(ExtractError::Language { extractor: KIND, language })
    }

    /// Reads a row as the backend needs it.
    fn prepare(&self, media: &Media) -> Result<Prepared, ExtractError> {
        let text = media.text(KIND)?;
        let language = self.language(media, text)?;
        let text = one_line(text);
        let text = match self.config.backend {
            Backend::Given => text,
            Backend::EspeakNg => text.nfc().collect(),
            // Lower case may take a letter apart, so that it is composed again.
            Backend::Characters => text.nfc().collect::<String>().to_lowercase().nfc().collect(),
        };
        if let Some(program) = &self.program {
            let voice = language::voice(&language);
            if !program.has(voice) {
                return Err(ExtractError::Language { extractor: KIND, language });
            }
            if voice == "ja" && text.chars().any(|letter| ('\u{4e00}'..='\u{9fff}').contains(&letter)) {
                let problem = "espeak-ng reads no kanji; write it in kana, or give phonemes with `backend: given`";
                return Err(ExtractError::Text { extractor: KIND, problem: problem.to_owned() });
            }
        }
        Ok(Prepared { text, language })
    }

    /// Replaces the texts of rows by their phonemes.
    fn speak(&self, program: &Espeak, rows: &mut [Result<Prepared, ExtractError>]) {
        let mut by_voice: BTreeMap<String, Vec<&mut Result<Prepared, ExtractError>>> = BTreeMap::new();
        for row in rows.iter_mut() {
            if let Ok(prepared) = row {
                by_voice.entry(language::voice(&prepared.language).to_owned()).or_default().push(row);
            }
        }
        for (voice, rows) in by_voice {
            let texts: Vec<String> =
                rows.iter().flat_map(|row| row.as_ref().ok()).map(|row| row.text.clone()).collect();
            let split: Vec<Vec<Piece<'_>>> = texts.iter().map(|text| punctuation::split(text)).collect();
            let words = |piece: &Piece<'_>| matches!(piece, Piece::Words(_));
            let pieces: Vec<&str> = split.iter().flatten().filter(|piece| words(piece)).map(Piece::text).collect();
            let mut spoken = match program.phonemes(&voice, &pieces) {
                Ok(spoken) => spoken.into_iter(),
                Err(error) => {
                    let problem = format!("{} {error}", self.config.program);
                    rows.into_iter().for_each(|row| *row = Err(ExtractError::Machine(problem.clone())));
                    continue;
                }
            };
            for (row, pieces) in rows.into_iter().zip(&split) {
                let mut phonemes = String::new();
                for piece in pieces {
                    match piece {
                        Piece::Marks(marks) => phonemes.push_str(marks),
                        // As many as there are pieces of words.
                        Piece::Words(_) => phonemes.push_str(&spoken.next().unwrap_or_default()),
                    }
                }
                finish(row, &voice, phonemes.trim());
            }
        }
    }
}

/// Replaces the text of a row by its phonemes.
fn finish(row: &mut Result<Prepared, ExtractError>, voice: &str, phonemes: &str) {
    if !phonemes.contains(char::is_alphanumeric) {
        let problem = format!("espeak-ng has no phonemes for it in `{voice}`");
        *row = Err(ExtractError::Text { extractor: KIND, problem });
    } else if let Ok(row) = row {
        row.text = if voice == language::CHINESE { language::tone_symbols(phonemes) } else { phonemes.to_owned() };
    }
}

/// A row's text, and its language with its variety.
struct Prepared {
    text: String,
    language: String,
}

impl From<Prepared> for Extracted {
    fn from(Prepared { text, language }: Prepared) -> Self {
        Self::new(vec![Array::text(&text), Array::text(language::without_variety(&language))])
    }
}

/// Returns a text with one blank between words, without control characters.
fn one_line(text: &str) -> String {
    let is_blank = |letter: char| letter.is_whitespace() || letter.is_control();
    text.split(is_blank).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

impl Extractor for Phonemes {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn columns(&self) -> Vec<Column> {
        self.config.columns()
    }

    fn extract(&self, media: &Media) -> Result<Extracted, ExtractError> {
        let mut row = [self.prepare(media)];
        if let Some(program) = &self.program {
            self.speak(program, &mut row);
        }
        let [row] = row;
        row.map(Extracted::from)
    }

    fn rows_per_batch(&self) -> usize {
        if self.program.is_some() { ROWS_PER_BATCH } else { 1 }
    }

    fn extract_batch(&self, rows: &[Media]) -> Vec<Result<Extracted, ExtractError>> {
        let mut rows: Vec<_> = rows.iter().map(|media| self.prepare(media)).collect();
        if let Some(program) = &self.program {
            rows.par_chunks_mut(ROWS_PER_RUN).for_each(|rows| self.speak(program, rows));
        }
        rows.into_iter().map(|row| row.map(Extracted::from)).collect()
    }
}
