//! The columns of a row that VALL-E reads.

use flowmill_corpus::{Array, ColumnError, ColumnSpec, DType, Row};
use flowmill_extract::extractors::phonemes::{LANGUAGE, PHONEMES};
use flowmill_extract::{CODES, NOISE_CODES, NOISY_CODES};
use flowmill_networks::vall_e::Codes;

use super::tokenizer::{PhonemeTokenizer, TokenizerError};

/// The axis of the codes along time.
pub const FRAME: &str = "frame";

/// The reason why a row cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RowFault {
    /// A column is missing or of another type.
    #[error(transparent)]
    Column(#[from] ColumnError),
    /// The codes have another type or other axes.
    #[error("its codes have the shape {shape:?}, or are no whole numbers of 32 bits; expected [level, frame]")]
    Codes {
        /// The shape.
        shape: Vec<usize>,
    },
    /// A code is negative.
    #[error("code {0} is negative")]
    Code(i32),
    /// There are no codes.
    #[error("its codes have no frame")]
    Empty,
    /// The codes have another number of levels than the model.
    #[error("its codes have {found} levels, the model has {levels} (train.model.levels)")]
    Levels {
        /// Levels of the codes.
        found: usize,
        /// Levels of the model.
        levels: usize,
    },
    /// A symbol of the phonemes is unknown.
    #[error(transparent)]
    Phonemes(#[from] TokenizerError),
    /// The language has no embedding.
    #[error("its language `{language}` is not among train.languages: {known}")]
    Language {
        /// The language.
        language: String,
        /// The languages of the model.
        known: String,
    },
}

/// Returns the column of the codes of a codec with `levels` levels.
pub fn codes_column(levels: usize) -> ColumnSpec {
    ColumnSpec::new(CODES, DType::I32).fixed_axis("level", levels).axis(FRAME)
}

/// Returns the columns of an example.
pub fn columns(levels: usize) -> Vec<ColumnSpec> {
    vec![codes_column(levels), ColumnSpec::new(PHONEMES, DType::Text), ColumnSpec::new(LANGUAGE, DType::Text)]
}

/// Returns the additional columns of an example of a task that needs noise.
pub fn noise_columns(levels: usize) -> Vec<ColumnSpec> {
    [NOISY_CODES, NOISE_CODES].map(|name| ColumnSpec { name: name.to_owned(), ..codes_column(levels) }).to_vec()
}

/// Returns the codes of a row.
///
/// # Errors
/// [`RowFault::Column`], [`RowFault::Codes`], [`RowFault::Code`].
pub fn codes(row: &Row) -> Result<Codes, RowFault> {
    codes_of(row.column(CODES)?)
}

/// Returns the codes of a row with noise, and those of the noise.
///
/// # Errors
/// [`RowFault::Column`], [`RowFault::Codes`], [`RowFault::Code`].
pub fn noise(row: &Row) -> Result<[Codes; 2], RowFault> {
    Ok([codes_of(row.column(NOISY_CODES)?)?, codes_of(row.column(NOISE_CODES)?)?])
}

/// Returns the codes in an array `i32 [level, frame]`.
///
/// # Errors
/// [`RowFault::Codes`], [`RowFault::Code`].
pub fn codes_of(array: &Array) -> Result<Codes, RowFault> {
    let unfit = || RowFault::Codes { shape: array.shape().to_vec() };
    let (values, &[levels, frames]) = (array.values::<i32>().map_err(|_| unfit())?, array.shape()) else {
        return Err(unfit());
    };
    let code = |&code: &i32| u32::try_from(code).map_err(|_| RowFault::Code(code));
    let values = values.iter().map(code).collect::<Result<Vec<u32>, _>>()?;
    Codes::new(levels, frames, values).map_err(|_| unfit())
}

/// The text of a row as numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Symbols {
    /// The symbols of the phonemes, with begin and end.
    pub phonemes: Vec<u32>,
    /// The number of the language.
    pub language: u32,
}

impl Symbols {
    /// Returns the numbers of phonemes in a language of the model.
    ///
    /// # Errors
    /// [`RowFault::Phonemes`], [`RowFault::Language`].
    pub fn new(
        phonemes: &str,
        language: &str,
        tokenizer: &PhonemeTokenizer,
        languages: &[String],
    ) -> Result<Self, RowFault> {
        let number = languages.iter().position(|own| own == language);
        let number =
            number.ok_or_else(|| RowFault::Language { language: language.to_owned(), known: languages.join(", ") })?;
        // A model has at most 2^20 languages.
        Ok(Self { phonemes: tokenizer.encode(phonemes)?, language: number as u32 })
    }

    /// Returns the numbers of a row's phonemes and language.
    ///
    /// # Errors
    /// [`RowFault::Column`], [`RowFault::Phonemes`], [`RowFault::Language`].
    pub fn of(row: &Row, tokenizer: &PhonemeTokenizer, languages: &[String]) -> Result<Self, RowFault> {
        Self::new(row.text(PHONEMES)?, row.text(LANGUAGE)?, tokenizer, languages)
    }
}
