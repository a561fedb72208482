//! The columns that an extractor gives, and the values of a row for them.

use flowmill_corpus::{Array, ColumnError, ColumnSpec, DType};

use crate::ExtractError;

/// The name of the column of a codec's codes.
pub const CODES: &str = "codes";
/// The column with the codes of a recording to which noise was added.
pub const NOISY_CODES: &str = "noisy_codes";
/// The column with the codes of the noise in it.
pub const NOISE_CODES: &str = "noise_codes";

/// A column that an extractor gives: its name, type and axes, and what its values mean to later stages.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// The name, as the ecosystem's readers know it (`utt_embedding`), the type and the axes.
    pub spec: ColumnSpec,
    /// The meaning of its values.
    pub values: ValueType,
}

/// The meaning of a column's values.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum ValueType {
    /// A vector of fixed length.
    Embedding {
        /// The vector's length.
        dimensions: usize,
    },
    /// A sequence of indices.
    Tokens {
        /// The number of different indices: each is less than this.
        vocabulary: usize,
        /// The number of indices per second.
        rate: f64,
    },
    /// Several sequences of indices of equal length: the levels of a residual quantizer, the coarsest first.
    Codes {
        /// The number of levels.
        levels: usize,
        /// The number of different indices of each level: each is less than this.
        vocabulary: usize,
        /// The number of frames per second, each with an index of every level.
        rate: f64,
    },
    /// Values of which later stages know nothing but the type and the axes.
    Other,
}

impl ValueType {
    /// The type's name in messages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Embedding { .. } => "embedding",
            Self::Tokens { .. } => "tokens",
            Self::Codes { .. } => "codes",
            Self::Other => "other values",
        }
    }
}

impl Column {
    /// A column of vectors: `f32 [value N]`.
    pub fn embedding(name: &str, dimensions: usize) -> Self {
        let spec = ColumnSpec::new(name, DType::F32).fixed_axis("value", dimensions);
        Self { spec, values: ValueType::Embedding { dimensions } }
    }

    /// A column of sequences of indices below `vocabulary`, `rate` a second: `i64 [token]`.
    pub fn tokens(name: &str, vocabulary: usize, rate: f64) -> Self {
        Self { spec: ColumnSpec::new(name, DType::I64).axis("token"), values: ValueType::Tokens { vocabulary, rate } }
    }

    /// The column `codes` of a neural codec: `i32 [level N, frame]`, indices below `vocabulary`, `rate` frames a second.
    pub fn codes(levels: usize, vocabulary: usize, rate: f64) -> Self {
        let spec = ColumnSpec::new(CODES, DType::I32).fixed_axis("level", levels).axis("frame");
        Self { spec, values: ValueType::Codes { levels, vocabulary, rate } }
    }

    /// The column's name.
    pub fn name(&self) -> &str {
        &self.spec.name
    }
}

impl From<ColumnSpec> for Column {
    /// A column of which later stages know nothing but the type and the axes.
    fn from(spec: ColumnSpec) -> Self {
        Self { spec, values: ValueType::Other }
    }
}

/// The values of one row: an array for each column of the extractor, in their order.
#[derive(Debug, Clone, PartialEq)]
pub struct Extracted(Vec<Array>);

impl Extracted {
    /// The values of an extractor of several columns.
    pub fn new(values: Vec<Array>) -> Self {
        Self(values)
    }

    /// A vector, the value of [`Column::embedding`].
    pub fn embedding(values: Vec<f32>) -> Self {
        Self(vec![Array::vector(values)])
    }

    /// A sequence of indices, the value of [`Column::tokens`].
    pub fn tokens(values: Vec<i64>) -> Self {
        Self(vec![Array::vector(values)])
    }

    /// The codes of all levels, the value of [`Column::codes`]: `[level, frame]`, level after level.
    ///
    /// # Errors
    /// [`ExtractError::Levels`] if the levels have different numbers of frames, or there is none.
    pub fn codes(extractor: &'static str, levels: &[Vec<u32>]) -> Result<Self, ExtractError> {
        let frames = levels.first().map_or(0, Vec::len);
        let codes: Vec<i32> = levels.iter().flatten().map(|code| i32::try_from(*code).unwrap_or(i32::MAX)).collect();
        let uneven = levels.is_empty() || levels.iter().any(|level| level.len() != frames);
        match Array::new(vec![levels.len(), frames], codes) {
            Ok(array) if !uneven => Ok(Self(vec![array])),
            _ => Err(ExtractError::Levels { extractor }),
        }
    }

    /// The arrays, in the order of the columns.
    pub fn arrays(&self) -> &[Array] {
        &self.0
    }

    /// Returns the arrays without copying them.
    pub fn into_arrays(self) -> Vec<Array> {
        self.0
    }

    /// The vector of the first column, if it is one.
    pub fn as_embedding(&self) -> Option<&[f32]> {
        self.0.first().filter(|array| array.shape().len() == 1)?.values().ok()
    }

    /// The sequence of indices of the first column, if it is one.
    pub fn as_tokens(&self) -> Option<&[i64]> {
        self.0.first().filter(|array| array.shape().len() == 1)?.values().ok()
    }

    /// Checks the values against the columns of the extractor that gave them.
    ///
    /// # Errors
    /// [`ExtractError::Value`], [`ExtractError::Values`] for another number of values.
    pub fn check(&self, extractor: &'static str, columns: &[Column]) -> Result<(), ExtractError> {
        if self.0.len() != columns.len() {
            return Err(ExtractError::Values { extractor, found: self.0.len(), wanted: columns.len() });
        }
        let value = |source: ColumnError| ExtractError::Value { extractor, source: Box::new(source) };
        columns.iter().zip(&self.0).try_for_each(|(column, array)| column.spec.check(array).map_err(value))
    }
}

impl From<Array> for Extracted {
    fn from(value: Array) -> Self {
        Self(vec![value])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_the_columns() {
        let columns = [
            Column::embedding("utt_embedding", 2),
            ColumnSpec::new("pitch", DType::F64).axis("frame").fixed_axis("value", 2).into(),
        ];
        let pitch = |shape: Vec<usize>| Array::new(shape.clone(), vec![0f64; shape.iter().product()]).unwrap();
        let check = |values: Vec<Array>| Extracted::new(values).check("toy", &columns);
        assert!(check(vec![Array::vector(vec![0f32; 2]), pitch(vec![5, 2])]).is_ok());
        assert!(matches!(check(vec![pitch(vec![5, 2])]), Err(ExtractError::Values { found: 1, wanted: 2, .. })));
        for bad in [Array::vector(vec![0f32; 3]), Array::vector(vec![0i64; 2])] {
            assert!(matches!(check(vec![bad, pitch(vec![5, 2])]), Err(ExtractError::Value { .. })));
        }
        assert!(check(vec![Array::vector(vec![0f32; 2]), pitch(vec![5, 3])]).is_err());
    }

    #[test]
    fn codes_have_a_row_per_level() {
        let column = Column::codes(2, 1024, 75.0);
        assert_eq!(column.spec.to_string(), "codes: i32 [level 2, frame]");
        let codes = Extracted::codes("toy", &[vec![1, 2, 3], vec![4, 5, 6]]).unwrap();
        assert!(codes.check("toy", &[column]).is_ok());
        assert_eq!(codes.into_arrays()[0].values::<i32>().unwrap(), [1, 2, 3, 4, 5, 6]);
        for uneven in [vec![], vec![vec![1], vec![2, 3]], vec![vec![1, 2], vec![], vec![3, 4, 5, 6]]] {
            assert!(matches!(Extracted::codes("toy", &uneven), Err(ExtractError::Levels { .. })));
        }
    }

    #[test]
    fn an_embedding_is_no_sequence_of_tokens() {
        let (embedding, tokens) = (Extracted::embedding(vec![0.5]), Extracted::tokens(vec![7]));
        assert_eq!((embedding.as_embedding(), embedding.as_tokens()), (Some(&[0.5][..]), None));
        assert_eq!((tokens.as_embedding(), tokens.as_tokens()), (None, Some(&[7][..])));
        assert_eq!(Extracted::from(Array::scalar(0.5f32)).as_embedding(), None);
    }
}
