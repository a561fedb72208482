//! A plain row-major matrix, the currency between measuring and fitting.

/// Row-major numbers, `[row][column]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    data: Vec<f32>,
    columns: usize,
}

impl Matrix {
    /// A matrix of rows that are `columns` long. Numbers behind the last whole row are dropped; at least one column is
    /// kept.
    pub fn new(mut data: Vec<f32>, columns: usize) -> Self {
        let columns = columns.max(1);
        data.truncate(data.len() / columns * columns);
        Self { data, columns }
    }

    /// Returns the number of rows.
    pub fn rows(&self) -> usize {
        self.data.len() / self.columns
    }

    /// Returns the length of each row.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Returns one row.
    ///
    /// # Panics
    /// When there is no such row, as indexing a slice does.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.data[row * self.columns..(row + 1) * self.columns]
    }

    /// Iterates over all rows in order.
    pub fn iter(&self) -> std::slice::ChunksExact<'_, f32> {
        self.data.chunks_exact(self.columns)
    }

    /// Returns all numbers, row after row.
    pub fn as_slice(&self) -> &[f32] {
        &self.data
    }

    /// Returns true if every number is finite.
    pub fn is_finite(&self) -> bool {
        self.data.iter().all(|value| value.is_finite())
    }
}
