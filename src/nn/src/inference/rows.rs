//! A signal with time innermost.

/// Zeros before each row: a vector's worth, so that taps may look back.
const MARGIN: usize = 16;

/// Zeros after each row: a tile's worth and a vector, so that tiles at the end may read whole vectors and taps may look ahead.
const TAIL: usize = 64;

/// Rows of equal length with zeros before and behind each of them, which are read as padding and never written.
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

    /// Gives the rows another shape; the zeros around them are made anew, their content is whatever was there before.
    pub fn reset(&mut self, rows: usize, length: usize) {
        // An odd number of cache lines from row to row, so that rows do not compete for the same lines of the cache.
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

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Numbers per row, without the zeros around them.
    pub fn length(&self) -> usize {
        self.length
    }

    /// From the beginning of one row to that of the next.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Where in [`Rows::data`] a row begins.
    pub fn start(&self, row: usize) -> usize {
        row * self.stride + MARGIN
    }

    /// One row.
    ///
    /// # Panics
    /// When there is no such row, as indexing does.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.data[self.start(row)..][..self.length]
    }

    /// One row, to be written.
    ///
    /// # Panics
    /// When there is no such row, as indexing does.
    pub fn row_mut(&mut self, row: usize) -> &mut [f32] {
        let start = self.start(row);
        &mut self.data[start..][..self.length]
    }

    /// All rows with the zeros around them.
    pub fn data(&self) -> &[f32] {
        &self.data[..self.rows * self.stride]
    }

    /// All rows with the zeros around them, for [`super::Filters::apply`] to write to; who writes the zeros breaks the next
    /// layer's padding.
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
