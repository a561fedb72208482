//! The specification of a column: its type, its named axes, and whether it is required.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Row;
use crate::array::{Array, DType, shape_text};

/// An axis of a column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Axis {
    /// Name of the unit along it, in the singular: `frame`, `level`, `bin`.
    pub name: String,
    /// The size in every row; `None` if it differs between rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<usize>,
}

/// A column that a family needs or a stage produces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ColumnSpec {
    /// The column's name, in recipes and files.
    pub name: String,
    /// The type of its elements; a file may have a narrower one that widens to it exactly.
    pub dtype: DType,
    /// The axes from the outermost to the innermost; none for a single value. Axes with the same name have the same
    /// size within a row.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub axes: Vec<Axis>,
    /// True if every row has it.
    pub required: bool,
    /// Description for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub docs: String,
}

impl ColumnSpec {
    /// A required column of single values.
    pub fn new(name: impl Into<String>, dtype: DType) -> Self {
        Self { name: name.into(), dtype, axes: Vec::new(), required: true, docs: String::new() }
    }

    /// Parses the description of a column in a recipe, in the format in which it is shown: `f32 [frame, channel
    /// 512]`, `text (optional)`, `i64`.
    ///
    /// # Errors
    /// The problem, as words that follow the column's name.
    pub fn parse(name: &str, text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (text, required) = match text.strip_suffix("(optional)") {
            Some(rest) => (rest.trim_end(), false),
            None => (text, true),
        };
        let (dtype, shape) = match text.split_once('[') {
            Some((dtype, shape)) => {
                let shape = shape.strip_suffix(']').ok_or_else(|| format!("`{text}` lacks the `]` of its shape"))?;
                (dtype.trim_end(), shape)
            }
            None => (text, ""),
        };
        let dtype = DType::of_name(dtype).ok_or_else(|| {
            let names = DType::ALL.map(DType::name).join(", ");
            format!(
                "`{dtype}` is not a type of values; the types are {names}, with axes as in `f32 [frame, channel 512]`"
            )
        })?;
        let axis = |axis: &str| {
            let mut words = axis.split_whitespace();
            let (name, size) = (words.next().unwrap_or_default(), words.next().map(str::parse::<usize>));
            let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic())
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            match (size.transpose(), words.next()) {
                (Ok(size), None) if is_name => Ok(Axis { name: name.to_owned(), size }),
                _ => Err(format!(
                    "`{}` is not an axis; an axis is a name, or a name and a size (`channel 512`)",
                    axis.trim()
                )),
            }
        };
        let axes = if shape.trim().is_empty() { Ok(Vec::new()) } else { shape.split(',').map(axis).collect() };
        Ok(Self { axes: axes?, required, ..Self::new(name, dtype) })
    }

    /// Adds an axis whose size differs between rows, inside the others.
    #[must_use]
    pub fn axis(mut self, name: impl Into<String>) -> Self {
        self.axes.push(Axis { name: name.into(), size: None });
        self
    }

    /// Adds an axis of a fixed size, inside the others.
    #[must_use]
    pub fn fixed_axis(mut self, name: impl Into<String>, size: usize) -> Self {
        self.axes.push(Axis { name: name.into(), size: Some(size) });
        self
    }

    /// Makes the column optional.
    #[must_use]
    pub fn optional(self) -> Self {
        Self { required: false, ..self }
    }

    /// Sets the description.
    #[must_use]
    pub fn docs(self, docs: impl Into<String>) -> Self {
        Self { docs: docs.into(), ..self }
    }

    /// Returns whether values of a type are rounded to this column's: other programs write embeddings, which networks compute in single
    /// precision, as lists of doubles.
    pub fn rounds(&self, found: DType) -> bool {
        found == DType::F64 && self.dtype == DType::F32 && !self.axes.is_empty()
    }

    /// Returns whether values of a type can be read as this column's, widened or rounded.
    pub fn accepts(&self, found: DType) -> bool {
        found.widens_to(self.dtype) || self.rounds(found)
    }

    /// Checks the type and the shape of a value.
    ///
    /// # Errors
    /// [`ColumnError::Type`] and [`ColumnError::Shape`].
    pub fn check(&self, array: &Array) -> Result<(), ColumnError> {
        if !array.dtype().widens_to(self.dtype) {
            return Err(ColumnError::Type { column: self.name.clone(), found: array.dtype(), wanted: self.dtype });
        }
        let fits = |(axis, size): (&Axis, &usize)| axis.size.is_none_or(|wanted| wanted == *size);
        if array.shape().len() != self.axes.len() || !self.axes.iter().zip(array.shape()).all(fits) {
            return Err(ColumnError::Shape {
                column: self.name.clone(),
                found: array.shape().to_vec(),
                wanted: self.shape_text(),
            });
        }
        Ok(())
    }

    /// Formats the axes: `[level 8, frame]`.
    pub fn shape_text(&self) -> String {
        let axis = |axis: &Axis| match axis.size {
            Some(size) => format!("{} {size}", axis.name),
            None => axis.name.clone(),
        };
        format!("[{}]", self.axes.iter().map(axis).collect::<Vec<_>>().join(", "))
    }
}

impl fmt::Display for ColumnSpec {
    /// `codes: i64 [level 8, frame]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} {}", self.name, self.dtype, self.shape_text())?;
        if self.required { Ok(()) } else { f.write_str(" (optional)") }
    }
}

/// A problem with the columns of a row. The caller adds the row's id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ColumnError {
    /// The row does not have the column.
    #[error("has no column `{column}`; it has {}", list(.have))]
    Missing {
        /// The column.
        column: String,
        /// The existing columns.
        have: Vec<String>,
    },
    /// The column has another type.
    #[error("column `{column}` has type {found}, expected {wanted}")]
    Type {
        /// The column.
        column: String,
        /// The type and shape found.
        found: DType,
        /// The type and shape expected.
        wanted: DType,
    },
    /// The column has another shape.
    #[error("column `{column}` has the shape {}, expected {wanted}", shape_text(.found))]
    Shape {
        /// The column.
        column: String,
        /// The shape.
        found: Vec<usize>,
        /// The expected axes.
        wanted: String,
    },
    /// Two columns disagree about the size of an axis that they share.
    #[error("column `{column}` has {size} along `{axis}`, but column `{other}` has {other_size}")]
    Axis {
        /// The axis.
        axis: String,
        /// The column.
        column: String,
        /// The size.
        size: usize,
        /// The other column.
        other: String,
        /// The size in that column.
        other_size: usize,
    },
}

/// Formats names as a list.
fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// Checks the columns of a row: presence, type, shape, and that columns agree on the axes that they share.
///
/// # Errors
/// The first [`ColumnError`], in the order of `specs`.
pub fn check_row(specs: &[ColumnSpec], row: &Row) -> Result<(), ColumnError> {
    let mut sizes: BTreeMap<&str, (&str, usize)> = BTreeMap::new();
    for spec in specs {
        let Some(array) = row.columns.get(&spec.name) else {
            if spec.required {
                return Err(row.missing(&spec.name));
            }
            continue;
        };
        spec.check(array)?;
        for (axis, &size) in spec.axes.iter().zip(array.shape()) {
            let &mut (other, other_size) = sizes.entry(&axis.name).or_insert((&spec.name, size));
            if size != other_size {
                return Err(ColumnError::Axis {
                    axis: axis.name.clone(),
                    column: spec.name.clone(),
                    size,
                    other: other.to_owned(),
                    other_size,
                });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_written_as_they_are_shown() {
        for text in ["f64 []", "f32 [frame, channel 512]", "text [] (optional)", "i64 [level 8, frame] (optional)"] {
            assert_eq!(ColumnSpec::parse("x", text).unwrap().to_string(), format!("x: {text}"));
        }
        assert_eq!(ColumnSpec::parse("x", " u8 ").unwrap(), ColumnSpec::new("x", DType::U8));
        for text in ["", "float", "f32 [", "f32 [a 1 2]", "f32 [512]", "f32 [a -1]", "f32 [a,]", "f32 [a] maybe"] {
            assert!(ColumnSpec::parse("x", text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_row_is_checked_column_by_column_and_across_columns() {
        let specs = [
            ColumnSpec::new("latents", DType::F32).axis("frame").fixed_axis("channel", 2),
            ColumnSpec::new("emotion", DType::F32).axis("frame"),
            ColumnSpec::new("text", DType::Text).optional(),
        ];
        assert_eq!(specs[0].to_string(), "latents: f32 [frame, channel 2]");
        let array = |shape: &[usize]| Array::new(shape.to_vec(), vec![0f32; shape.iter().product()]).unwrap();
        let row = |latents: Array, emotion: Array| {
            let columns = BTreeMap::from([("latents".to_owned(), latents), ("emotion".to_owned(), emotion)]);
            Row { id: "a".to_owned(), columns, ..Row::default() }
        };
        assert_eq!(check_row(&specs, &row(array(&[3, 2]), array(&[3]))), Ok(()));
        let check = |row: Row| check_row(&specs, &row).unwrap_err();
        assert!(matches!(check(Row::default()), ColumnError::Missing { .. }));
        assert!(matches!(check(row(array(&[3, 4]), array(&[3]))), ColumnError::Shape { .. }));
        assert!(matches!(check(row(array(&[6]), array(&[3]))), ColumnError::Shape { .. }));
        assert!(matches!(check(row(array(&[3, 2]), Array::vector(vec![0f64; 3]))), ColumnError::Type { .. }));
        assert!(matches!(check(row(array(&[3, 2]), array(&[4]))), ColumnError::Axis { size: 4, other_size: 3, .. }));
    }
}
