//! A signal with time innermost.

/// Zeros before each row: one vector, so that taps may read before the start.
const MARGIN: usize = 16;

/// Zeros after each row: a tile and a vector, so that tiles at the end may read whole vectors and taps may read past the end.
const TAIL: usize = 64;

/// Rows of equal length with zeros before and after each of them, which are read as padding and never written.
#[derive(Debug, Clone, Default)]
pub struct Rows {
    data: Vec<f32>,
    rows: usize,
    length: usize,
    stride: usize,
}

impl Rows {
    /// Rows of zeros.
    pub fn new(rows: usize, length: usize) -> Self {
        let mut made = Self::default();
        made.reset(rows, length);
        made
    }

    /// Reshapes the rows; the zeros around them are restored, their contents are unspecified.
    pub fn reset(&mut self, rows: usize, length: usize) {
        // An odd number of cache lines between row starts, so that rows do not compete for the same cache lines.
        let stride = ((MARGIN + length + TAIL).div_ceil(16) | 1) * 16;
        let size = rows * stride;
        if self.data.len() < size {
            self.data = vec![0.0; size];
        } else if (self.rows, self.length) != (rows, length) {
            for row in self.data[..size].chunks_exact_mut(stride) {
                row[..MARGIN].fill(0.0);
                row[MARGIN + length..].fill(0.0);
            }
        }
        (self.rows, self.length, self.stride) = (rows, length, stride);
    }

    /// Returns the number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Numbers per row, without the zeros around them.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Returns the distance between the starts of consecutive rows.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Returns the offset of a row in [`Rows::data`].
    pub fn start(&self, row: usize) -> usize {
        row * self.stride + MARGIN
    }

    /// One row.
    ///
    /// # Panics
    /// When there is no such row, like indexing.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.data[self.start(row)..][..self.length]
    }

    /// One row, writable.
    ///
    /// # Panics
    /// When there is no such row, like indexing.
    pub fn row_mut(&mut self, row: usize) -> &mut [f32] {
        let start = self.start(row);
        &mut self.data[start..][..self.length]
    }

    /// All rows with the zeros around them.
    pub fn data(&self) -> &[f32] {
        &self.data[..self.rows * self.stride]
    }

    /// All rows with the zeros around them, for [`super::Filters::apply`] to write to. Overwriting the zeros breaks the padding of the
    /// next layer.
    pub fn data_mut(&mut self) -> &mut [f32] {
        let size = self.rows * self.stride;
        &mut self.data[..size]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_shape_has_zeros_around_its_rows_again() {
        let mut rows = Rows::new(3, 100);
        (0..3).for_each(|row| rows.row_mut(row).fill(1.0));
        rows.reset(5, 40);
        for row in 0..5 {
            let start = rows.start(row);
            assert!(rows.data()[start - MARGIN..start].iter().all(|value| *value == 0.0));
            assert!(rows.data()[start + 40..][..TAIL].iter().all(|value| *value == 0.0));
        }
    }
}
