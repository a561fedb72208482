//! The extractor itself: one value per row.

use rayon::prelude::*;

use super::{ExtractError, Media};

/// Turns a row's media into one value. Pure: the same media give the same value, on any thread.
pub trait Extractor: Send + Sync {
    /// The name that a recipe selects it by.
    fn kind(&self) -> &'static str;

    /// The column that it fills.
    fn column(&self) -> Column;

    /// The value of one row.
    ///
    /// # Errors
    /// Why the row cannot be used; the row is then rejected, the others go on.
    fn extract(&self, media: &Media) -> Result<Extracted, ExtractError>;

    /// How many rows the extractor would like to see at once; more than one for networks, which are faster on batches.
    fn rows_per_batch(&self) -> usize {
        1
    }

    /// The values of several rows, in their order. An implementation for batches uses the current threads itself.
    fn extract_batch(&self, rows: &[Media]) -> Vec<Result<Extracted, ExtractError>> {
        rows.par_iter().map(|media| self.extract(media)).collect()
    }
}

/// An output column: its name, as the ecosystem's readers know it, and the type of its values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Column {
    /// The column's name, for example `utt_embedding`.
    pub name: &'static str,
    /// The type of its values.
    pub values: ValueType,
}

/// The type of a column's values.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum ValueType {
    /// A vector of fixed length, `List<f32>`.
    Embedding {
        /// The vector's length.
        dimensions: usize,
    },
    /// A sequence of indices, `List<i64>`.
    Tokens {
        /// How many different indices there are: each is less than this.
        vocabulary: usize,
        /// How many there are per second.
        rate: f64,
    },
}

impl ValueType {
    /// The type's name in messages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Embedding { .. } => "embedding",
            Self::Tokens { .. } => "tokens",
        }
    }
}

/// What an extractor gives for one row.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Extracted {
    /// A vector.
    Embedding(Vec<f32>),
    /// A sequence of indices.
    Tokens(Vec<i64>),
}

impl Extracted {
    /// The vector, if it is one.
    pub fn into_embedding(self) -> Option<Vec<f32>> {
        match self {
            Self::Embedding(vector) => Some(vector),
            Self::Tokens(_) => None,
        }
    }

    /// The sequence of indices, if it is one.
    pub fn into_tokens(self) -> Option<Vec<i64>> {
        match self {
            Self::Tokens(tokens) => Some(tokens),
            Self::Embedding(_) => None,
        }
    }
}
