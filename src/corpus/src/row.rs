//! A row of any family: its id, its group, its media, its references to other rows, and its columns.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::array::{Array, ArrayError, DType, Element};
use crate::column::ColumnError;
use crate::source::Source;

/// The role of a medium in its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The recording.
    Audio,
    /// The video clip.
    Video,
    /// The pictures, in order.
    Images,
    /// The codes of the recording, as a neural codec gives them.
    Codes,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 4] = [Self::Audio, Self::Video, Self::Images, Self::Codes];

    /// The name in manifests, tables and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Audio => "audio",
            Self::Video => "video",
            Self::Images => "images",
            Self::Codes => "codes",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The location of a medium's bytes, as text: a path, a member of a tar file, or a command; see [`Source`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MediaRef(pub String);

impl MediaRef {
    /// The source, parsed.
    pub fn source(&self) -> Source<'_> {
        Source::of(&self.0)
    }
}

/// A row of any family.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// The id, unique in an experiment.
    pub id: String,
    /// The group of the row, which splits may keep together: the speaker, the actor, the user.
    pub group: String,
    /// The media by role, in their given order; `audio` and `video` have one each.
    pub media: BTreeMap<Role, Vec<MediaRef>>,
    /// The ids of other rows, by the name of the reference (`history`, `target`).
    pub references: BTreeMap<String, Vec<String>>,
    /// The columns by name.
    pub columns: BTreeMap<String, Array>,
}

impl Row {
    /// Returns a column that the row must have.
    ///
    /// # Errors
    /// [`ColumnError::Missing`].
    pub fn column(&self, name: &str) -> Result<&Array, ColumnError> {
        self.columns.get(name).ok_or_else(|| self.missing(name))
    }

    /// Returns the elements of a column, which must have exactly this type.
    ///
    /// # Errors
    /// [`ColumnError::Missing`] and [`ColumnError::Type`].
    pub fn values<T: Element>(&self, name: &str) -> Result<&[T], ColumnError> {
        self.column(name)?.values().map_err(|error| of_column(name, error, T::DTYPE))
    }

    /// Returns the single value of a column, which must have exactly this type.
    ///
    /// # Errors
    /// [`ColumnError::Missing`], [`ColumnError::Type`] and [`ColumnError::Shape`].
    pub fn value<T: Element>(&self, name: &str) -> Result<&T, ColumnError> {
        self.column(name)?.value().map_err(|error| of_column(name, error, T::DTYPE))
    }

    /// Returns a column of single strings.
    ///
    /// # Errors
    /// See [`Row::value`].
    pub fn text(&self, name: &str) -> Result<&str, ColumnError> {
        self.value::<String>(name).map(String::as_str)
    }

    /// Returns a column of single byte strings.
    ///
    /// # Errors
    /// See [`Row::value`].
    pub fn bytes(&self, name: &str) -> Result<&[u8], ColumnError> {
        self.value::<Vec<u8>>(name).map(Vec::as_slice)
    }

    /// Returns the elements of a column of two axes, with the sizes of both.
    ///
    /// # Errors
    /// [`ColumnError::Missing`], [`ColumnError::Type`] and [`ColumnError::Shape`].
    pub fn matrix<T: Element>(&self, name: &str) -> Result<(&[T], [usize; 2]), ColumnError> {
        let values = self.values(name)?;
        match *self.column(name)?.shape() {
            [outer, inner] => Ok((values, [outer, inner])),
            ref other => Err(ColumnError::Shape {
                column: name.to_owned(),
                found: other.to_vec(),
                wanted: "two axes".to_owned(),
            }),
        }
    }

    /// Returns the approximate memory that the row takes, in bytes.
    pub fn size(&self) -> usize {
        let names = |name: &String| name.len() + size_of::<String>();
        let columns: usize = self.columns.iter().map(|(name, array)| names(name) + array.size()).sum();
        let media: usize = self.media.values().flatten().map(|media| names(&media.0)).sum();
        let references: usize = self.references.values().flatten().map(names).sum();
        size_of::<Self>() + self.id.len() + self.group.len() + columns + media + references
    }

    /// Creates the error of a missing column.
    pub(crate) fn missing(&self, name: &str) -> ColumnError {
        ColumnError::Missing { column: name.to_owned(), have: self.columns.keys().cloned().collect() }
    }
}

/// Converts an array's error to that of a column.
fn of_column(name: &str, error: ArrayError, wanted: DType) -> ColumnError {
    let column = name.to_owned();
    match error {
        ArrayError::Type { found, wanted } => ColumnError::Type { column, found, wanted },
        ArrayError::Shape { shape, .. } | ArrayError::NotScalar { shape } => {
            ColumnError::Shape { column, found: shape, wanted: format!("a single {wanted}") }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_read_by_name_and_type() {
        let mut row = Row::default();
        row.columns.insert("codes".into(), Array::new(vec![2, 3], vec![1i64, 2, 3, 4, 5, 6]).unwrap());
        row.columns.insert("text".into(), Array::text("hello"));
        row.columns.insert("image".into(), Array::scalar(vec![1u8, 2]));
        assert_eq!(row.matrix::<i64>("codes"), Ok((&[1, 2, 3, 4, 5, 6][..], [2, 3])));
        assert_eq!(row.text("text"), Ok("hello"));
        assert_eq!(row.bytes("image"), Ok(&[1, 2][..]));
        assert!(matches!(row.text("codes"), Err(ColumnError::Type { found: DType::I64, wanted: DType::Text, .. })));
        assert!(matches!(row.value::<i64>("codes"), Err(ColumnError::Shape { .. })));
        let have = vec!["codes".to_owned(), "image".to_owned(), "text".to_owned()];
        assert_eq!(row.text("lang"), Err(ColumnError::Missing { column: "lang".to_owned(), have }));
    }
}
