//! Assignment of the rows of a `[row, channel]` matrix to the items of a batch.

use crate::ops::row_map::Cache;
use crate::{NnError, Result};
use std::ops::Range;

/// The rows of each item. In a padded batch `[item, time, channel]` items start at equal distances, and some of their rows are valid;
/// in a packed one they follow each other without gaps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ragged {
    rows: Vec<Range<usize>>,
    total: usize,
    cache: Cache,
}

impl Ragged {
    pub(crate) fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Creates a padded batch: item `i` has `lengths[i]` valid rows out of `time`.
    ///
    /// # Errors
    /// When a length exceeds `time`.
    pub fn padded(lengths: &[usize], time: usize) -> Result<Self> {
        if let Some(length) = lengths.iter().find(|length| **length > time) {
            return Err(NnError::invalid("lengths", format!("{length} rows do not fit into {time}")));
        }
        let rows = lengths.iter().enumerate().map(|(item, length)| item * time..item * time + length);
        Ok(Self { rows: rows.collect(), total: lengths.len() * time, cache: Cache::default() })
    }

    /// Creates a packed batch: items one after the other.
    pub fn packed(lengths: &[usize]) -> Self {
        let mut rows = Vec::with_capacity(lengths.len());
        let mut total = 0;
        for length in lengths {
            rows.push(total..total + length);
            total += length;
        }
        Self { rows, total, cache: Cache::default() }
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Returns whether there are no items.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The rows of each item.
    pub fn ranges(&self) -> &[Range<usize>] {
        &self.rows
    }

    /// Number of rows of each item.
    pub fn lengths(&self) -> Vec<usize> {
        self.rows.iter().map(|rows| rows.len()).collect()
    }

    /// Number of rows of the matrix, including those between items.
    pub fn total(&self) -> usize {
        self.total
    }

    /// Number of rows that belong to an item.
    pub fn valid(&self) -> usize {
        self.rows.iter().map(|rows| rows.len()).sum()
    }

    /// Returns whether every row belongs to an item.
    pub fn is_packed(&self) -> bool {
        self.valid() == self.total
    }

    /// Shortens each item to its first `lengths[i]` rows.
    ///
    /// # Errors
    /// When a length exceeds its item or the number of items differs.
    pub fn shortened(&self, lengths: &[usize]) -> Result<Self> {
        if lengths.len() != self.rows.len() {
            let message = format!("{} lengths for {} items", lengths.len(), self.rows.len());
            return Err(NnError::invalid("lengths", message));
        }
        let mut rows = Vec::with_capacity(lengths.len());
        for (whole, length) in self.rows.iter().zip(lengths) {
            if *length > whole.len() {
                let message = format!("{length} rows do not fit into {}", whole.len());
                return Err(NnError::invalid("lengths", message));
            }
            rows.push(whole.start..whole.start + length);
        }
        Ok(Self { rows, total: self.total, cache: Cache::default() })
    }

    /// The items with every row repeated `factor` times.
    pub fn repeated(&self, factor: usize) -> Self {
        let rows = self.rows.iter().map(|rows| rows.start * factor..rows.end * factor).collect();
        Self { rows, total: self.total * factor, cache: Cache::default() }
    }
}
